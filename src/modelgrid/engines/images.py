"""Pictures from text and pictures changed, by a service of ours on diffusers."""

from __future__ import annotations

from typing import Final

from modelgrid.engines.service import ServiceEngine
from modelgrid.spec import operations

# For films as well, so that both share an environment: av writes those. sentencepiece and protobuf read T5's
# vocabulary, ftfy mends prompts as it was done where some models were taught.
DIFFUSERS: Final = (
    "diffusers==0.42.0",
    "transformers==5.23.0",
    "accelerate==1.15.0",
    "pillow==13.0.0",
    "sentencepiece==0.2.3",
    "protobuf==7.36.2",
    "ftfy==6.3.1",
    "av==18.1.0",
)
OVERHEAD_BYTES: Final = 5 << 28  # 1.1 GiB were resident with a model of 1 MB that drew four pictures of 1024x1024

IMAGES: Final = ServiceEngine(
    name="images",
    module="modelgrid.services.images",
    summary="pictures by diffusers: FLUX, Stable Diffusion, Qwen-Image, Z-Image and others",
    serves=(operations.IMAGES, operations.IMAGE_EDITS),
    requirements=DIFFUSERS,
    overhead_bytes=OVERHEAD_BYTES,
    example="black-forest-labs/FLUX.1-schnell",
)

"""Films from text or from a picture, by a service of ours on diffusers."""

from __future__ import annotations

from typing import Final

from modelgrid.engines.images import DIFFUSERS, IMAGES
from modelgrid.engines.service import ServiceEngine
from modelgrid.spec import operations

OVERHEAD_BYTES: Final = 2 << 30  # 1.4 GiB were resident with a model of 1 MB that made two seconds of 704x512

VIDEOS: Final = ServiceEngine(
    name="videos",
    module="modelgrid.services.videos",
    summary="films by diffusers: Wan, LTX-Video, CogVideoX, HunyuanVideo and others",
    serves=(operations.VIDEOS,),
    requirements=DIFFUSERS,
    overhead_bytes=OVERHEAD_BYTES,
    example="Wan-AI/Wan2.2-TI2V-5B-Diffusers",
    environment=IMAGES.name,
    outlives=True,  # a job is answered at once, and made after
)

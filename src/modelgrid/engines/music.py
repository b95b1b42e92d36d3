"""Music, by a service of ours on transformers' MusicGen."""

from __future__ import annotations

from typing import Final

from modelgrid.engines.service import ServiceEngine
from modelgrid.engines.speech import REQUIREMENTS
from modelgrid.spec import operations

OVERHEAD_BYTES: Final = 3 << 28  # 369 MiB were resident with a model of a few hundred KB; the rest is for requests

MUSIC: Final = ServiceEngine(
    name="music",
    module="modelgrid.services.music",
    summary="music by transformers' MusicGen",
    serves=(operations.MUSIC,),
    requirements=REQUIREMENTS,
    overhead_bytes=OVERHEAD_BYTES,
    example="facebook/musicgen-medium",
    environment="speech",
)

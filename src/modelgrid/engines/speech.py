"""Speech, by a service of ours on transformers' text-to-speech models."""

from __future__ import annotations

from typing import Final

from modelgrid.engines.service import ServiceEngine
from modelgrid.spec import operations

REQUIREMENTS: Final = ("transformers==5.23.0", "av==18.1.0")
OVERHEAD_BYTES: Final = 3 << 28  # 317 MiB were resident with a model of a few hundred KB; the rest is for requests

SPEECH: Final = ServiceEngine(
    name="speech",
    module="modelgrid.services.speech",
    summary="speech by transformers: VITS and MMS, Bark, CSM, Dia",
    serves=(operations.SPEECH,),
    requirements=REQUIREMENTS,
    overhead_bytes=OVERHEAD_BYTES,
    example="facebook/mms-tts-eng",
)

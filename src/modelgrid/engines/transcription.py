"""Speech to text, by a service of ours on faster-whisper: Whisper on CTranslate2, without torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final

from modelgrid.engines.memory import on_torch
from modelgrid.engines.service import ServiceEngine
from modelgrid.spec import Launch, ModelSpec, Place, ReplicaId
from modelgrid.spec.operations import TRANSCRIPTIONS, TRANSLATIONS
from modelgrid.spec.units import format_bytes
from modelgrid.spec.weights import Estimate, Part, Weights

REQUIREMENTS: Final = ("faster-whisper==1.2.1", "ctranslate2==4.8.5", "av==18.1.0", "onnxruntime==1.31.1")
# What ctranslate2's wheel looks for on a GPU; half a gigabyte that a CPU has no use for.
CUDA: Final = ("nvidia-cublas-cu12==12.8.4.1",)
# It held 150 MiB without weights, and 490 MiB at the peak of an hour of sound, heard in pieces of five minutes.
OVERHEAD_BYTES: Final = 1 << 29


@dataclass(frozen=True, slots=True)
class Transcription(ServiceEngine):
    """`modelgrid.services.transcription`, with CUDA's library where there is a GPU."""

    def estimate(self, model: ModelSpec, weights: Weights, accelerator: str) -> Estimate:
        """On a CPU the peak is at the start: a small Whisper of 461 MiB held 1,018 MiB then, and half of it after."""
        if accelerator != "cpu":
            return on_torch(weights, accelerator, self.overhead_bytes)
        files = Part("weights", weights.size_bytes, f"{format_bytes(weights.size_bytes)} of files")
        again = Part("loading", weights.size_bytes, "as much again, until they are 8-bit numbers")
        return Estimate((files, again, Part("engine", self.overhead_bytes)))

    def launch(self, model: ModelSpec, replica: ReplicaId, place: Place, weights: str | None, key: str) -> Launch:
        launch = ServiceEngine.launch(self, model, replica, place, weights, key)
        if place.accelerator != "cuda" or model.requirements or launch.environment is None:
            return launch
        requirements = (*launch.environment.requirements, *CUDA)
        return dataclasses.replace(
            launch, environment=dataclasses.replace(launch.environment, requirements=requirements)
        )


TRANSCRIPTION: Final = Transcription(
    name="transcription",
    module="modelgrid.services.transcription",
    summary="speech to text by faster-whisper: Whisper, its distilled and fine-tuned kin",
    serves=(TRANSCRIPTIONS, TRANSLATIONS),
    requirements=REQUIREMENTS,
    torch=None,
    overhead_bytes=OVERHEAD_BYTES,
    example="Systran/faster-whisper-small",
)

"""What the transcription engine launches, with and without a GPU."""

from __future__ import annotations

import dataclasses

from modelgrid.engines.transcription import CUDA, OVERHEAD_BYTES, TRANSCRIPTION
from modelgrid.spec import Launch, ModelName, ModelSpec, Place, ReplicaId
from modelgrid.spec.operations import TRANSCRIPTIONS, TRANSLATIONS
from modelgrid.spec.weights import Weights
from places import on_cpu, on_cuda

MODEL = ModelSpec(ModelName("listener"), "transcription", source="Systran/faster-whisper-small", args=("--vad",))
WEIGHTS = "/models/Systran/faster-whisper-small"


def launched(model: ModelSpec, place: Place) -> Launch:
    return TRANSCRIPTION.launch(model, ReplicaId("listener-1"), place, WEIGHTS, "secret")


def test_it_is_the_service_on_the_weights_without_torch() -> None:
    launch = launched(MODEL, on_cpu(torch_wheel="torch==2.13.0"))
    assert launch.argv == (
        *("{python}", "-P", "-m", "modelgrid.services.transcription", "--model", WEIGHTS),
        *("--name", "listener", "--host", "127.0.0.1", "--port", "{port}", "--grace", "8", "--vad"),
    )
    assert launch.environment is not None
    assert launch.environment.torch is None
    assert "faster-whisper==1.2.1" in launch.environment.requirements
    assert not set(CUDA) & set(launch.environment.requirements)
    assert TRANSCRIPTION.operations(MODEL) == (TRANSCRIPTIONS, TRANSLATIONS)


def test_a_gpu_brings_the_library_that_ctranslate2_looks_for() -> None:
    launch = launched(MODEL, on_cuda())
    assert launch.environment is not None
    assert set(CUDA) <= set(launch.environment.requirements)


def test_on_a_cpu_the_weights_are_there_twice_while_they_are_loaded() -> None:
    small = Weights(483_529_204)
    on_a_cpu = TRANSCRIPTION.estimate(MODEL, small, "cpu")
    assert on_a_cpu.memory_bytes == 2 * 483_529_204 + OVERHEAD_BYTES
    assert on_a_cpu.memory_bytes > 1018 << 20  # what it was seen to take
    assert TRANSCRIPTION.estimate(MODEL, small, "cuda").memory_bytes < 2 * 483_529_204 + (1 << 30)


def test_requirements_of_the_users_stay_as_they_are() -> None:
    own = dataclasses.replace(MODEL, requirements="/home/me/requirements.txt")
    launch = launched(own, on_cuda())
    assert launch.environment is not None
    assert launch.environment.requirements == ()

"""What speaks: the text-to-speech models of transformers, which differ in how a voice and a speed are told."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from modelgrid.services.audio import Samples, stretch
from modelgrid.services.work import Turn

ONLY_VOICE: Final = "default"  # of a model that has one voice, which has no name
SPEAKERS: Final = 10  # that are named of a model which takes any number for one


class Speaker(Protocol):
    """A model that speaks. Used by one thread."""

    rate: int  # of what it says, in samples a second
    voices: tuple[str, ...]

    def count(self, text: str) -> int:
        """How many tokens it reads in `text`; with none there is nothing that it could pronounce."""
        ...

    def say(self, text: str, voice: str, speed: float, turn: Turn) -> Samples:
        """A sentence or two, spoken, on one channel. Blocks as long as it takes, or until the caller has left."""
        ...


def load_speaker(where: str, device: str, trusts: bool) -> Speaker:
    """Whatever lies at `where`, a path or a hub's id. Raises what transformers raises, and ValueError."""
    transformers: Any = importlib.import_module("transformers")
    transformers.utils.logging.disable_progress_bar()  # for a log they are noise
    pipeline = transformers.pipeline("text-to-audio", model=where, device=device, trust_remote_code=trusts)
    kind = pipeline.model.config.model_type
    if kind in _SINGERS:
        raise ValueError(f"{kind} makes music, not speech (try engine: music)")
    return Spoken(pipeline)


class Spoken:
    """A text-to-audio pipeline of transformers."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._family = _FAMILIES.get(pipeline.model.config.model_type, _Family())
        self._turn: Turn | None = None
        self.rate: int = pipeline.sampling_rate
        self.voices = self._family.voices(pipeline)
        # Not every model takes stopping criteria, but each passes here for every token.
        for part in (pipeline.model, *pipeline.model.children()):
            part.register_forward_pre_hook(self._before)

    def count(self, text: str) -> int:
        return len(self._pipeline.tokenizer(text)["input_ids"])

    def say(self, text: str, voice: str, speed: float, turn: Turn) -> Samples:
        family = self._family
        asked = family.ask(self._pipeline, self.voices.index(voice), voice)
        if family.sets_speed:
            asked["forward_params"]["speaking_rate"] = speed * self._pipeline.model.config.speaking_rate
        self._turn = turn
        said = self._pipeline(f"{asked.pop('before', '')}{text}", **asked)["audio"].reshape(1, -1)
        return said if family.sets_speed else stretch(said, self.rate, speed)

    def _before(self, *_: Any) -> None:
        """Before a part of the model computes: end it where nobody waits for it."""
        if self._turn is not None:
            self._turn.step(self._turn.done, self._turn.of)


def _one_voice(_pipeline: Any) -> tuple[str, ...]:
    return (ONLY_VOICE,)


def _no_words(_pipeline: Any, _number: int, _voice: str) -> dict[str, Any]:
    return {}


@dataclass(frozen=True, slots=True)
class _Family:
    """What its models have in common: the voices, and the pipeline's arguments for one of them by number and name
    (``before`` stands in front of the text)."""

    voices: Callable[[Any], tuple[str, ...]] = _one_voice
    ask: Callable[[Any, int, str], dict[str, Any]] = _no_words
    sets_speed: bool = False


def _vits_voices(pipeline: Any) -> tuple[str, ...]:
    count = pipeline.model.config.num_speakers
    return _numbered(count) if count > 1 else (ONLY_VOICE,)


def _ask_vits(pipeline: Any, number: int, _voice: str) -> dict[str, Any]:
    return {"forward_params": {"speaker_id": number} if pipeline.model.config.num_speakers > 1 else {}}


def _bark_voices(pipeline: Any) -> tuple[str, ...]:
    return tuple(getattr(pipeline.processor, "available_voice_presets", ())) or (ONLY_VOICE,)


def _ask_bark(_pipeline: Any, _number: int, voice: str) -> dict[str, Any]:
    return {} if voice == ONLY_VOICE else {"preprocess_params": {"voice_preset": voice}}


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(f"speaker-{number}" for number in range(count))


_FAMILIES: Final = {
    "vits": _Family(_vits_voices, _ask_vits, sets_speed=True),
    "bark": _Family(_bark_voices, _ask_bark),
    "csm": _Family(lambda _: _numbered(SPEAKERS), lambda _pipeline, number, _voice: {"before": f"[{number}]"}),
    "dia": _Family(lambda _: _numbered(2), lambda _pipeline, number, _voice: {"before": f"[S{number + 1}] "}),
}
_SINGERS: Final = frozenset({"musicgen", "musicgen_melody"})

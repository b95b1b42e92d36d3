"""How each family of models is told what to say: by a pipeline of transformers' shape, made by hand."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from modelgrid.services.speakers import ONLY_VOICE, Spoken
from modelgrid.services.work import Caller, Left, Turn


class Sound(list[int]):
    """An array of the library's."""

    size = 0

    def reshape(self, *shape: int) -> Sound:
        assert shape == (1, -1)
        return self


class Model:
    """A model, or a part of it, that others can hook into."""

    def __init__(self, parts: int = 0, **config: object) -> None:
        self.config = SimpleNamespace(**config)
        self.parts = [Model() for _ in range(parts)]
        self.hooks: list[Callable[..., None]] = []

    def children(self) -> list[Model]:
        return self.parts

    def register_forward_pre_hook(self, hook: Callable[..., None]) -> None:
        self.hooks.append(hook)

    def compute(self) -> None:
        for hook in self.hooks:
            hook(self, ())
        for part in self.parts:
            part.compute()


class Pipeline:
    """Notes what it was asked, and computes in two parts."""

    sampling_rate = 16_000

    def __init__(self, **config: object) -> None:
        self.model = Model(parts=2, **config)
        self.processor = SimpleNamespace(available_voice_presets=["v2/en_speaker_0", "v2/en_speaker_1"])
        self.tokenizer = lambda text: {"input_ids": list(text)}
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, text: str, **asked: Any) -> dict[str, Sound]:
        self.model.compute()
        self.asked.append((text, asked))
        return {"audio": Sound()}


def ask(pipeline: Pipeline, voice: str, speed: float = 1.0) -> tuple[str, dict[str, Any]]:
    Spoken(pipeline).say("Hello.", voice, speed, Turn([Caller()]))
    return pipeline.asked[-1]


def test_vits_is_told_a_number_and_how_much_quicker_than_usual() -> None:
    pipeline = Pipeline(model_type="vits", num_speakers=3, speaking_rate=0.8)
    assert Spoken(pipeline).voices == ("speaker-0", "speaker-1", "speaker-2")
    told = {"forward_params": {"speaker_id": 2, "speaking_rate": pytest.approx(1.2)}}
    assert ask(pipeline, "speaker-2", 1.5) == ("Hello.", told)


def test_vits_of_one_voice_is_told_none() -> None:
    pipeline = Pipeline(model_type="vits", num_speakers=1, speaking_rate=1.0)
    assert Spoken(pipeline).voices == (ONLY_VOICE,)
    assert ask(pipeline, ONLY_VOICE) == ("Hello.", {"forward_params": {"speaking_rate": 1.0}})


def test_bark_is_told_a_preset() -> None:
    pipeline = Pipeline(model_type="bark")
    assert Spoken(pipeline).voices == ("v2/en_speaker_0", "v2/en_speaker_1")
    assert ask(pipeline, "v2/en_speaker_1") == ("Hello.", {"preprocess_params": {"voice_preset": "v2/en_speaker_1"}})


def test_bark_without_presets_speaks_as_it_likes() -> None:
    pipeline = Pipeline(model_type="bark")
    pipeline.processor.available_voice_presets = []
    assert ask(pipeline, ONLY_VOICE) == ("Hello.", {})


def test_csm_and_dia_read_the_voice_in_the_text() -> None:
    assert ask(Pipeline(model_type="csm"), "speaker-7") == ("[7]Hello.", {})
    assert ask(Pipeline(model_type="dia"), "speaker-1") == ("[S2] Hello.", {})


def test_a_family_that_is_not_known_has_one_voice() -> None:
    pipeline = Pipeline(model_type="new")
    assert ask(pipeline, ONLY_VOICE) == ("Hello.", {})
    assert Spoken(pipeline).count("abc") == 3


def test_whoever_leaves_ends_it_before_the_next_part_computes() -> None:
    pipeline, caller = Pipeline(model_type="csm"), Caller()
    spoken = Spoken(pipeline)
    pipeline.model.parts[0].register_forward_pre_hook(lambda *_: caller.leave())
    pipeline.model.parts[0].register_forward_pre_hook(lambda *_: reached.append("the first part"))
    pipeline.model.parts[1].register_forward_pre_hook(lambda *_: reached.append("the second part"))
    reached: list[str] = []
    with pytest.raises(Left):
        spoken.say("Hello.", "speaker-0", 1.0, Turn([caller]))
    assert reached == ["the first part"]

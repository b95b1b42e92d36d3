"""What suits a pipeline, what its prompts may have, and that a call of it ends when nobody waits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from modelgrid.services import diffusion
from modelgrid.services.diffusion import Habits, Reader, Setup
from modelgrid.services.errors import ServiceError
from modelgrid.services.images import _moments
from modelgrid.services.pictures import Size, Sizes
from modelgrid.services.work import Caller, Left, Turn
from unit.services.drawing import DrawingPipeline, Tokenizer


class FluxPipeline(DrawingPipeline):
    """As FLUX.1-schnell is built: no guidance."""

    transformer = SimpleNamespace(config=SimpleNamespace(guidance_embeds=False))


class QwenImagePipeline:
    def __call__(
        self,
        prompt: str,
        guidance_scale: float | None = None,
        true_cfg_scale: float = 4.0,
        num_inference_steps: int = 50,
    ) -> None: ...


class Flux2KleinPipeline:
    config = SimpleNamespace(is_distilled=True)

    def __call__(self, prompt: str, guidance_scale: float = 4.0, num_inference_steps: int = 50) -> None: ...


class OldPipeline:
    """Tells its steps in the older way."""

    def __call__(self, prompt: str, callback: Any = None) -> str:
        for step in range(5):
            callback(step, 0, "latents")
        return prompt


@pytest.mark.parametrize(
    ("pipeline", "named", "setup", "habits"),
    [
        (DrawingPipeline(), "black-forest-labs/FLUX.1-dev", Setup(), Habits(28, 3.5)),
        (DrawingPipeline(), "x", Setup(steps=9, guidance=1), Habits(9, 1.0)),
        (DrawingPipeline(), "/models/stabilityai/SDXL-Turbo", Setup(), Habits(1, 0.0, is_distilled=True)),
        (DrawingPipeline(), "Tongyi-MAI/Z-Image-Turbo", Setup(), Habits(9, 0.0, is_distilled=True)),
        (DrawingPipeline(), "/home/turbo/model", Setup(), Habits(28, 3.5)),
        (FluxPipeline(), "/models/mine", Setup(), Habits(4, 0.0, is_distilled=True, tokens=256)),
        (FluxPipeline(), "/models/mine", Setup(steps=2), Habits(2, 0.0, is_distilled=True, tokens=256)),
        (QwenImagePipeline(), "Qwen/Qwen-Image", Setup(), Habits(50, 4.0, guides_by="true_cfg_scale")),
        (Flux2KleinPipeline(), "x", Setup(), Habits(4, 1.0, is_distilled=True)),
        (OldPipeline(), "x", Setup(), Habits(50, None)),
    ],
)
def test_what_suits_a_model(pipeline: Any, named: str, setup: Setup, habits: Habits) -> None:
    assert diffusion.habits(pipeline, named, setup) == habits


def test_a_call_gets_what_the_pipeline_takes() -> None:
    pipeline = DrawingPipeline()
    diffusion.call(pipeline, Turn([Caller()]), prompt=["a"], generator=[1], strength=0.5, width=None, height=64)
    (call,) = pipeline.calls
    assert (call["prompt"], call["width"], call["height"]) == (["a"], None, 64)


@pytest.mark.parametrize("pipeline", [DrawingPipeline(), OldPipeline()], ids=["new", "old"])
def test_a_call_ends_within_a_step_of_its_caller_leaving(pipeline: Any) -> None:
    caller, seen = Caller(), []

    def look(step: int, latents: object) -> None:
        seen.append(step)
        if step == 3:
            caller.leave()

    turn = Turn([caller])
    with pytest.raises(Left):
        diffusion.call(pipeline, turn, look, prompt=["a"], generator=[1], num_inference_steps=28)
    assert seen == [1, 2, 3]
    assert turn.done == 4


def test_a_prompt_is_as_long_as_the_text_encoder_that_reads_most_allows() -> None:
    pipeline = DrawingPipeline()
    Reader(pipeline, Habits(1, None, tokens=256)).check("w " * 254)
    with pytest.raises(ServiceError, match="it has 257 tokens, the model reads 256"):
        Reader(pipeline, Habits(1, None, tokens=256)).check("w " * 255)
    with pytest.raises(ServiceError, match="the model reads 20"):
        Reader(pipeline, Habits(1, None)).check("w " * 19)
    only_clip = SimpleNamespace(tokenizer=Tokenizer(77))
    with pytest.raises(ServiceError, match="the model reads 77"):
        Reader(only_clip, Habits(1, None)).check("w " * 76)


def test_a_model_whose_tokenizer_is_not_known_reads_everything() -> None:
    reader = Reader(OldPipeline(), Habits(1, None))
    reader.check("w " * 10_000)
    assert reader.tokens("some words") == 0


def test_sizes_are_multiples_within_bounds() -> None:
    sizes = Sizes(multiple=16, pixels=1 << 20)
    assert sizes.read("auto") is None
    assert sizes.read("1024x1024") == Size(1024, 1024)
    assert sizes.read("512x2048") == Size(512, 2048)
    for text in ("1040x1024", "0x0", "64x", "-64x64", "64X64", "64x64 ", "999999x64"):
        with pytest.raises(ServiceError):
            sizes.read(text)


def test_a_picture_like_another_has_its_shape_and_is_not_larger() -> None:
    sizes = Sizes(multiple=16, pixels=1 << 20)
    assert sizes.like(1000, 700) == Size(992, 688)
    assert sizes.like(4000, 2000) == Size(1440, 720)
    assert sizes.like(10, 10) == Size(64, 64)
    for size in (sizes.like(1, 1 << 26), sizes.like(1 << 26, 1)):
        assert sorted((size.width, size.height)) == [64, 1 << 14]


def test_partial_pictures_are_spread_over_the_steps() -> None:
    assert _moments(28, 3) == [7, 14, 21]
    assert _moments(4, 2) == [1, 3]
    assert _moments(2, 3) == [1]
    assert _moments(1, 3) == _moments(28, 0) == []

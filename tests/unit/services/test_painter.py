"""What is drawn and changed, by pipelines of several kinds."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest

from modelgrid.services import diffusion
from modelgrid.services.diffusion import Setup
from modelgrid.services.errors import ServiceError
from modelgrid.services.images import AskedEdit, Images
from modelgrid.services.painter import Given, Painter, Wish
from modelgrid.services.pictures import Size
from modelgrid.services.service import Options
from modelgrid.services.work import Caller, Turn
from unit.services.drawing import ChangingPipeline, DrawingPipeline, Picture

WISH = Wish("a cat", (1, 2), Size(64, 32), steps=4, guidance=None)


def painter(pipeline: object) -> Painter:
    return Painter(pipeline, diffusion.habits(pipeline, "", Setup()), Setup(), "cpu", together=4, dice=list)


def test_a_picture_is_changed_once_for_each_seed() -> None:
    pipeline = ChangingPipeline()
    given = Given((Picture("before", 64, 32),), strength=0.5)
    drawn = painter(pipeline).change(Turn([Caller()]), WISH, given)
    assert [picture.says for picture in drawn] == ["a cat 1", "a cat 2"]
    assert [(call["strength"], call["num_inference_steps"], call["max_area"]) for call in pipeline.calls] == [
        (0.5, 4, 2048)
    ] * 2


def test_a_model_that_takes_one_picture_refuses_several() -> None:
    changing = painter(ChangingPipeline())
    assert changing.strength(1, masked=False) == 0.6
    assert not changing.draws_from_text
    with pytest.raises(ServiceError, match="cannot use 2 pictures: the model takes one") as refused:
        changing.strength(2, masked=False)
    assert (refused.value.status_code, refused.value.code) == (400, "too_many_images")


def test_a_model_that_only_changes_pictures_says_so_when_it_is_to_draw() -> None:
    assert painter(DrawingPipeline()).draws_from_text
    assert not painter(ChangingPipeline()).draws_from_text


def test_sizes_are_what_the_pipeline_asks_for() -> None:
    drawing = DrawingPipeline()
    assert painter(drawing).sizes(1).multiple == 16
    assert painter(ChangingPipeline()).sizes(1).multiple == 8

    class StableDiffusion3Pipeline(DrawingPipeline):
        image_processor = SimpleNamespace(config=SimpleNamespace(vae_scale_factor=8))
        patch_size = 2

    assert painter(StableDiffusion3Pipeline()).sizes(1).multiple == 16


def test_how_much_is_given_up_does_not_leave_a_model_without_steps() -> None:
    service = Images(Options(name="x"))
    service.take(ChangingPipeline(), dice=list)  # of four steps, all of which it needs
    asked = AskedEdit.model_validate({"prompt": "x"})
    assert service._with_steps_enough(asked, WISH, 0.6).steps == 7
    assert service._with_steps_enough(asked, WISH, 1.0).steps == 4
    assert service._with_steps_enough(asked, WISH, 0.02).steps == 200
    for strength in (0.019, 1e-9, 1e-300):
        with pytest.raises(ServiceError, match=r"0\.02 is the least") as refused:
            service._with_steps_enough(asked, WISH, strength)
        assert refused.value.param == "strength"
    service.take(DrawingPipeline(), dice=list)
    assert service._with_steps_enough(asked, dataclasses.replace(WISH, steps=28), 0.3).steps == 28
    assert service._with_steps_enough(asked, WISH, 0.1).steps == 10
    named = AskedEdit.model_validate({"prompt": "x", "steps": 4})
    assert service._with_steps_enough(named, WISH, 0.3).steps == 4
    with pytest.raises(ServiceError, match=r"in 4 steps at strength 0\.2: that is less than one") as refused:
        service._with_steps_enough(named, WISH, 0.2)
    assert refused.value.param == "steps"

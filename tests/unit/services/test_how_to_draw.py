"""The how-to for pictures and films: what it shows loads, and what it names is there."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import yaml

from modelgrid.config import load_text
from modelgrid.services import images, videos
from modelgrid.services.jobs import Keeping
from modelgrid.services.service import Service
from modelgrid.services.studio import BEGUN_LIMIT

PAGE = (Path(__file__).parents[3] / "docs" / "how-to" / "draw-pictures-and-films.md").read_text()
FILMS = PAGE.index("## Films")


def options(service: type[Service]) -> set[str]:
    parser = argparse.ArgumentParser()
    service.arguments(parser)
    return {option for action in parser._actions for option in action.option_strings}


def test_the_configuration_loads() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert [model.engine for model in load_text(block, path=None, environ={}).models] == ["images", "videos"]
    assert set(yaml.safe_load(block)["models"]) == {"flux", "wan"}


def test_what_is_sent_is_what_the_services_take() -> None:
    picture, film = (json.loads(body) for body in re.findall(r"--json '(.*?)'", PAGE))
    assert set(picture) <= {*images.Asked.model_fields, "model"}
    assert set(film) <= {*videos.Asked.model_fields, "model"}
    assert images.Asked.model_validate(picture).seed == 7
    assert videos.Asked.model_validate(film).seconds == 4
    form = set(re.findall(r"-F (\w+)=", PAGE))
    assert form <= {*images.AskedEdit.model_fields, "model", "image", "mask"}


def test_fields_and_options_that_it_names_are_there() -> None:
    (named,) = re.findall(r"diffusers' beside them: (.*?)\.\s+Steps", PAGE, re.DOTALL)
    assert set(re.findall(r"`(\w+)`", named)) <= set(images.AskedEdit.model_fields)
    shared, of_films = options(images.Images), options(videos.Videos)
    for option in re.findall(r"--(?!json)[a-z][a-z-]+", PAGE):
        assert option in (of_films if "keep" in option else shared), option


def test_its_figures_are_the_codes() -> None:
    keeping = Keeping()
    assert (keeping.age_s, keeping.jobs, keeping.folder_bytes) == (24 * 3600, 1000, 10 << 30)
    assert (BEGUN_LIMIT, images.PIXELS) == (3, 2048 * 2048)

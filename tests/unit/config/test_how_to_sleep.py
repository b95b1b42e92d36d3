"""The how-to for models that sleep is a configuration that loads."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from modelgrid.config import Config

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "let-models-sleep.md"


def test_its_configuration_loads(load: Callable[..., Config]) -> None:
    (block,) = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert [model.sleep for model in load(block).models] == [1, 1]

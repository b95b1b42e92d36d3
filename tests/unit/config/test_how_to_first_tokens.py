"""The how-to for quick first tokens is a configuration that loads, and names what there is."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from modelgrid.config import Config
from modelgrid.spec import metrics

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "keep-first-tokens-quick.md"


def test_its_configuration_loads(load: Callable[..., Config]) -> None:
    (block,) = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (model,) = load(block).models
    scaling = model.scaling
    assert (scaling.min, scaling.max, scaling.idle_s, scaling.ttft_s, scaling.attain) == (1, 4, 900.0, 0.5, 0.95)


def test_its_metric_is_one() -> None:
    (name,) = re.findall(r"`(modelgrid_\w+)`", PAGE.read_text())
    assert name in {metric.name for metric in vars(metrics).values() if isinstance(metric, metrics.Metric)}

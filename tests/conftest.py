"""``--seeds N`` and ``--first-seed N``: how many worlds the simulation visits."""

from __future__ import annotations

import signal

import pytest

# A shell that runs tests in the background has SIGINT ignored, and so would have the programs that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seeds", type=int, default=300, help="worlds to simulate")
    parser.addoption("--first-seed", type=int, default=0, help="the first of them")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "batch" in metafunc.fixturenames:
        first = metafunc.config.getoption("--first-seed")
        seeds = range(first, first + metafunc.config.getoption("--seeds"))
        batches = [seeds[index : index + 50] for index in range(0, len(seeds), 50)]
        metafunc.parametrize("batch", batches, ids=lambda batch: f"{batch[0]}-{batch[-1]}")

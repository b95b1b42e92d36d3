"""What a replica needs, where nobody said."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from modelgrid.controller.measured import Measured
from modelgrid.controller.sizes import ASK_AGAIN_S, Sizes
from modelgrid.engines import ENGINES
from modelgrid.spec import ModelName, ModelSpec, Need, Unknown, cpu_machine
from modelgrid.spec.weights import Weights
from unit.controller.stage import until

SPEC = ModelSpec(ModelName("a"), "transformers", source="/nowhere")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def sizes_of(folder: Path, wake: Callable[[], None] = lambda: None, clock: Clock | None = None) -> Sizes:
    return Sizes(folder, wake, clock or Clock(), lambda: cpu_machine(1 << 40), Measured(()))


def test_what_the_configuration_says_is_taken(tmp_path: Path) -> None:
    sizes = sizes_of(tmp_path)
    assert sizes.need(ModelSpec(ModelName("a"), "custom", command=("x",), memory_bytes=7)) == Need(7)
    assert sizes.need(ModelSpec(ModelName("a"), "custom", script="/x.py")) == Need(1 << 30)


def test_an_unknown_size_is_on_its_way_then_told_then_asked_for_again(tmp_path: Path) -> None:
    async def scene() -> None:
        woken = asyncio.Event()
        clock = Clock()
        sizes = sizes_of(tmp_path, woken.set, clock)
        source = tmp_path / "weights"
        spec = ModelSpec(ModelName("a"), "transformers", source=str(source))
        first = sizes.need(spec)
        assert isinstance(first, Unknown)
        assert first.is_coming
        await asyncio.wait_for(woken.wait(), 10)
        answer = sizes.need(spec)
        assert isinstance(answer, Unknown)
        assert not answer.is_coming
        assert answer.why.startswith("nobody knows how much memory it needs: ")
        assert answer.why.endswith("(try: set needs.memory)")
        source.mkdir()
        (source / "model.safetensors").write_bytes(bytes(1000))
        woken.clear()
        clock.now += ASK_AGAIN_S - 0.1
        assert isinstance(sizes.need(spec), Unknown)
        assert not woken.is_set()
        clock.now += 0.1
        sizes.need(spec)
        await asyncio.wait_for(woken.wait(), 10)
        assert sizes.need(spec) == Need(ENGINES["transformers"].estimate(spec, Weights(1000), "cpu").memory_bytes)
        await sizes.close()

    asyncio.run(scene())


def test_each_model_is_asked_for_once_at_a_time(tmp_path: Path) -> None:
    async def scene() -> None:
        answers = 0

        def woken() -> None:
            nonlocal answers
            answers += 1

        sizes = sizes_of(tmp_path, woken)
        for _ in range(5):
            sizes.need(SPEC)
        await until(lambda: answers)
        await sizes.close()
        assert answers == 1

    asyncio.run(scene())


def test_a_look_up_that_breaks_is_told_and_not_repeated_at_once(tmp_path: Path) -> None:
    async def scene() -> None:
        answers = 0

        def woken() -> None:
            nonlocal answers
            answers += 1

        sizes = sizes_of(tmp_path, woken)
        spec = ModelSpec(ModelName("a"), "transformers", source="/" + "x" * 5000)
        sizes.need(spec)
        await until(lambda: answers == 1)
        answer = sizes.need(spec)
        assert isinstance(answer, Unknown)
        assert not answer.is_coming
        await sizes.close()
        assert answers == 1

    asyncio.run(scene())

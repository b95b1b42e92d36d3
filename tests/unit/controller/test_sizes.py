"""What a replica needs, where nobody said."""

from __future__ import annotations

import asyncio
from pathlib import Path

from modelgrid.controller.sizes import ASK_AGAIN_S, Sizes
from modelgrid.engines import ENGINES
from modelgrid.spec import ModelName, ModelSpec, Unknown
from unit.controller.stage import until

SPEC = ModelSpec(ModelName("a"), "transformers", source="/nowhere")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_what_the_configuration_says_is_taken(tmp_path: Path) -> None:
    sizes = Sizes(tmp_path, lambda: None, Clock())
    assert sizes.memory_bytes(ModelSpec(ModelName("a"), "custom", command=("x",), memory_bytes=7)) == 7
    assert sizes.memory_bytes(ModelSpec(ModelName("a"), "custom", script="/x.py")) == ENGINES["custom"].memory_bytes(
        ModelSpec(ModelName("a"), "custom", script="/x.py"), 0
    )


def test_an_unknown_size_is_on_its_way_then_told_then_asked_for_again(tmp_path: Path) -> None:
    async def scene() -> None:
        woken = asyncio.Event()
        clock = Clock()
        sizes = Sizes(tmp_path, woken.set, clock)
        source = tmp_path / "weights"
        spec = ModelSpec(ModelName("a"), "transformers", source=str(source))
        first = sizes.memory_bytes(spec)
        assert isinstance(first, Unknown)
        assert first.is_coming
        await asyncio.wait_for(woken.wait(), 10)
        answer = sizes.memory_bytes(spec)
        assert isinstance(answer, Unknown)
        assert not answer.is_coming
        assert answer.why.startswith("nobody knows how much memory it needs: ")
        assert answer.why.endswith("(try: set needs.memory)")
        source.mkdir()
        (source / "model.safetensors").write_bytes(bytes(1000))
        woken.clear()
        clock.now += ASK_AGAIN_S - 0.1
        assert isinstance(sizes.memory_bytes(spec), Unknown)
        assert not woken.is_set()
        clock.now += 0.1
        sizes.memory_bytes(spec)
        await asyncio.wait_for(woken.wait(), 10)
        assert sizes.memory_bytes(spec) == ENGINES["transformers"].memory_bytes(spec, 1000)
        await sizes.close()

    asyncio.run(scene())


def test_each_model_is_asked_for_once_at_a_time(tmp_path: Path) -> None:
    async def scene() -> None:
        answers = 0

        def woken() -> None:
            nonlocal answers
            answers += 1

        sizes = Sizes(tmp_path, woken, Clock())
        for _ in range(5):
            sizes.memory_bytes(SPEC)
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

        sizes = Sizes(tmp_path, woken, Clock())
        spec = ModelSpec(ModelName("a"), "transformers", source="/" + "x" * 5000)
        sizes.memory_bytes(spec)
        await until(lambda: answers == 1)
        answer = sizes.memory_bytes(spec)
        assert isinstance(answer, Unknown)
        assert not answer.is_coming
        await sizes.close()
        assert answers == 1

    asyncio.run(scene())

"""What an answer says of tokens is counted, however the answer comes."""

from __future__ import annotations

import pytest

from modelgrid.spec import metrics
from unit.gateway.world import Asked, Play, Script, World, route, until

CHAT = "/v1/chat/completions"
SAID = b'{"choices":[{"text":"hello"}],"usage":{"prompt_tokens":7,"completion_tokens":4,"total_tokens":11}}'


async def whole(asked: Asked) -> None:
    await asked.sized(SAID)


async def in_parts(asked: Asked) -> None:
    await asked.say(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(SAID), SAID[:-20])
    )
    await asked.say(SAID[-20:])


async def in_chunks(asked: Asked) -> None:
    await asked.say(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
    for part in (SAID[:40], SAID[40:], b""):
        await asked.chunk(part)


async def until_closed(asked: Asked) -> None:
    await asked.say(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n" + SAID)
    asked.writer.close()


async def as_events(asked: Asked) -> None:
    await asked.begin_events()
    for part in (b"data: %b\n\n" % SAID, b"data: [DONE]\n\n", b""):
        await asked.chunk(part)


@pytest.mark.parametrize("script", [whole, in_parts, in_chunks, until_closed, as_events])
def test_the_tokens_of_every_answer_are_counted(play: Play, script: Script) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(script)
        await world.controller.publish(route(engine.target("m-1")))
        for _ in range(3):  # an answer whose head was seen before is read in another way
            assert (await world.post(CHAT, b'{"model":"m"}')).status == 200

        def counted() -> dict[str, float]:
            told = world.controller.metered(metrics.TOKENS.name)
            return {labels[-1]: values[0] for labels, values in told.items()}

        await until(lambda: counted() == {"input": 21, "output": 12}, "all are counted")
        streamed = world.controller.metered(metrics.TIME_TO_FIRST_TOKEN.name)
        assert bool(streamed) == (script is as_events)  # what is no stream has no first token

    play(scene)

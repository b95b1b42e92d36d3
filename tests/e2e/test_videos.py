"""Real films: an LTX-Video in small, made on the spot, as jobs of OpenAI's client, and looked at with ffprobe."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest
from openai.types import Video

from e2e.daemon import Daemon, until
from e2e.looking import FIRST_START_S, metric, probe, started, until_logged

MODEL = "filmmaker"

pytestmark = [
    pytest.mark.timeout(FIRST_START_S + 60),
    # OpenAI has given its own films up, and its client says so at every call; the shape stays, for other servers.
    pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    model = {"engine": "videos", "source": "stand-in", "needs": {"memory": "2GiB"}}
    made = started(tmp_path_factory.mktemp("videos"), {MODEL: model})
    yield made
    made.end()


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none", timeout=FIRST_START_S, max_retries=0) as made:
        yield made


def create(client: openai.OpenAI, prompt: str = "rain", seconds: Any = "1", size: Any = "64x64", **more: Any) -> Video:
    return client.videos.create(model=MODEL, prompt=prompt, seconds=seconds, size=size, extra_body={"steps": 4, **more})


def begun(client: openai.OpenAI, id: str) -> Video:
    """Once some of its steps are done."""

    def look() -> Video | None:
        video = client.videos.retrieve(id)
        assert video.status in ("queued", "in_progress")
        return video if video.progress else None

    return until(f"{id} is begun", look, 120)


def completed(client: openai.OpenAI, id: str) -> Video | None:
    """Once it is; None while it isn't, or nobody is there who knows it."""
    try:
        found = client.videos.retrieve(id)
    except (openai.NotFoundError, openai.InternalServerError):
        return None
    assert found.status != "failed", found.error
    return found if found.status == "completed" else None


def test_a_film_is_of_the_length_and_size_asked_for(client: openai.OpenAI, tmp_path: Path) -> None:
    video = client.videos.poll(create(client, seconds="2", size="96x64").id)
    assert (video.object, video.model, video.status, video.progress) == ("video", MODEL, "completed", 100)
    assert (video.seconds, video.size, video.error) == ("2", "96x64", None)
    assert video.completed_at is not None
    assert video.expires_at is not None
    assert video.created_at <= video.completed_at < video.expires_at
    film = tmp_path / "film.mp4"
    client.videos.download_content(video.id).write_to_file(film)
    told = probe(film)
    assert (told["codec_name"], told["pix_fmt"], told["avg_frame_rate"]) == ("h264", "yuv420p", "25/1")
    assert (told["width"], told["height"], told["nb_read_frames"]) == (96, 64, "50")
    assert float(told["duration"]) == 2.0
    assert "mp4" in told["format_name"]
    content = film.read_bytes()
    assert content.find(b"moov") < content.find(b"mdat")


def test_a_film_has_a_thumbnail_and_can_be_had_in_parts(daemon: Daemon, client: openai.OpenAI) -> None:
    video = client.videos.poll(create(client).id)
    assert client.videos.download_content(video.id, variant="thumbnail").content[8:12] == b"WEBP"
    whole = client.videos.download_content(video.id).content
    with daemon.client() as http:
        part = http.get(f"/v1/videos/{video.id}/content", headers={"range": "bytes=4-11"})
    assert (part.status_code, part.content) == (206, whole[4:12])


def test_a_seed_makes_the_same_film_again(client: openai.OpenAI) -> None:
    videos = [client.videos.poll(create(client, seed=seed).id) for seed in (7, 7, 8)]
    one, again, other = (client.videos.download_content(video.id).content for video in videos)
    assert one == again
    assert one != other


def test_films_are_listed_and_gone_when_they_are_deleted(client: openai.OpenAI) -> None:
    first, second = (client.videos.poll(create(client).id) for _ in range(2))
    assert [video.id for video in client.videos.list(limit=2).data] == [second.id, first.id]
    assert first.id in [video.id for video in client.videos.list(limit=1)]
    assert client.videos.delete(first.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.videos.retrieve(first.id)
    assert first.id not in [video.id for video in client.videos.list(limit=100).data]


def test_deleting_a_film_that_is_made_ends_the_work_within_a_step(daemon: Daemon, client: openai.OpenAI) -> None:
    video = create(client, steps=199, size="256x256")
    begun(client, video.id)
    client.videos.delete(video.id)
    stopped = until_logged(daemon, MODEL, r"caller left: stopped after step (\d+) of 199")
    assert int(stopped[1]) < 199
    until_logged(daemon, MODEL, f"{video.id} was deleted")
    until("nothing is made", lambda: metric(daemon, MODEL, "modelgrid_service_requests_running") == 0)


def test_a_film_whose_service_is_killed_is_made_by_the_next_one(
    daemon: Daemon, client: openai.OpenAI, tmp_path: Path
) -> None:
    video, waiting = create(client, steps=150, size="128x128"), create(client)
    begun(client, video.id)
    pid = daemon.replicas(MODEL)[0].pid
    assert pid is not None
    psutil.Process(pid).kill()

    for made in (video.id, waiting.id):
        until(f"{made} is made", partial(completed, client, made), 240)
    assert daemon.replicas(MODEL)[0].pid != pid
    film = tmp_path / "film.mp4"
    client.videos.download_content(video.id).write_to_file(film)
    assert probe(film)["nb_read_frames"] == "25"


@pytest.mark.parametrize(
    ("asked", "param", "why"),
    [
        ({"size": "1280x721"}, "size", "multiples of 32"),
        ({"seconds": "60"}, "seconds", "cannot make 60 seconds: 20 are the most"),
        ({"seconds": "soon"}, "seconds", "cannot read 'seconds'"),
        ({"prompt": "x" * 200}, "prompt", "it has 202 tokens, the model reads 128"),
    ],
)
def test_bad_input_is_told_why_and_the_service_goes_on(
    daemon: Daemon, client: openai.OpenAI, asked: dict[str, Any], param: str, why: str
) -> None:
    client.videos.poll(create(client).id)
    pid = daemon.replicas(MODEL)[0].pid
    with pytest.raises(openai.BadRequestError) as refused:
        create(client, **asked)
    assert refused.value.param == param
    assert why in refused.value.message
    assert client.videos.poll(create(client).id).status == "completed"
    assert daemon.replicas(MODEL)[0].pid == pid


def test_a_film_that_is_not_made_yet_is_told_so(client: openai.OpenAI) -> None:
    video = create(client, steps=198, size="256x256")
    with pytest.raises(openai.ConflictError, match="cannot send"):
        client.videos.download_content(video.id)
    client.videos.delete(video.id)


def test_prompts_are_not_logged(daemon: Daemon, client: openai.OpenAI) -> None:
    client.videos.poll(create(client, prompt="topsecret").id)
    assert "topsecret" not in daemon.run("logs", MODEL).stdout

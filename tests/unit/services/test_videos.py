"""The videos service: jobs in OpenAI's shape, and what becomes of them."""

from __future__ import annotations

import base64
import dataclasses
import errno
import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from modelgrid.services import studio
from modelgrid.services.film import Footage
from modelgrid.services.jobs import Claim, Job, Jobs, Keeping, Status
from modelgrid.services.service import Options
from modelgrid.services.videos import Videos, default_folder
from unit.services.conftest import until
from unit.services.drawing import FilmingPipeline


class Ready(Videos):
    """The service with such a pipeline, as if it had been loaded, and with films that are one line of text."""

    def load(self) -> None:
        self.take(self.pipeline, dice=list, write=write)

    def __init__(self, options: Options, jobs: Jobs) -> None:
        super().__init__(options, jobs)
        self.pipeline = FilmingPipeline()


def write(footage: Footage, path: Path) -> None:
    path.write_text(f"{footage.pictures[0].says}, {len(footage.pictures)} at {footage.rate:g}, {footage.size}")


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    return Jobs(tmp_path / "jobs", "video", Keeping(age_s=100))


@pytest.fixture
def service(jobs: Jobs) -> Ready:
    return Ready(Options(name="ltx"), jobs)


def serving(service: Ready) -> Iterator[TestClient]:
    with TestClient(service.app(), raise_server_exceptions=False) as client:
        until(lambda: client.get("/health").status_code == 200)
        yield client


@pytest.fixture
def client(service: Ready) -> Iterator[TestClient]:
    yield from serving(service)


def create(client: TestClient, **body: object) -> Any:
    answer = client.post("/v1/videos", content=json.dumps({"prompt": "a cat", "steps": 3, **body}))
    assert answer.status_code == 200, answer.text
    return answer.json()


def get(client: TestClient, id: str) -> Any:
    return client.get(f"/v1/videos/{id}").json()


def finished(client: TestClient, id: str) -> Any:
    until(lambda: get(client, id)["status"] in ("completed", "failed"))
    return get(client, id)


def held_at(pipeline: FilmingPipeline, step: int) -> tuple[threading.Event, threading.Event]:
    """Hold it at a step: it is there when the first event is set, and goes on when the second one is."""
    there, goes_on = threading.Event(), threading.Event()

    def at_step(now: int) -> None:
        pipeline.steps.append(now)
        if now == step:
            there.set()
            assert goes_on.wait(20)

    pipeline.at_step = at_step
    return there, goes_on


def test_a_film_of_the_length_and_size_asked_for_in_openais_shape(client: TestClient, service: Ready) -> None:
    created = create(client, seconds="2", size="64x96", seed=7)
    told = finished(client, created["id"])
    assert {name: created[name] for name in ("object", "status", "progress", "completed_at", "expires_at")} == {
        "object": "video",
        "status": "queued",
        "progress": 0,
        "completed_at": None,
        "expires_at": None,
    }
    assert told.pop("expires_at") == told.pop("completed_at") + 100
    assert told == {
        "id": created["id"],
        "object": "video",
        "model": "ltx",
        "status": "completed",
        "progress": 100,
        "created_at": created["created_at"],
        "seconds": "2",
        "size": "64x96",
        "seed": 7,
        "remixed_from_video_id": None,
        "error": None,
    }
    (call,) = service.pipeline.calls
    assert (call["num_frames"], call["frame_rate"], call["num_inference_steps"]) == (57, 25, 3)
    film = client.get(f"/v1/videos/{told['id']}/content")
    assert (film.headers["content-type"], film.text) == ("video/mp4", "a cat 7, 50 at 25, 64x96")
    part = client.get(f"/v1/videos/{told['id']}/content", headers={"range": "bytes=0-4"})
    assert (part.status_code, part.text) == (206, "a cat")
    thumbnail = client.get(f"/v1/videos/{told['id']}/content?variant=thumbnail")
    assert (thumbnail.headers["content-type"], thumbnail.text) == ("image/webp", "WEBP a cat 7")


def test_a_film_is_on_the_disk_before_its_job_is_told_to_be_completed(
    client: TestClient, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.fstat(file).st_ino))
    id = finished(client, create(client)["id"])["id"]
    film, told = (jobs.path(id, name).stat().st_ino for name in (studio.FILM, "job.json"))
    assert synced.index(film) < len(synced) - 1 - synced[::-1].index(told)


def test_a_form_says_the_same_and_defaults_are_the_models(client: TestClient, service: Ready) -> None:
    answer = client.post("/v1/videos", files={"prompt": (None, "a dog"), "seconds": (None, "")})
    told = finished(client, answer.json()["id"])
    assert (told["seconds"], told["size"]) == ("4", "704x512")
    (call,) = service.pipeline.calls
    assert (call["prompt"], call["num_inference_steps"], call["guidance_scale"]) == ("a dog", 50, 3.0)


@pytest.mark.parametrize(
    ("body", "param", "code", "message"),
    [
        ({"prompt": None}, "prompt", "missing_required_parameter", "'prompt' is missing"),
        ({"prompt": "w " * 127}, "prompt", "context_length_exceeded", "129 tokens, the model reads 128"),
        ({"seconds": "soon"}, "seconds", "invalid_value", "cannot read 'seconds'"),
        ({"seconds": 0}, "seconds", "invalid_value", "cannot read 'seconds'"),
        ({"seconds": 21}, "seconds", "invalid_value", "cannot make 21 seconds: 20 are the most"),
        ({"size": "1280x720"}, "size", "unsupported_size", "multiples of 32 (try 1280x704)"),
        ({"size": "4096x4096"}, "size", "unsupported_size", "pixels in all"),
        ({"input_reference": {"image_url": "https://x/y.png"}}, "input_reference", "invalid_value", "data URLs"),
        (
            {"input_reference": {"file_id": "file-1"}},
            "input_reference.image_url",
            "missing_required_parameter",
            "'input_reference.image_url' is missing",
        ),
        ({"input_reference": {"image_url": "data:image/png;base64,?"}}, "input_reference", "invalid_value", "base64"),
        (
            {"input_reference": {"image_url": "data:image/png;base64,aaaa"}},
            "input_reference",
            "unsupported_by_model",
            "from text alone",
        ),
    ],
)
def test_what_cannot_be_made(
    client: TestClient, jobs: Jobs, body: dict[str, Any], param: str, code: str, message: str
) -> None:
    answer = client.post("/v1/videos", content=json.dumps({"prompt": "a cat", **body}))
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, param, code)
    assert message in error["message"]
    assert jobs.all() == []


def test_a_body_of_brackets_is_the_requests_fault(client: TestClient) -> None:
    answer = client.post("/v1/videos", content=b"[" * 200_000)
    assert (answer.status_code, "its body is not JSON" in answer.json()["error"]["message"]) == (400, True)


def test_an_unknown_job_is_not_found(client: TestClient) -> None:
    for ask in (client.get, client.delete):
        answer = ask("/v1/videos/video_1")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert client.get("/v1/videos/video_1/content").status_code == 404


def test_progress_is_told_while_it_is_made_and_its_film_only_after(client: TestClient, service: Ready) -> None:
    there, goes_on = held_at(service.pipeline, 3)
    id = create(client, steps=4)["id"]
    assert there.wait(10)
    told = get(client, id)
    assert (told["status"], told["progress"]) == ("in_progress", 47)
    early = client.get(f"/v1/videos/{id}/content")
    assert (early.status_code, early.json()["error"]["code"]) == (409, "video_not_ready")
    goes_on.set()
    assert finished(client, id)["status"] == "completed"


def test_jobs_are_made_in_order_and_listed_in_pages(client: TestClient, service: Ready) -> None:
    there, goes_on = held_at(service.pipeline, 1)
    ids = [create(client, prompt=f"p{number}")["id"] for number in range(3)]
    assert there.wait(10)
    until(lambda: "modelgrid_service_requests_waiting 2.0" in client.get("/metrics").text)
    page = client.get("/v1/videos?limit=2").json()
    assert [job["id"] for job in page["data"]] == [ids[2], ids[1]]
    assert (page["has_more"], page["first_id"], page["last_id"]) == (True, ids[2], ids[1])
    rest = client.get(f"/v1/videos?after={ids[1]}").json()
    assert ([job["id"] for job in rest["data"]], rest["has_more"]) == ([ids[0]], False)
    assert client.get("/v1/videos?order=asc&limit=1").json()["first_id"] == ids[0]
    goes_on.set()
    finished(client, ids[2])
    assert [call["prompt"] for call in service.pipeline.calls] == ["p0", "p1", "p2"]


def test_a_deleted_job_ends_within_a_step_and_the_next_one_begins(
    client: TestClient, service: Ready, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    there, goes_on = held_at(service.pipeline, 5)
    id, waiting = create(client, steps=50)["id"], create(client, steps=1)["id"]
    assert there.wait(10)
    answer = client.delete(f"/v1/videos/{id}")
    assert answer.json() == {"id": id, "object": "video.deleted", "deleted": True}
    goes_on.set()
    assert finished(client, waiting)["status"] == "completed"
    assert service.pipeline.steps == [1, 2, 3, 4, 5, 1]
    assert client.get(f"/v1/videos/{id}").status_code == 404
    assert "caller left: stopped after step 5 of 50" in caplog.text
    assert f"{id} was deleted" in caplog.text


def test_a_job_that_another_process_deletes_ends_within_a_step(client: TestClient, service: Ready, jobs: Jobs) -> None:
    there, goes_on = held_at(service.pipeline, 5)
    id, waiting = create(client, steps=50)["id"], create(client, steps=1)["id"]
    assert there.wait(10)
    assert Jobs(jobs.folder, "video").remove(id)
    goes_on.set()
    finished(client, waiting)
    assert service.pipeline.steps == [1, 2, 3, 4, 5, 1]


def test_a_job_that_fails_says_why_and_the_next_one_is_made(client: TestClient, service: Ready) -> None:
    def breaks(_step: int) -> None:
        service.pipeline.at_step = service.pipeline.steps.append
        raise MemoryError("no room")

    service.pipeline.at_step = breaks
    failed, made = create(client)["id"], create(client)["id"]
    told = finished(client, failed)
    assert (told["status"], told["error"]["code"]) == ("failed", "out_of_memory")
    assert finished(client, made)["status"] == "completed"
    assert client.get(f"/v1/videos/{failed}/content").status_code == 409


def test_what_was_interrupted_is_made_by_the_next_process(service: Ready, jobs: Jobs) -> None:
    there, goes_on = held_at(service.pipeline, 2)
    with TestClient(service.app()) as client:
        until(lambda: client.get("/health").status_code == 200)
        id, other = create(client)["id"], create(client)["id"]
        assert there.wait(10)
        threading.Timer(0.1, goes_on.set).start()
    put_back = jobs.get(id)
    assert put_back is not None
    assert (put_back.status, put_back.progress, put_back.begun) == (Status.QUEUED, 0, 0)
    for client in serving(Ready(Options(name="ltx"), jobs)):
        assert finished(client, id)["status"] == "completed"
        assert finished(client, other)["status"] == "completed"


def test_a_job_that_ended_its_service_three_times_is_not_begun_again(service: Ready, jobs: Jobs) -> None:
    job = jobs.add({"seconds": 1, "size": None, "seed": 1}, 1)
    for begun in (1, 2, 3):
        with jobs.claim() or pytest.fail("there is one") as claim:
            claim.tell(status=Status.IN_PROGRESS, begun=begun)
    for client in serving(service):
        told = finished(client, job.id)
        assert (told["status"], told["error"]["code"]) == ("failed", "interrupted")
        assert service.pipeline.calls == []


def test_too_many_jobs_are_turned_away(client: TestClient, service: Ready, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ready, "queue_limit", 1)
    there, goes_on = held_at(service.pipeline, 1)
    create(client)
    assert there.wait(10)
    create(client)
    answer = client.post("/v1/videos", content=b'{"prompt": "x"}')
    assert (answer.status_code, answer.json()["error"]["code"], answer.headers["retry-after"]) == (
        503,
        "queue_full",
        "30",
    )
    goes_on.set()


def test_no_more_jobs_are_taken_when_many_come_at_once(
    client: TestClient, service: Ready, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ready, "queue_limit", 2)
    there, goes_on = held_at(service.pipeline, 1)
    create(client)
    assert there.wait(10)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: client.post("/v1/videos", content=b'{"prompt": "x"}').status_code, range(16)))
    assert sorted(answers) == [200] * 2 + [503] * 14
    goes_on.set()


def test_a_job_that_waits_and_is_deleted_makes_room_for_another(
    client: TestClient, service: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ready, "queue_limit", 1)
    there, goes_on = held_at(service.pipeline, 1)
    create(client)
    assert there.wait(10)
    client.delete(f"/v1/videos/{create(client)['id']}")
    assert "modelgrid_service_requests_waiting 0.0" in client.get("/metrics").text
    create(client)
    goes_on.set()


def test_a_film_that_a_full_disk_has_no_room_for_fails_and_gives_its_room_back(
    client: TestClient, service: Ready, jobs: Jobs
) -> None:
    def full(footage: Footage, path: Path) -> None:
        path.write_text("half of it")
        service.studio._write = write
        raise OSError(errno.ENOSPC, "No space left on device")

    service.studio._write = full
    id = create(client)["id"]
    told = finished(client, id)
    assert (told["status"], "No space left on device" in told["error"]["message"]) == ("failed", True)
    assert sorted(path.name for path in jobs.path(id, "").iterdir()) == ["job.json", "lock"]
    assert finished(client, create(client)["id"])["status"] == "completed"


def test_a_step_whose_progress_cannot_be_written_down_goes_on(
    client: TestClient, service: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell = Claim.tell

    def full(claim: Claim, **changes: Any) -> Job:
        if set(changes) == {"progress"}:
            raise OSError(errno.ENOSPC, "No space left on device")
        return tell(claim, **changes)

    monkeypatch.setattr(Claim, "tell", full)
    assert finished(client, create(client)["id"])["status"] == "completed"


def test_jobs_are_made_after_one_that_nobody_foresaw(
    client: TestClient, service: Ready, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = jobs.claim

    def breaks() -> None:
        monkeypatch.setattr(jobs, "claim", claim)
        raise ValueError("whatever it is")

    monkeypatch.setattr(jobs, "claim", breaks)
    monkeypatch.setattr(studio, "LOOK_S", 0.1)
    assert finished(client, create(client)["id"])["status"] == "completed"


def test_a_stop_that_does_not_wait_for_a_long_step_does_not_count_against_the_job(service: Ready, jobs: Jobs) -> None:
    there, goes_on = held_at(service.pipeline, 2)
    service.options = dataclasses.replace(service.options, grace_s=0)
    with TestClient(service.app()) as client:
        until(lambda: client.get("/health").status_code == 200)
        id = create(client)["id"]
        assert there.wait(10)
    try:
        put_back = jobs.get(id)
        assert put_back is not None
        assert (put_back.status, put_back.progress, put_back.begun) == (Status.QUEUED, 0, 0)
    finally:
        goes_on.set()


def test_jobs_lie_among_the_files_of_the_modelgrid_that_started_the_service() -> None:
    assert default_folder("a/b", {"MODELGRID_INSTANCE": "/home/me/state"}) == Path("/home/me/state/videos/a%2Fb")
    assert default_folder("ltx", {"XDG_DATA_HOME": "/data"}) == Path("/data/modelgrid/videos/ltx")


def test_prompts_are_not_shown(client: TestClient) -> None:
    secret = base64.b64encode(b"my secret").decode()
    told = finished(client, create(client, prompt=secret)["id"])
    assert secret not in json.dumps(told)
    assert secret not in client.get("/v1/videos").text

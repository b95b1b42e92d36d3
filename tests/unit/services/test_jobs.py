"""Jobs in a folder: one at a time works on each, whatever dies, and nothing is kept for ever."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from modelgrid.services.jobs import Claim, Gone, Job, Jobs, Keeping, Status
from unit.services.conftest import until


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    return Jobs(tmp_path / "jobs", "video", Keeping(age_s=100, jobs=3, folder_bytes=10_000))


def claimed(jobs: Jobs) -> Claim:
    claim = jobs.claim()
    assert claim is not None
    return claim


def finish(jobs: Jobs, now: float, size: int = 0) -> Job:
    with claimed(jobs) as claim:
        claim.path("film").write_bytes(b"x" * size)
        return claim.tell(status=Status.COMPLETED, completed_at=now, expires_at=now + jobs.keeping.age_s)


def test_a_job_is_kept_as_it_was_asked_for(jobs: Jobs) -> None:
    job = jobs.add({"prompt": "a cat", "seed": 2**62}, 10.5, {"image.png": b"picture"})
    assert job == Job(job.id, {"prompt": "a cat", "seed": 2**62}, 10.5, Status.QUEUED)
    assert Jobs(jobs.folder, "video").get(job.id) == job
    assert jobs.path(job.id, "image.png").read_bytes() == b"picture"


def test_nobody_else_may_read_what_was_asked(jobs: Jobs) -> None:
    job = jobs.add({}, 1)
    assert (jobs.folder.stat().st_mode & 0o777, jobs.path(job.id, "").stat().st_mode & 0o777) == (0o700, 0o700)
    assert jobs.path(job.id, "job.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("id", ["", "..", "video_", "../secret", "video_" + "g" * 32, "song_" + "0" * 32])
def test_what_is_no_id_finds_nothing(jobs: Jobs, id: str) -> None:
    jobs.add({}, 1)
    assert jobs.get(id) is None
    assert not jobs.remove(id)


def test_a_folder_that_is_not_there_has_no_jobs(jobs: Jobs) -> None:
    assert (jobs.all(), jobs.claim(), jobs.sweep(1)) == ([], None, [])


def test_the_oldest_is_worked_on_first_and_by_one_alone(jobs: Jobs) -> None:
    second, first = jobs.add({}, 2), jobs.add({}, 1)
    one, other = claimed(jobs), claimed(Jobs(jobs.folder, "video"))
    assert (one.job.id, other.job.id) == (first.id, second.id)
    assert jobs.claim() is None
    one.release()
    one.release()
    assert claimed(jobs).job.id == first.id


def test_what_is_over_is_not_worked_on(jobs: Jobs) -> None:
    jobs.add({}, 1)
    over = finish(jobs, 5)
    assert over.is_over
    assert jobs.claim() is None
    assert jobs._claimed(over.id) is None  # who has seen it just before it was over


def hold(folder: Path) -> None:
    with claimed(Jobs(folder, "video")) as claim:
        claim.tell(status=Status.IN_PROGRESS, progress=40, begun=1)
        signal.pause()


def test_a_job_whose_process_is_killed_is_taken_up_by_the_next(jobs: Jobs) -> None:
    job = jobs.add({}, 1)
    worker = multiprocessing.get_context("spawn").Process(target=hold, args=(jobs.folder,))
    worker.start()
    assert worker.pid is not None
    until(lambda: (found := jobs.get(job.id)) is not None and found.progress == 40)
    assert jobs.claim() is None
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    with claimed(jobs) as claim:
        assert (claim.job.id, claim.job.status, claim.job.begun) == (job.id, Status.IN_PROGRESS, 1)


def test_who_works_on_a_deleted_job_finds_it_gone_and_does_not_bring_it_back(jobs: Jobs) -> None:
    job = jobs.add({}, 1)
    with claimed(jobs) as claim:
        claim.check()
        assert Jobs(jobs.folder, "video").remove(job.id)
        with pytest.raises(Gone):
            claim.check()
        with pytest.raises(Gone):
            claim.tell(progress=50)
    assert jobs.get(job.id) is None
    assert list(jobs.folder.iterdir()) == []
    assert not jobs.remove(job.id)


def test_what_is_over_is_kept_for_a_time_and_what_is_not_for_longer(jobs: Jobs) -> None:
    old, new, waiting = (jobs.add({}, at) for at in (1, 2, 3))
    finish(jobs, 10)
    finish(jobs, 20)
    assert jobs.sweep(109) == []
    assert jobs.sweep(110) == [old.id]
    assert jobs.sweep(1e9) == [new.id]
    assert [job.id for job in jobs.all()] == [waiting.id]


def test_no_more_than_so_many_are_kept(jobs: Jobs) -> None:
    ids = [jobs.add({}, at).id for at in range(5)]
    for at in range(5):
        finish(jobs, at)
    assert sorted(jobs.sweep(5)) == sorted(ids[:2])
    assert [job.id for job in jobs.all()] == ids[2:]


def test_no_more_than_so_many_bytes_are_kept(jobs: Jobs) -> None:
    ids = [jobs.add({}, at).id for at in range(3)]
    for at in range(3):
        finish(jobs, at, size=4_000)
    assert jobs.sweep(5) == [ids[0]]


def test_what_was_left_half_made_or_half_removed_goes(jobs: Jobs) -> None:
    jobs.add({}, 1)
    for name in (".new-video_1", ".gone-video_2"):
        (jobs.folder / name).mkdir()
        (jobs.folder / name / "film").touch()
        os.utime(jobs.folder / name, (1, 1))
    (jobs.folder / ".new-video_3").mkdir()
    jobs.sweep((jobs.folder / ".new-video_3").stat().st_mtime)
    assert sorted(path.name for path in jobs.folder.iterdir() if path.name.startswith(".")) == [".new-video_3"]


@pytest.mark.parametrize("written", ["", "[]", "7", "{}", '{"status": "queued"}', '{"id": "x", "status": "paused"}'])
def test_a_job_that_cannot_be_read_keeps_nobody_from_the_others(jobs: Jobs, written: str) -> None:
    broken, job = jobs.add({}, 1), jobs.add({}, 2)
    jobs.path(broken.id, "job.json").write_text(written)
    assert jobs.get(broken.id) is None
    assert jobs.all() == [job]
    assert claimed(jobs).job == job
    assert jobs._claimed(broken.id) is None


def test_a_job_that_a_full_disk_has_no_room_for_leaves_nothing(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        jobs.add({}, 1, {"image.png": b"picture"})
    assert list(jobs.folder.iterdir()) == []


def test_a_job_of_a_later_version_is_still_read(jobs: Jobs) -> None:
    job = jobs.add({}, 1)
    path = jobs.path(job.id, "job.json")
    path.write_text(path.read_text().replace('{"id"', '{"mood": "good", "id"'))
    assert jobs.get(job.id) == job

"""OpenAI's videos: jobs that are done by the time that somebody asks."""

from __future__ import annotations

from modelgrid.services.faulty.answer import Answer, Json, error, of_json
from modelgrid.services.faulty.call import Call, now
from modelgrid.services.faulty.media import png, received

_CONTENT = {"video": "video/mp4", "thumbnail": "image/png", "spritesheet": "image/png"}


def create(call: Call) -> Answer:
    return of_json({**_begun(call, call.sent), "received": received(call)})


def remix(call: Call) -> Answer:
    before = call.kept.videos.get(call.id)
    if before is None:
        return _missing(call)
    job = _begun(call, {**before, "prompt": call.sent.get("prompt")})
    job["remixed_from_video_id"] = call.id
    return of_json(job)


def listed(call: Call) -> Answer:
    jobs = sorted(map(_done, call.kept.videos.values()), key=lambda job: str(job["id"]))
    if call.query.get("order", "desc") == "desc":
        jobs.reverse()
    after = [n + 1 for n, job in enumerate(jobs) if job["id"] == call.query.get("after")]
    rest = jobs[after[0] if after else 0 :]
    page = rest[: int(call.query.get("limit", 20))]
    ends = {"first_id": page[0]["id"] if page else None, "last_id": page[-1]["id"] if page else None}
    return of_json({"object": "list", "data": page, **ends, "has_more": len(page) < len(rest)})


def get(call: Call) -> Answer:
    job = call.kept.videos.get(call.id)
    return of_json(_done(job)) if job else _missing(call)


def content(call: Call) -> Answer:
    """The start of an MP4 file and free space after it, in as many pieces as an answer has; or a picture."""
    variant = call.query.get("variant", "video")
    if call.id not in call.kept.videos or variant not in _CONTENT:
        return _missing(call)
    if variant != "video":
        return Answer(200, (png(4, 100),), _CONTENT[variant])
    free = call.id.encode().ljust(max(64, call.ways.chunk_size), b".") * call.ways.chunks
    file = _box(b"ftyp", b"isom\0\0\2\0isomiso2mp41") + _box(b"free", free)
    step = -(-len(file) // call.ways.chunks)
    return Answer(200, tuple(file[at : at + step] for at in range(0, len(file), step)), _CONTENT[variant])


def delete(call: Call) -> Answer:
    if call.kept.videos.pop(call.id, None) is None:
        return _missing(call)
    return of_json({"id": call.id, "object": "video.deleted", "deleted": True})


def _begun(call: Call, asked: Json) -> Json:
    job = {
        "id": f"video_{call.mark}",
        "object": "video",
        "created_at": now(),
        "completed_at": None,
        "expires_at": None,
        "error": None,
        "model": call.model,
        "prompt": asked.get("prompt"),
        "progress": 0,
        "remixed_from_video_id": None,
        "seconds": str(asked.get("seconds") or 4),
        "size": asked.get("size") or "720x1280",
        "status": "queued",
    }
    call.kept.videos[str(job["id"])] = job
    return dict(job)


def _done(job: Json) -> Json:
    return {**job, "status": "completed", "progress": 100, "completed_at": job["created_at"] + 1}


def _missing(call: Call) -> Answer:
    return of_json(error(f"Video with id '{call.id}' not found."), 404)


def _box(kind: bytes, data: bytes) -> bytes:
    return (8 + len(data)).to_bytes(4, "big") + kind + data

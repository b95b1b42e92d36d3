"""What the control API does with keys and their groups."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from modelgrid.api.audit import aim
from modelgrid.api.control import Control
from modelgrid.api.problem import Problem
from modelgrid.spec import GroupStatus, KeyStatus, NewKey, Quota, Scope
from modelgrid.spec.messages import quota_of
from modelgrid.spec.operations import OPERATIONS
from modelgrid.store import (
    Grant,
    GroupInUse,
    KeyIsOver,
    KeyNameRefused,
    KeyRecord,
    Store,
    UnknownGroup,
    UnknownKey,
)

LONGEST_S = 100 * 366 * 86_400.0  # of the grace of a key that is rotated


def _known(operation: str) -> str:
    if operation not in OPERATIONS:
        raise ValueError(f"there is no operation {operation!r} (there are: {', '.join(OPERATIONS)})")
    return operation


Most = Annotated[int, Field(ge=1, le=2**53)]
Name = Annotated[str, Field(min_length=1, max_length=1000)]
Operation = Annotated[str, AfterValidator(_known)]
Moment = Annotated[float, Field(gt=0, lt=1e11, allow_inf_nan=False)]  # seconds since the epoch


class LimitsRequest(BaseModel):
    """What may be used."""

    model_config = ConfigDict(extra="forbid")

    requests_per_minute: Most | None = None
    tokens_per_minute: Most | None = None
    concurrency: Most | None = None

    def quota(self) -> Quota | None:
        """As messages have it."""
        return quota_of(self.requests_per_minute, self.tokens_per_minute, self.concurrency)


class KeyRequest(LimitsRequest):
    """What a new key is for."""

    name: str
    models: Annotated[tuple[Name, ...], Field(min_length=1)] | None = None
    operations: Annotated[tuple[Operation, ...], Field(min_length=1)] | None = None
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1)] = (Scope.CALLER,)
    group: Name | None = None
    expires: Moment | None = None


class RotateRequest(BaseModel):
    """How a key changes its secret."""

    model_config = ConfigDict(extra="forbid")

    grace_s: Annotated[float, Field(ge=0, le=LONGEST_S, allow_inf_nan=False)] = 0.0
    expires: Moment | None = None  # None: when it did


def key_routes(control: Control, store: Store) -> APIRouter:
    """``/keys``"""
    routes = APIRouter(prefix="/keys")

    @routes.get("")
    async def listed() -> list[KeyStatus]:
        now = time.time()
        return [shown(record, now) for record in await run_in_threadpool(store.keys)]

    @routes.post("", status_code=201, name="key.create")
    async def create(asked: KeyRequest, request: Request) -> NewKey:
        aim(request, asked.name)
        now = time.time()
        _refuse_past(asked.expires, now)
        grant = Grant(
            quota=asked.quota(),
            models=asked.models,
            operations=asked.operations,
            scopes=tuple(dict.fromkeys(asked.scopes)),
            group=asked.group,
            expires=asked.expires,
        )
        try:
            record, text = await run_in_threadpool(store.create_key, asked.name, now, grant)
        except KeyNameRefused as error:
            raise Problem(409, str(error), code="key_name_refused") from error
        except UnknownGroup as error:
            raise Problem(404, str(error), code="unknown_group") from error
        control.wake()
        return NewKey(text, record.id, record.name)

    @routes.post("/{id_or_name:path}/rotate", name="key.rotate")
    async def rotate(id_or_name: str, asked: RotateRequest | None = None) -> NewKey:
        now = time.time()
        asked = asked or RotateRequest()
        _refuse_past(asked.expires, now)
        try:
            record, text = await run_in_threadpool(
                store.rotate_key, id_or_name, now, grace_s=asked.grace_s, expires=asked.expires
            )
        except UnknownKey as error:
            raise Problem(404, str(error), code="unknown_key") from error
        except KeyIsOver as error:
            raise Problem(409, str(error), code="key_is_over") from error
        control.wake()
        return NewKey(text, record.id, record.name)

    @routes.delete("/{id_or_name:path}", name="key.revoke")
    async def revoke(id_or_name: str) -> KeyStatus:
        now = time.time()
        try:
            record = await run_in_threadpool(store.revoke_key, id_or_name, now)
        except UnknownKey as error:
            raise Problem(404, str(error), code="unknown_key") from error
        control.wake()
        return shown(record, now)

    return routes


def group_routes(control: Control, store: Store) -> APIRouter:
    """``/groups``"""
    routes = APIRouter(prefix="/groups")

    @routes.get("")
    async def listed() -> list[GroupStatus]:
        groups = await run_in_threadpool(store.groups)
        records = await run_in_threadpool(store.keys)
        return [_group(name, quota, records) for name, quota in groups.items()]

    @routes.put("/{name:path}", name="group.set")
    async def put(name: str, asked: LimitsRequest) -> GroupStatus:
        quota = asked.quota() or Quota()
        await change(name, quota)
        return _group(name, quota, await run_in_threadpool(store.keys))

    @routes.delete("/{name:path}", status_code=204, name="group.remove")
    async def remove(name: str) -> None:
        await change(name, None)

    async def change(name: str, quota: Quota | None) -> None:
        try:
            await run_in_threadpool(store.set_group, name, quota)
        except KeyNameRefused as error:
            raise Problem(409, str(error), code="group_name_refused") from error
        except UnknownGroup as error:
            raise Problem(404, str(error), code="unknown_group") from error
        except GroupInUse as error:
            raise Problem(409, str(error), code="group_in_use") from error
        control.wake()

    return routes


def shown(record: KeyRecord, now: float) -> KeyStatus:
    """A key without what is secret."""
    quota = record.quota or Quota()
    return KeyStatus(
        id=record.id,
        name=record.name,
        shown=record.shown,
        created=record.created,
        revoked=record.revoked,
        requests_per_minute=quota.requests_per_minute,
        tokens_per_minute=quota.tokens_per_minute,
        concurrency=quota.concurrency,
        models=record.models,
        operations=record.operations,
        scopes=record.scopes,
        group=record.group,
        expires=record.expires,
        former_until=record.former_until(now),
    )


def _group(name: str, quota: Quota, records: list[KeyRecord]) -> GroupStatus:
    return GroupStatus(
        name=name,
        requests_per_minute=quota.requests_per_minute,
        tokens_per_minute=quota.tokens_per_minute,
        concurrency=quota.concurrency,
        keys=tuple(record.name for record in records if record.group == name and record.revoked is None),
    )


def _refuse_past(expires: float | None, now: float) -> None:
    if expires is not None and expires <= now:
        why = "that time is over (send seconds since the epoch that are to come)"
        raise Problem(422, f"cannot let a key expire then: {why}", code="expires_in_the_past")

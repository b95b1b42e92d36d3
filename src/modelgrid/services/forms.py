"""Requests that come as a form, with files, or as JSON without: read into one model of pydantic's."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request

from modelgrid.services.errors import ServiceError

M = TypeVar("M", bound=BaseModel)

_FORM = "multipart/form-data"


def is_form(request: Request) -> bool:
    """Whether its body says that it is one."""
    return request.headers.get("content-type", "").startswith(_FORM)


@contextlib.asynccontextmanager
async def form(request: Request, files: int) -> AsyncIterator[FormData]:
    """The request's form, with so many files at most, which are on disk where they are large. Raises ServiceError."""
    if not is_form(request):
        said = f"cannot read the request: files come as {_FORM} (as curl -F and OpenAI's clients send it)"
        raise ServiceError(400, said, code="invalid_content_type")
    async with request.form(max_files=files) as read:
        yield read


def fields(form: FormData) -> dict[str, str]:
    """Its fields without its files; an empty one isn't there."""
    return {name: value for name, value in form.multi_items() if isinstance(value, str) and value}


def files(form: FormData, *names: str) -> list[UploadFile]:
    """Its files of these names, in order."""
    return [file for name in names for file in form.getlist(name) if isinstance(file, UploadFile)]


def checked(model: type[M], given: dict[str, Any]) -> M:
    """What was given, as `model` has it. Raises RequestValidationError, as FastAPI does for JSON."""
    try:
        return model.model_validate(given)
    except ValidationError as error:
        found = [{**problem, "loc": ("body", *problem["loc"])} for problem in error.errors()]
        raise RequestValidationError(found) from None


def without_nulls(given: object) -> object:
    """What is null isn't there: OpenAI's clients write both."""
    return {name: value for name, value in given.items() if value is not None} if isinstance(given, dict) else given

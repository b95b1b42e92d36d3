"""Logging: structlog events and other libraries' warnings, through one redaction, to a file."""

from __future__ import annotations

import logging
import logging.handlers
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from modelgrid.telemetry.lines import as_line
from modelgrid.telemetry.redact import redact_fields

_NAME = "modelgrid"
_FILE_BYTES = 16 * 2**20
_OLDER_FILES = 3


def set_up_logging(file: Path) -> None:
    """Send what `structlog.get_logger()` says to `file`, as ``key=value``.

    `file` belongs to this process alone: it is rotated by size, which two processes can't do to one file. Other
    libraries' loggers come along from WARNING on. May be called again; the last call holds.
    """
    _attach(_file_handler(file))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=_logger,
        cache_logger_on_first_use=False,  # loggers of modules live longer than a set-up
    )


def open_file(file: Path) -> Callable[[str], None]:
    """Writes texts to `file` as they are: private and rotated as the logs are, and like them this process's alone.
    What it is asked for is one thread's."""
    handler = _private_file(file)

    def write(text: str) -> None:
        handler.emit(logging.makeLogRecord({"msg": text}))

    handler.terminator = ""
    return write


def _logger(*_names: object) -> logging.Logger:
    """One logger for all of modelgrid: a module run as ``__main__`` says as much as one that is imported."""
    return logging.getLogger(_NAME)


def _attach(handler: logging.Handler) -> None:
    root, ours = logging.getLogger(), logging.getLogger(_NAME)
    for old in list(root.handlers):
        if isinstance(old, _PrivateFile):
            root.removeHandler(old)
            old.close()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    ours.setLevel(logging.INFO)
    logging.captureWarnings(True)


def _file_handler(file: Path) -> logging.Handler:
    handler = _private_file(file)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(["request_id"]), _foreign_event],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.stdlib.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                _milliseconds,
                structlog.processors.format_exc_info,
                redact_fields,
                as_line,
            ],
            use_get_message=True,
        )
    )
    return handler


def _private_file(file: Path) -> _PrivateFile:
    file.parent.mkdir(parents=True, exist_ok=True)
    return _PrivateFile(file, maxBytes=_FILE_BYTES, backupCount=_OLDER_FILES, encoding="utf-8", errors="replace")


class _PrivateFile(logging.handlers.RotatingFileHandler):
    """A rotating file that only its owner reads."""

    def _open(self) -> Any:
        os.close(os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
        return super()._open()


def _foreign_event(_logger: Any, _method: str, event: Any) -> Any:
    """Another library's line: its logger is the event, its text a field."""
    record: logging.LogRecord = event["_record"]
    return {**event, "event": record.name, "message": event["event"]}


def _milliseconds(_logger: object, _method: str, event: Any) -> Any:
    stamp: str = event["timestamp"]
    event["timestamp"] = stamp[:23] + "Z" if "." in stamp else stamp
    return event

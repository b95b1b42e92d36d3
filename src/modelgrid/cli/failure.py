"""How a command ends when it can't do what it was asked: a message with the next step, and an exit code."""

from __future__ import annotations

import click

FAILED = 1
USAGE = 2  # click's own
NOT_RUNNING = 3

START_IT = "start it with: modelgrid serve"


class Failure(click.ClickException):
    """The command failed; the message says at what, why, and what to do."""

    exit_code = FAILED


class NotRunningFailure(Failure):
    """The command needs the daemon, and there is none."""

    exit_code = NOT_RUNNING

    def __init__(self, message: str) -> None:
        super().__init__(f"{message} ({START_IT})")

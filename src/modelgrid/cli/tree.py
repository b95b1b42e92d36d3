"""The tree of commands. Help is printed from a table, so that it needs none of the modules that do the work."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import click

from modelgrid import __version__
from modelgrid.cli.failure import Failure

# name: where the command is, and its line in the list of commands
_COMMANDS: Mapping[str, tuple[str, str]] = {
    "serve": ("modelgrid.cli.serve:serve", "Serve the configured models until stopped."),
    "stop": ("modelgrid.cli.stop:stop", "Stop the daemon and everything that it started."),
    "status": ("modelgrid.cli.status:status", "Show models, replicas and memory."),
    "why": ("modelgrid.cli.why:why", "Explain a model: its state, and what was done and why."),
    "fit": ("modelgrid.cli.fit:fit", "Say where a model would go, or what is missing."),
    "logs": ("modelgrid.cli.logs:logs", "Show what the replicas of a model wrote."),
    "model": ("modelgrid.cli.model:model", "List, pull, remove, load and unload models."),
    "config": ("modelgrid.cli.configuration:config", "Make, show and check the configuration."),
    "key": ("modelgrid.cli.key:key", "Create, list, rotate and revoke keys, and their groups."),
    "audit": ("modelgrid.cli.audit:audit", "Show who did what to keys and models."),
    "usage": ("modelgrid.cli.usage:usage", "Show what was used, by whom, and what it cost."),
    "simulate": ("modelgrid.cli.simulate:simulate", "Simulate requests on machines, with the same planner."),
    "restart-workers": (
        "modelgrid.cli.restart_workers:restart_workers",
        "Replace the gateway workers one by one, while they serve.",
    ),
}


class LazyGroup(click.Group):
    """Commands that are imported when they are invoked."""

    def __init__(self, *args: Any, lazy: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  as above
        if cmd_name not in self.lazy:
            return None
        module, _, name = self.lazy[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  as above
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in self.lazy.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            from modelgrid.config.paths import ForeignFolder

            if isinstance(error, ForeignFolder):
                raise Failure(str(error)) from error
            raise

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.lazy and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], self.lazy, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(self.lazy)}"
            raise click.UsageError(f"there is no command {args[0]!r} ({hint})", ctx)
        return super().resolve_command(ctx, args)


def _build() -> str:
    """What `modelgrid.gateway.worker.is_compiled` tells, without an import of the gateway."""
    found = PathFinder.find_spec("connection", [str(Path(__file__).parents[1] / "gateway")])
    is_compiled = found is not None and not str(found.origin).endswith(".py")
    return "compiled" if is_compiled else "plain Python"


@click.group(
    cls=LazyGroup,
    lazy=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 modelgrid is not running.",
)
@click.version_option(__version__, message=f"modelgrid %(version)s ({_build()})")
def root() -> None:
    """One OpenAI-compatible endpoint for every model that you run.

    \b
    modelgrid serve                  serve on http://127.0.0.1:9000
    modelgrid config init            start a configuration of your own
    modelgrid status --watch         see what runs, and why
    """

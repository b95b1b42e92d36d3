"""The reference page of the command line, made from the commands: ``python -m modelgrid.cli.reference``."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from modelgrid.cli.tree import root

_HEAD = """\
# Commands

Made from the commands themselves, by `python -m modelgrid.cli.reference`.

## Exit codes

| code | meaning |
| --- | --- |
| 0 | done |
| 1 | failed: the message says at what, why, and what to do |
| 2 | wrong usage |
| 3 | the command needs the daemon, and modelgrid is not running |

Answers go to standard output, messages and progress to standard error. `NO_COLOR` turns colours off; where the
output is piped there are none, and nothing is cut or wrapped.
"""


def reference() -> str:
    """The page."""
    return _HEAD + "".join(_page(root, click.Context(root, info_name="modelgrid")))


def _page(command: click.Command, context: click.Context) -> Iterator[str]:
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            if child := command.get_command(context, name):
                yield from _page(child, click.Context(child, info_name=name, parent=context))
    else:
        yield f"\n## {context.command_path}\n"
        yield f"\n```\n{' '.join([context.command_path, *command.collect_usage_pieces(context)])}\n```\n"
        yield f"\n{inspect.cleandoc(command.help or '')}\n"
        if rows := list(_options(command, context)):
            yield "\n| option | meaning |\n| --- | --- |\n"
            yield from rows


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    for parameter in command.get_params(context):
        if isinstance(parameter, click.Option) and "--help" not in parameter.opts:
            option, meaning = (part.replace("|", "\\|") for part in parameter.get_help_record(context) or ("", ""))
            yield f"| `{option}` | {meaning} |\n"


if __name__ == "__main__":
    click.echo(reference(), nl=False)

"""`modelgrid fit MODEL`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelgrid.cli import ask, screen
from modelgrid.cli.failure import FAILED, Failure, NotRunningFailure
from modelgrid.spec import MAIN
from modelgrid.spec.units import format_bytes, parse_bytes

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from modelgrid.spec.fit import Asked, Fit, Space

_WORDS = {
    "fits": ("fits", "green"),
    "soon": ("fits soon", "green"),
    "makes_room": ("fits, if others make room", "yellow"),
    "waits": ("has to wait", "yellow"),
    "blocked": ("doesn't fit now", "red"),
    "impossible": ("doesn't fit", "red"),
    "unknown": ("may fit or not", "red"),
}
_BASES = {
    "configured": "as configured",
    "measured": "as measured when it ran",
    "estimated": "estimated; once it has run, what it really held counts",
}
_WIDE = 110  # columns, from which bars are long
_USED, _THIS, _FREE = "█", "▒", "·"  # also told apart without colours


@click.command(short_help="Say where a model would go, or what is missing.")
@click.argument("model")
@click.option("--engine", help="The engine. Of a model that isn't configured: vllm with a GPU, else transformers.")
@click.option("--memory", metavar="SIZE", help="As if needs.memory were SIZE.")
@click.option("--gpus", metavar="N", help="As if needs.gpus were N: 2, 0.5, 0 for main memory.")
@click.option("--arg", "args", multiple=True, metavar="WORD", help="As if args had WORD; may be repeated.")
@ask.config_option
@ask.json_option
def fit(
    model: str,
    engine: str | None,
    memory: str | None,
    gpus: str | None,
    args: tuple[str, ...],
    named: Path | None,
    as_json: bool,
) -> None:
    """Say where one more replica of MODEL would go now, what would have to make room for it, or what is missing.

    MODEL is a configured model, a hub id (Qwen/Qwen2.5-7B-Instruct) or a path. Nothing is started. Without a running
    daemon the machine is taken as empty. Exit code 0: it fits, or would in its turn; 1: it doesn't.
    """
    from modelgrid.spec.fit import Asked

    asked = Asked(_name(model), _engine(engine), args or None, _bytes(memory), _gpus(gpus))
    answer, is_live = _ask(asked, named)
    if as_json:
        import msgspec

        screen.show_json({"fits": answer.is_possible, "live": is_live, **msgspec.to_builtins(answer)})
    else:
        out = screen.console()
        screen.show(*_picture(answer, out.width if out.is_terminal else None, is_live=is_live))
    if not answer.is_possible:
        raise SystemExit(FAILED)


def _name(model: str) -> str:
    """A path as the daemon would find it, wherever it was started."""
    looks_like_path = model.startswith(("/", "./", "../", "~"))
    return str(Path(model).expanduser().absolute()) if looks_like_path else model


def _engine(name: str | None) -> str | None:
    from modelgrid.engines import ENGINES

    if name is not None and name not in ENGINES:
        raise click.BadParameter(f"there is no engine {name!r}: there are {', '.join(ENGINES)}", param_hint="--engine")
    return name


def _bytes(written: str | None) -> int | None:
    try:
        return None if written is None else parse_bytes(written)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--memory") from error


def _gpus(written: str | None) -> float | None:
    from modelgrid.config import parse_gpus

    try:
        return None if written is None else parse_gpus(written)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--gpus") from error


def _ask(asked: Asked, named: Path | None) -> tuple[Fit, bool]:
    try:
        with ask.daemon() as client:
            return client.fit(asked), True
    except NotRunningFailure:
        return _on_empty(asked, named), False


def _on_empty(asked: Asked, named: Path | None) -> Fit:
    """Nothing runs: on this machine as it was configured, with what earlier runs have shown."""
    from modelgrid.controller.fit import fit as answer
    from modelgrid.controller.fit import spec_of
    from modelgrid.controller.measured import Measured
    from modelgrid.controller.needs import accelerator
    from modelgrid.controller.sizes import weigh_of
    from modelgrid.hardware import measure_machine
    from modelgrid.spec import Fleet

    config = ask.configuration(named)
    machine = measure_machine(config.machine, None)
    try:
        spec = spec_of(asked, config.models, machine)
    except ValueError as error:
        raise Failure(str(error)) from error
    with ask.store() as store:
        measured = Measured(store.runs())
    peak = measured.peak(spec, accelerator(spec, machine))
    return answer(Fleet(0.0, (machine,)), spec, weigh_of(spec, ask.weights_root(config)), peak)


def _picture(answer: Fit, columns: int | None, *, is_live: bool) -> Iterator[RenderableType]:
    word, style = _WORDS[answer.verdict]
    name = screen.joined(screen.text(answer.model, "bold"), f" ({answer.engine}) ")
    yield screen.joined(name, screen.text(word, style), f": {answer.why}", "" if answer.why.endswith(")") else ".")
    if answer.verdict == "unknown":
        again = screen.command("fit", answer.model, "--memory", "16GiB")
        yield screen.text(f"To try it with a size: {again}. Configured models: {screen.command('model', 'list')}.")
    if answer.running:
        yield screen.text(f"It runs already ({', '.join(answer.running)}): this is about one more.")
    yield ""
    if answer.basis:
        yield from _needs(answer)
        yield ""
    yield _devices(answer.spaces, columns)
    if columns is not None:
        yield screen.text(f"{_USED} held  {_THIS} this model  {_FREE} free", "dim")
    if not is_live:
        yield screen.text("modelgrid isn't running, so nothing is held.", "dim")
    yield from _others(answer)


def _needs(answer: Fit) -> Iterator[RenderableType]:
    beside = f", and {format_bytes(answer.main_bytes)} of main memory beside its GPUs" if answer.main_bytes else ""
    ends = ":" if answer.parts or answer.peak_bytes else "."
    yield screen.text(f"It needs {answer.needs}{beside} ({_BASES[answer.basis]}){ends}")
    rows = [(part.what, format_bytes(part.memory_bytes), part.why) for part in answer.parts]
    if answer.basis == "measured" and answer.peak_bytes is not None:
        share = f"{answer.margin - 1:.0%}".replace("%", " %")
        rows = [("measured", format_bytes(answer.peak_bytes), f"the most that its last runs held; {share} are added")]
    elif answer.basis == "configured" and rows:
        total = sum(part.memory_bytes for part in answer.parts)
        of = [f"{what} {size}" for what, size, _ in rows] if len(rows) > 1 else list(filter(None, rows[0][::2]))
        rows = [("estimate", format_bytes(total), ", ".join(of))]
    if rows:
        yield screen.indented(screen.timeline(rows), 2)


def _devices(spaces: Sequence[Space], columns: int | None) -> RenderableType:
    has_machines = len({space.machine for space in spaces}) > 1
    bar_cells = 0 if columns is None else 30 if columns >= _WIDE else 10
    names = ("DEVICE", *(("",) if bar_cells else ()), "HELD", "THIS", "FREE", "OF", "HELD BY")
    rows = [_row(space, bar_cells, has_machines=has_machines) for space in spaces]
    return screen.table(names, rows, right=("HELD", "THIS", "FREE", "OF"))


def _row(space: Space, bar_cells: int, *, has_machines: bool) -> tuple[str | Text, ...]:
    held_bytes = sum(user.memory_bytes for user in space.users)
    name = f"{space.machine}/{space.device}" if has_machines else space.device
    users = ("\n" if bar_cells else ", ").join(
        f"{user.replica} {format_bytes(user.memory_bytes)}{' goes' if user.makes_room else ''}" for user in space.users
    )
    bar = (_bar(space, bar_cells),) if bar_cells else ()
    sizes = (_size(held_bytes), _size(space.takes_bytes), _free(space.free_bytes), format_bytes(space.memory_bytes))
    return ("main" if name == MAIN else name, *bar, *sizes, users)


def _bar(space: Space, cells: int) -> Text:
    staying = sum(user.memory_bytes for user in space.users if not user.makes_room)
    used = _cells(staying, space.memory_bytes, cells)
    this = min(cells - used, _cells(space.takes_bytes, space.memory_bytes, cells))
    return screen.joined(
        screen.text(_USED * used, "green"),
        screen.text(_THIS * this, "cyan"),
        screen.text(_FREE * (cells - used - this), "bright_black"),
    )


def _cells(part: int, whole: int, cells: int) -> int:
    """What is there shows, however little it is."""
    if not part or not whole:
        return 0
    return max(1, min(cells, round(cells * part / whole)))


def _size(count: int) -> str:
    return format_bytes(count) if count else "-"


def _free(count: int) -> str:
    return format_bytes(count) if count >= 0 else f"-{format_bytes(-count)}"


def _others(answer: Fit) -> Iterator[RenderableType]:
    if not answer.alternatives:
        return
    yield ""
    yield screen.text("Other ways:")
    for other in answer.alternatives:
        gpus = " and ".join(share.device for share in other.shares if share.device != MAIN)
        where = f"on {gpus}" if gpus else "in main memory"
        when = "fits now" if other.fits_now else "would fit if nothing else were there"
        line = f"- {other.change}: {format_bytes(other.memory_bytes)} {where}, {when}"
        yield screen.indented(screen.text(line), 2)

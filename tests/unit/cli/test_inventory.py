"""The list of models as it looks, on terminals of all widths."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from modelgrid.cli.inventory import Inventory, Listed, Unused, inventory_tables

GIB = 1 << 30
QWEN = Listed(
    name="qwen",
    engine="transformers",
    kinds=("text",),
    source="Qwen/Qwen2.5-7B-Instruct",
    aliases=("gpt-4o-mini", "claude-haiku"),
    state="ready",
    is_here=True,
    weights_bytes=14 * GIB,
    memory_bytes=17 * GIB,
    memory_basis="measured",
)
FLUX = Listed(
    name="flux",
    engine="images",
    kinds=("images",),
    source="black-forest-labs/FLUX.1-schnell",
    aliases=(),
    state="cold",
    is_here=False,
    weights_bytes=3 * GIB,
    memory_bytes=38 * GIB,
    memory_basis="estimated",
)
LOST = Listed("lost", "llamacpp", ("text",), "/models/gone.gguf", (), "failed", False)
LARGE = Listed("large", "vllm", ("vision", "text"), "owner/large", (), "cold", False, needs="8 GPUs")
BEST = Listed("best", "virtual", ("text",), None, (), "ready", None, memory_bytes=0, behind=("qwen", "large"))
HELD = Inventory(
    models=(QWEN, FLUX, LOST, LARGE, BEST),
    unused=(Unused("ollama:llama3.2:1b", "/m/.ollama", GIB, True), Unused("owner/begun", "/m/owner/begun", 512, False)),
    folder="/m",
    held_bytes=18 * GIB,
    free_bytes=100 * GIB,
)

AT_80 = """\
MODEL  ENGINE        KIND          STATE            DISK     MEMORY
qwen   transformers  text          ready        14.0 GiB   17.0 GiB
flux   images        images        cold    3.0 GiB begun  ~38.0 GiB
lost   llamacpp      text          failed        missing          ?
large  vllm          vision, text  cold       not pulled     8 GPUs
best   virtual       text          ready               -          -

MODEL  ALIASES                    SOURCE
qwen   gpt-4o-mini, claude-haiku  Qwen/Qwen2.5-7B-Instruct
flux   -                          black-forest-labs/FLUX.1-schnell
lost   -                          /models/gone.gguf
large  -                          owner/large
best   -                          qwen, large
"""
AT_120 = """\
MODEL  ENGINE        KIND          STATE            DISK     MEMORY  SOURCE
qwen   transformers  text          ready        14.0 GiB   17.0 GiB  Qwen/Qwen2.5-7B-Instruct
flux   images        images        cold    3.0 GiB begun  ~38.0 GiB  black-forest-labs/FLUX.1-schnell
lost   llamacpp      text          failed        missing          ?  /models/gone.gguf
large  vllm          vision, text  cold       not pulled     8 GPUs  owner/large
best   virtual       text          ready               -          -  qwen, large

MODEL  ALIASES
qwen   gpt-4o-mini, claude-haiku
"""
PIPED = """\
MODEL  ENGINE        KIND          STATE            DISK     MEMORY  ALIASES                    SOURCE
qwen   transformers  text          ready        14.0 GiB   17.0 GiB  gpt-4o-mini, claude-haiku  Qwen/Qwen2.5-7B-Instruct
flux   images        images        cold    3.0 GiB begun  ~38.0 GiB  -                          SCHNELL
lost   llamacpp      text          failed        missing          ?  -                          /models/gone.gguf
large  vllm          vision, text  cold       not pulled     8 GPUs  -                          owner/large
best   virtual       text          ready               -          -  -                          qwen, large
""".replace("SCHNELL", "black-forest-labs/FLUX.1-schnell")
BELOW = """
pulled, and used by no model (free the disk: modelgrid model remove SOURCE)
SOURCE                     DISK  PATH
ollama:llama3.2:1b      1.0 GiB  /m/.ollama
owner/begun         512 B begun  /m/owner/begun

18.0 GiB pulled, 100 GiB free, in /m
"""


def shown(found: Inventory, columns: int | None) -> str:
    out = io.StringIO()
    console = Console(file=out, width=columns or 1000, color_system=None, highlight=False, markup=False, emoji=False)
    for part in inventory_tables(found, columns):
        console.print(part)
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


@pytest.mark.parametrize(("columns", "table"), [(80, AT_80), (120, AT_120), (None, PIPED)])
def test_the_list_of_models_at_this_width(columns: int | None, table: str) -> None:
    assert shown(HELD, columns) == table + BELOW
    assert max(map(len, table.splitlines())) <= (columns or 1000)


def test_without_models_the_next_step_is_said() -> None:
    found = Inventory(models=(), unused=(), folder="/m", held_bytes=0, free_bytes=GIB)
    assert shown(found, 80) == (
        "no models are configured (start with: modelgrid config init)\n\n0 B pulled, 1.0 GiB free, in /m\n"
    )

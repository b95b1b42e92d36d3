"""Amounts of memory, and what counts as having none left."""

from __future__ import annotations

import subprocess
import sys

import pytest

from modelgrid.services.accelerator import give_back, is_out_of_memory, parse_bytes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1000", 1000),
        ("8GB", 8 * 10**9),
        ("7.5GiB", 15 << 29),
        ("512 mib", 512 << 20),
        ("1k", 1000),
        ("2T", 2 * 10**12),
    ],
)
def test_amounts_are_read(text: str, expected: int) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "GB", "8 bananas", "-1GB", "8iB"])
def test_what_is_no_amount_is_told_so(text: str) -> None:
    with pytest.raises(ValueError, match="is no amount of memory: write 8GB or"):
        parse_bytes(text)


class OutOfMemoryError(RuntimeError):
    """As torch names it."""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), True),
        (RuntimeError("shapes don't match"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_says_that_memory_ran_out(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_memory_that_is_free_goes_back_to_the_system() -> None:
    program = """
import psutil
from modelgrid.services.accelerator import give_back
held = [bytes(4000) for _ in range(50_000)]
kept = held[::100]  # islands, so that the allocator has no reason to shrink by itself
del held
before = psutil.Process().memory_info().rss
give_back()
print(before - psutil.Process().memory_info().rss)
"""
    freed = int(subprocess.check_output([sys.executable, "-c", program]))
    assert freed > 50 << 20
    give_back()  # without torch, and as often as wanted


def test_the_memory_of_the_device_that_is_computed_on_is_limited() -> None:
    program = """
import importlib.machinery, sys, types
class Cuda:
    get_device_properties = staticmethod(lambda number: types.SimpleNamespace(total_memory=(10 + number) << 30))
    set_per_process_memory_fraction = staticmethod(lambda share, number: print(share, number))
torch = types.ModuleType("torch")
torch.__spec__ = importlib.machinery.ModuleSpec("torch", None)
torch.cuda = Cuda
sys.modules["torch"] = torch
from modelgrid.services.accelerator import limit_memory
for limit_bytes, device in ((5 << 30, "cuda"), (3 << 30, "cuda:2"), (99 << 30, "cuda:1")):
    limit_memory(limit_bytes, device)
"""
    said = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert said == "0.5 0\n0.25 2\n1.0 1\n"

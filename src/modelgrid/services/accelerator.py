"""What a model computes on: which device there is, how much of it may be taken, and giving memory back."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import importlib.util
import os
import re
import resource
import sys
from typing import Any

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def share_cores() -> None:
    """Have the threads of this process sleep while they wait for each other; to be called before torch is imported.
    OpenMP has them spin, and so take the time from whatever else the machine runs: beside other models on two cores a
    thousand small steps took 17 to 36 s, and 2 to 3 s like this."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def best_device() -> str:
    """ "cuda", "mps" or "cpu", the first of them that torch can use."""
    torch: Any = importlib.import_module("torch")
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def usual_dtype(device: str) -> Any:
    """torch's bfloat16 where the device computes in it as fast as in any other, else float32."""
    torch: Any = importlib.import_module("torch")
    if device.startswith("cuda") and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float16 if device.startswith(("cuda", "mps")) else torch.float32


def limit_memory(limit_bytes: int, device: str | None = None) -> None:
    """Take no more than `limit_bytes` from here on: of the GPU where there is one, else of main memory."""
    if importlib.util.find_spec("torch") and (device or best_device()).startswith("cuda"):
        torch: Any = importlib.import_module("torch")
        number = int((device or "cuda").partition(":")[2] or 0)
        total_bytes = torch.cuda.get_device_properties(number).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit_bytes / total_bytes), number)
    else:
        resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, resource.RLIM_INFINITY))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it says that there was no memory left: Python's, torch's of a GPU, or torch's of a CPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and re.search("can't allocate memory|out of memory", str(error)) is not None


def give_back() -> None:
    """Return what is free to the device and to the system; without it, both keep it for the process's next request."""
    gc.collect()
    torch: Any = sys.modules.get("torch")  # not imported for this
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch is not None and torch.backends.mps.is_available():
        torch.mps.empty_cache()
    with contextlib.suppress(OSError, AttributeError):  # glibc has it
        ctypes.CDLL(None).malloc_trim(0)


def parse_bytes(text: str) -> int:
    """``8GB``, ``7.5GiB``, ``1000000``. Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?", text.strip(), re.IGNORECASE)
    if match is None or match[2].lower() not in _UNITS:
        raise ValueError(f"{text!r} is no amount of memory: write 8GB or 7.5GiB")
    return int(float(match[1]) * _UNITS[match[2].lower()])

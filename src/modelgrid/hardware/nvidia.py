"""NVIDIA GPUs, through NVML. A machine without one, or with a broken driver, has none: never a crash."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU."""

    name: str  # "NVIDIA H200"
    uuid: str
    memory_bytes: int


def largest_gpu(environ: Mapping[str, str] = os.environ) -> Gpu | None:
    """The visible GPU with the most memory (``CUDA_VISIBLE_DEVICES`` says which are); None without any."""
    try:
        import pynvml as nvml  # type: ignore[import-untyped]  # carries no types

        nvml.nvmlInit()
    except Exception:  # a missing or mismatched driver library fails in many ways, and all mean: no GPU to use
        return None
    try:
        return max(
            _gpus(nvml, environ.get("CUDA_VISIBLE_DEVICES")),
            key=lambda gpu: gpu.memory_bytes,
            default=None,
        )
    except Exception:
        return None
    finally:
        with contextlib.suppress(nvml.NVMLError):  # it was asked what there is, and has answered
            nvml.nvmlShutdown()


def _gpus(nvml: Any, visible: str | None) -> Iterator[Gpu]:
    for index in range(nvml.nvmlDeviceGetCount()):
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        uuid = _text(nvml.nvmlDeviceGetUUID(handle))
        if _is_visible(index, uuid, visible):
            yield Gpu(_text(nvml.nvmlDeviceGetName(handle)), uuid, int(nvml.nvmlDeviceGetMemoryInfo(handle).total))


def _is_visible(index: int, uuid: str, visible: str | None) -> bool:
    """As CUDA reads its variable: indices or the beginnings of UUIDs, up to the first that is neither."""
    if visible is None:
        return True
    for word in (word.strip() for word in visible.split(",")):
        if word.isdecimal():
            if int(word) == index:
                return True
        elif not word.startswith(("GPU-", "MIG-")):
            return False
        elif uuid.startswith(word):
            return True
    return False


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value

"""GPUs that aren't there: a driver library that says what a test wants, found in the place of NVIDIA's."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

GB = 10**9


@dataclass(frozen=True)
class FakeGpu:
    """One GPU that the library tells of."""

    name: str
    memory_bytes: int


@dataclass(frozen=True)
class Driver:
    """The library, compiled into a folder."""

    folder: Path

    @property
    def environ(self) -> dict[str, str]:
        """What a process is started with that shall find it."""
        return {"LD_LIBRARY_PATH": str(self.folder)}

    def tell(self, held: Sequence[tuple[int, int, int]]) -> None:
        """Say who holds what from now on: GPU, process id and bytes of each."""
        fresh = self.folder / "held.new"
        fresh.write_text("".join(f"{index} {pid} {count}\n" for index, pid, count in held))
        fresh.replace(self.folder / "held")


def make_driver(folder: Path, gpus: Sequence[FakeGpu]) -> Driver:
    """A driver of these GPUs, which nobody uses yet. Takes a C compiler, as compiling modelgrid does."""
    folder.mkdir(parents=True)
    driver = Driver(folder)
    driver.tell([])
    rows = ", ".join(f'{{"{gpu.name}", "GPU-fake-{index}", {gpu.memory_bytes}ULL}}' for index, gpu in enumerate(gpus))
    source = folder / "nvml.c"
    source.write_text(_SOURCE.substitute(rows=rows, held=folder / "held"))
    # The loader looks for it by this name.
    subprocess.run(["cc", "-shared", "-fPIC", "-o", folder / "libnvidia-ml.so.1", source], check=True)
    return driver


_SOURCE = Template("""
#include <stdio.h>
#include <string.h>

typedef struct { const char *name, *uuid; unsigned long long bytes; } Gpu;
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned pid; unsigned long long bytes; unsigned instance, compute; } Process;

enum { SUCCESS = 0, INSUFFICIENT_SIZE = 7 };
static Gpu gpus[] = { $rows };

static int copy(const char *text, char *to, unsigned length) {
    if (strlen(text) >= length) return INSUFFICIENT_SIZE;
    strcpy(to, text);
    return SUCCESS;
}

int nvmlInitWithFlags(unsigned flags) { (void)flags; return SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int code) { (void)code; return "told so"; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = sizeof gpus / sizeof *gpus; return SUCCESS; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, Gpu **gpu) { *gpu = gpus + index; return SUCCESS; }
int nvmlDeviceGetName(Gpu *gpu, char *to, unsigned length) { return copy(gpu->name, to, length); }
int nvmlDeviceGetUUID(Gpu *gpu, char *to, unsigned length) { return copy(gpu->uuid, to, length); }

int nvmlDeviceGetMemoryInfo(Gpu *gpu, Memory *memory) {
    memory->total = memory->free = gpu->bytes;
    memory->used = 0;
    return SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(Gpu *gpu, unsigned *count, Process *found) {
    unsigned room = *count, index, pid;
    unsigned long long bytes;
    FILE *held = fopen("$held", "r");
    *count = 0;
    while (held && fscanf(held, "%u %u %llu", &index, &pid, &bytes) == 3) {
        if (gpus + index != gpu) continue;
        if (*count < room) found[*count] = (Process){ pid, bytes, 0, 0 };
        ++*count;
    }
    if (held) fclose(held);
    return *count > room ? INSUFFICIENT_SIZE : SUCCESS;
}
""")

"""Places for launches in tests: a share of main memory, or of a GPU."""

from __future__ import annotations

from modelgrid.spec import MAIN, Device, Machine, Place, Share

GIB = 1 << 30


def on_cpu(memory_bytes: int = 16 * GIB, torch_wheel: str | None = None) -> Place:
    return Place(
        Machine((Device(MAIN, memory_bytes, memory_bytes),), torch_wheel=torch_wheel), (Share(MAIN, memory_bytes),)
    )


def on_cuda(memory_bytes: int = 80 * GIB, total_bytes: int = 80 * GIB, gpus: int = 1) -> Place:
    devices = tuple(Device(f"gpu{number}", total_bytes, total_bytes, number) for number in range(gpus))
    main = Device(MAIN, 64 * GIB, 64 * GIB)
    shares = tuple(Share(device.name, memory_bytes) for device in devices)
    return Place(Machine((main, *devices), accelerator="cuda"), shares)

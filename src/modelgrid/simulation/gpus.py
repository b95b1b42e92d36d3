"""Well-known GPUs: memory, bandwidth and arithmetic, as their makers' data sheets say (dense, 16 bit, no sparsity)."""

from __future__ import annotations

from dataclasses import dataclass

from modelgrid.simulation.speed import Hardware

_GB = 10**9


@dataclass(frozen=True, slots=True)
class Gpu:
    """One kind of GPU."""

    name: str
    memory_bytes: int
    hardware: Hardware


def _gpu(name: str, gigabytes: float, gigabytes_s: float, teraflops: float) -> Gpu:
    return Gpu(name, int(gigabytes * _GB), Hardware(bandwidth=gigabytes_s * 1e9, flops=teraflops * 1e12))


GPUS = {
    gpu.name.lower(): gpu
    for gpu in (
        _gpu("B200", 180, 8000, 2250),
        _gpu("H200", 141, 4800, 989),
        _gpu("H100", 80, 3350, 989),  # SXM
        _gpu("A100", 80, 2039, 312),  # SXM
        _gpu("A100-40GB", 40, 1555, 312),
        _gpu("L40S", 48, 864, 362),
        _gpu("L4", 24, 300, 121),
        _gpu("A10", 24, 600, 125),
        _gpu("T4", 16, 320, 65),
        _gpu("RTX5090", 32, 1792, 209),
        _gpu("RTX4090", 24, 1008, 165),
        _gpu("RTX3090", 24, 936, 71),
    )
}

# One that nobody has measured: as fast as an A100 with its memory's size.
UNKNOWN = Hardware(bandwidth=1500e9, flops=300e12)

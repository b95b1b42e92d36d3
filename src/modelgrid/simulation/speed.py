"""How fast a replica is: what it costs to load it, to read a prompt, and to write an answer.

A model of a continuous-batching engine, as simple as tells the right order of things:

- Prompts are read one after the other, at a fixed rate of tokens. Who is read has its first token at the end.
- All who have theirs write together: one token each in a step, and a step takes longer the more they are.
- Beyond `most_running` requests wait inside the engine.
- A load is a fixed time (process, libraries, first request) and the bytes of the weights at a rate.

What it leaves out: reading and writing don't slow each other down (an engine that reads in chunks comes close to
that), loads at the same time don't share their disk, and models on one GPU don't share its arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass

WEIGHTS_SHARE = 0.8  # of a replica's memory, where nobody knows them; the rest is cache and overhead
_BYTES_A_PARAMETER = 2  # bfloat16
_CACHE_TOKENS_BY_WEIGHTS = 122_500  # weights / bytes of cache a token, of Llama 3.1 8B: 16.06 GB / 131,072 B
_TOKENS_A_REQUEST = 1_000  # in the cache, about: what the recorded conversations have
_BANDWIDTH_USED = 0.6  # of what the data sheet says, as engines reach it while they write
_FLOPS_USED = 0.4  # and while they read


@dataclass(frozen=True, slots=True)
class Speed:
    """The speed of one model's replicas."""

    load_s: float
    prefill_tokens_s: float  # prompt tokens a second
    step_s: float  # of one decode step for one request
    step_more_s: float  # that each further request adds to it
    most_running: int = 32
    stop_s: float = 1.0  # from the signal until its memory is free
    sleep_s: float = 1.0
    wake_s: float = 2.0

    def decode_s(self, running: int) -> float:
        """The time of one step for so many requests."""
        return self.step_s + self.step_more_s * (running - 1)


@dataclass(frozen=True, slots=True)
class Hardware:
    """What makes replicas fast: of one GPU, or of a machine's processors."""

    bandwidth: float  # bytes a second, of the memory that holds the weights
    flops: float  # dense, 16 bit
    load_rate: float = 2e9  # bytes a second from the disk into that memory: one NVMe disk
    load_fixed_s: float = 10.0  # imports, CUDA context, graphs, the first request


# Two channels of DDR5-5600, and eight cores with AVX-512: an ordinary server without a GPU.
CPU = Hardware(bandwidth=80e9, flops=1e12, load_rate=2e9, load_fixed_s=3.0)


def estimated_speed(memory_bytes: int, hardware: Hardware, gpus: int = 1, weights_bytes: int | None = None) -> Speed:
    """The speed of a replica of this size: weights are read once a step, prompts cost two operations a parameter, and
    a request's cache is read once a step. Over several GPUs both bandwidth and arithmetic add up."""
    weights = _weights(memory_bytes, weights_bytes)
    parameters = weights / _BYTES_A_PARAMETER
    bandwidth = hardware.bandwidth * _BANDWIDTH_USED * gpus
    flops = hardware.flops * _FLOPS_USED * gpus
    cache_bytes = weights / _CACHE_TOKENS_BY_WEIGHTS * _TOKENS_A_REQUEST
    room = (memory_bytes - weights) / cache_bytes
    return Speed(
        load_s=hardware.load_fixed_s + weights / hardware.load_rate,
        prefill_tokens_s=flops / (2 * parameters),
        step_s=weights / bandwidth,
        step_more_s=2 * parameters / flops + cache_bytes / bandwidth,
        most_running=max(1, min(256, int(room))),
    )


def _weights(memory_bytes: int, known_bytes: int | None) -> float:
    return min(known_bytes, memory_bytes) if known_bytes else memory_bytes * WEIGHTS_SHARE

"""What sleep leaves, and how long waking takes, where nobody has measured it; and the calls that vLLM has for both.

Level 1 keeps the weights in main memory, level 2 nothing. What is left on a GPU either way is not the allocator's: the
driver's context, compiled kernels and graphs.
"""

from __future__ import annotations

from typing import Final

from modelgrid.spec import Asleep, Machine, ModelSpec, Need, Post, SleepCalls

LEAST_KEPT_BYTES = 2 << 30  # of each GPU
KEPT_SHARE = 0.07  # one that had taken 89 GiB was reported to keep 5.8 of them
OWN_KEPT_SHARE = 0.1  # a program of the user's own: a guess until it has slept once

# From pinned main memory over PCIe 4 x16, less than half of what it can do; and from a disk that is no network's.
MAIN_BYTES_PER_S = 10e9
DISK_BYTES_PER_S = 1e9
WAKE_S = 1.0  # beside that: the calls, and the first request

SLEEP_TIMEOUT_S = 120.0  # the first sleep of one with 75 GiB of weights took 40 s: main memory is pinned for them
_SLOWEST_BYTES_PER_S = 1e9

PATHS: Final = ("/sleep", "/wake_up", "/is_sleeping", "/collective_rpc")  # nothing for callers
RELOAD: Final = Post("/collective_rpc", b'{"method": "reload_weights"}')


def asleep(model: ModelSpec, need: Need, weights_bytes: int | None, machine: Machine) -> Asleep | None:
    """What a replica of a model that may sleep keeps. `weights_bytes` None: nobody knows them, and they are at most
    what it takes."""
    if model.sleep is None:
        return None
    on_gpus = bool(machine.gpus) and need.gpus != 0
    taken_bytes = need.memory_bytes or sum(gpu.memory_bytes for gpu in machine.gpus[: need.count])
    moved_bytes = taken_bytes if weights_bytes is None else weights_bytes
    rate = MAIN_BYTES_PER_S if model.sleep == 1 else DISK_BYTES_PER_S
    return Asleep(
        share=_share(taken_bytes / max(1, need.count)) if on_gpus else OWN_KEPT_SHARE,
        main_bytes=moved_bytes if on_gpus and model.sleep == 1 else 0,
        wake_s=WAKE_S + moved_bytes / rate,
    )


def vllm_calls(model: ModelSpec) -> SleepCalls:
    """Level 2 wakes in steps: memory for the weights, the weights, and last the KV cache; so it says that it sleeps
    until all are done. Weights that are not read again are noise, and nothing would say so."""
    wake: tuple[Post, ...] = (Post("/wake_up"),)
    if model.sleep == 2:
        wake = (Post("/wake_up?tags=weights"), RELOAD, Post("/wake_up?tags=kv_cache"))
    return SleepCalls(Post(f"/sleep?level={model.sleep}"), wake, "/is_sleeping", _timeout_s(model))


def own_calls(model: ModelSpec) -> SleepCalls:
    """A program of the user's own that can sleep has vLLM's three paths, and reads its weights again by itself."""
    return SleepCalls(Post(f"/sleep?level={model.sleep}"), (Post("/wake_up"),), "/is_sleeping", _timeout_s(model))


def _share(each_bytes: float) -> float:
    return min(1.0, max(KEPT_SHARE, LEAST_KEPT_BYTES / max(1.0, each_bytes)))


def _timeout_s(model: ModelSpec) -> float:
    """`memory_bytes` of the specification that is launched is what was planned for the replica."""
    return min(model.start_timeout_s, SLEEP_TIMEOUT_S + (model.memory_bytes or 0) / _SLOWEST_BYTES_PER_S)

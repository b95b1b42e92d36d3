"""What pictures and films have in common: a pipeline of diffusers on its device, whose calls can be stopped."""

from __future__ import annotations

import argparse
import copy
import importlib
import inspect
import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from modelgrid.services.accelerator import usual_dtype
from modelgrid.services.errors import ServiceError
from modelgrid.services.work import Turn

SEED_LIMIT: Final = 2**63
PROMPT_LETTERS: Final = 32_000  # as OpenAI has it; how many tokens a model reads is another matter
STEPS_LIMIT: Final = 200

# What distilled models want, by what their names have in common; their model cards say so. Who draws in few steps
# draws badly in many, and guidance spoils what was learned with it.
_DISTILLED: Final[tuple[tuple[str, int, float], ...]] = (
    ("schnell", 4, 0.0),
    ("sdxl-turbo", 1, 0.0),
    ("sd-turbo", 1, 0.0),
    ("3.5-large-turbo", 4, 0.0),
    ("z-image-turbo", 9, 0.0),
)
_SCHNELL_TOKENS: Final = 256

Seen = Callable[[int, Any], None]  # a step's number, from 1, and its latents
Dice = Callable[[list[int]], list[Any]]  # seeds in, torch's generators out


class Offload(StrEnum):
    """What of a pipeline lies in main memory while it isn't used."""

    NONE = "none"
    MODEL = "model"  # one of its models at a time is on the device: less memory, a little slower
    LAYERS = "layers"  # one layer at a time: least memory, many times slower


@dataclass(frozen=True, slots=True)
class Setup:
    """How to run a pipeline, as the arguments say."""

    offload: Offload = Offload.NONE
    tiles: bool = False
    truncates: bool = False
    steps: int | None = None
    guidance: float | None = None


@dataclass(frozen=True, slots=True)
class Habits:
    """What a pipeline does unless a request says otherwise."""

    steps: int
    guidance: float | None  # None: it takes none
    guides_by: str = "guidance_scale"  # the argument that it is
    is_distilled: bool = False  # draws in so few steps that more or fewer make it worse
    tokens: int | None = None  # of a prompt; None: as many as its text encoders take


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that `setup` reads."""
    add = parser.add_argument
    lies = "of what isn't used, lies in main memory: nothing, its models, each layer of them (least memory, slowest)"
    add("--offload", type=Offload, choices=tuple(Offload), default=Offload.NONE, help=lies)
    add("--tiles", action="store_true", help="decode in tiles: less memory for large pictures")
    add("--truncate", action="store_true", help="shorten prompts that are too long for the model")
    usual = "where a request doesn't say; default: what suits the model"
    add("--steps", type=int, metavar="N", help=f"how many {usual}")
    add("--guidance", type=float, metavar="X", help=f"how much {usual}")


def setup(arguments: argparse.Namespace) -> Setup:
    """What they say."""
    return Setup(arguments.offload, arguments.tiles, arguments.truncate, arguments.steps, arguments.guidance)


def silence() -> None:
    """No bars in the log; and no warnings: the one about a prompt that is too long quotes it."""
    for name in ("transformers", "diffusers"):  # the second imports the first, which warns of what it misses
        logging: Any = importlib.import_module(f"{name}.utils.logging")
        logging.set_verbosity_error()
        logging.disable_progress_bar()


def load(
    where: str, device: str, setup: Setup, *, trusts: bool, dtypes: Callable[[str], dict[str, Any]] | None = None
) -> Any:
    """The pipeline of the weights at `where`, on its device. Takes as long as reading the weights. `dtypes` says what
    of it needs another type of number than the rest."""
    diffusers: Any = importlib.import_module("diffusers")
    dtype: Any = usual_dtype(device)
    if dtypes is not None and (others := dtypes(where)):
        dtype = {**others, "default": dtype}
    pipeline = diffusers.DiffusionPipeline.from_pretrained(where, dtype=dtype, trust_remote_code=trusts)
    pipeline.set_progress_bar_config(disable=True)
    if setup.tiles and hasattr(pipeline.vae, "enable_tiling"):
        pipeline.vae.enable_tiling()
    place(pipeline, device, setup.offload)
    return pipeline


def place(pipeline: Any, device: str, offload: Offload) -> None:
    """Put it on the device, or where it waits for being put there."""
    if offload is Offload.NONE or device == "cpu":
        pipeline.to(device)
    elif offload is Offload.MODEL:
        pipeline.enable_model_cpu_offload(device=device)
    else:
        pipeline.enable_sequential_cpu_offload(device=device)


def habits(pipeline: Any, named: str, setup: Setup) -> Habits:
    """What suits the pipeline: what its library has as defaults, what is known of distilled models, by the name
    `named` or by how they are made, and before all what the arguments say."""
    taken = parameters(pipeline)
    guides_by = "guidance_scale"
    if default(taken, "guidance_scale") is None and "true_cfg_scale" in taken:
        guides_by = "true_cfg_scale"  # Qwen-Image: the other one is for models that don't exist yet
    guidance = default(taken, guides_by)
    steps, tokens, is_distilled = int(default(taken, "num_inference_steps") or 50), None, False
    known = next((found for found in _DISTILLED if found[0] in named.lower()), None)
    if known is None and is_schnell(pipeline):
        known = _DISTILLED[0]
    if known is not None:
        (_, steps, guidance), is_distilled = known, True
    elif getattr(getattr(pipeline, "config", None), "is_distilled", False):  # FLUX.2 klein
        steps, guidance, is_distilled = 4, 1.0, True
    if is_schnell(pipeline):
        tokens = _SCHNELL_TOKENS
    if setup.steps is not None:
        steps = setup.steps
    if setup.guidance is not None:
        guidance = setup.guidance
    return Habits(steps, None if guidance is None else float(guidance), guides_by, is_distilled, tokens)


def is_schnell(pipeline: Any) -> bool:
    """FLUX that was distilled in its steps: it has no place for guidance."""
    config = getattr(getattr(pipeline, "transformer", None), "config", None)
    return type(pipeline).__name__.startswith("Flux") and getattr(config, "guidance_embeds", None) is False


def parameters(pipeline: Any) -> dict[str, inspect.Parameter]:
    """What a call of the pipeline takes."""
    return dict(inspect.signature(type(pipeline).__call__).parameters)


def default(taken: dict[str, inspect.Parameter], name: str) -> Any:
    """What one of them is where nobody says; None where it isn't taken, or has to be said."""
    return taken[name].default if name in taken and has_default(taken, name) else None


def has_default(taken: dict[str, inspect.Parameter], name: str) -> bool:
    """Whether one of them needn't be said."""
    return taken[name].default is not inspect.Parameter.empty


def call(pipeline: Any, turn: Turn, seen: Seen | None = None, **arguments: Any) -> Any:
    """Call the pipeline with those of the arguments that it takes and that are not None. `turn` hears of each step and
    ends it where nobody waits any more; so does `seen`, with the step's latents."""
    taken = parameters(pipeline)
    given = {name: value for name, value in arguments.items() if name in taken and value is not None}

    def at_step(index: int, latents: Any) -> None:
        turn.step(index + 1, getattr(pipeline, "num_timesteps", None))
        if seen is not None:
            seen(index + 1, latents)

    def on_step_end(_pipeline: Any, index: int, _time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        at_step(index, tensors.get("latents"))
        return {}

    if "callback_on_step_end" in taken:
        given["callback_on_step_end"] = on_step_end
    elif "callback" in taken:  # the older way, which some pipelines still have
        given["callback"] = lambda index, _time, latents: at_step(index, latents)
    return pipeline(**given)


def generators(seeds: list[int]) -> list[Any]:
    """One for each picture, so that it doesn't depend on what is drawn beside it. On the CPU: the same everywhere."""
    torch: Any = importlib.import_module("torch")
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def new_seed() -> int:
    """One that nobody asked for. Half the range, so that those which follow it are seeds as well."""
    return random.SystemRandom().randrange(SEED_LIMIT // 2)


class Reader:
    """Knows how long a prompt a pipeline reads. Its tokenizers are its own: one can't serve two threads."""

    def __init__(self, pipeline: Any, habits: Habits) -> None:
        longest = habits.tokens or default(parameters(pipeline), "max_sequence_length")
        self._readers: list[tuple[Any, int]] = []
        for name in ("tokenizer", "tokenizer_2", "tokenizer_3", "tokenizer_4"):
            tokenizer = getattr(pipeline, name, None)
            if callable(tokenizer) and hasattr(tokenizer, "model_max_length"):
                limit = min(tokenizer.model_max_length, longest or tokenizer.model_max_length)
                self._readers.append((copy.deepcopy(tokenizer), limit))

    def tokens(self, prompt: str) -> int:
        """How many the text encoder that reads most makes of it; 0 where there is none that can be asked."""
        return self._count(*self._widest(), prompt) if self._readers else 0

    def check(self, prompt: str, param: str = "prompt") -> None:
        """Raises ServiceError where no text encoder would read all of it: the library leaves the rest out silently."""
        if not self._readers:
            return
        tokenizer, limit = self._widest()
        count = self._count(tokenizer, limit, prompt)
        if count > limit:
            raise ServiceError(
                400,
                f"cannot read all of '{param}': it has {count} tokens, the model reads {limit} "
                "(shorten it, or start the engine with --truncate)",
                param=param,
                code="context_length_exceeded",
            )

    def _widest(self) -> tuple[Any, int]:
        return max(self._readers, key=lambda reader: reader[1])

    def _count(self, tokenizer: Any, _limit: int, prompt: str) -> int:
        return len(tokenizer(prompt)["input_ids"])

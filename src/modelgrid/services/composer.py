"""What composes: MusicGen by transformers, mono or stereo."""

from __future__ import annotations

import copy
import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from modelgrid.services.accelerator import usual_dtype
from modelgrid.services.audio import Samples
from modelgrid.services.work import Turn

COLDEST: Final = 0.01  # below it nothing is left to be drawn, and numbers divided by it are soon infinite
LONGEST_S: Final = 30.0  # what MusicGen has learned; it takes to wandering after that


@dataclass(frozen=True, slots=True)
class Manner:
    """How to compose. Songs of one manner can be computed together. None: as the model has it."""

    duration_s: float
    guidance: float | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None


class Composer(Protocol):
    """A model that makes music. `compose` is used by one thread, `count` by another."""

    rate: int  # of what it makes, in samples a second
    longest_s: float
    prompt_limit: int  # tokens

    def count(self, prompt: str) -> int:
        """How many tokens it reads in `prompt`."""
        ...

    def compose(self, prompts: Sequence[str], manner: Manner, seed: int | None, turn: Turn) -> list[Samples]:
        """A song for each prompt. Blocks as long as it takes, or until all callers have left."""
        ...


def load_composer(where: str, device: str, trusts: bool) -> Composer:
    """The MusicGen at `where`, a path or a hub's id. Raises what transformers raises, and ValueError."""
    transformers: Any = importlib.import_module("transformers")
    transformers.utils.logging.disable_progress_bar()  # for a log they are noise
    config = transformers.AutoConfig.from_pretrained(where, trust_remote_code=trusts)
    if config.model_type != "musicgen":
        raise ValueError(f"{where} is a {config.model_type}: MusicGen is what can be served here")
    model = transformers.MusicgenForConditionalGeneration.from_pretrained(where, dtype=usual_dtype(device))
    model.audio_encoder.float()  # sixteen bits are enough to think, and not to sound
    return Musicgen(model.to(device).eval(), transformers.AutoProcessor.from_pretrained(where))


class Musicgen:
    """`MusicgenForConditionalGeneration` and its processor."""

    longest_s = LONGEST_S

    def __init__(self, model: Any, processor: Any) -> None:
        codec, decoder = model.config.audio_encoder, model.config.decoder
        self._model = model
        self._processor = processor
        self._tokenizer = copy.deepcopy(processor.tokenizer)  # one tokenizer can't serve two threads
        self._frame_rate: int = codec.frame_rate
        # Codebooks are delayed against each other by a frame each, so the last frames are short of some of them.
        self._delay: int = decoder.num_codebooks // decoder.audio_channels - 1
        self.rate: int = codec.sampling_rate
        self.prompt_limit: int = self._tokenizer.model_max_length

    def count(self, prompt: str) -> int:
        return len(self._tokenizer(prompt)["input_ids"])

    def compose(self, prompts: Sequence[str], manner: Manner, seed: int | None, turn: Turn) -> list[Samples]:
        torch: Any = importlib.import_module("torch")
        steps = math.ceil(manner.duration_s * self._frame_rate) + self._delay
        inputs = self._processor(text=list(prompts), padding=True, return_tensors="pt").to(self._model.device)
        torch.manual_seed(seed) if seed is not None else torch.seed()
        with torch.inference_mode():
            songs = self._model.generate(
                **inputs, **settings(manner), max_new_tokens=steps, stopping_criteria=[_counting(turn, steps)]
            )
        length = round(manner.duration_s * self.rate)
        return list(songs[:, :, :length].float().cpu().numpy())


def settings(manner: Manner) -> dict[str, Any]:
    """As transformers names them. At temperature 0, or next to it, the likeliest codes are taken: nothing is drawn."""
    draws = manner.temperature is None or manner.temperature >= COLDEST
    told = {"do_sample": draws, "guidance_scale": manner.guidance}
    if draws:
        told |= {"temperature": manner.temperature, "top_k": manner.top_k, "top_p": manner.top_p}
    return {name: value for name, value in told.items() if value is not None}


def _counting(turn: Turn, steps: int) -> Callable[..., bool]:
    """A criterion of transformers that never ends the work by itself, and tells `turn` of each step."""
    done = 0

    def ends(_ids: Any, _scores: Any, **_: Any) -> bool:
        nonlocal done
        done += 1
        turn.step(done, steps)
        return False

    return ends

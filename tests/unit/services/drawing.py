"""Pipelines of diffusers' shape, for tests without it: what they were called with is kept."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, BinaryIO


class Picture:
    """What a pipeline draws: it remembers what it was drawn from, and is saved as that."""

    def __init__(self, says: str, width: int, height: int) -> None:
        self.says = says
        self.size = (width, height)

    def save(self, out: BinaryIO, format: str, **options: int) -> None:
        out.write(" ".join([format, self.says, *map(str, options.values())]).encode())


class Tokenizer:
    """Words are tokens; one is added at each end, as models do."""

    def __init__(self, limit: int) -> None:
        self.model_max_length = limit

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [0, *range(len(text.split())), 1]}


class DrawingPipeline:
    """Draws from text. `gate` holds it before its first step; `room` is how many pictures its memory has room for."""

    vae_scale_factor = 8
    transformer = SimpleNamespace(config=SimpleNamespace(guidance_embeds=True))
    image_processor = SimpleNamespace(config=SimpleNamespace(vae_scale_factor=16))

    def __init__(self) -> None:
        self.tokenizer = Tokenizer(77)
        self.tokenizer_2 = Tokenizer(512)
        self.calls: list[dict[str, Any]] = []
        self.steps: list[int] = []
        self.num_timesteps = 0
        self.room = 1000
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        self.at_step: Callable[[int], None] = self.steps.append

    def __call__(
        self,
        prompt: list[str],
        negative_prompt: list[str] | None = None,
        width: int | None = None,
        height: int | None = None,
        num_inference_steps: int = 28,
        guidance_scale: float = 3.5,
        max_sequence_length: int = 20,
        generator: list[int] | None = None,
        callback_on_step_end: Callable[..., dict[str, Any]] | None = None,
    ) -> SimpleNamespace:
        self.calls.append({name: value for name, value in locals().items() if name not in ("self", "generator")})
        self.entered.set()
        assert self.gate.wait(20)
        if len(prompt) > self.room:
            raise MemoryError("no room")
        self.num_timesteps = num_inference_steps
        assert callback_on_step_end is not None
        for step in range(num_inference_steps):
            self.at_step(step + 1)
            callback_on_step_end(self, step, 1000 - step, {"latents": f"noise {step}"})
        seeds = generator or []
        says = [f"{text} {seed}" for text, seed in zip(prompt, seeds, strict=True)]
        return SimpleNamespace(images=[Picture(text, width or 1024, height or 1024) for text in says])


class ChangingPipeline:
    """Changes a picture, and gives so much of it up."""

    vae_scale_factor = 8
    config = SimpleNamespace(is_distilled=True)

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def __call__(
        self,
        image: Any,
        prompt: str,
        strength: float = 0.6,
        num_inference_steps: int = 50,
        max_area: int = 1 << 20,
        generator: int | None = None,
    ) -> SimpleNamespace:
        self.calls.append({name: value for name, value in locals().items() if name != "self"})
        return SimpleNamespace(images=[Picture(f"{prompt} {generator}", *image.size)])


class FilmingPipeline:
    """Makes films. It tells its steps to `at_step`, which may hold it or break it."""

    vae_spatial_compression_ratio = 32
    vae_temporal_compression_ratio = 8

    def __init__(self) -> None:
        self.tokenizer = Tokenizer(128)
        self.calls: list[dict[str, Any]] = []
        self.steps: list[int] = []
        self.num_timesteps = 0
        self.at_step: Callable[[int], None] = self.steps.append

    def __call__(
        self,
        prompt: str,
        height: int = 512,
        width: int = 704,
        num_frames: int = 161,
        frame_rate: int = 25,
        num_inference_steps: int = 50,
        guidance_scale: float = 3,
        generator: int | None = None,
        callback_on_step_end: Callable[..., dict[str, Any]] | None = None,
    ) -> SimpleNamespace:
        self.calls.append({name: value for name, value in locals().items() if name not in ("self", "generator")})
        self.num_timesteps = num_inference_steps
        assert callback_on_step_end is not None
        for step in range(num_inference_steps):
            self.at_step(step + 1)
            callback_on_step_end(self, step, 1000 - step, {"latents": f"noise {step}"})
        return SimpleNamespace(frames=[[Picture(f"{prompt} {generator}", width, height)] * num_frames])

"""Draws: a pipeline for text, and those that share its weights for pictures that are given."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from modelgrid.services import diffusion, pictures
from modelgrid.services.accelerator import give_back, is_out_of_memory
from modelgrid.services.diffusion import Dice, Habits, Seen, Setup, generators
from modelgrid.services.errors import ServiceError
from modelgrid.services.pictures import Size, Sizes
from modelgrid.services.work import Turn

_SEVERAL: Final = ("QwenImageEditPlus", "Flux2")  # pipelines that take several pictures at once


@dataclass(frozen=True, slots=True)
class Wish:
    """What a request asks for: one picture for each seed."""

    prompt: str
    seeds: tuple[int, ...]
    size: Size | None  # None: as the model likes it
    steps: int
    guidance: float | None
    negative: str | None = None

    @property
    def kind(self) -> tuple[object, ...]:
        """Wishes of one kind can be drawn in one call."""
        return (self.size, self.steps, self.guidance, self.negative is None)


@dataclass(frozen=True, slots=True)
class Given:
    """Pictures to change: the first where the model takes one, of the size to be drawn. What the mask has in white is
    to be drawn anew."""

    images: tuple[Any, ...]
    mask: Any = None
    strength: float | None = None


@dataclass(frozen=True, slots=True)
class _One:
    """One picture to draw."""

    wish: Wish
    seed: int


class Painter:
    """A pipeline of diffusers and its habits. Its methods block, and are one thread's."""

    def __init__(
        self, pipeline: Any, habits: Habits, setup: Setup, device: str, together: int, dice: Dice = generators
    ) -> None:
        self._pipeline = pipeline
        self._dice = dice
        self._setup = setup
        self._device = device
        self._together = together  # pictures in one call
        self._kin: dict[str, Any] = {}
        self.habits = habits
        self.draws_from_text = not _needs(pipeline, "image")

    def sizes(self, pixels: int) -> Sizes:
        """What it draws, up to so many pixels."""
        factor = getattr(self._pipeline, "vae_scale_factor", 8)
        processor = getattr(getattr(self._pipeline, "image_processor", None), "config", None)
        multiple = max(factor, getattr(processor, "vae_scale_factor", factor))
        patch = getattr(self._pipeline, "patch_size", None)  # of Stable Diffusion 3, whose processor doesn't know it
        if multiple == factor and isinstance(patch, int):
            multiple *= patch
        return Sizes(multiple, pixels)

    def draw(self, turn: Turn, wishes: Sequence[Wish]) -> list[list[Any]]:
        """The pictures of each wish; all are of one kind."""
        ones = [_One(wish, seed) for wish in wishes for seed in wish.seeds]
        drawn: list[Any] = []
        while len(drawn) < len(ones):
            drawn += self._draw_some(turn, ones[len(drawn) : len(drawn) + self._together])
        made = iter(drawn)
        return [[next(made) for _ in wish.seeds] for wish in wishes]

    def sketch(self, turn: Turn, wish: Wish, seed: int, seen: Seen) -> Any:
        """One picture, whose latents are `seen` at each step."""
        return self._call(turn, [_One(wish, seed)], seen)[0]

    def change(self, turn: Turn, wish: Wish, given: Given) -> list[Any]:
        """The pictures of a wish, made from those given."""
        pipeline = self._for_masks() if given.mask is not None else self._for_images()
        size = wish.size
        assert size is not None
        drawn = []
        for seed in wish.seeds:
            image: Any = list(given.images) if len(given.images) > 1 else given.images[0]
            (made,) = diffusion.call(
                pipeline,
                turn,
                prompt=wish.prompt,
                negative_prompt=self._negative(wish),
                image=image,
                mask_image=given.mask,
                strength=given.strength,
                width=size.width,
                height=size.height,
                max_area=size.width * size.height,
                num_inference_steps=wish.steps,
                generator=self._dice([seed])[0],
                **self._guided(wish),
            ).images
            if given.mask is not None:
                made = pictures.kept_outside(made.resize(given.images[0].size), given.images[0], given.mask)
            drawn.append(made)
        return drawn

    def strength(self, images: int, *, masked: bool) -> float | None:
        """How much of a picture the model gives up unless told otherwise; None where it knows no such thing. Raises
        ServiceError where it can't change so many pictures, or can't at all."""
        pipeline = self._for_masks() if masked else self._for_images()
        if images > 1 and not type(pipeline).__name__.startswith(_SEVERAL):
            said = f"cannot use {images} pictures: the model takes one (send the others in requests of their own)"
            raise ServiceError(400, said, param="image", code="too_many_images")
        usual: float | None = diffusion.default(diffusion.parameters(pipeline), "strength")
        return usual

    def preview(self, latents: Any, size: Size | None) -> Any:
        """What a picture looks like so far; None where it isn't known how the model's latents are to be read."""
        pipeline = self._pipeline
        if hasattr(pipeline, "_unpack_latents"):
            if size is None or "vae_scale_factor" not in inspect.signature(pipeline._unpack_latents).parameters:
                return None
            latents = pipeline._unpack_latents(latents, size.height, size.width, pipeline.vae_scale_factor)
        config = pipeline.vae.config
        scaling = getattr(config, "scaling_factor", None)
        if latents.ndim != 4 or scaling is None or getattr(config, "latents_mean", None) is not None:
            return None
        torch: Any = importlib.import_module("torch")
        with torch.no_grad():
            scaled = latents / scaling + (getattr(config, "shift_factor", None) or 0.0)
            decoded = pipeline.vae.decode(scaled.to(pipeline.vae.dtype), return_dict=False)[0]
            return pipeline.image_processor.postprocess(decoded, output_type="pil")[0]

    def _draw_some(self, turn: Turn, ones: Sequence[_One]) -> list[Any]:
        """In one call; where memory is too small for that, in calls of half as many from here on."""
        try:
            return self._call(turn, ones)
        except Exception as error:
            if len(ones) == 1 or not is_out_of_memory(error):
                raise
        give_back()  # out of the handler: the exception's frames hold what takes the memory
        self._together = -(-len(ones) // 2)
        return [
            made
            for start in range(0, len(ones), self._together)
            for made in self._draw_some(turn, ones[start : start + self._together])
        ]

    def _call(self, turn: Turn, ones: Sequence[_One], seen: Seen | None = None) -> list[Any]:
        wish = ones[0].wish
        negatives = [self._negative(one.wish) for one in ones]
        drawn: list[Any] = diffusion.call(
            self._pipeline,
            turn,
            seen,
            prompt=[one.wish.prompt for one in ones],
            negative_prompt=None if negatives[0] is None else negatives,
            width=wish.size.width if wish.size else None,
            height=wish.size.height if wish.size else None,
            max_area=wish.size.width * wish.size.height
            if wish.size
            else None,  # else FLUX Kontext takes only the shape
            num_inference_steps=wish.steps,
            generator=self._dice([one.seed for one in ones]),
            max_sequence_length=self.habits.tokens,
            **self._guided(wish),
        ).images
        return drawn

    def _negative(self, wish: Wish) -> str | None:
        if wish.negative is None and self.habits.guides_by == "true_cfg_scale":
            return " "  # without one it doesn't guide
        return wish.negative

    def _guided(self, wish: Wish) -> dict[str, Any]:
        return {self.habits.guides_by: wish.guidance}

    def _for_images(self) -> Any:
        if _takes_images(self._pipeline):
            return self._pipeline
        return self._relative("AutoPipelineForImage2Image", "change a picture")

    def _for_masks(self) -> Any:
        return self._relative("AutoPipelineForInpainting", "change a part of a picture")

    def _relative(self, family: str, what: str) -> Any:
        """The pipeline of that family on the same weights."""
        if family not in self._kin:
            diffusers: Any = importlib.import_module("diffusers")
            try:
                made = getattr(diffusers, family).from_pipe(self._pipeline)
            except ValueError:
                name = type(self._pipeline).__name__
                said = f"cannot {what}: diffusers has no pipeline for it beside {name} (use another model)"
                raise ServiceError(400, said, code="unsupported_by_model") from None
            made.set_progress_bar_config(disable=True)
            diffusion.place(made, self._device, self._setup.offload)
            self._kin[family] = made
        return self._kin[family]


def _takes_images(pipeline: Any) -> bool:
    return "image" in diffusion.parameters(pipeline)


def _needs(pipeline: Any, name: str) -> bool:
    """Whether it can't be called without: Qwen-Image-Edit has a default for `image`, and fails with it."""
    taken = diffusion.parameters(pipeline)
    return name in taken and (not diffusion.has_default(taken, name) or "Edit" in type(pipeline).__name__)

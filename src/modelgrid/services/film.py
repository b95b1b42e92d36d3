"""Films: a pipeline of diffusers that draws many pictures in a row, and the mp4 that is made of them."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from modelgrid.services import diffusion
from modelgrid.services.diffusion import Dice, Habits, generators
from modelgrid.services.pictures import Size, Sizes
from modelgrid.services.work import Turn

# Pictures a second that models were taught with, by how their pipelines are called. Where a pipeline is told
# (`frame_rate`, `fps`), its own default counts.
_RATES: Final[tuple[tuple[str, float], ...]] = (
    ("AnimateDiff", 8),
    ("Allegro", 15),
    ("CogVideoX", 8),
    ("HunyuanVideo", 24),
    ("Kandinsky", 24),
    ("Latte", 8),
    ("Mochi", 30),
    ("SanaVideo", 16),
    ("SkyReels", 24),
    ("Wan", 16),
)
_USUAL_RATE: Final = 16.0
_QUALITY: Final = "18"  # x264's CRF: one can't see what is lost
_IN_FULL: Final = ("Wan", "SkyReels")  # whose VAE shows what a narrower type loses; the rest may be narrow


@dataclass(frozen=True, slots=True)
class Shot:
    """What a film is to be."""

    prompt: str
    seconds: float
    seed: int
    steps: int
    guidance: float | None
    size: Size | None = None  # None: as the model likes it
    negative: str | None = None
    image: Any = None  # what it begins with


@dataclass(frozen=True, slots=True)
class Footage:
    """The pictures of a film, and how many are shown in a second."""

    pictures: Sequence[Any]
    rate: float

    @property
    def size(self) -> Size:
        return Size(*self.pictures[0].size)


Write = Callable[[Footage, Path], None]


class Camera:
    """A pipeline and its habits. `shoot` blocks, and is one thread's."""

    def __init__(self, pipeline: Any, habits: Habits, rate: float | None = None, dice: Dice = generators) -> None:
        self._pipeline = pipeline
        self._dice = dice
        self._taken = diffusion.parameters(pipeline)
        self.habits = habits
        self.rate = rate or self._usual_rate()
        self.takes_image = "image" in self._taken
        self.needs_image = self.takes_image and not diffusion.has_default(self._taken, "image")

    def sizes(self, pixels: int) -> Sizes:
        """What it draws, up to so many pixels."""
        names = ("vae_scale_factor_spatial", "vae_spatial_compression_ratio", "vae_scale_factor")
        factor = _first(self._pipeline, names, 8)
        config = getattr(getattr(self._pipeline, "transformer", None), "config", None)
        patch = getattr(config, "patch_size", 1)
        patch = patch[-1] if isinstance(patch, list | tuple) else patch
        return Sizes(max(2, factor * (patch or 1)), pixels)  # two: half as many colours a side as there are pixels

    @property
    def usual_size(self) -> Size | None:
        """What it draws unless told otherwise; None where only the pipeline knows."""
        width, height = (diffusion.default(self._taken, name) for name in ("width", "height"))
        return Size(width, height) if width and height else None

    def frames(self, seconds: float) -> int:
        """How many pictures to ask for: one, and as many of the groups that the model draws as cover the time."""
        names = ("vae_scale_factor_temporal", "vae_temporal_compression_ratio", "vae_temporal_scale_factor")
        group = _first(self._pipeline, names, 4)
        return max(0, math.ceil((self.shown(seconds) - 1) / group)) * group + 1

    def shown(self, seconds: float) -> int:
        """How many pictures are shown in that time."""
        return max(1, round(seconds * self.rate))

    def shoot(self, turn: Turn, shot: Shot, told: Callable[[float], None]) -> Footage:
        """The film. `told` hears how much of it is done, from 0 to 1, as often as `turn` does."""
        frames = self.frames(shot.seconds)

        def seen(_step: int, _latents: Any) -> None:
            told((turn.done or 0) / (turn.of or shot.steps))

        made = diffusion.call(
            self._pipeline,
            turn,
            seen,
            prompt=shot.prompt,
            negative_prompt=shot.negative,
            image=shot.image,
            width=shot.size.width if shot.size else None,
            height=shot.size.height if shot.size else None,
            num_frames=frames,
            frames=frames,  # as one family calls it
            frame_rate=self.rate,
            fps=int(self.rate),
            num_inference_steps=shot.steps,
            generator=self._dice([shot.seed])[0],
            output_type="pil",
            **{self.habits.guides_by: shot.guidance},
        )
        return Footage(made.frames[0][: self.shown(shot.seconds)], self.rate)

    def _usual_rate(self) -> float:
        told = diffusion.default(self._taken, "frame_rate") or diffusion.default(self._taken, "fps")
        if told:
            return float(told)
        name = type(self._pipeline).__name__
        return next((rate for start, rate in _RATES if name.startswith(start)), _USUAL_RATE)


def dtypes(where: str) -> dict[str, Any]:
    """The parts of the model at `where` that need a wider type than the rest."""
    diffusers: Any = importlib.import_module("diffusers")
    torch: Any = importlib.import_module("torch")
    name = str(diffusers.DiffusionPipeline.load_config(where).get("_class_name"))
    return {"vae": torch.float32} if name.startswith(_IN_FULL) else {}


def write_mp4(footage: Footage, path: Path) -> None:
    """Write it as every player reads it: H.264, half the colours, its index at the beginning. Blocks."""
    av: Any = importlib.import_module("av")
    options = {"movflags": "+faststart"}
    with av.open(str(path), "w", format="mp4", options=options) as container:
        stream = container.add_stream("libx264", rate=Fraction(footage.rate).limit_denominator(1001))
        stream.width, stream.height = footage.size.width, footage.size.height
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": _QUALITY}
        for picture in footage.pictures:
            for packet in stream.encode(av.VideoFrame.from_image(picture)):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def _first(pipeline: Any, names: Sequence[str], otherwise: int) -> int:
    """The first of these numbers that the pipeline knows."""
    found = (getattr(pipeline, name, None) for name in names)
    return next((number for number in found if isinstance(number, int)), otherwise)

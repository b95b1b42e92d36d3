"""Pictures as bytes: what callers send is read, what was drawn is written. By Pillow."""

from __future__ import annotations

import base64
import importlib
import io
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, BinaryIO, Final

from modelgrid.services.errors import ServiceError

SIDE_MIN: Final = 64  # pixels; below that pipelines draw nothing that one could see
GIVEN_PIXELS: Final = 64 << 20  # of a picture that is sent: what a few kB may claim to be is measured before it is read
_READ: Final = ("PNG", "JPEG", "WEBP")  # Pillow reads forty more, one of them by running Ghostscript
_SIZE: Final = re.compile(r"(\d{1,5})x(\d{1,5})")


class Format(StrEnum):
    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"

    @property
    def media_type(self) -> str:
        return f"image/{self}"


@dataclass(frozen=True, slots=True)
class Size:
    """Of a picture, in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes that a model draws."""

    multiple: int  # of which both sides have to be one
    pixels: int  # at most

    def read(self, text: str) -> Size | None:
        """``1024x768``; None for ``auto``. Raises ServiceError where it is no size, or none of these."""
        if text == "auto":
            return None
        match = _SIZE.fullmatch(text)
        if match is None:
            raise _unsupported(f"cannot read the size {text[:40]!r}: write WIDTHxHEIGHT, such as 1024x1024, or auto")
        size = Size(int(match[1]), int(match[2]))
        if size.width % self.multiple or size.height % self.multiple:
            near = f"{self._near(size.width)}x{self._near(size.height)}"
            raise _unsupported(f"cannot draw {size}: this model draws multiples of {self.multiple} (try {near})")
        if min(size.width, size.height) < SIDE_MIN:
            raise _unsupported(f"cannot draw {size}: a side has {SIDE_MIN} pixels at least")
        if size.width * size.height > self.pixels:
            raise _unsupported(f"cannot draw {size}: {self.pixels} pixels in all are the most that is drawn")
        return size

    def like(self, width: int, height: int) -> Size:
        """The largest of these that has the shape of a picture and isn't larger."""
        shrunk = min(1.0, (self.pixels / (width * height)) ** 0.5)
        wide, high = self._down(width * shrunk), self._down(height * shrunk)
        # A side that was widened to the least there is takes from the other.
        return Size(min(wide, self._down(self.pixels / high)), min(high, self._down(self.pixels / wide)))

    def _near(self, side: int) -> int:
        return max(self._least, round(side / self.multiple) * self.multiple)

    def _down(self, side: float) -> int:
        return max(self._least, int(side) // self.multiple * self.multiple)

    @property
    def _least(self) -> int:
        return -(-SIDE_MIN // self.multiple) * self.multiple


def read(file: BinaryIO, param: str) -> Any:
    """The picture in `file`, upright, as Pillow has it. Blocks. Raises ServiceError where it is none."""
    pillow: Any = importlib.import_module("PIL.Image")
    turning: Any = importlib.import_module("PIL.ImageOps")
    try:
        picture = pillow.open(file, formats=_READ)
        if picture.width * picture.height > GIVEN_PIXELS:
            said = f"cannot read '{param}': {picture.width}x{picture.height} are more than {GIVEN_PIXELS} pixels"
            raise ServiceError(400, said, param=param, code="image_too_large")
        picture.load()  # so that the file may be closed
        turning.exif_transpose(picture, in_place=True)
        return picture
    except (OSError, ValueError, SyntaxError, pillow.DecompressionBombError):
        said = f"cannot read '{param}': it is no picture, or a broken one (send png, jpeg or webp)"
        raise ServiceError(400, said, param=param, code="invalid_image_file") from None


def fitted(picture: Any, size: Size) -> Any:
    """In colours, of that size, cut at its edges where its shape is another."""
    fitting: Any = importlib.import_module("PIL.ImageOps")
    colours = "RGBA" if "A" in picture.getbands() else "RGB"
    whole = picture if picture.mode == colours else picture.convert(colours)
    return _opaque(fitting.fit(whole, (size.width, size.height)))  # small first: each copy of it is as large as it


def to_change(mask: Any, size: Size) -> Any:
    """What a mask says is to be drawn anew, in white: its transparent part, as OpenAI has it, or the white part of a
    mask that has no transparency, as everybody else has it."""
    fitting: Any = importlib.import_module("PIL.ImageOps")
    light = fitting.invert(mask.getchannel("A")) if "A" in mask.getbands() else mask.convert("L")
    return fitting.fit(light, (size.width, size.height)).point(lambda value: 255 if value >= 128 else 0)


def kept_outside(drawn: Any, original: Any, mask: Any) -> Any:
    """`drawn` where the mask is white, `original` to the pixel elsewhere."""
    pillow: Any = importlib.import_module("PIL.Image")
    return pillow.composite(drawn, original, mask)


def encode(picture: Any, format: Format, compression: int) -> str:
    """In base64. `compression` from 0 to 100 is the quality of what loses some. Blocks."""
    out = io.BytesIO()
    options: dict[str, Any] = {} if format is Format.PNG else {"quality": compression}
    picture.save(out, format=format.upper(), **options)
    return base64.b64encode(out.getbuffer()).decode()


def _opaque(picture: Any) -> Any:
    """Without its transparency: on white."""
    if picture.mode == "RGB":
        return picture
    pillow: Any = importlib.import_module("PIL.Image")
    ground = pillow.new("RGBA", picture.size, "white")
    return pillow.alpha_composite(ground, picture).convert("RGB")


def _unsupported(message: str) -> ServiceError:
    return ServiceError(400, message, param="size", code="unsupported_size")

"""Text of a request that any tokenizer can read: JSON can write half of a character, and most of them fail at it."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator


def whole(text: str) -> str:
    """`text`. Raises ValueError where half of a character stands in it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = f"U+{ord(text[error.start]):04X}"
        raise ValueError(f"character {error.start} is {half}, one half of a pair without the other") from None
    return text


Written = Annotated[str, AfterValidator(whole)]

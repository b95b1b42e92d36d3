"""What holds a secret, as names go, and what is shown in its place."""

from __future__ import annotations

import re
from typing import Final

MASK: Final = "********"

# Whole words: "tokens" and "tokenizer" are none, "key_id" names one and may stay.
_SECRET_NAME = re.compile(
    r"(?:.*[_-])?(?:api[_-]?key|key|token|secret|credentials?|authorization|cookie)|.*(?:password|passwd|passphrase)",
    re.IGNORECASE | re.DOTALL,
)


def is_secret_name(name: str) -> bool:
    """Whether what is called so (a field, a variable, an option) is a secret whatever it looks like."""
    return _SECRET_NAME.fullmatch(name) is not None

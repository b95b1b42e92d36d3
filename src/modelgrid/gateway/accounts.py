"""What a worker's callers have used, since it began: by key, model and operation. The controller writes it down."""

from __future__ import annotations

from itertools import islice
from typing import Final

from modelgrid.spec.usage import Counts, Used

CALLER_LEFT: Final = 499  # the status of a request whose caller left before its answer's end: nginx's number for it
OTHER: Final = "other"  # stands for the keys that are beyond the limit

ACCOUNTS: Final = 50_000  # for more, the key is "other"
ACCOUNTS_A_LOAD: Final = 500  # so that a Load stays a line of some 500 KB; the rest comes with the next one


class Account:
    """One key's of one model and operation. Made by `Accounts.of`."""

    __slots__ = (
        "_cached",
        "_changed",
        "_errors",
        "_estimated_input",
        "_estimated_output",
        "_images",
        "_input",
        "_is_changed",
        "_left",
        "_media_s",
        "_output",
        "_requests",
        "_seconds",
        "key",
        "model",
        "operation",
    )

    def __init__(self, key: str, model: str, operation: str, changed: list[Account]) -> None:
        self.key = key
        self.model = model
        self.operation = operation
        self._changed = changed
        self._is_changed = False
        self._requests = self._errors = self._left = 0
        self._input = self._output = self._cached = 0
        self._estimated_input = self._estimated_output = 0
        self._seconds = self._media_s = 0.0
        self._images = 0

    def close(self, status: int, duration_s: float, is_broken: bool = False) -> None:
        """A request has ended, once for each: see `Meter.done`. `is_broken`: its answer ended before its end."""
        if not self._is_changed:
            self._is_changed = True
            self._changed.append(self)
        self._requests += 1
        self._seconds += duration_s
        if status >= 400 or is_broken:
            if status == CALLER_LEFT:
                self._left += 1
            else:
                self._errors += 1

    def spend(self, input_tokens: int, output_tokens: int, cached_tokens: int) -> None:
        """Tokens that an engine told of, of a request that is closed in the same turn."""
        self._input += input_tokens
        self._output += output_tokens
        self._cached += cached_tokens

    def estimate(self, input_tokens: int, output_tokens: int) -> None:
        """Tokens that nobody told of."""
        self._estimated_input += input_tokens
        self._estimated_output += output_tokens

    def make(self, images: int, media_s: float) -> None:
        """Pictures, and seconds of sound or film."""
        self._images += images
        self._media_s += media_s

    def settle(self) -> Used:
        """All that it has counted; it was told."""
        self._is_changed = False
        return self.used()

    def used(self) -> Used:
        """All that it has counted."""
        counts = Counts(
            self._requests,
            self._errors,
            self._left,
            round(self._seconds, 6),
            self._input,
            self._output,
            self._cached,
            self._estimated_input,
            self._estimated_output,
            self._images,
            round(self._media_s, 3),
        )
        return Used(self.key, self.model, self.operation, counts)

    def touch(self) -> None:
        """Be told again."""
        if not self._is_changed:
            self._is_changed = True
            self._changed.append(self)


class Accounts:
    """One worker's, of all keys."""

    def __init__(self, limit: int = ACCOUNTS) -> None:
        self._limit = limit
        self._accounts: dict[tuple[str, str, str], Account] = {}
        self._changed: list[Account] = []

    def of(self, key: str, model: str, operation: str) -> Account:
        """The account of the key of that id; the same one from table to table."""
        account = self._accounts.get((key, model, operation))
        if account is None:
            if len(self._accounts) >= self._limit and key != OTHER:
                return self.of(OTHER, model, operation)
            account = self._accounts[key, model, operation] = Account(key, model, operation, self._changed)
        return account

    def settle(self, limit: int = ACCOUNTS_A_LOAD) -> tuple[Used, ...]:
        """What has changed since it was told, or `limit` of it: then the next time goes on."""
        changed = list(islice(self._changed, limit))
        del self._changed[:limit]
        return tuple([account.settle() for account in changed])

    def all(self) -> tuple[Used, ...]:
        """All of it, whether it was told or not."""
        return tuple([account.used() for account in self._accounts.values()])

    def resend(self) -> None:
        """Who is told now may not know: the next times have everything."""
        for account in self._accounts.values():
            account.touch()

    @property
    def is_told(self) -> bool:
        """Nothing has changed since it was told."""
        return not self._changed

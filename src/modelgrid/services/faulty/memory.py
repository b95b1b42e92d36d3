"""Memory that the engine really holds, and can really give back."""

from __future__ import annotations

import mmap

_PAGE = 4096


class Memory:
    """`size` bytes, resident from the first `take` on. The kernel has them back at once when they are let go."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._held: mmap.mmap | None = None

    def take(self) -> None:
        """Hold it: every page is written to."""
        if self._held is None and self._size:
            self._held = mmap.mmap(-1, self._size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            self._held[::_PAGE] = b"\1" * len(range(0, self._size, _PAGE))

    def let_go(self) -> None:
        """Hold none of it."""
        if self._held is not None:
            self._held.close()
            self._held = None

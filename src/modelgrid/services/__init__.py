"""Model servers that modelgrid ships: each is a program of its own and imports nothing of the daemon.

``from modelgrid.services import Service`` is all that a server of one's own needs; it is looked up when asked
for, so that the services which need no web framework start without one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelgrid.services.service import Service as Service
    from modelgrid.services.service import ServiceError as ServiceError

__all__ = ["Service", "ServiceError"]


def __getattr__(name: str) -> object:
    if name in __all__:
        from modelgrid.services import service

        return getattr(service, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Signals to this very process, never to a stranger that got its pid."""

from __future__ import annotations

import os
import signal

from modelgrid.runtimes.census import Identity, identify


def send(process: Identity, number: signal.Signals) -> None:
    """Signal `process`, if it is still there. A descriptor stays with it, where its pid may be given away meanwhile."""
    try:
        descriptor = os.pidfd_open(process.pid) if hasattr(os, "pidfd_open") else None
        try:
            if identify(process.pid) != process:
                return
            if descriptor is None:
                os.kill(process.pid, number)
            else:
                signal.pidfd_send_signal(descriptor, number)
        finally:
            if descriptor is not None:
                os.close(descriptor)
    except (ProcessLookupError, PermissionError):
        pass

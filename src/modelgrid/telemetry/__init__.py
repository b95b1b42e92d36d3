"""What modelgrid says of itself: one line for a change of state, never a prompt, a completion or a key."""

from modelgrid.telemetry.logs import set_up_logging
from modelgrid.telemetry.redact import redacted

__all__ = ["redacted", "set_up_logging"]

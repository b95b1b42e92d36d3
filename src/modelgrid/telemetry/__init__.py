"""What modelgrid says of itself: one line for a change of state, never a prompt, a completion or a key."""

from modelgrid.telemetry.lines import as_line
from modelgrid.telemetry.logs import open_file, set_up_logging
from modelgrid.telemetry.redact import redacted

__all__ = ["as_line", "open_file", "redacted", "set_up_logging"]

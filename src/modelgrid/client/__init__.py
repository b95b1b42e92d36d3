"""The client of the control API."""

from modelgrid.client.control import ControlClient, ControlError, NotRunning

__all__ = ["ControlClient", "ControlError", "NotRunning"]

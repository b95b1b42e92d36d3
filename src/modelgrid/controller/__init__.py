"""Observes, plans, acts; owns replicas."""

from modelgrid.controller.controller import Controller
from modelgrid.controller.launches import Launches
from modelgrid.controller.settings import Settings

__all__ = ["Controller", "Launches", "Settings"]

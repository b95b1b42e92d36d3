"""The control API, on FastAPI: importing it takes a while, so nothing that must be quick does."""

from modelgrid.api.app import create_app
from modelgrid.api.control import Control
from modelgrid.api.serve import ApiError, serve_api

__all__ = ["ApiError", "Control", "create_app", "serve_api"]

"""The sources of weights that are neither a hub id nor a path, as a configuration writes them."""

from __future__ import annotations

from typing import Final

STAND_IN: Final = "stand-in"  # a text model that is made on the spot
PACKAGE: Final = "package:"  # followed by the name of a Python package that carries weights
OLLAMA: Final = "ollama:"  # followed by a tag of a registry of Ollama's: ollama:llama3.2:1b

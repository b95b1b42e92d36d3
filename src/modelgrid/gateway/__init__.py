"""The request path: accepts, checks, chooses a replica, relays. Owns load."""

from modelgrid.gateway.options import GatewayOptions
from modelgrid.gateway.worker import run_worker

__all__ = ["GatewayOptions", "run_worker"]

"""The ways of others, as the world's plug-ins. Each states what it models, and of what."""

from bench.planner.ways.first_come import FirstCome
from bench.planner.ways.llama_swap import LlamaSwap
from bench.planner.ways.lru import Lru

__all__ = ["FirstCome", "LlamaSwap", "Lru"]

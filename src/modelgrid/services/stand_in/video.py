"""A film model of random weights: LTX-Video in small, the quickest of its kind on a CPU. It makes coloured noise."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from modelgrid.services.stand_in.letters import tokenizer

SEED = 20261121
WIDTH = 32
HEADS = 2
CHANNELS = 8  # of a latent
TOKENS = 128


def make(folder: Path) -> None:
    """Write the model to `folder`."""
    torch: Any = importlib.import_module("torch")
    diffusers: Any = importlib.import_module("diffusers")
    torch.manual_seed(SEED)
    reads = tokenizer(TOKENS)
    pipeline = diffusers.LTXPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=_vae(diffusers),
        text_encoder=_t5(reads),
        tokenizer=reads,
        transformer=_transformer(diffusers),
    )
    pipeline.save_pretrained(folder)


def _t5(reads: Any) -> Any:
    transformers: Any = importlib.import_module("transformers")
    return transformers.T5EncoderModel(
        transformers.T5Config(
            vocab_size=len(reads),
            d_model=WIDTH,
            d_kv=WIDTH // HEADS,
            d_ff=2 * WIDTH,
            num_layers=1,
            num_heads=HEADS,
            pad_token_id=reads.pad_token_id,
            eos_token_id=reads.eos_token_id,
            decoder_start_token_id=reads.pad_token_id,
        )
    )


def _vae(diffusers: Any) -> Any:
    """32 pixels a side and eight pictures for each latent, as the large one has it."""
    return diffusers.AutoencoderKLLTXVideo(
        latent_channels=CHANNELS,
        block_out_channels=(8,) * 4,
        decoder_block_out_channels=(8,) * 4,
        layers_per_block=(1,) * 5,
        decoder_layers_per_block=(1,) * 5,
    )


def _transformer(diffusers: Any) -> Any:
    return diffusers.LTXVideoTransformer3DModel(
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_layers=1,
        num_attention_heads=HEADS,
        attention_head_dim=WIDTH // HEADS,
        cross_attention_dim=WIDTH,
        caption_channels=WIDTH,
    )

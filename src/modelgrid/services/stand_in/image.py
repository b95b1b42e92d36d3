"""A picture model of random weights: FLUX.1-schnell in small. It draws noise."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from modelgrid.services.stand_in.letters import tokenizer

SEED = 20261121
WIDTH = 32
HEADS = 2
CLIP_TOKENS = 77
T5_TOKENS = 512


def make(folder: Path) -> None:
    """Write the model to `folder`."""
    torch: Any = importlib.import_module("torch")
    diffusers: Any = importlib.import_module("diffusers")
    torch.manual_seed(SEED)
    clip_reads, t5_reads = tokenizer(CLIP_TOKENS), tokenizer(T5_TOKENS)
    pipeline = diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=_vae(diffusers),
        text_encoder=_clip(clip_reads),
        tokenizer=clip_reads,
        text_encoder_2=_t5(t5_reads),
        tokenizer_2=t5_reads,
        transformer=_transformer(diffusers),
    )
    pipeline.save_pretrained(folder)


def _clip(reads: Any) -> Any:
    transformers: Any = importlib.import_module("transformers")
    return transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=len(reads),
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=1,
            num_attention_heads=HEADS,
            max_position_embeddings=CLIP_TOKENS,
            projection_dim=WIDTH,
            bos_token_id=reads.bos_token_id,
            eos_token_id=reads.eos_token_id,
            pad_token_id=reads.pad_token_id,
        )
    )


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
    """Eight pixels a side for each latent, as the large ones have it."""
    return diffusers.AutoencoderKL(
        latent_channels=4,
        block_out_channels=(8,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
        sample_size=64,
        scaling_factor=1.0,
        shift_factor=0.0,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def _transformer(diffusers: Any) -> Any:
    return diffusers.FluxTransformer2DModel(
        in_channels=16,  # four latents of four channels each
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=WIDTH // HEADS,
        num_attention_heads=HEADS,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        axes_dims_rope=(4, 6, 6),
        guidance_embeds=False,  # as schnell has it, and so it is recognised
    )

"""A VITS of four voices: noise, of the length that speech would have."""

from __future__ import annotations

import importlib
import json
import math
import string
from pathlib import Path
from typing import Any

SEED = 20261121
VOICES = 4
LETTERS = " '-" + string.ascii_lowercase + string.digits
PAD, UNKNOWN = "<pad>", "<unk>"
FRAMES_A_TOKEN = 2  # of 16 ms; there are two tokens to a letter, one of them blank
LOUDNESS = 0.02


def make(folder: Path) -> None:
    """Write the model."""
    torch: Any = importlib.import_module("torch")
    transformers: Any = importlib.import_module("transformers")
    words = {token: number for number, token in enumerate((*LETTERS, PAD, UNKNOWN))}
    (folder / "vocab.json").write_text(json.dumps(words))
    tokenizer = transformers.VitsTokenizer(
        str(folder / "vocab.json"), pad_token=PAD, unk_token=UNKNOWN, phonemize=False
    )
    torch.manual_seed(SEED)
    model = transformers.VitsModel(_config(transformers, len(words)))
    _pace(torch, model)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


def _config(transformers: Any, words: int) -> Any:
    return transformers.VitsConfig(
        vocab_size=words,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        ffn_dim=32,
        layerdrop=0.0,
        flow_size=16,
        spectrogram_bins=9,
        num_speakers=VOICES,
        speaker_embedding_size=8,
        upsample_initial_channel=16,
        resblock_kernel_sizes=(3,),
        resblock_dilation_sizes=((1, 3),),
        use_stochastic_duration_prediction=False,
        duration_predictor_filter_channels=16,
        prior_encoder_num_flows=2,
        prior_encoder_num_wavenet_layers=1,
        posterior_encoder_num_wavenet_layers=1,
        sampling_rate=16_000,
    )


def _pace(torch: Any, model: Any) -> None:
    """Each token takes equally long, so that a text's length tells the sound's; and quietly."""
    with torch.no_grad():
        model.duration_predictor.proj.weight.zero_()
        # Durations are rounded up, and a little less than a whole number is that number.
        model.duration_predictor.proj.bias.fill_(math.log(FRAMES_A_TOKEN - 0.1))
        model.decoder.conv_post.weight.mul_(LOUDNESS)

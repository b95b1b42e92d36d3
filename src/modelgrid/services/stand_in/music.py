"""A MusicGen of two layers: noise, which differs from prompt to prompt and from seed to seed."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

SEED = 20261121
HIDDEN = 32
CODES = 64  # sounds in a codebook; the number after the last one is the pad
CODEBOOKS = 4
RATE = 32_000
LONGEST_FRAMES = 1500  # 30 s, as the real ones have it
PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"


def make(folder: Path) -> None:
    """Write the model."""
    torch: Any = importlib.import_module("torch")
    transformers: Any = importlib.import_module("transformers")
    tokenizer = _tokenizer(transformers)
    torch.manual_seed(SEED)
    model = transformers.MusicgenForConditionalGeneration(_config(transformers, len(tokenizer)))
    for layer in model.audio_encoder.quantizer.layers:
        layer.codebook.embed.normal_()  # zeros until it has learned: every code would sound the same
    settings = model.generation_config
    settings.do_sample, settings.guidance_scale, settings.max_length = True, 3.0, LONGEST_FRAMES
    settings.bos_token_id = settings.pad_token_id = settings.decoder_start_token_id = CODES
    listening = transformers.EncodecFeatureExtractor(feature_size=1, sampling_rate=RATE, padding_side="left")
    transformers.MusicgenProcessor(listening, tokenizer).save_pretrained(folder)
    model.save_pretrained(folder)


def _config(transformers: Any, words: int) -> Any:
    reader = transformers.T5Config(
        vocab_size=words, d_model=HIDDEN, d_kv=16, d_ff=2 * HIDDEN, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    codec = transformers.EncodecConfig(
        target_bandwidths=[CODEBOOKS * 0.3],  # kbit/s: six bits for each of fifty frames a second and codebook
        sampling_rate=RATE,
        num_filters=4,
        upsampling_ratios=[40, 16],
        codebook_size=CODES,
        codebook_dim=16,
        hidden_size=16,
        num_lstm_layers=1,
        use_causal_conv=False,
    )
    composer = transformers.MusicgenDecoderConfig(
        vocab_size=CODES,
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=2,
        ffn_dim=2 * HIDDEN,
        num_codebooks=CODEBOOKS,
        pad_token_id=CODES,
        bos_token_id=CODES,
    )
    return transformers.MusicgenConfig(
        text_encoder=reader.to_dict(), audio_encoder=codec.to_dict(), decoder=composer.to_dict()
    )


def _tokenizer(transformers: Any) -> Any:
    """Bytes are its words."""
    tokenizers: Any = importlib.import_module("tokenizers")
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    words = {word: number for number, word in enumerate((PAD, END, UNKNOWN, *alphabet))}
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE(words, [], unk_token=UNKNOWN))
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token=PAD, eos_token=END, unk_token=UNKNOWN, model_max_length=512
    )

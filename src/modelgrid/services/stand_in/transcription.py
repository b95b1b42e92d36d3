"""A model that hears nothing and speaks in sentences: Whisper's shape, with numbers that are set by hand.

Random numbers alone would babble without a time, or say one word for ever. Here every token and every fiftieth of a
second has a random code, and the layers do no more than compare codes:

- a word's vector holds the code of what follows: the next word, and after a sentence the timestamp that ends it;
- a timestamp asks for itself once more (it ends one sentence and begins the next), then for its sentence's first word;
- it also looks, by cross-attention, at the moment that it names: where the sound is over, it asks for the end.

So what is said lasts as long as the sound, in sentences of two seconds; words look at their own moment, which is where
word times come from. A translation begins with a sentence of its own.
"""

from __future__ import annotations

import importlib
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from modelgrid.services import whisper
from modelgrid.services.languages import NAMES

SEED: Final = 20261121
SENTENCES: Final = (
    "This model only pretends to listen.",
    "Every word was written down before.",
    "Rain falls upon green hills slowly.",
    "Seven boats cross a silent lake.",
    "Old clocks keep their own time.",
    "Birds sing while morning light grows.",
    "Nobody knows where that road ends.",
    "Warm bread smells good at noon.",
    "Children count stars until they sleep.",
    "Wind moves through tall yellow grass.",
    "Great rivers begin as small springs.",
    "Trains leave from platform number nine.",
    "Snow covers our garden each winter.",
    "Letters arrive with news of friends.",
    "Music plays softly behind closed doors.",
)
TRANSLATED: Final = "Somewhere else people talk differently."  # how a translation begins, a second later

MELS: Final = 80
HEADS: Final = 2
FRAMES: Final = 1500  # of a window of 30 s, as the encoder sees it
STAMPS: Final = FRAMES + 1
CONTEXT: Final = 448
MOMENT_FRAMES: Final = 10  # that share a code: times of words are read from what isn't gone in a blink
SENTENCE_FRAMES: Final = 100
TRANSLATED_FRAME: Final = 50

# The numbers of a vector, and what they are for.
HIDDEN: Final = 128
WHEN = slice(0, 64)  # the code of a moment
NEXT = slice(64, 124)  # the code of the word that follows
OVER, STAMP, ALWAYS = 124, 125, 126  # the sound is over; it is a timestamp; the same for all
SIGNAL: Final = 4.0  # how loud a flag is

LAST, START, PREVIOUS = "<|endoftext|>", "<|startoftranscript|>", "<|startofprev|>"
SPACE: Final = "\u0120"  # as byte-level BPE writes it


def make(folder: Path) -> None:
    """Write the model to `folder`, as transformers has it."""
    numpy: Any = importlib.import_module("numpy")
    bpe = _tokenizer()
    ids = bpe.get_vocab(with_added_tokens=True)
    config = {
        "model_type": "whisper",
        "vocab_size": len(ids),
        "encoder_layers": 1,
        "encoder_attention_heads": HEADS,
        "decoder_layers": 1,
        "decoder_attention_heads": HEADS,
    }
    generation = {
        "suppress_tokens": [],
        "begin_suppress_tokens": [ids[SPACE], ids[LAST]],
        "alignment_heads": [[0, 0]],
        # A search of several beams would end with the first few that end: nonsense that jumps to silence ends soonest.
        "num_beams": 1,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps(generation))
    (folder / "preprocessor_config.json").write_text(json.dumps({"feature_size": MELS}))
    bpe.save(str(folder / "tokenizer.json"))
    (folder / "model.safetensors").write_bytes(_safetensors(_Codes(numpy, ids).tensors()))


def _safetensors(tensors: Mapping[str, Any]) -> bytes:
    header, body = {}, bytearray()
    for name, numbers in tensors.items():
        begin = len(body)
        body += numbers.astype("<f2").tobytes()
        header[name] = {"dtype": "F16", "shape": numbers.shape, "data_offsets": (begin, len(body))}
    told = json.dumps(header).encode()
    return len(told).to_bytes(8, "little") + told + body


def _tokenizer() -> Any:
    """One token for each word that is said; whatever else is written comes out in bytes."""
    tokenizers: Any = importlib.import_module("tokenizers")
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    words = tokenizers.pre_tokenizers.Split(tokenizers.Regex(r" ?\S+"), "isolated")
    in_bytes = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([words, in_bytes])
    bpe.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=4096,
        special_tokens=[""],  # CTranslate2 takes a vocabulary that has the empty token for one of many languages
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([f" {sentence}" for sentence in (*SENTENCES, TRANSLATED)], trainer)
    languages = [f"<|{code}|>" for code in NAMES]
    tasks = ["<|translate|>", "<|transcribe|>", "<|startoflm|>", PREVIOUS, "<|nospeech|>", "<|notimestamps|>"]
    bpe.add_special_tokens([LAST, START, *languages, *tasks, *map(_stamp, range(STAMPS))])
    return bpe


def _stamp(frame: int) -> str:
    return f"<|{frame * whisper.TIMESTAMP_S:.2f}|>"


def _words(sentence: str) -> list[str]:
    """Its tokens."""
    return [SPACE + word for word in sentence.split()]


class _Codes:
    """The numbers."""

    def __init__(self, numpy: Any, ids: Mapping[str, int]) -> None:
        self._numpy = numpy
        self._id = ids
        self._dice = numpy.random.default_rng(SEED)
        self._moments = self._dice.choice([-1.0, 1.0], (FRAMES // MOMENT_FRAMES, 64)).repeat(MOMENT_FRAMES, axis=0)
        self._codes = self._dice.choice([-1.0, 1.0], (len(ids), 60))

    def tensors(self) -> dict[str, Any]:
        """By transformers' names."""
        return self._encoder() | self._decoder()

    def _encoder(self) -> dict[str, Any]:
        """Marks the frames where the sound is over, which are 0 in every band; and each frame by its moment's code."""
        pairs = self._dice.normal(size=(HIDDEN // 2, MELS, 3))
        second = self._noise(HIDDEN, HIDDEN, 3)
        second[OVER] = -20.0
        bias = self._numpy.zeros(HIDDEN)
        bias[OVER] = SIGNAL
        moments = self._numpy.zeros((FRAMES, HIDDEN))
        moments[:, WHEN] = self._moments
        return {
            # x and -x: of the two, GELU lets through more than it takes away, unless both are 0.
            "model.encoder.conv1.weight": self._numpy.concatenate([pairs, -pairs]),
            "model.encoder.conv1.bias": self._numpy.zeros(HIDDEN),
            "model.encoder.conv2.weight": second,
            "model.encoder.conv2.bias": bias,
            "model.encoder.embed_positions.weight": moments,
            **self._layer("model.encoder.layers.0"),
            **self._norm("model.encoder.layer_norm"),
        }

    def _decoder(self) -> dict[str, Any]:
        attention = "model.decoder.layers.0.encoder_attn"
        query, value, out = (self._noise(HIDDEN, HIDDEN) for _ in range(3))
        bias = self._numpy.zeros(HIDDEN)
        query[WHEN, WHEN] = 3.0 * self._numpy.eye(64)
        value[0, OVER] = 1.0
        out[OVER, 0] = 1.6
        bias[OVER] = -SIGNAL  # half of what comes where the sound is over
        last = self._norm("model.decoder.layer_norm")
        last["model.decoder.layer_norm.weight"][STAMP] = 5.0
        last["model.decoder.layer_norm.weight"][ALWAYS] = 0.0
        last["model.decoder.layer_norm.bias"][ALWAYS] = 10.0
        return {
            "model.decoder.embed_tokens.weight": self._heard(),
            "proj_out.weight": self._said(),
            "model.decoder.embed_positions.weight": self._noise(CONTEXT, HIDDEN),
            **self._layer("model.decoder.layers.0"),
            **self._attention(attention),
            **self._norm(f"{attention}_layer_norm"),
            f"{attention}.q_proj.weight": query,
            f"{attention}.k_proj.weight": self._numpy.eye(HIDDEN),
            f"{attention}.v_proj.weight": value,
            f"{attention}.out_proj.weight": out,
            f"{attention}.out_proj.bias": bias,
            **last,
        }

    def _heard(self) -> Any:
        """What a token brings along: its moment's code, and the code of what follows."""
        codes = self._noise(len(self._id), HIDDEN)
        first = self._id["<|0.00|>"]
        codes[:first, STAMP] = -1.0
        codes[first + FRAMES, STAMP] = 1.0  # the window's very end
        codes[first : first + FRAMES, WHEN] = self._moments
        for number, sentence in enumerate(SENTENCES):
            self._write(codes, sentence, number * SENTENCE_FRAMES, (number + 1) * SENTENCE_FRAMES)
        self._write(codes, TRANSLATED, TRANSLATED_FRAME, SENTENCE_FRAMES)
        follows = {START: "<|en|>", "<|transcribe|>": "<|0.00|>", "<|translate|>": _stamp(TRANSLATED_FRAME)}
        for before, after in follows.items():
            codes[self._id[before], NEXT] = self._codes[self._id[after]]
        codes[self._id["<|notimestamps|>"], WHEN] = self._moments[0]  # where word times begin
        return codes

    def _write(self, codes: Any, sentence: str, frame: int, end: int) -> None:
        """Have `sentence` said from a frame to another."""
        chain = [_stamp(frame), *_words(sentence), _stamp(end)]
        for number, (before, after) in enumerate(itertools.pairwise(self._id[token] for token in chain)):
            codes[before, NEXT] = self._codes[after]
            codes[before, WHEN] = self._moments[frame + number * (end - frame) // len(chain)]

    def _said(self) -> Any:
        """What is said after a vector: the token whose code it holds."""
        out = self._noise(len(self._id), HIDDEN)
        out[:, ALWAYS] = -3.0
        even = [_stamp(frame) for frame in range(0, STAMPS, SENTENCE_FRAMES)]
        said = [word for sentence in (*SENTENCES, TRANSLATED) for word in _words(sentence)]
        for number in (self._id[token] for token in ("<|en|>", *even, _stamp(TRANSLATED_FRAME), *said)):
            out[number, ALWAYS] = 0.0
            out[number, NEXT] = 0.5 * self._codes[number]
        for frame in range(0, FRAMES, SENTENCE_FRAMES):
            out[self._id[_stamp(frame)], WHEN] = 0.5 * self._moments[frame]
        out[self._id[LAST], [ALWAYS, OVER, STAMP]] = [0.0, 15.0, 20.0]
        return out

    def _layer(self, name: str) -> dict[str, Any]:
        """A layer that changes nothing worth mentioning."""
        return {
            **self._attention(f"{name}.self_attn"),
            **self._norm(f"{name}.self_attn_layer_norm"),
            f"{name}.fc1.weight": self._noise(HIDDEN, HIDDEN),
            f"{name}.fc1.bias": self._numpy.zeros(HIDDEN),
            f"{name}.fc2.weight": self._noise(HIDDEN, HIDDEN),
            f"{name}.fc2.bias": self._numpy.zeros(HIDDEN),
            **self._norm(f"{name}.final_layer_norm"),
        }

    def _attention(self, name: str) -> dict[str, Any]:
        weights = {f"{name}.{part}_proj.weight": self._noise(HIDDEN, HIDDEN) for part in ("q", "k", "v", "out")}
        return weights | {f"{name}.{part}_proj.bias": self._numpy.zeros(HIDDEN) for part in ("q", "v", "out")}

    def _norm(self, name: str) -> dict[str, Any]:
        return {f"{name}.weight": self._numpy.ones(HIDDEN), f"{name}.bias": self._numpy.zeros(HIDDEN)}

    def _noise(self, *shape: int) -> Any:
        return self._dice.normal(scale=0.002, size=shape)

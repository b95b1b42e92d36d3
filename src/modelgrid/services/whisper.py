"""A Whisper checkpoint as transformers writes it, turned into what CTranslate2 loads; without torch.

CTranslate2's own converter does the same by way of torch and transformers, which would make the environment three
times as large for something that is done once.
"""

from __future__ import annotations

import hashlib
import importlib
import itertools
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

# What is read of a repository on the hub: either format, and what says how to read it.
PATTERNS: Final = ("*.json", "vocabulary.*", "model.bin", "model.safetensors", "model-*.safetensors")
CONVERTED: Final = "model.bin"
KEPT: Final = (
    "tokenizer.json",
    "preprocessor_config.json",
    "generation_config.json",
)  # beside the weights, as they are
TIMESTAMP_S: Final = 0.02

LANGUAGE: Final = re.compile(r"<\|[a-z]{2,3}\|>")
_TYPES: Final = {"F32": "float32", "F16": "float16", "BF16": "uint16"}  # numpy knows no bfloat16: it is widened


class NotWhisper(ValueError):
    """The weights are none that can be loaded. The message says what to do."""


def loadable(folder: Path) -> Path:
    """The folder that CTranslate2 loads for `folder`: itself, or what it was converted into, once. Raises NotWhisper
    where it is neither. Blocks for as long as it takes to write the weights anew, seconds to a minute."""
    if (folder / CONVERTED).is_file():
        return folder
    config = _config(folder)
    found = sorted(folder.glob("model.safetensors")) or sorted(folder.glob("model-*.safetensors"))
    if not found:
        raise NotWhisper(
            f"cannot load {folder}: it has neither {CONVERTED} nor model.safetensors "
            "(try: a repository that has, such as Systran/faster-whisper-small or openai/whisper-small)"
        )
    if not (folder / "tokenizer.json").is_file():
        raise NotWhisper(f"cannot load {folder}: it lacks tokenizer.json (try: pull it again)")
    where = Path(sys.prefix) / "share" / "modelgrid" / "converted" / f"{folder.name}-{_fingerprint(found)}"
    if not where.exists():
        where.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=where.parent, prefix=".converting-") as made:
            _convert(folder, config, _Tensors(found), Path(made))
            _publish(Path(made), where)
    return where


class _Weights:
    """The tensors, put where the specification has them."""

    def __init__(self, tensors: Mapping[str, Any]) -> None:
        self._tensors = tensors
        self._numpy: Any = importlib.import_module("numpy")

    def encoder(self, spec: Any) -> None:
        for name, conv in (("conv1", spec.conv1), ("conv2", spec.conv2)):
            self._linear(conv, f"model.encoder.{name}")
        self._ends(spec, "model.encoder")
        for number, layer in enumerate(spec.layer):
            self._layer(layer, f"model.encoder.layers.{number}")

    def decoder(self, spec: Any) -> None:
        words = self._tensors["model.decoder.embed_tokens.weight"]
        spec.embeddings.weight = words
        spec.projection.weight = self._tensors.get("proj_out.weight", words)  # one and the same, in most
        self._ends(spec, "model.decoder")
        for number, layer in enumerate(spec.layer):
            name = f"model.decoder.layers.{number}"
            self._layer(layer, name)
            first, second, last = layer.attention.linear
            self._fuse(first, f"{name}.encoder_attn", "q")
            self._fuse(second, f"{name}.encoder_attn", "k", "v")
            self._linear(last, f"{name}.encoder_attn.out_proj")
            self._norm(layer.attention.layer_norm, f"{name}.encoder_attn_layer_norm")

    def _layer(self, spec: Any, name: str) -> None:
        """What layers of the encoder and the decoder have in common."""
        first, last = spec.self_attention.linear
        self._fuse(first, f"{name}.self_attn", "q", "k", "v")
        self._linear(last, f"{name}.self_attn.out_proj")
        self._norm(spec.self_attention.layer_norm, f"{name}.self_attn_layer_norm")
        self._linear(spec.ffn.linear_0, f"{name}.fc1")
        self._linear(spec.ffn.linear_1, f"{name}.fc2")
        self._norm(spec.ffn.layer_norm, f"{name}.final_layer_norm")

    def _ends(self, spec: Any, name: str) -> None:
        spec.position_encodings.encodings = self._tensors[f"{name}.embed_positions.weight"]
        self._norm(spec.layer_norm, f"{name}.layer_norm")

    def _linear(self, spec: Any, name: str) -> None:
        spec.weight = self._tensors[f"{name}.weight"]
        spec.bias = self._tensors[f"{name}.bias"]

    def _norm(self, spec: Any, name: str) -> None:
        spec.gamma = self._tensors[f"{name}.weight"]
        spec.beta = self._tensors[f"{name}.bias"]

    def _fuse(self, spec: Any, name: str, *parts: str) -> None:
        """Projections of one input, as one. That of the keys has no bias."""
        weights = [self._tensors[f"{name}.{part}_proj.weight"] for part in parts]
        biases = [
            self._tensors.get(f"{name}.{part}_proj.bias", self._numpy.zeros(len(weight), weight.dtype))
            for part, weight in zip(parts, weights, strict=True)
        ]
        spec.weight = self._numpy.concatenate(weights)
        spec.bias = self._numpy.concatenate(biases)


class _Tensors(Mapping[str, Any]):
    """The tensors in files of safetensors: a length, a JSON header that says where each lies, and the numbers."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._numpy: Any = importlib.import_module("numpy")
        self._places: dict[str, tuple[Path, int, Mapping[str, Any]]] = {}
        for path in files:
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(length))
            for name, told in header.items():
                if name != "__metadata__":
                    self._places[name] = (path, 8 + length, told)

    def __getitem__(self, name: str) -> Any:
        path, start, told = self._places[name]
        dtype = _TYPES.get(told["dtype"])
        if dtype is None:
            raise NotWhisper(f"cannot read {path}: {name} is {told['dtype']} (try: weights in F16, BF16 or F32)")
        shape, (begin, _) = tuple(told["shape"]), told["data_offsets"]
        found = self._numpy.memmap(path, dtype, "r", start + begin, shape)
        if told["dtype"] == "BF16":
            return (found.astype("uint32") << 16).view("float32")
        return self._numpy.asarray(found)

    def __iter__(self) -> Any:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def _convert(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Any], into: Path) -> None:
    try:
        _write(into, config, tensors, vocabulary(folder, config["vocab_size"]))
    except KeyError as missing:
        raise NotWhisper(f"cannot load {folder}: its weights lack {missing} (try: pull it again)") from None
    for name in KEPT:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, into / name)


def _write(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Any], tokens: list[str]) -> None:
    """Write `tensors`, by transformers' names, to `folder` as CTranslate2 reads them."""
    specs: Any = importlib.import_module("ctranslate2.specs")
    spec = specs.WhisperSpec(
        config["encoder_layers"],
        config["encoder_attention_heads"],
        config["decoder_layers"],
        config["decoder_attention_heads"],
    )
    weights = _Weights(tensors)
    weights.encoder(spec.encoder)
    weights.decoder(spec.decoder)
    spec.register_vocabulary(tokens)
    spec.config.suppress_ids = config.get("suppress_tokens")
    spec.config.suppress_ids_begin = config.get("begin_suppress_tokens")
    spec.config.lang_ids = [number for number, token in enumerate(tokens) if LANGUAGE.fullmatch(token)]
    spec.config.alignment_heads = config.get("alignment_heads") or _last_half(config)
    spec.validate()
    spec.optimize(quantization="float16")
    spec.save(str(folder))


def _config(folder: Path) -> dict[str, Any]:
    """That of the checkpoint, and over it that of its generation."""
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise NotWhisper(f"cannot load {folder}: no config.json can be read there: {error}") from None
    if config.get("model_type") != "whisper":
        raise NotWhisper(
            f"cannot load {folder}: it is of type {config.get('model_type')}, not whisper "
            "(try: Systran/faster-whisper-small, or another engine that listens)"
        )
    generation = folder / "generation_config.json"
    return config | (json.loads(generation.read_bytes()) if generation.is_file() else {})


def vocabulary(folder: Path, size: int) -> list[str]:
    """Tokens by id. Checkpoints leave the timestamps out, which are the last."""
    told = json.loads((folder / "tokenizer.json").read_bytes())
    by_id = {number: token for token, number in told["model"]["vocab"].items()}
    by_id |= {token["id"]: token["content"] for token in told["added_tokens"]}
    tokens = [by_id[number] for number in range(min(len(by_id), size))]
    stamps = (f"<|{number * TIMESTAMP_S:.2f}|>" for number in itertools.count())
    return tokens + list(itertools.islice(stamps, size - len(tokens)))


def _last_half(config: Mapping[str, Any]) -> list[list[int]]:
    """The heads that show where in the sound a word is, where nobody has found out which do."""
    layers, heads = config["decoder_layers"], config["decoder_attention_heads"]
    return [[layer, head] for layer in range(layers // 2, layers) for head in range(heads)]


def _fingerprint(files: Iterable[Path]) -> str:
    """Changes when the weights do."""
    facts = [(str(file.resolve()), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:12]


def _publish(made: Path, where: Path) -> None:
    try:
        made.rename(where)
    except OSError:
        if not where.exists():  # somebody else was faster
            raise
    made.mkdir(exist_ok=True)  # for TemporaryDirectory to remove

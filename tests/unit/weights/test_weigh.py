"""What weights are is read from headers; what can't be read is left open, and never stops a model."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from hubs import Hub
from modelgrid.spec import Unknown
from modelgrid.spec.weights import Shape, Weights
from modelgrid.weights import WeightsError, inspect, pull, weigh
from modelgrid.weights.headers import gguf_facts, safetensors_counts
from modelgrid.weights.shape import shape_of_config
from weight_files import gguf, safetensors

LLAMA_8B = {
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "vocab_size": 128256,
}
SHAPE_8B = Shape(65536, 0, 131072, 2 * 14336 + 4 * 4096, 128256)
GGUF_8B = {
    "general.architecture": "llama",
    "llama.block_count": 32,
    "llama.embedding_length": 4096,
    "llama.feed_forward_length": 14336,
    "llama.attention.head_count": 32,
    "llama.attention.head_count_kv": 8,
    "llama.context_length": 131072,
    "llama.rope.freq_base": 500000.0,
}
TINY = {"a": ("BF16", [2, 3]), "b": ("F32", [4]), "c": ("BF16", [])}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text(json.dumps(LLAMA_8B))
    (made / "model-00001-of-00002.safetensors").write_bytes(safetensors(TINY, b"x" * 100))
    (made / "model-00002-of-00002.safetensors").write_bytes(safetensors({"d": ("BF16", [10])}, b"x" * 20))
    return made


def test_local_weights_are_counted_by_dtype_and_shaped_by_their_config(folder: Path, tmp_path: Path) -> None:
    total = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    weights = weigh(str(folder), tmp_path)
    assert weights == Weights(total, {"BF16": 17, "F32": 4}, SHAPE_8B)
    assert isinstance(weights, Weights)
    assert (weights.count, weights.dtype) == (21, "BF16")
    assert (weights.loaded_bytes(), weights.loaded_bytes(2)) == (17 * 2 + 4 * 4, 21 * 2)


@pytest.mark.parametrize("broken", [b"", b"\xff" * 100, struct.pack("<Q", 20) + b"{", safetensors({})[:9]])
def test_a_broken_file_leaves_its_size(folder: Path, tmp_path: Path, broken: bytes) -> None:
    (folder / "model-00002-of-00002.safetensors").write_bytes(broken)
    total = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    assert weigh(str(folder), tmp_path) == Weights(total, {}, SHAPE_8B)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"num_hidden_layers": "many"}', '{"hidden_size": -1}'])
def test_a_config_that_says_nothing_leaves_the_shape_open(folder: Path, tmp_path: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    weights = weigh(str(folder), tmp_path)
    assert isinstance(weights, Weights)
    assert weights.shape is None
    assert weights.count == 21


def test_gguf_tells_its_shape(tmp_path: Path) -> None:
    pairs = {
        **GGUF_8B,
        "tokenizer.ggml.tokens": ["a", "bc", "é"],
        "tokenizer.ggml.token_type": [1, 1, 6],
    }
    path = tmp_path / "llama.Q4_K_M.gguf"
    path.write_bytes(gguf(pairs, {"a": [4096, 2], "b": [3]}) + b"x" * 1000)
    assert gguf_facts(path)[0] == 4096 * 2 + 3
    assert weigh(str(path), tmp_path) == Weights(
        path.stat().st_size, shape=Shape(65536, 0, 131072, 2 * 14336 + 4 * 4096, 3)
    )


@pytest.mark.parametrize("length", [0, 10, 30, 60])
def test_a_gguf_file_that_is_cut_short_leaves_its_size(tmp_path: Path, length: int) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(gguf({"general.architecture": "llama", "llama.block_count": 32}, {"a": [2]})[:length])
    assert weigh(str(path), tmp_path) == Weights(length)


def test_a_file_that_claims_to_be_endless_is_refused_and_not_read(tmp_path: Path) -> None:
    path = tmp_path / "endless"
    path.write_bytes(struct.pack("<Q", 2**62) + b"{}")
    with pytest.raises(ValueError, match="longer than the format allows"):
        safetensors_counts(path)
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + struct.pack("<Q", 2**60))
    with pytest.raises(ValueError, match="longer than any"):
        gguf_facts(path)


def test_a_hub_is_asked_for_headers_only(hub: Hub, tmp_path: Path) -> None:
    file = safetensors(TINY, b"x" * (1 << 20))
    hub.models["owner/tiny"] = {"config.json": json.dumps(LLAMA_8B).encode(), "model.safetensors": file}
    assert weigh("owner/tiny", tmp_path) == Weights(len(file), {"BF16": 7, "F32": 4}, SHAPE_8B)
    assert [asked for _, path, asked in hub.asked if path.endswith(".safetensors")] == ["bytes=0-262143"]


def test_a_long_header_is_asked_for_to_its_end(hub: Hub, tmp_path: Path) -> None:
    file = safetensors(TINY, b"x" * 1000, padding=300_000)
    hub.models["owner/tiny"] = {"model.safetensors": file}
    assert weigh("owner/tiny", tmp_path) == Weights(len(file), {"BF16": 7, "F32": 4})
    assert len([path for _, path, _ in hub.asked if path.endswith(".safetensors")]) == 2


def test_what_the_hub_has_counted_itself_costs_no_request(hub: Hub, tmp_path: Path) -> None:
    hub.models["owner/tiny"] = {"model.safetensors": b"x" * 1000}
    hub.parameters["owner/tiny"] = {"BF16": 500}
    assert weigh("owner/tiny", tmp_path) == Weights(1000, {"BF16": 500})
    assert not [path for _, path, _ in hub.asked if path.endswith(".safetensors")]


def test_a_hub_that_sends_no_parts_is_not_made_to_send_the_whole(hub: Hub, tmp_path: Path) -> None:
    hub.models["owner/tiny"] = {"model.safetensors": safetensors(TINY, b"x" * 1000)}
    hub.knows_ranges = False
    size = len(hub.models["owner/tiny"]["model.safetensors"])
    assert weigh("owner/tiny", tmp_path) == Weights(size)


def test_what_the_hub_refuses_to_show_leaves_the_size(hub: Hub, tmp_path: Path) -> None:
    files = {"config.json": json.dumps(LLAMA_8B).encode(), "model.safetensors": safetensors(TINY)}
    hub.models["owner/gated"] = files
    hub.gated.add("owner/gated")
    assert weigh("owner/gated", tmp_path) == Weights(len(files["model.safetensors"]))


def test_what_is_nowhere_is_unknown(tmp_path: Path) -> None:
    assert isinstance(weigh(str(tmp_path / "nothing"), tmp_path), Unknown)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        pytest.param(LLAMA_8B, SHAPE_8B, id="grouped queries"),
        pytest.param(
            {"num_hidden_layers": 12, "num_attention_heads": 12, "hidden_size": 768, "n_positions": 1024},
            Shape(12 * 2 * 768, 0, 1024, 2 * 4 * 768 + 4 * 768),
            id="a head for each query",
        ),
        pytest.param(
            {**LLAMA_8B, "kv_lora_rank": 512, "qk_rope_head_dim": 64},
            Shape(32 * 576, 0, 131072, SHAPE_8B.wide, 128256),
            id="latent attention",
        ),
        pytest.param(
            {**LLAMA_8B, "layer_types": ["sliding_attention"] * 24 + ["full_attention"] * 8, "sliding_window": 1024},
            Shape(8 * 2048, 24 * 2048 * 1024, 131072, SHAPE_8B.wide, 128256),
            id="windows",
        ),
        pytest.param(
            {**LLAMA_8B, "layer_types": ["linear_attention"] * 24 + ["full_attention"] * 8},
            Shape(8 * 2048, 0, 131072, SHAPE_8B.wide, 128256),
            id="states of one size",
        ),
        pytest.param(
            {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": {**LLAMA_8B, "head_dim": 256}},
            Shape(2 * 65536, 0, 131072, SHAPE_8B.wide, 128256),
            id="a model of text within another",
        ),
        pytest.param(
            {**LLAMA_8B, "moe_intermediate_size": 4096, "num_experts_per_tok": 8},
            Shape(65536, 0, 131072, 2 * 8 * 4096 + 4 * 4096, 128256),
            id="experts",
        ),
        pytest.param(
            {**LLAMA_8B, "architectures": ["BertModel"]},
            Shape(0, 0, 131072, SHAPE_8B.wide, 128256),
            id="an encoder",
        ),
    ],
)
def test_shapes(config: dict[str, Any], expected: Shape) -> None:
    assert shape_of_config(config) == expected


def test_a_hubs_gguf_file_tells_its_shape_by_its_first_bytes(hub: Hub, tmp_path: Path) -> None:
    words = [f"word{number}" for number in range(40_000)]  # longer than what is asked for
    file = gguf({**GGUF_8B, "tokenizer.ggml.tokens": words, "tokenizer.ggml.scores": [1] * 40_000}, {"a": [4]})
    hub.models["owner/tiny-GGUF"] = {
        "tiny-Q4_K_M.gguf": file,
        "tiny-Q8_0.gguf": file + file,
        "mmproj-F16.gguf": b"eyes",
    }
    shape = Shape(65536, 0, 131072, 2 * 14336 + 4 * 4096, 40_000)
    assert weigh("owner/tiny-GGUF", tmp_path) == Weights(len(file) + 4, shape=shape)
    assert weigh("owner/tiny-GGUF:Q8_0", tmp_path) == Weights(2 * len(file) + 4, shape=shape)
    assert weigh("owner/tiny-GGUF:tiny-Q8_0.gguf", tmp_path) == Weights(2 * len(file), shape=shape)
    assert {asked for _, path, asked in hub.asked if path.endswith(".gguf")} == {"bytes=0-262143"}


def test_a_gguf_model_in_shards_is_weighed_whole(tmp_path: Path) -> None:
    first, second = tmp_path / "m-Q8_0-00001-of-00002.gguf", tmp_path / "m-Q8_0-00002-of-00002.gguf"
    first.write_bytes(gguf(GGUF_8B, {"a": [4]}))
    second.write_bytes(b"x" * 500)
    (tmp_path / "m-Q4_0.gguf").write_bytes(b"y" * 700)
    weights = weigh(str(first), tmp_path)
    assert isinstance(weights, Weights)
    assert (weights.size_bytes, weights.shape is not None) == (first.stat().st_size + 500, True)


def test_a_pipeline_is_weighed_by_the_folders_that_it_names(hub: Hub, tmp_path: Path) -> None:
    one, other = safetensors(TINY, b"x" * 100), safetensors({"d": ("F32", [10])}, b"x" * 40)
    index = {"_class_name": "FluxPipeline", "transformer": ["diffusers", "X"], "vae": ["diffusers", "Y"], "guide": None}
    hub.models["owner/pictures"] = {
        "model_index.json": json.dumps(index).encode(),
        "flux1.safetensors": one + other,
        "transformer/diffusion_pytorch_model.safetensors": one,
        "transformer/diffusion_pytorch_model.fp16.safetensors": one,
        "vae/diffusion_pytorch_model.safetensors": other,
        "vae_1_0/diffusion_pytorch_model.safetensors": other,
    }
    expected = Weights(len(one) + len(other), {"BF16": 7, "F32": 14})
    assert weigh("owner/pictures", tmp_path) == expected
    folder = pull("owner/pictures", tmp_path, lambda _: None)
    assert not (folder / "flux1.safetensors").exists()
    assert weigh("owner/pictures", tmp_path) == expected
    for name, content in hub.models["owner/pictures"].items():  # as somebody's own clone has them
        file = tmp_path / "clone" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    assert weigh(str(tmp_path / "clone"), tmp_path) == expected


def test_numbers_of_a_part_do_not_pass_for_the_whole(tmp_path: Path) -> None:
    (tmp_path / "2_Dense").mkdir()
    (tmp_path / "model.safetensors").write_bytes(safetensors(TINY, b"x" * 30))
    (tmp_path / "2_Dense" / "pytorch_model.bin").write_bytes(b"x" * 2000)
    size = (tmp_path / "model.safetensors").stat().st_size + 2000
    assert weigh(str(tmp_path), tmp_path) == Weights(size)


@pytest.mark.parametrize(
    ("files", "format"),
    [
        ({"config.json": b"{}", "model.safetensors": safetensors(TINY)}, "safetensors"),
        ({"config.json": b"{}", "pytorch_model.bin": b"x"}, "PyTorch"),
        ({"config.json": b"{}", "model.bin": b"x", "vocabulary.json": b"[]"}, "CTranslate2"),
        ({"a.Q8_0.gguf": b"GGUF"}, "GGUF"),
        (
            {"model_index.json": b'{"unet": ["diffusers", "X"]}', "unet/model.safetensors": safetensors(TINY)},
            "diffusers",
        ),
        ({"model.onnx": b"x"}, "ONNX"),
    ],
)
def test_a_path_is_told_by_its_format(tmp_path: Path, files: dict[str, bytes], format: str) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert inspect(tmp_path).format == format


def test_a_path_without_weights_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("none")
    for path, says in (
        (tmp_path, "it holds no weights"),
        (tmp_path / "notes.txt", "of single files only .gguf has all of a model"),
        (tmp_path / "missing", "there is nothing at this path"),
    ):
        with pytest.raises(WeightsError, match=says):
            inspect(path)

"""What is pulled of a repository, by the lists of files that such repositories have: the weights once, nothing else."""

from __future__ import annotations

import pytest

from modelgrid.weights.choose import File, choose_files, weights_bytes
from modelgrid.weights.explain import WeightsError

GB = 1000**3


def chosen(names: list[str], components: set[str] | None = None, pick: str | None = None) -> set[str]:
    """Weights are large here, as they are."""
    files = [File(name, 5 * GB if name.endswith((".safetensors", ".bin", ".gguf", ".pt")) else 100) for name in names]
    return {file.name for file in choose_files(files, components, pick)}


@pytest.mark.parametrize(
    ("wanted", "others"),
    [
        pytest.param(
            ["config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
            ["consolidated.safetensors", "original/consolidated.00.pth", ".gitattributes", "pytorch_model.bin"],
            id="a text model",
        ),
        pytest.param(
            ["config.json", "tekken.json", "consolidated-00001-of-00002.safetensors"],
            [],
            id="one that has Mistral's own format only",
        ),
        pytest.param(
            ["config.json", "model.safetensors", "preprocessor_config.json"],
            [
                *("model.fp32-00001-of-00002.safetensors", "model.fp32-00002-of-00002.safetensors"),
                *("pytorch_model.bin", "pytorch_model.fp32-00001-of-00002.bin", "flax_model.msgpack", "tf_model.h5"),
            ],
            id="Whisper, in two precisions and four formats",
        ),
        pytest.param(
            ["config.json", "model.bin", "tokenizer.json", "vocabulary.json"],
            [],
            id="Whisper for CTranslate2",
        ),
        pytest.param(
            [
                *("config.json", "modules.json", "model.safetensors", "1_Pooling/config.json"),
                *("2_Dense/config.json", "2_Dense/pytorch_model.bin"),
            ],
            ["pytorch_model.bin", "onnx/model.onnx", "openvino/openvino_model.bin", "openvino/openvino_model.xml"],
            id="sentence-transformers, whose last layer is in another format",
        ),
        pytest.param(
            ["config.json", "model-00001-of-00003.safetensors", "generation_config.json"],
            ["state_dict.bin", "compression_state_dict.bin", "pytorch_model-00001-of-00002.bin"],
            id="MusicGen",
        ),
        pytest.param(
            ["config.json", "pytorch_model.bin"],
            ["text.pt", "coarse.pt", "training_args.bin", "optimizer.pt", "checkpoint-500/pytorch_model.bin"],
            id="pickles, and what training left",
        ),
        pytest.param(
            ["config.json", "model.pth", "dvae.pth", "speakers_xtts.pth"],
            ["samples/en.png"],
            id="pickles that are parts of one",
        ),
        pytest.param(
            ["config.json", "model.safetensors"],
            ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model-Q4_K_M.gguf"],
            id="whole, in shards and as GGUF",
        ),
        pytest.param(
            ["config.json", "model.fp16.safetensors"],
            ["model.ema.safetensors"],
            id="none without a variant",
        ),
        pytest.param(
            ["open_clip_config.json", "config.json", "model.safetensors"],
            ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"],
            id="CLIP, for two libraries",
        ),
    ],
)
def test_weights_are_chosen_once(wanted: list[str], others: list[str]) -> None:
    assert chosen([*others, *wanted]) == set(wanted)


SDXL = [
    *("model_index.json", "scheduler/scheduler_config.json", "tokenizer/vocab.json", "unet/config.json"),
    *("unet/diffusion_pytorch_model.safetensors", "vae/config.json", "vae/diffusion_pytorch_model.safetensors"),
    *("text_encoder/config.json", "text_encoder/model.safetensors"),
    *("text_encoder_2/config.json", "text_encoder_2/model.safetensors"),
]
SDXL_OTHERS = [
    *("sd_xl_base_1.0.safetensors", "sd_xl_offset_example-lora_1.0.safetensors", "01.png", "comparison.png"),
    *("unet/diffusion_pytorch_model.fp16.safetensors", "unet/diffusion_flax_model.msgpack", "unet/model.onnx_data"),
    *("unet/model.onnx", "unet/openvino_model.bin", "unet/openvino_model.xml", "vae_1_0/config.json"),
    *("vae_1_0/diffusion_pytorch_model.safetensors", "vae_decoder/model.onnx", "vae_decoder/openvino_model.bin"),
    *("text_encoder/model.fp16.safetensors", "text_encoder/pytorch_model.bin", "text_encoder/flax_model.msgpack"),
]
SDXL_FOLDERS = {"scheduler", "tokenizer", "unet", "vae", "text_encoder", "text_encoder_2"}


def test_of_a_pipeline_the_folders_that_it_names_are_chosen() -> None:
    assert chosen([*SDXL_OTHERS, *SDXL], SDXL_FOLDERS) == set(SDXL)


def test_a_pipeline_whose_folders_nobody_knows_has_them_all_and_no_second_whole() -> None:
    assert chosen([*SDXL_OTHERS, *SDXL]) == {
        *SDXL,
        *("vae_1_0/config.json", "vae_1_0/diffusion_pytorch_model.safetensors"),
    }


def test_shards_of_a_pipeline_are_kept_together_and_its_checker_in_the_format_that_it_has() -> None:
    wanted = [
        *("model_index.json", "transformer/diffusion_pytorch_model.safetensors.index.json"),
        *("transformer/diffusion_pytorch_model-00001-of-00003.safetensors",),
        *("transformer/diffusion_pytorch_model-00002-of-00003.safetensors",),
        *("transformer/diffusion_pytorch_model-00003-of-00003.safetensors",),
        "safety_checker/pytorch_model.bin",
    ]
    others = ["flux1-schnell.safetensors", "ae.safetensors", "safety_checker/model.fp16-00001-of-00002.gguf"]
    assert chosen([*wanted, *others], {"transformer", "safety_checker"}) == set(wanted)


def test_a_small_pickle_beside_safetensors_is_something_else() -> None:
    files = [File("model.safetensors", 5 * GB), File("spk_dict.pt", 259_000), File("voices/a.pt", 500_000)]
    assert choose_files(files) == files
    assert weights_bytes(files) == 5 * GB + 759_000


QUANTS = [
    *("config.json", "README.md", "Model-BF16-00001-of-00002.gguf", "Model-BF16-00002-of-00002.gguf"),
    *("Model-IQ4_NL.gguf", "Model-Q4_0.gguf", "Model-Q4_K_M.gguf", "Model-Q8_0.gguf", "imatrix.gguf"),
    *("mmproj-BF16.gguf", "mmproj-F32.gguf", "mmproj-Q8_0.gguf"),
]


@pytest.mark.parametrize(
    ("pick", "wanted"),
    [
        (None, {"Model-Q4_K_M.gguf", "mmproj-Q8_0.gguf"}),
        ("Q4_K_M", {"Model-Q4_K_M.gguf", "mmproj-Q8_0.gguf"}),
        ("Q4_0", {"Model-Q4_0.gguf", "mmproj-Q8_0.gguf"}),
        ("BF16", {"Model-BF16-00001-of-00002.gguf", "Model-BF16-00002-of-00002.gguf", "mmproj-BF16.gguf"}),
        ("IQ4_NL", {"Model-IQ4_NL.gguf", "mmproj-Q8_0.gguf"}),
        ("model-q4_0.gguf", {"Model-Q4_0.gguf"}),
        ("Model-BF16-00001-of-00002.gguf", {"Model-BF16-00001-of-00002.gguf", "Model-BF16-00002-of-00002.gguf"}),
        ("mmproj-F32.gguf", {"mmproj-F32.gguf"}),
    ],
)
def test_of_gguf_files_one_model_is_chosen(pick: str | None, wanted: set[str]) -> None:
    assert chosen(QUANTS, pick=pick) == {"config.json", "README.md", *wanted}


def test_without_the_usual_quantisations_the_first_is_chosen() -> None:
    assert chosen(["a-Q5_K_M.gguf", "a-Q6_K.gguf"]) == {"a-Q5_K_M.gguf"}
    assert chosen(["a-Q5_K_M.gguf", "a-Q8_0.gguf"]) == {"a-Q8_0.gguf"}


def test_a_quantisation_in_a_folder_of_its_own_is_found() -> None:
    names = ["UD-Q2_K_XL/M-UD-Q2_K_XL-00001-of-00002.gguf", "UD-Q2_K_XL/M-UD-Q2_K_XL-00002-of-00002.gguf"]
    assert chosen([*names, "Q8_0/M-Q8_0-00001-of-00001.gguf"], pick="UD-Q2_K_XL") == set(names)


def test_a_quantisation_is_not_taken_for_one_whose_name_it_ends() -> None:
    names = ["m-BF16.gguf", "m-F16.gguf", "m-IQ4_XS.gguf"]
    assert chosen(names, pick="F16") == {"m-F16.gguf"}
    with pytest.raises(WeightsError):
        chosen(names, pick="Q4_XS")


def test_a_gguf_file_is_picked_beside_other_formats() -> None:
    assert chosen(["model.safetensors", "model-f16.gguf"], pick="F16") == {"model-f16.gguf"}


@pytest.mark.parametrize(
    ("names", "pick", "says"),
    [
        (QUANTS, "Q3_K_S", "it has no Q3_K_S (there is BF16, IQ4_NL, Q4_0, Q4_K_M, Q8_0)"),
        (QUANTS, "other.gguf", "it has no other.gguf (there is BF16, IQ4_NL, Q4_0, Q4_K_M, Q8_0, F32)"),
        (["some.gguf"], "Q8_0", "it has no Q8_0 (there is some.gguf)"),
        (["model.safetensors"], "Q8_0", "it has no GGUF files"),
    ],
)
def test_what_cannot_be_picked_is_told_with_what_could(names: list[str], pick: str, says: str) -> None:
    with pytest.raises(WeightsError) as failure:
        chosen(names, pick=pick)
    assert str(failure.value) == says


def test_a_model_for_another_runtime_only_is_had_whole() -> None:
    files = [File("onnx/model.onnx", GB), File("config.json", 10), File("card.png", 10)]
    assert choose_files(files) == files[:2]
    assert weights_bytes(files) == GB

"""A vision-language model that has learned one thing, in a few seconds: to say which colour a picture has."""

from __future__ import annotations

import importlib
import random
from pathlib import Path
from typing import Any, Final

from modelgrid.services.stand_in.text import CHAT_TEMPLATE, END, SEED, START, TEXT, make_tokenizer

HIDDEN = 128
HEAD = 64  # numbers of each head: vLLM's attention on CPUs refuses fewer
EDGE = 64  # pixels of what it sees of any picture, in patches
PATCH = 16
MERGED = 2  # patches in each direction become one token
STEPS = 120
IMAGE, GLOBAL = "<image>", "<global-img>"  # as Idefics 3 has them
COLOURS: Final = {
    "red": (220, 20, 20),
    "green": (20, 160, 20),
    "blue": (20, 20, 220),
    "yellow": (230, 220, 20),
    "black": (10, 10, 10),
    "white": (245, 245, 245),
}


def make(folder: Path) -> None:
    """Write the model to `folder`."""
    torch: Any = importlib.import_module("torch")
    transformers: Any = importlib.import_module("transformers")
    torch.manual_seed(SEED)
    processor = _processor(transformers)
    model = transformers.Idefics3ForConditionalGeneration(_config(transformers, processor))
    _teach(torch, model, processor)
    model.to(torch.bfloat16).save_pretrained(folder)
    processor.save_pretrained(folder)


def _processor(transformers: Any) -> Any:
    tokenizer = make_tokenizer(transformers)
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE, GLOBAL]})
    edge = {"longest_edge": EDGE}
    images = transformers.Idefics3ImageProcessorPil(size=edge, max_image_size=edge, do_image_splitting=False)
    spoken = "{{ part['text'] }}"
    seen = "{% if part['type'] == 'image' %}" + IMAGE + "{% else %}" + spoken + "{% endif %}"
    return transformers.Idefics3Processor(
        images,
        tokenizer,
        image_seq_len=(EDGE // PATCH // MERGED) ** 2,
        chat_template=CHAT_TEMPLATE.replace(spoken, seen),
    )


def _config(transformers: Any, processor: Any) -> Any:
    tokenizer = processor.tokenizer
    text = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=HIDDEN // HEAD,
        num_key_value_heads=HIDDEN // HEAD,
        head_dim=HEAD,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    sight = transformers.Idefics3VisionConfig(
        hidden_size=HEAD,
        intermediate_size=2 * HEAD,
        num_hidden_layers=1,
        num_attention_heads=1,
        image_size=EDGE,
        patch_size=PATCH,
    )
    return transformers.Idefics3Config(
        text_config=text,
        vision_config=sight,
        scale_factor=MERGED,
        image_token_id=processor.image_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )


def _teach(torch: Any, model: Any, processor: Any) -> None:
    """Whatever is asked, before or after the picture, the answer is its colour."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # what is this small takes longer in several
    lessons = [_lesson(processor, question) for question in _questions()]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(STEPS):
        lesson = dict(lessons[step % len(lessons)])
        pictures = lesson.pop("pixel_values")
        shades = pictures + 0.1 * torch.randn(len(COLOURS), 1, 3, 1, 1)
        optimizer.zero_grad()
        model(**lesson, pixel_values=shades).loss.backward()
        optimizer.step()
    model.eval()
    torch.set_num_threads(threads)


def _questions() -> list[str]:
    chance = random.Random(SEED)  # noqa: S311  nothing is hidden by it
    asked = [" ".join(chance.choices(TEXT.split(), k=length)) for length in range(1, 13)]
    return [text for question in asked for text in (f"{IMAGE}{question}", f"{question}{IMAGE}")]


def _lesson(processor: Any, question: str) -> dict[str, Any]:
    """The question about each colour, and what there is to learn of it: the answer only."""
    head = f"{START}user\n{question}{END}\n{START}assistant\n"
    pictures = _pictures()
    texts = [f"{head}The picture is {name}.{END}" for name in COLOURS]
    lesson = dict(processor(text=texts, images=pictures, padding=True, return_tensors="pt"))
    answer = lesson["input_ids"].clone()
    answer[lesson["attention_mask"] == 0] = -100  # not learned
    answer[:, : len(processor(text=[head], images=pictures[:1])["input_ids"][0])] = -100
    return {**lesson, "labels": answer}


def _pictures() -> list[list[Any]]:
    pillow: Any = importlib.import_module("PIL.Image")
    return [[pillow.new("RGB", (EDGE, EDGE), colour)] for colour in COLOURS.values()]

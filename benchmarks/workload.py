"""What every mode of a speed benchmark computes: the same model, pictures, tokens and count of floating-point work."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.optim import Optimizer

from appraiser.backbone import IGNORE_INDEX, Backbone, load, model_folder
from appraiser.data.batches import Batch, Example, collate
from appraiser.data.samples.items import draw_item, iter_products
from appraiser.phi3_v import Phi3VConfig, Phi3VForConditionalGeneration, Phi3VImageProcessor
from appraiser.pretraining.pretrain import tiny_config
from appraiser.training.gradients import StepGradients

HERE = Path(__file__).resolve().parent
PROMPT_TOKENS = 12
ANSWER_TOKENS = (26, 34)  # shortest and longest answer, ends included; 30 on average
PICTURE_PX = 448
TINY_VOCAB = 1024
MATMUL_SHAPES = ((2048, 2048, 2048), (4096, 1024, 4096), (3200, 512, 2752), (4096, 4096, 1024))


def shared_folder() -> Path:
    """The folder of real pictures: APPRAISER_SHARED, or `shared` beside the repository."""
    return Path(os.environ.get("APPRAISER_SHARED", HERE.parents[1] / "shared"))


def pictures(number: int, seed: int = 0) -> tuple[list[Image.Image], str]:
    """`number` square pictures of 448 px and where they come from; real ones where the shared folder has them."""
    files = sorted((shared_folder() / "real/outdoor_shop/images").glob("*.jpg"))[:number]
    if len(files) == number:
        return [Image.open(file).convert("RGB") for file in files], "outdoor_shop"
    return [draw_item(entry, seed, PICTURE_PX) for entry in iter_products(number, seed)], "rendered"


def build(config: str, crops: int, *, attention: str, dtype: torch.dtype) -> Backbone:
    """The benchmark's model with its image processor; no tokenizer, because the text is random ids.

    Weights are random and equal in every process, except that `tiny` is the embedded phi3v-tiny once it is trained.
    """
    if config == "tiny":
        folder = Path(model_folder("phi3v-tiny"))
        if (folder / "config.json").is_file():
            backbone = load("phi3v-tiny", num_crops=crops, attention=attention)
            backbone.model.to(dtype)
            return backbone
        settings = tiny_config(TINY_VOCAB, TINY_VOCAB - 10)
    else:
        settings = Phi3VConfig.from_json_file(str(HERE / "bench.json"))
    torch.manual_seed(0)
    settings._attn_implementation = attention
    model = Phi3VForConditionalGeneration(settings).to(dtype)
    return Backbone(processor_of(settings, crops), config, model)


def processor_of(settings: Phi3VConfig, crops: int) -> Any:
    """What a model's rows are made with where the text is random ids: the picture settings and the padding token."""
    side = settings.tokens_per_crop_side
    image_processor = Phi3VImageProcessor(
        num_crops=crops, num_img_tokens=side * side, crop_size=settings.clip_config["image_size"]
    )
    tokenizer = SimpleNamespace(pad_token_id=settings.pad_token_id)
    return SimpleNamespace(image_processor=image_processor, tokenizer=tokenizer)


def examples(
    backbone: Backbone, images: list[Image.Image], seed: int = 0, each: Callable[..., Iterable[Any]] = map
) -> list[Example]:
    """One row per picture: prompt with the picture's placeholders, then an answer of 26 to 34 supervised tokens.

    Args:
        each: how pictures are processed: `map`, or that of a pool.
    """
    rng = np.random.default_rng(seed)
    highest = min(backbone.pad_token_id, backbone.config.vocab_size) - 1
    rows = []
    for index, (image, views) in enumerate(zip(images, each(backbone.views, images), strict=True)):
        count = backbone.num_image_tokens(image.width, image.height)
        prompt = rng.integers(3, highest, PROMPT_TOKENS).tolist()
        answer = rng.integers(3, highest, rng.integers(*ANSWER_TOKENS, endpoint=True)).tolist()
        asked = prompt[:4] + [-1] * count + prompt[4:]
        labels = [IGNORE_INDEX] * len(asked) + answer
        rows.append(Example(str(index), tuple(asked + answer), tuple(labels), (views,)))
    return rows


def prompts(rows: list[Example]) -> list[Example]:
    """The same rows without their answers, for generation."""
    cut = [sum(label == IGNORE_INDEX for label in row.labels) for row in rows]
    return [
        Example(row.record_id, row.input_ids[:end], row.labels[:end], row.pictures)
        for row, end in zip(rows, cut, strict=True)
    ]


def batches(backbone: Backbone, rows: list[Example], size: int, *, padding_side: str = "right") -> list[Batch]:
    return [
        collate(rows[start : start + size], backbone, padding_side=padding_side) for start in range(0, len(rows), size)
    ]


def forward_flops(config: Phi3VConfig, batch: Batch) -> dict[str, float]:
    """Floating-point operations of one forward pass over these rows by part, padding and waste left out.

    Per row of S tokens, T of them image tokens, A with a scored next token, V views of P + 1 patches; tower width C,
    its inner width F, patch side p; decoder width D, key-value width K, inner width I:

        patches     V P 2 (3 p^2 C)
        tower       V (P + 1) 2 (4 C^2 + 2 C F) + V 4 (P + 1)^2 C    each block but the last, which nothing reads
        projector   T 2 (4 C D + D^2)
        decoder     S 2 (2 D^2 + 2 D K + 3 D I) + 2 S^2 D            each layer but the last; causal half of attention
         last layer S 2 (2 D K) + A 2 (2 D^2 + 3 D I) + A 4 S D      only scored positions reach the head
         head       A 2 D vocab
    """
    clip = config.clip_config
    width, inner, patch = clip["hidden_size"], clip["intermediate_size"], clip["patch_size"]
    patches = (clip["image_size"] // patch) ** 2
    sizes = batch.inputs["image_sizes"].tolist()
    crops = [(h // clip["image_size"]) * (w // clip["image_size"]) for h, w in sizes]
    views = sum(1 if count == 1 else 1 + count for count in crops)  # one crop: the same view as the global one
    block = views * (patches + 1) * 2 * (4 * width**2 + 2 * width * inner) + views * 4 * (patches + 1) ** 2 * width

    hidden, kv = config.hidden_size, config.num_key_value_heads * config.head_dim
    image_tokens = int((batch.inputs["input_ids"] < 0).sum())
    by_query = 2 * (2 * hidden**2 + 3 * hidden * config.intermediate_size)
    by_key = 2 * (2 * hidden * kv)
    decoder = batch.num_supervised * 2 * hidden * config.vocab_size
    scored_per_row = (batch.labels[:, 1:] != IGNORE_INDEX).sum(-1).tolist()
    for length, scored in zip(batch.inputs["attention_mask"].sum(-1).tolist(), scored_per_row, strict=True):
        decoder += (config.num_hidden_layers - 1) * (length * (by_query + by_key) + 2 * length**2 * hidden)
        decoder += length * by_key + scored * (by_query + 4 * length * hidden)
    return {
        "patches": views * patches * 2 * 3 * patch**2 * width,
        "tower": (clip["num_hidden_layers"] - 1) * block,
        "projector": image_tokens * 2 * (4 * width * hidden + hidden**2),
        "decoder": decoder,
    }


def training_flops(config: Phi3VConfig, batch: Batch, *, tower_trained: bool = True) -> float:
    """Floating-point operations that a step which trains all weights needs.

    Backward costs twice the forward, so trained parts count three times (patches twice: no gradient to pixels).
    """
    work = forward_flops(config, batch)
    tower = 3 * work["tower"] + 2 * work["patches"] if tower_trained else 0
    return tower + 3 * (work["projector"] + work["decoder"])


def take_step(gradients: StepGradients, optimizers: list[Optimizer], batches: list[Batch]) -> float:
    """One update, with gradients clipped as in training; the loss before it."""
    loss = gradients(batches).loss
    torch.nn.utils.clip_grad_norm_(gradients.parameters, 1.0)
    gradients.update(optimizers)
    return loss


def matmul_rate(dtype: torch.dtype, seconds: float = 1.5) -> float:
    """Best FLOP/s of this machine over a few matrix shapes, the fastest of repeated products of each."""
    best = 0.0
    for rows, inner, columns in MATMUL_SHAPES:
        left, right = torch.randn(rows, inner).to(dtype), torch.randn(columns, inner).to(dtype)
        end = time.perf_counter() + seconds / len(MATMUL_SHAPES)
        while time.perf_counter() < end:
            start = time.perf_counter()
            torch.nn.functional.linear(left, right)
            best = max(best, 2 * rows * inner * columns / (time.perf_counter() - start))
    return best


def peak_anonymous_gb() -> float:
    """Peak resident memory of this process without mapped files (libraries), in GB."""
    status = Path("/proc/self/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    kilobytes = {name: int(fields[name].split()[0]) for name in ("VmHWM", "RssFile")}
    return (kilobytes["VmHWM"] - kilobytes["RssFile"]) / 1e6

"""Reads the golden vectors and holds an implementation against them.

`check_*` functions raise AssertionError; the mutation test uses them to show that a wrong model is caught.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from appraiser.phi3_v import IGNORE_INDEX, Phi3VForConditionalGeneration, Phi3VProcessor

# fp32 on a CPU; measured spreads of the reference itself are in the vectors' README.
ATOL_FEATURES = 1e-5
ATOL_LOGITS = 1e-4
ATOL_LOSS = 1e-5
RTOL_GRADIENTS = 5e-5


@dataclass(frozen=True)
class GoldenModel:
    """One folder of golden cases; `folder` may be overridden to load a model from elsewhere."""

    root: Path
    name: str

    @property
    def folder(self) -> Path:
        return self.root / self.name

    @cached_property
    def cases(self) -> dict[str, Any]:
        return json.loads((self.folder / "cases.json").read_text())

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        return load_file(self.folder / "cases.safetensors")

    def of_kind(self, *kinds: str) -> list[str]:
        return [name for name, case in self.cases.items() if case.get("kind") in kinds]

    def images(self, case: dict[str, Any]) -> list[Image.Image]:
        return open_images(self.root, case["images"])

    def load(self, **kwargs: Any) -> Phi3VForConditionalGeneration:
        return Phi3VForConditionalGeneration.from_pretrained(self.folder, dtype=torch.float32, **kwargs).eval()

    def processor(self) -> Phi3VProcessor:
        return Phi3VProcessor.from_pretrained(self.folder)

    def pixels(self, name: str, processor: Phi3VProcessor) -> dict[str, Tensor]:
        """pixel_values and image_sizes of a picture or noise case."""
        case = self.cases[name]
        if case["kind"] == "noise":
            sizes = torch.tensor(case["image_sizes"])
            return {"pixel_values": noise_pixels(case), "image_sizes": sizes}
        features = processor.image_processor(self.images(case), num_crops=case["num_crops"])
        return {"pixel_values": features["pixel_values"], "image_sizes": features["image_sizes"]}


def open_images(root: Path, names: list[str]) -> list[Image.Image]:
    """Decoded pictures in their own modes, files closed."""
    images = []
    for name in names:
        with Image.open(root / "images" / name) as image:
            image.load()
            images.append(image.copy())
    return images


def noise_pixels(case: dict[str, Any]) -> Tensor:
    """Pixels by the integer formula of the vectors' README: the model can be tested without the processor."""
    sizes = case["image_sizes"]
    shape = (len(sizes), case["num_crops"] + 1, 3, 336, 336)
    mask = np.uint64(2**32 - 1)
    i = np.arange(np.prod(shape), dtype=np.uint64)
    h = (i * np.uint64(2654435761) + np.uint64(case["noise_seed"] * 40503)) & mask
    h ^= h >> np.uint64(15)
    h = (h * np.uint64(2246822519)) & mask
    h ^= h >> np.uint64(13)
    x = ((h >> np.uint64(8)).astype(np.float64) / 2**24 * 4 - 2).astype(np.float32).reshape(shape)
    for index, (height, width) in enumerate(sizes):
        x[index, 1 + (height // 336) * (width // 336) :] = 0
    return torch.from_numpy(x)


def close(actual: Tensor, expected: Tensor, atol: float, what: str) -> None:
    worst = (actual - expected).abs().max().item()
    assert worst <= atol, f"{what}: differs by {worst:.3g}, allowed {atol:.3g}"


def check_text(golden: GoldenModel, model: Phi3VForConditionalGeneration, name: str) -> None:
    tensors, case = golden.tensors, golden.cases[name]
    inputs = {
        key: tensors[f"{name}.{key}"]
        for key in ("input_ids", "attention_mask", "position_ids")
        if f"{name}.{key}" in tensors
    }
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True)
    mask = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])).bool()
    rows = tensors[f"{name}.logits_rows"]
    keep = mask[:, rows][..., None]
    close(output.logits[:, rows] * keep, tensors[f"{name}.logits"] * keep, ATOL_LOGITS, f"{name} logits")
    rows = tensors[f"{name}.hidden_rows"]
    keep = mask[:, rows][None, ..., None]
    hidden = torch.stack([states[:, rows] for states in output.hidden_states])
    close(hidden * keep, tensors[f"{name}.hidden"] * keep, ATOL_LOGITS, f"{name} hidden states")
    assert ((output.logits.argmax(-1) == torch.tensor(case["argmax"])) | ~mask).all(), f"{name}: other argmax"


def check_rope(golden: GoldenModel, model: Phi3VForConditionalGeneration) -> None:
    tensors = golden.tensors
    assert abs(model.config.rope_magnitude - golden.cases["rope"]["attention_scaling"]) < 1e-12
    for kind, row in (("short", 0), ("long", 1)):
        positions = tensors[f"rope.{kind}.position_ids"].reshape(1, -1)
        frequencies = model.model.rotary_emb.frequencies(positions.device)[row]
        assert torch.equal(frequencies, tensors[f"rope.{kind}.inv_freq"].flatten()), f"rope {kind} frequencies"
        # The reference chose by the largest position of the call; ours by the document's length.
        total = positions.max().reshape(1) + 1
        cos, sin = model.model.rotary_emb(positions, torch.float32, total)
        for what, table in (("cos", cos), ("sin", sin)):
            close(table, tensors[f"rope.{kind}.{what}"].reshape(table.shape), 1e-6, f"rope {kind} {what}")


def check_picture(
    golden: GoldenModel, model: Phi3VForConditionalGeneration, processor: Phi3VProcessor, name: str
) -> None:
    tensors, case = golden.tensors, golden.cases[name]
    pixels = golden.pixels(name, processor)
    assert pixels["image_sizes"].tolist() == case["image_sizes"], f"{name}: other sizes"
    input_ids = tensors[f"{name}.input_ids"]
    if case["kind"] == "image":
        ids = processor(case["prompt"], golden.images(case), num_crops=case["num_crops"], return_tensors="pt")
        assert torch.equal(ids["input_ids"], input_ids), f"{name}: other ids"
    vision = model.model.vision_embed_tokens
    with torch.no_grad():
        patches = vision.encode_crops(**pixels)
        hd = vision.merge_pictures(patches, pixels["image_sizes"])
        projected = vision.img_projection(hd)
        output = model(input_ids=input_ids, **pixels)
        embeds = model.model.embed(input_ids, **pixels)
    rows = tensors[f"{name}.proj_rows"]
    close(hd[rows], tensors[f"{name}.hd"], ATOL_FEATURES, f"{name} hd")
    close(projected[rows], tensors[f"{name}.proj"], ATOL_FEATURES, f"{name} proj")
    # Vectors count padding crops too; ours run the real ones only.
    views = pixels["pixel_values"].shape[1]
    real = [
        index * views + crop
        for index, (rows_, columns) in enumerate(vision.crop_grid(pixels["image_sizes"]))
        for crop in range(1 + rows_ * columns)
    ]
    chosen = [int(crop) for crop in tensors[f"{name}.clip_patch_crops"] if int(crop) in real]
    assert chosen, f"{name}: no real crop among the stored ones"
    stored = {int(crop): k for k, crop in enumerate(tensors[f"{name}.clip_patch_crops"])}
    patch_rows = tensors[f"{name}.clip_patch_rows"]
    for crop in chosen:
        expected = tensors[f"{name}.clip_patch"][stored[crop]]
        close(patches[real.index(crop)][patch_rows], expected, ATOL_FEATURES, f"{name} clip crop {crop}")
    if f"{name}.inputs_embeds" in tensors:
        close(embeds, tensors[f"{name}.inputs_embeds"], ATOL_FEATURES, f"{name} inputs_embeds")
    rows = tensors[f"{name}.logits_rows"]
    close(output.logits[:, rows], tensors[f"{name}.logits"], ATOL_LOGITS, f"{name} logits")
    argmax = torch.tensor(case["argmax"]) if "argmax" in case else tensors[f"{name}.argmax"].long()
    assert torch.equal(output.logits.argmax(-1), argmax.reshape(output.logits.shape[:2])), f"{name}: other argmax"


def check_batch(
    golden: GoldenModel, model: Phi3VForConditionalGeneration, processor: Phi3VProcessor, name: str
) -> None:
    tensors, case = golden.tensors, golden.cases[name]
    batch = processor(case["prompts"], golden.images(case), num_crops=case["num_crops"], return_tensors="pt")
    mask = (
        tensors[f"{name}.attention_mask"].bool()
        if f"{name}.attention_mask" in tensors
        else batch["attention_mask"].bool()
    )
    assert torch.equal(batch["input_ids"][mask], tensors[f"{name}.input_ids"][mask]), f"{name}: other ids"
    positions = (mask.long().cumsum(-1) - 1).masked_fill(~mask, 1)
    with torch.no_grad():
        logits = model(**batch, position_ids=positions).logits
    rows = tensors[f"{name}.logits_rows"]
    keep = mask[:, rows][..., None]
    close(logits[:, rows] * keep, tensors[f"{name}.logits"] * keep, ATOL_LOGITS, f"{name} logits")


def check_training(
    golden: GoldenModel, model: Phi3VForConditionalGeneration, processor: Phi3VProcessor, name: str
) -> None:
    tensors, case = golden.tensors, golden.cases[name]
    model.zero_grad()
    inputs = {"input_ids": tensors[f"{name}.input_ids"], "labels": tensors[f"{name}.labels"]}
    pixels = golden.pixels(name, processor)
    loss = model(**inputs, **pixels).loss
    assert abs(loss.item() - case["loss"]) <= ATOL_LOSS, f"{name}: loss {loss.item()}, expected {case['loss']}"
    answer_only = model(**inputs, **pixels, answer_only=True)
    assert abs(answer_only.loss.item() - case["loss"]) <= ATOL_LOSS, f"{name}: answer-only loss differs"
    assert len(answer_only.logits) == int((inputs["labels"][:, 1:] != IGNORE_INDEX).sum())
    answer_only.loss.backward()
    for parameter, value in model.named_parameters():
        stored = case["grads"][parameter]
        if stored is None:
            assert value.grad is None, f"{name}: {parameter} got a gradient, the reference has none"
            continue
        if parameter.endswith("k_proj.bias"):  # zero in exact arithmetic: both sides hold rounding only
            assert max(float(value.grad.norm()), stored["norm"]) < 1e-6, f"{name}: gradient of {parameter}"
            continue
        difference = abs(float(value.grad.norm()) - stored["norm"])
        assert difference <= RTOL_GRADIENTS * stored["norm"], f"{name}: gradient norm of {parameter}"
        scale = stored["absmax"]
        if f"{name}.grad.{parameter}" in tensors:
            expected = tensors[f"{name}.grad.{parameter}"]
            close(value.grad / scale, expected / scale, RTOL_GRADIENTS, f"{name} gradient of {parameter}")
    model.zero_grad()


def check_generation(
    golden: GoldenModel, model: Phi3VForConditionalGeneration, processor: Phi3VProcessor, name: str
) -> None:
    case = golden.cases[name]
    if "images" in case:
        inputs = processor(case["prompt"], golden.images(case), num_crops=case["num_crops"], return_tensors="pt")
    else:
        ids = golden.tensors[f"{name}.input_ids"]
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    for use_cache in (True, False):
        output = model.generate(
            **inputs,
            max_new_tokens=case["max_new_tokens"],
            eos_token_id=case["eos_token_id"],
            do_sample=False,
            use_cache=use_cache,
        )
        answer = output[0, inputs["input_ids"].shape[1] :].tolist()
        # The reference's cached answer is stale where the sequence crosses the short length; recomputation is right.
        assert answer == case["uncached"], f"{name}: {answer} with use_cache={use_cache}"

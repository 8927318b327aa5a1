"""Writes the project's own vectors beside this file: `python tests/parity/vectors/make_vectors.py`.

Made once, with the code that had just been shown to equal the published reference on all golden vectors
(`tests/parity/test_golden.py`, `test_wide_recipe.py`). They let a bare clone, without the reference material, notice
that the numbers moved. Never re-made to make a test pass: a difference is a fault until parity is shown again.

Weights, noise and pictures are formulas (`tests/tiny.py`) and are not stored. `cases()` is what the test computes too.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parents[1]))  # for `tiny`, when run as a script

from tiny import CROP, formula_model, formula_picture, tiny_config, tiny_image_processor, tiny_tokenizer  # noqa: E402

from appraiser.phi3_v import (  # noqa: E402
    IGNORE_INDEX,
    Phi3VForConditionalGeneration,
    Phi3VImageProcessor,
    Phi3VProcessor,
)

SEED = "own-vectors:"
SHORT_LENGTH = 48
# Gradients that are stored in full: both ends of the network, the separators, and what is easily forgotten.
STORED_GRADIENTS = (
    "lm_head.weight",
    "model.layers.0.self_attn.qkv_proj.weight",
    "model.layers.1.mlp.gate_up_proj.weight",
    "model.norm.weight",
    "model.vision_embed_tokens.glb_GN",
    "model.vision_embed_tokens.sub_GN",
    "model.vision_embed_tokens.img_projection.0.bias",
    "model.vision_embed_tokens.img_processor.vision_model.embeddings.class_embedding",
    "model.vision_embed_tokens.img_processor.vision_model.encoder.layers.1.mlp.fc1.weight",
)
CHAT = "<|user|>\n<|image_1|>\nWhat is this?<|end|>\n<|assistant|>\n"
PROMPTS = {
    "no picture": ("<|user|>\nWhat is the price? £12,99 été 🛒<|end|>\n<|assistant|>\n", []),
    "one picture": (CHAT, [(37, 21)]),
    "two pictures": ("<|image_1|><|image_2|>\nRed Bag", [(21, 37), (90, 20)]),
    "a second turn": (
        "<|user|>\n<|image_1|>Bag?<|end|>\n<|assistant|>\nYes<|end|>\n<|user|>\nPrice?<|end|>\n",
        [(9, 9)],
    ),
}
SIZES = [
    (1, 1),
    (40, 30),
    (336, 336),
    (337, 336),
    (336, 337),
    (1000, 700),
    (700, 1000),
    (2000, 90),
    (90, 2000),
    (640, 480),
]
BUDGETS = (1, 2, 4, 6, 9, 16)


def model() -> Phi3VForConditionalGeneration:
    return formula_model(tiny_config(original_max_position_embeddings=SHORT_LENGTH), SEED)


def noise(grid: list[tuple[int, int]], num_crops: int, number: int) -> dict[str, Tensor]:
    """Pixels of pictures with these crop grids, by the golden vectors' noise formula; unused crops are zero."""
    shape = (len(grid), num_crops + 1, 3, CROP, CROP)
    mask = np.uint64(2**32 - 1)
    h = (np.arange(np.prod(shape), dtype=np.uint64) * np.uint64(2654435761) + np.uint64(number * 40503)) & mask
    h ^= h >> np.uint64(15)
    h = (h * np.uint64(2246822519)) & mask
    h ^= h >> np.uint64(13)
    pixels = ((h >> np.uint64(8)).astype(np.float64) / 2**24 * 4 - 2).astype(np.float32).reshape(shape)
    for picture, (rows, columns) in zip(pixels, grid, strict=True):
        picture[1 + rows * columns :] = 0
    sizes = torch.tensor([(rows * CROP, columns * CROP) for rows, columns in grid])
    return {"pixel_values": torch.from_numpy(pixels), "image_sizes": sizes}


def ids(length: int, number: int) -> Tensor:
    """[1, length] text ids by formula."""
    return (torch.arange(length)[None] * 37 + 11 * number) % 400


def with_pictures(pixels: dict[str, Tensor], counts: list[int], number: int) -> dict[str, Tensor]:
    """Text ids, each picture's placeholders, and text after it."""
    parts = [ids(4, number)]
    for index, count in enumerate(counts):
        parts += [torch.full((1, count), -(index + 1)), ids(3, number + index + 1)]
    return {"input_ids": torch.cat(parts, dim=1)} | pixels


def picture_inputs(net: Phi3VForConditionalGeneration) -> dict[str, dict[str, Tensor]]:
    grids = {"picture_1x1": ([(1, 1)], 1), "picture_2x3": ([(2, 3)], 7), "pictures_3x1_1x2": ([(3, 1), (1, 2)], 3)}
    inputs = {}
    for number, (name, (grid, num_crops)) in enumerate(grids.items()):
        pixels = noise(grid, num_crops, number)
        counts = net.model.vision_embed_tokens.num_tokens(pixels["image_sizes"])
        inputs[name] = with_pictures(pixels, counts, number)
    return inputs


def left_padded(net: Phi3VForConditionalGeneration) -> dict[str, Tensor]:
    """Three rows, two of them with a picture, the shortest padded most."""
    grid = [(1, 1), (1, 2)]
    pixels = noise(grid, 2, 9)
    one, two = net.model.vision_embed_tokens.num_tokens(pixels["image_sizes"])
    rows = [ids(9, 1), with_pictures({}, [one], 2)["input_ids"], with_pictures({}, [two], 3)["input_ids"]]
    length = max(row.shape[1] for row in rows)
    pad = net.config.pad_token_id
    padded = [torch.nn.functional.pad(row, (length - row.shape[1], 0), value=pad) for row in rows]
    mask = torch.stack([(torch.arange(length) >= length - row.shape[1]).long() for row in rows])
    positions = (mask.cumsum(-1) - 1).masked_fill(mask == 0, 1)
    return {"input_ids": torch.cat(padded), "attention_mask": mask, "position_ids": positions} | pixels


def kept(logits: Tensor) -> Tensor:
    """Every fifth vocabulary column of every third row and the last one: small, and no layout fault hides from it."""
    rows = sorted({*range(0, logits.shape[1], 3), logits.shape[1] - 1})
    return logits[:, rows, ::5].contiguous()


def cases(net: Phi3VForConditionalGeneration) -> dict[str, Tensor]:
    """Everything that is stored of the model, by name."""
    return inference_cases(net) | training_case(net)


def inference_cases(net: Phi3VForConditionalGeneration) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    with torch.no_grad():
        for length in (SHORT_LENGTH, SHORT_LENGTH + 1):
            found[f"text_{length}.logits"] = kept(net(ids(length, length)).logits)
            cos, sin = net.model.rotary_emb(torch.arange(length)[None], torch.float32)
            found[f"text_{length}.cos"], found[f"text_{length}.sin"] = cos[0, ::6].clone(), sin[0, ::6].clone()
        for name, inputs in picture_inputs(net).items():
            features = net.model.vision_embed_tokens(inputs["pixel_values"], inputs["image_sizes"])
            found[f"{name}.features"] = features[:, ::2].contiguous()
            found[f"{name}.logits"] = kept(net(**inputs).logits)
        batch = left_padded(net)
        logits = net(**batch).logits * batch["attention_mask"][..., None]
        found["left_padded.logits"] = kept(logits)
        found["generate.text"] = net.generate(ids(20, 3), max_new_tokens=12, do_sample=False, eos_token_id=None)
        found["generate.crossing"] = net.generate(
            ids(SHORT_LENGTH - 5, 4), max_new_tokens=12, do_sample=False, eos_token_id=None
        )
        del batch["position_ids"]
        found["generate.pictures"] = net.generate(**batch, max_new_tokens=16, do_sample=False, eos_token_id=None)
    return found


def training_case(net: Phi3VForConditionalGeneration) -> dict[str, Tensor]:
    inputs = picture_inputs(net)["pictures_3x1_1x2"]
    inputs["input_ids"] = torch.cat([inputs["input_ids"], ids(12, 8)], dim=1)
    labels = inputs["input_ids"].clone()
    labels[:, :-12] = IGNORE_INDEX
    loss = net(**inputs, labels=labels).loss
    loss.backward()
    gradients = {name: value.grad for name, value in net.named_parameters() if value.grad is not None}
    # The norm of each parameter's gradient, in the order of the names; k_proj biases are rounding only.
    names = sorted(name for name in gradients if not name.endswith("k_proj.bias"))
    found = {"train.loss": loss.detach(), "train.norms": torch.stack([gradients[name].norm() for name in names])}
    for name in STORED_GRADIENTS:
        # A flat sample of about 400 entries of the large ones.
        flat = gradients[name].flatten()
        found[f"train.grad.{name}"] = flat[:: max(1, len(flat) // 400)].clone()
    return found


def processor_facts() -> dict[str, Any]:
    """Sizes, bytes of HD pictures, and ids; exact."""
    published = Phi3VImageProcessor()
    sizes = [
        [
            width,
            height,
            budget,
            *published.hd_size(width, height, budget),
            published.num_tokens_for_size(width, height, budget),
        ]
        for width, height in SIZES
        for budget in BUDGETS
        if max(width, height) // min(width, height) < 300 * budget
    ]
    pictures = []
    for size, budget in (((40, 30), 4), ((30, 40), 4), ((300, 200), 1), ((100, 450), 6), ((336, 336), 2), ((1, 1), 1)):
        hd = published.hd_transform(formula_picture(*size), budget)
        views, _ = published.views(formula_picture(*size), budget)
        pictures.append(
            {
                "size": size,
                "num_crops": budget,
                "hd_sha256": hashlib.sha256(np.ascontiguousarray(np.asarray(hd)).tobytes()).hexdigest(),
                # Crop by crop: the sum tells levels, the value at one place tells the resampling filter.
                "view_sums": [round(float(view.double().sum()), 3) for view in views],
                "view_points": [round(float(view[1, 100, 200]), 5) for view in views],
            }
        )
    with tempfile.TemporaryDirectory() as folder:
        processor = Phi3VProcessor(tiny_image_processor(4), tiny_tokenizer(Path(folder)))
        prompts = {}
        for name, (prompt, picture_sizes) in PROMPTS.items():
            batch = processor(prompt, [formula_picture(*size) for size in picture_sizes] or None, return_tensors="pt")
            prompts[name] = run_lengths(batch["input_ids"][0].tolist())
    return {"hd_sizes": sizes, "pictures": pictures, "prompts": prompts}


def run_lengths(values: list[int]) -> list[Any]:
    """[5, -1, -1, -1, 5] -> [5, [-1, 3], 5]."""
    found: list[list[int]] = []
    for value in values:
        if found and found[-1][0] == value:
            found[-1][1] += 1
        else:
            found.append([value, 1])
    return [value if count == 1 else [value, count] for value, count in found]


if __name__ == "__main__":
    torch.set_num_threads(1)
    save_file(cases(model()), FOLDER / "vectors.safetensors")
    facts = json.dumps(processor_facts(), indent=None, separators=(",", ":"))
    (FOLDER / "processor.json").write_text(facts.replace('},{"size"', '},\n{"size"') + "\n", encoding="utf-8")
    print(sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) // 1024, "KB in", FOLDER)

"""At the published widths (hidden 3072, head_dim 96, vocabulary 32064, CLIP 1024) ours equals the reference.

Two decoder and four tower layers; the weights, 1.9 GB in fp32, are made by formula. fp32 on a CPU, tolerances of the
vectors' README. Measured differences are printed with `pytest -s`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import shared_folder
from golden_cases import ATOL_FEATURES, ATOL_LOGITS, close, open_images
from safetensors.torch import load_file
from tiny import formula_model, formula_tensor
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from appraiser.phi3_v import Phi3VConfig, Phi3VForConditionalGeneration, Phi3VImageProcessor, Phi3VProcessor

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wide(golden: Path) -> Path:
    return golden / "wide_recipe"


@pytest.fixture(scope="module")
def cases(wide: Path) -> dict[str, Any]:
    return json.loads((wide / "cases.json").read_text())


@pytest.fixture(scope="module")
def tensors(wide: Path) -> dict[str, Tensor]:
    return load_file(wide / "cases.safetensors")


@pytest.fixture(scope="module")
def model(wide: Path) -> Phi3VForConditionalGeneration:
    return formula_model(Phi3VConfig.from_pretrained(wide), seed="phi3v-wide:")


@pytest.fixture(scope="module")
def processor() -> Phi3VProcessor:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(shared_folder("phi3_tokenizer"))
    return Phi3VProcessor(Phi3VImageProcessor(), tokenizer)


def measured(actual: Tensor, expected: Tensor, atol: float, what: str) -> None:
    print(f"{what}: {(actual - expected).abs().max().item():.2e} of {atol:.0e}")
    close(actual, expected, atol, what)


def test_weights_follow_the_recipe(cases: dict[str, Any], model: Phi3VForConditionalGeneration) -> None:
    state = model.state_dict()
    for name, first in cases["recipe_check_first4"].items():
        assert state[name].flatten()[:4].tolist() == first, name
        assert torch.equal(formula_tensor("phi3v-wide:", name, tuple(state[name].shape)), state[name])


@pytest.mark.parametrize("name", ["wide_square_nc1", "wide_portrait_nc4"])
def test_wide_picture_features_and_logits_match(
    name: str,
    golden: Path,
    cases: dict[str, Any],
    tensors: dict[str, Tensor],
    model: Phi3VForConditionalGeneration,
    processor: Phi3VProcessor,
) -> None:
    case = cases[name]
    images = open_images(golden, case["images"])
    batch = processor(case["prompt"], images, num_crops=case["num_crops"], return_tensors="pt")
    assert torch.equal(batch["input_ids"], tensors[f"{name}.input_ids"].long())
    assert batch["image_sizes"].tolist() == case["image_sizes"]
    vision = model.model.vision_embed_tokens
    with torch.no_grad():
        patches = vision.encode_crops(batch["pixel_values"], batch["image_sizes"])
        hd = vision.merge_pictures(patches, batch["image_sizes"])
        projected = vision.img_projection(hd)
        logits = model(**batch).logits
    stored = tensors[f"{name}.clip_patch_crop0_1_rows_every8"]
    measured(patches[:2, [0, 1, 287, 575], ::8], stored, ATOL_FEATURES, f"{name} clip")
    rows = tensors[f"{name}.proj_rows"].long()
    measured(hd[rows, ::32], tensors[f"{name}.hd_every32"], ATOL_FEATURES, f"{name} hd")
    measured(projected[rows, ::24], tensors[f"{name}.proj_every24"], ATOL_FEATURES, f"{name} proj")
    check_logits(logits, name, case, tensors)


def check_logits(logits: Tensor, name: str, case: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    chosen = logits[0, tensors[f"{name}.logits_rows"].long()]
    measured(chosen[:, ::16], tensors[f"{name}.logits_every16"], ATOL_LOGITS, f"{name} logits")
    assert chosen.argmax(-1).tolist() == case["argmax_rows"]
    # Sum of squares over every logit, to the fourth digit after what the tolerance allows.
    squares = sum(float(row.double().square().sum()) for row in logits[0])
    print(f"{name} sum of squares: {abs(squares / case['logits_sumsq'] - 1):.1e} relative")
    assert squares == pytest.approx(case["logits_sumsq"], rel=1e-5)


@pytest.mark.parametrize("name", ["wide_text_4096", "wide_text_4097"])
def test_wide_text_matches_on_both_sides_of_the_short_length(
    name: str, cases: dict[str, Any], tensors: dict[str, Tensor], model: Phi3VForConditionalGeneration
) -> None:
    case = cases[name]
    input_ids = tensors["wide_text_long.input_ids"][:, : case["len"]].long()
    with torch.no_grad():
        check_logits(model(input_ids, use_cache=False).logits, name, case, tensors)


def test_wide_greedy_answer_matches(
    golden: Path, cases: dict[str, Any], model: Phi3VForConditionalGeneration, processor: Phi3VProcessor
) -> None:
    case = cases["wide_square_nc1"]
    batch = processor(case["prompt"], open_images(golden, case["images"]), num_crops=1, return_tensors="pt")
    output = model.generate(**batch, max_new_tokens=6, do_sample=False)
    assert output[0, batch["input_ids"].shape[1] :].tolist() == case["greedy6"]

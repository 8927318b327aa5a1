"""Our model equals the published reference code on small random weights (fp32, CPU)."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SHARED, shared_folder
from golden_cases import (
    GoldenModel,
    check_batch,
    check_generation,
    check_picture,
    check_rope,
    check_text,
    check_training,
    close,
    open_images,
)
from safetensors.torch import load_file

from appraiser.phi3_v import Phi3VForConditionalGeneration, Phi3VImageProcessor, Phi3VProcessor

FOLDERS = ("tiny_mha", "tiny_gqa")


@cache
def model_of(folder: str, attention: str = "sdpa") -> tuple[GoldenModel, Phi3VForConditionalGeneration, Phi3VProcessor]:
    golden = GoldenModel(shared_folder("golden"), folder)
    return golden, golden.load(attn_implementation=attention), golden.processor()


def names(*kinds: str) -> list[tuple[str, str]]:
    """(folder, case) pairs, read at collection; none where the vectors are absent."""
    found = []
    for folder in FOLDERS:
        path = SHARED / "golden" / folder / "cases.json"
        if path.exists():
            cases = json.loads(path.read_text())
            found += [(folder, name) for name, case in cases.items() if case.get("kind") in kinds]
    return found or [("absent", "absent")]


def test_vectors_are_the_published_ones(golden: Path) -> None:
    manifest = json.loads((golden / "manifest.json").read_text())
    for name, facts in manifest.items():
        assert hashlib.sha256((golden / name).read_bytes()).hexdigest() == facts["sha256"], name


@pytest.mark.parametrize("folder", FOLDERS)
def test_rope_tables_are_exact(folder: str, golden: Path) -> None:
    data, model, _ = model_of(folder)
    check_rope(data, model)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(("folder", "name"), names("text"))
def test_text_logits_and_hidden_states_match(folder: str, name: str, attention: str, golden: Path) -> None:
    data, model, _ = model_of(folder, attention)
    check_text(data, model, name)


@pytest.mark.parametrize(("folder", "name"), names("image", "noise"))
def test_picture_features_and_logits_match(folder: str, name: str, golden: Path) -> None:
    check_picture(*model_of(folder), name)


@pytest.mark.parametrize(("folder", "name"), names("batch"))
def test_left_padded_picture_batch_matches(folder: str, name: str, golden: Path) -> None:
    check_batch(*model_of(folder), name)


@pytest.mark.parametrize("attention", ["sdpa", "eager", "blocks"])
@pytest.mark.parametrize(("folder", "name"), names("train"))
def test_loss_and_gradients_match(folder: str, name: str, attention: str, golden: Path) -> None:
    check_training(*model_of(folder, attention), name)


@pytest.mark.parametrize(("folder", "name"), names("generate"))
def test_greedy_answers_match_with_and_without_cache(folder: str, name: str, golden: Path) -> None:
    check_generation(*model_of(folder), name)


def test_hd_sizes_and_token_counts_match(golden: Path) -> None:
    processor = Phi3VImageProcessor()
    rows = json.loads((golden / "processor/hd_sizes.json").read_text())
    rows = rows["rows"] if isinstance(rows, dict) else rows
    assert len(rows) == 236
    for width, height, num_crops, hd_width, hd_height, num_tokens in rows:
        assert processor.hd_size(width, height, num_crops) == (hd_width, hd_height), (
            width,
            height,
            num_crops,
        )
        assert processor.num_tokens_for_size(width, height, num_crops) == num_tokens, (
            width,
            height,
            num_crops,
        )


def test_pixels_match_to_the_byte(golden: Path) -> None:
    processor = Phi3VImageProcessor()
    samples = load_file(golden / "processor/pixel_samples.safetensors")
    cases = json.loads((golden / "processor/pixel_cases.json").read_text())
    assert len(cases) == 20
    for case in cases:
        [image] = open_images(golden, [case["image"]])
        assert image.mode == case["mode"]
        hd = processor.hd_transform(image.convert("RGB"), case["num_crops"])
        digest = hashlib.sha256(np.ascontiguousarray(np.asarray(hd)).tobytes()).hexdigest()
        assert digest == case["hd_uint8_sha256"], case["key"]
        features = processor(image, num_crops=case["num_crops"])
        pixels = features["pixel_values"]
        assert list(pixels.shape) == case["pixel_values_shape"]
        assert features["image_sizes"].tolist() == case["image_sizes"]
        assert features["num_img_tokens"] == case["num_img_tokens"]
        real = case["n_real_crops"]
        close(pixels[0, :real, :, 6::18, 6::18], samples[f"{case['key']}.samples"], 1e-6, case["key"])
        assert not pixels[0, real:].any()
        sums = pixels[0, :real].double().sum(dim=(-1, -2))
        close(sums, torch.tensor(case["crop_sum"], dtype=torch.float64), 0.05, f"{case['key']} sums")


def expand(rle: list) -> list[int]:
    return [token for entry in rle for token in ([entry[0]] * entry[1] if isinstance(entry, list) else [entry])]


@pytest.fixture(scope="module")
def real_processor(phi3_tokenizer_folder: Path) -> Phi3VProcessor:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(phi3_tokenizer_folder)
    return Phi3VProcessor(Phi3VImageProcessor(), tokenizer)


def test_prompts_give_the_reference_ids(golden: Path, real_processor: Phi3VProcessor) -> None:
    for case in json.loads((golden / "processor/prompts.json").read_text())["prompts"]:
        images = open_images(golden, case["images"] or []) or None
        batch = real_processor(case["prompt"], images, num_crops=case["num_crops"], return_tensors="pt")
        assert batch["input_ids"][0].tolist() == expand(case["input_ids_rle"]), case["prompt"]
        assert sorted(batch.keys()) == case["keys"]
        assert bool(batch["attention_mask"].all())
        if images:
            assert batch["image_sizes"].tolist() == case["image_sizes"]


# What the reference lets pass and we refuse: pictures in the wrong place, places without a picture, tags as text.
REFUSED = {
    "<|image_2|> then <|image_1|>": "each once and in this order",
    "<|image_1|> and again <|image_1|>": "2 picture tags but 1 pictures|each once and in this order",
    "<|image_1|> tags without pictures": "1 picture tags but 0 pictures",
}


def test_doubtful_prompts_are_refused_and_the_others_match(golden: Path, real_processor: Phi3VProcessor) -> None:
    seen = set()
    for case in json.loads((golden / "processor/prompts.json").read_text())["error_cases"]:
        images = open_images(golden, case["images"] or []) or None
        prompt = case["prompt"]
        if isinstance(prompt, list):  # the reference takes no lists; we do
            assert real_processor(prompt, images, num_crops=1, return_tensors="pt")["input_ids"].shape[0] == 1
        elif case["error"] or prompt in REFUSED:
            seen.add(prompt)
            with pytest.raises(ValueError, match=REFUSED.get(prompt, "picture tags")):
                real_processor(prompt, images, num_crops=case["num_crops"])
        else:
            ids = real_processor(prompt, images, num_crops=case["num_crops"])["input_ids"]
            assert ids == expand(case["input_ids_rle"]), prompt
    assert set(REFUSED) <= seen


def test_real_tokenizer_is_exact(phi3_tokenizer_folder: Path, real_processor: Phi3VProcessor) -> None:
    tokenizer = real_processor.tokenizer
    cases = json.loads((phi3_tokenizer_folder / "golden_tokenizations.json").read_text())
    assert len(cases["strings"]) == 35
    for case in cases["strings"]:
        assert tokenizer(case["text"]).input_ids == case["ids"], case["text"]
        assert tokenizer(case["text"], add_special_tokens=False).input_ids == case["ids_no_special"]
        decoded = tokenizer.decode(case["ids"], clean_up_tokenization_spaces=False)
        assert decoded == case["decoded"]
    for case in cases["chat"]:
        prompt = real_processor.apply_chat_template(
            case["messages"], add_generation_prompt=case["add_generation_prompt"], tokenize=False
        )
        assert prompt == case["prompt"]

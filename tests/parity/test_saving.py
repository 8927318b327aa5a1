"""Folders in the published layout go in and come out unchanged, through the Auto classes and without remote code.

Every comparison is exact: saving is copying.
"""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import shared_folder
from golden_cases import GoldenModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import formula_picture, tiny_backbone
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
)

from appraiser.phi3_v import Phi3VConfig, Phi3VForConditionalGeneration, Phi3VImageProcessor, Phi3VProcessor

FOLDERS = ("tiny_mha", "tiny_gqa")
PROMPT = "<|user|>\n<|image_1|>\nWhat is this?<|end|>\n<|assistant|>\n"


def weights_in(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a folder's safetensors files."""
    found: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("model*.safetensors")):
        found |= load_file(path)
    return found


def assert_same_bytes(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert actual[name].dtype == value.dtype, name
        assert torch.equal(actual[name].view(torch.uint8), value.view(torch.uint8)), name


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    return json.loads((shared_folder("spec") / "phi3_vision_config.json").read_text())


@pytest.mark.parametrize("name", FOLDERS)
def test_auto_classes_load_our_classes(name: str, golden: Path) -> None:
    folder = golden / name
    expected = GoldenModel(golden, name).load()
    assert type(AutoConfig.from_pretrained(folder)) is Phi3VConfig
    assert type(AutoImageProcessor.from_pretrained(folder)) is Phi3VImageProcessor
    assert type(AutoProcessor.from_pretrained(folder)) is Phi3VProcessor
    for auto in (AutoModelForImageTextToText, AutoModelForCausalLM):
        model = auto.from_pretrained(folder, dtype=torch.float32)
        assert type(model) is Phi3VForConditionalGeneration
        assert model.config._attn_implementation == "sdpa"
        assert_same_bytes(model.state_dict(), expected.state_dict())


def test_auto_classes_ask_nothing_on_the_terminal(golden: Path) -> None:
    # A process of its own with stdin closed: a question about remote code would fail, an answer would run it.
    program = """
import sys
import appraiser.phi3_v
from transformers import (AutoConfig, AutoImageProcessor, AutoModelForCausalLM, AutoModelForImageTextToText,
                          AutoProcessor)
for auto in (AutoConfig, AutoImageProcessor, AutoProcessor, AutoModelForCausalLM, AutoModelForImageTextToText):
    for folder in sys.argv[1:]:
        loaded = auto.from_pretrained(folder)
        assert type(loaded).__module__.startswith("appraiser.phi3_v."), type(loaded)
print("no questions")
"""
    done = subprocess.run(
        [sys.executable, "-c", program, *(str(golden / name) for name in FOLDERS)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "no questions"
    assert "trust_remote_code" not in done.stderr


@pytest.mark.parametrize("name", FOLDERS)
def test_saved_weights_have_the_same_names_and_bytes(name: str, golden: Path, tmp_path: Path) -> None:
    model = GoldenModel(golden, name).load()
    assert_same_bytes(model.state_dict(), weights_in(golden / name))
    model.save_pretrained(tmp_path)
    assert_same_bytes(weights_in(tmp_path), weights_in(golden / name))
    reloaded = Phi3VForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float32)
    assert_same_bytes(reloaded.state_dict(), model.state_dict())


def test_bfloat16_weights_are_saved_as_they_are(golden: Path, tmp_path: Path) -> None:
    model = GoldenModel(golden, "tiny_gqa").load().to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    assert_same_bytes(weights_in(tmp_path), model.state_dict())
    assert json.loads((tmp_path / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_a_saved_file_holds_no_name_but_the_published_ones(golden: Path, tmp_path: Path) -> None:
    patterns = [
        re.sub(r"\.\d+\.", r".<n>.", name)
        for name in json.loads((shared_folder("spec") / "checkpoint_tensors.json").read_text())["tensors"]
    ]
    model = GoldenModel(golden, "tiny_mha").load()
    model.save_pretrained(tmp_path)
    [path] = tmp_path.glob("*.safetensors")
    with safe_open(path, "pt") as file:
        saved = {re.sub(r"\.\d+\.", r".<n>.", name) for name in file.keys()}
        assert file.metadata()["format"] == "pt"
    assert saved == set(patterns)


def test_the_full_size_model_has_the_592_published_tensors(published: dict[str, Any]) -> None:
    spec = json.loads((shared_folder("spec") / "checkpoint_tensors.json").read_text())
    config = Phi3VConfig.from_pretrained(shared_folder("spec") / "phi3_vision_config.json")
    with torch.device("meta"):
        model = Phi3VForConditionalGeneration(config)
    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
    assert len(shapes) == 592
    assert shapes == {name: facts["shape"] for name, facts in spec["tensors"].items()}
    assert sum(value.numel() for value in model.state_dict().values()) == spec["n_parameters"]
    assert not dict(model.named_buffers())


def test_saved_config_reads_as_the_published_one(published: dict[str, Any], tmp_path: Path) -> None:
    config = Phi3VConfig.from_pretrained(shared_folder("spec") / "phi3_vision_config.json")
    config.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert "auto_map" not in saved
    assert not [key for key in saved if "attn_implementation" in key]
    left_out = {"auto_map", "_attn_implementation", "_name_or_path", "transformers_version"}
    for key in published.keys() - left_out:
        assert saved[key] == published[key], key
    assert saved["rope_scaling"]["type"] == "su"
    assert saved["rope_scaling"].keys() == published["rope_scaling"].keys()
    assert saved["architectures"] == ["Phi3VForCausalLM"]
    # What is new: defaults of the published class that its file leaves out.
    assert saved.keys() - published.keys() == {"embd_pdrop", "resid_pdrop", "pad_token_id"}
    assert saved["pad_token_id"] == 32000
    again = Phi3VConfig.from_pretrained(tmp_path)
    assert again.to_dict() == config.to_dict() | {"_name_or_path": again._name_or_path}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_loaded_model_saves_the_config_it_came_with(name: str, golden: Path, tmp_path: Path) -> None:
    GoldenModel(golden, name).load().save_pretrained(tmp_path)
    before = json.loads((golden / name / "config.json").read_text())
    after = json.loads((tmp_path / "config.json").read_text())
    assert after["architectures"] == ["Phi3VForCausalLM"]
    assert "auto_map" not in after
    assert "_attn_implementation" not in after
    for key in before.keys() - {"auto_map", "_attn_implementation", "_name_or_path", "transformers_version"}:
        assert after[key] == before[key], key


@pytest.mark.parametrize("name", FOLDERS)
def test_a_saved_folder_gives_the_same_processor_output(name: str, golden: Path, tmp_path: Path) -> None:
    processor = GoldenModel(golden, name).processor()
    processor.save_pretrained(tmp_path)
    for file in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        assert (tmp_path / file).is_file()
    assert not (tmp_path / "processor_config.json").exists()
    before = json.loads((golden / name / "preprocessor_config.json").read_text())
    after = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert after == {key: value for key, value in before.items() if key != "auto_map"}
    tokenizers = [
        json.loads((folder / "tokenizer.json").read_text()) | {"truncation": None, "padding": None}
        for folder in (golden / name, tmp_path)
    ]
    assert tokenizers[0]["model"]["vocab"] == tokenizers[1]["model"]["vocab"]
    assert tokenizers[0]["added_tokens"] == tokenizers[1]["added_tokens"]
    reloaded = Phi3VProcessor.from_pretrained(tmp_path)
    automatic = AutoProcessor.from_pretrained(tmp_path)
    picture = formula_picture(90, 40)
    expected = processor(PROMPT, picture, return_tensors="pt")
    for other in (reloaded, automatic):
        actual = other(PROMPT, picture, return_tensors="pt")
        assert actual.keys() == expected.keys()
        assert all(torch.equal(actual[key], expected[key]) for key in expected.keys())
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}]
    assert reloaded.apply_chat_template(chat) == processor.apply_chat_template(chat)


def test_a_tiny_folder_keeps_its_crop_size_and_stop_tokens(tmp_path: Path) -> None:
    backbone = tiny_backbone(tmp_path, num_crops=3)
    processor = AutoProcessor.from_pretrained(tmp_path)
    assert processor.image_processor.crop_size == 28
    assert processor.image_processor.num_crops == 3
    model = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert model.generation_config.eos_token_id == backbone.config.answer_stop_ids
    inputs = processor(PROMPT, formula_picture(50, 70), return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, backbone.model(**inputs).logits)


def test_stray_tensors_of_old_checkpoints_are_ignored_without_a_word(
    golden: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    source = golden / "tiny_mha"
    weights = weights_in(source)
    vision = "model.vision_embed_tokens"
    strays = {
        f"{vision}.wte.weight": weights["model.embed_tokens.weight"].clone(),
        f"{vision}.img_processor.vision_model.embeddings.position_ids": torch.arange(577)[None],
    }
    save_file(weights | strays, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text((source / "config.json").read_text())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, info = Phi3VForConditionalGeneration.from_pretrained(
            tmp_path, dtype=torch.float32, output_loading_info=True
        )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert_same_bytes(model.state_dict(), weights)
    captured = capfd.readouterr()
    said = captured.out + captured.err + caplog.text
    assert "wte" not in said
    assert "position_ids" not in said


def test_saving_and_loading_say_nothing_about_old_names(
    golden: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logging.Logger.warning_once.cache_clear()
    GoldenModel(golden, "tiny_gqa").load().save_pretrained(tmp_path)
    Phi3VForConditionalGeneration.from_pretrained(tmp_path)
    assert "torch_dtype" not in caplog.text


def test_sharded_folders_save_and_load(golden: Path, tmp_path: Path) -> None:
    model = GoldenModel(golden, "tiny_mha").load()
    model.save_pretrained(tmp_path, max_shard_size="200KB")
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    files = set(index["weight_map"].values())
    assert len(files) > 3
    assert index["weight_map"].keys() == model.state_dict().keys()
    assert_same_bytes(weights_in(tmp_path), model.state_dict())
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert_same_bytes(reloaded.state_dict(), model.state_dict())


def test_loading_names_missing_tensors(golden: Path, tmp_path: Path) -> None:
    source = golden / "tiny_mha"
    weights = weights_in(source)
    del weights["model.vision_embed_tokens.sub_GN"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text((source / "config.json").read_text())
    _, info = Phi3VForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert set(info["missing_keys"]) == {"model.vision_embed_tokens.sub_GN"}

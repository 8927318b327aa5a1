"""The full-size benchmarks, on a small model: a full-size run takes a GPU or an hour, too late to find a mistake."""

from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from appraiser.backbone import load, model_folder
from appraiser.phi3_v import Phi3VConfig

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
PUBLISHED_BYTES = 8_293_242_880


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def small_config() -> Phi3VConfig:
    return Phi3VConfig.from_json_file(str(Path(model_folder("phi3v-tiny")) / "config.json"))


def test_the_full_size_model_has_the_published_number_and_bytes_of_tensors() -> None:
    make_full_size = importlib.import_module("make_full_size")
    shapes = make_full_size.shapes_of(Phi3VConfig.from_json_file(str(make_full_size.CONFIG)))
    assert len(shapes) == 592
    assert sum(map(make_full_size.num_bytes, shapes.values())) == PUBLISHED_BYTES
    assert len(make_full_size.shards(shapes, make_full_size.SHARD_BYTES)) == 2


def test_a_written_model_loads_and_answers(tmp_path: Path) -> None:
    make_full_size = importlib.import_module("make_full_size")
    make_full_size.write_model(tmp_path, small_config(), shard_bytes=5_000_000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert {path.name for path in tmp_path.glob("*.safetensors")} == set(index["weight_map"].values())
    for name, file in index["weight_map"].items():
        with safe_open(tmp_path / file, "pt") as shard:
            assert name in shard.keys()
    backbone = load(tmp_path, dtype="bfloat16")
    assert backbone.pad_token_id == backbone.config.pad_token_id
    assert backbone.stop_token_ids == backbone.config.answer_stop_ids
    logits = backbone.model(input_ids=torch.tensor([backbone.prompt_ids("<|user|>\nPrice?<|end|>\n", [])])).logits
    assert torch.isfinite(logits).all()


def test_control_tokens_have_their_published_ids(tmp_path: Path) -> None:
    make_full_size = importlib.import_module("make_full_size")
    config = Phi3VConfig.from_json_file(str(make_full_size.CONFIG))
    make_full_size.write_processor(tmp_path, config)
    config.save_pretrained(tmp_path)
    tokenizer = importlib.import_module("appraiser.backbone").load_reader(tmp_path).processor.tokenizer
    names = ["<s>", "<|endoftext|>", "<|assistant|>", "<|end|>", "<|user|>", "<|image|>"]
    assert tokenizer.convert_tokens_to_ids(names) == [1, 32000, 32001, 32007, 32010, 32044]


def tiny_mode(method: str, **other: Any) -> Any:
    gpu_training = importlib.import_module("gpu_training")
    return gpu_training.Mode(
        method, 757, is_compiled=False, is_tiny=True, rows_per_step=1, num_steps=1, device="cpu", **other
    )


@pytest.mark.parametrize("method", ["full", "lora", "qlora", "kept-full", "kept-lora"])
@pytest.mark.filterwarnings("ignore")  # of libraries on this machine, which the script's processes do not show either
def test_every_mode_of_the_gpu_benchmark_trains(method: str) -> None:
    gpu_training = importlib.import_module("gpu_training")
    mode = tiny_mode(method)
    if mode.needs is not None:
        pytest.skip(f"{mode.needs} is not installed")
    row = gpu_training.measure(mode)
    assert row["status"] == "ok"
    assert row["share"] > 0
    assert row["last_loss"] != row["first_loss"]


def test_work_is_counted_by_what_is_trained() -> None:
    gpu_training, workload = importlib.import_module("gpu_training"), importlib.import_module("workload")
    backbone = workload.build("tiny", 4, attention="eager", dtype=torch.float32)
    [batch] = workload.batches(backbone, workload.examples(backbone, workload.pictures(1)[0]), 1)

    def work(method: str) -> float:
        return gpu_training.step_flops(tiny_mode(method).config, backbone.config, batch)

    assert work("full") == workload.training_flops(backbone.config, batch)
    assert work("kept-full") == workload.training_flops(backbone.config, batch, tower_trained=False)
    assert work("kept-lora") < work("lora") == work("qlora") < work("full")


def test_the_page_says_what_failed_and_what_was_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu_training = importlib.import_module("gpu_training")
    measured = {
        "status": "ok", "row_tokens": 799, "rows_at_once": 2, "pictures_per_s": 20.0, "tokens_per_s": 15e3,
        "tflops": 300.0, "share": 0.4, "matmul_tflops": 750.0, "peak_gb": 9.0, "first_step_s": 1.0,
        "first_loss": 10.0, "last_loss": 9.0, "machine": {"device": "one GPU"},
    }  # fmt: skip
    found = {"full": {"status": "out of memory"}, "lora": {"status": "bitsandbytes is not installed"}}
    monkeypatch.setattr(gpu_training, "run_in_process", lambda mode, timeout_s: found.get(mode.method, measured))
    given = ["--tiny", "--modes", "full,lora,qlora", "--tokens", "757", "--compile", "no", "--device", "cpu"]
    gpu_training.main([*given, "--date", "2026-11-21", "--out", str(tmp_path)])
    text = (tmp_path / "2026-11-21-gpu-training.md").read_text()
    for words in ("out of memory", "not installed", "qlora at 757 tokens, compile no: 40 %", "9.0 GB", "one GPU"):
        assert words.replace(" %", "%") in text
    assert len(json.loads((tmp_path / "2026-11-21-gpu-training.json").read_text())) == 3


def test_a_mode_without_its_package_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu_training = importlib.import_module("gpu_training")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert gpu_training.run_in_process(tiny_mode("qlora"), 1.0)["status"] == "bitsandbytes is not installed"
    assert tiny_mode("lora", attention="flash_attention_2").needs == "flash_attn"
    assert tiny_mode("lora").needs is None

"""Every method trains the parts it says, leaves the others alone, and is the same model when it is loaded again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import tiny_backbone

from appraiser import Predictor, build_dataset, make_catalogue, train
from appraiser.config import config_from
from appraiser.data.dataset import open_dataset
from appraiser.data.pictures import decode
from appraiser.errors import CheckpointError, ConfigError
from appraiser.training.optim import part_of
from appraiser.training.preparation import prepare_model

METHODS: dict[str, dict[str, dict[str, Any]]] = {
    "full": {"adapter": {"kind": "none"}},
    "frozen": {"adapter": {"kind": "none"}, "parts": {"tower": "freeze"}},
    "lora": {"adapter": {"kind": "lora"}},
    "dora": {"adapter": {"kind": "dora"}},
    "qlora": {"adapter": {"kind": "lora"}, "model": {"quantize": "nf4"}},
    "mixed": {"adapter": {"kind": "lora"}, "parts": {"projector": "train", "tower": "freeze"}},
    "bfloat16": {"adapter": {"kind": "lora"}, "model": {"dtype": "bfloat16"}},
}
TRAINED = {"frozen": {"decoder", "projector"}, "mixed": {"decoder", "projector"}}
ALL = {"decoder", "projector", "tower"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a catalogue of 60 products at 64 px, and its data set."""
    root = tmp_path_factory.mktemp("methods")
    tiny_backbone(root / "model")
    make_catalogue(root / "catalogue", 60, seed=3, size=64)
    build_dataset(root / "catalogue", root / "dataset", shares={"train": 0.7, "val": 0.1, "calib": 0.1, "test": 0.1})
    return root


def settings(place: Path, out: Path, *, base: Path | None = None, **sections: dict[str, Any]) -> Any:
    config: dict[str, dict[str, Any]] = {
        "model": {"base": str(base or place / "model")},
        "adapter": {"kind": "lora", "rank": 4, "dropout": 0.0, "alpha": 16},
        "optim": {"learning_rate": 5e-3},
        "data": {"dataset": str(place / "dataset"), "features_folder": str(place / "features")},
        "run": {"out": str(out), "steps": 6, "epochs": None, "batch_size": 8, "micro_batch_size": 4, "eval_every": 6,
                "eval_records": 2, "log_every": 1},
        "tracking": {"wandb": "off"},
    }  # fmt: skip
    for name, values in sections.items():
        config[name] = config.get(name, {}) | values
    return config_from(config, "test")


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["train/loss"] for line in lines if "train/loss" in line]


@pytest.mark.parametrize("method", METHODS)
def test_a_method_learns_with_the_parts_it_names(place, tmp_path, method):
    if method == "qlora":
        pytest.importorskip("bitsandbytes", reason="the extra qlora is not installed")
    config = settings(place, tmp_path / "run", **METHODS[method])
    summary = train(config)
    found = losses(tmp_path / "run")
    assert found[-1] < found[0]
    lines = (tmp_path / "run/metrics.jsonl").read_text()
    parts = {part for part in ALL if f"train/grad_norm_{part}" in lines}
    assert parts == TRAINED.get(method, ALL)
    assert not [warning for warning in summary.warnings if "ignored" in warning]


@pytest.mark.parametrize("method", ["full", "frozen"])
def test_frozen_parts_keep_every_bit(place, tmp_path, method):
    train(settings(place, tmp_path / "run", **METHODS[method]))
    before, after = load_file(place / "model/model.safetensors"), load_file(tmp_path / "run/last/model.safetensors")
    moved = {part_of(name) for name in before if not torch.equal(before[name], after[name])}
    assert moved == TRAINED.get(method, ALL)


@pytest.mark.parametrize("method", ["lora", "dora", "mixed"])
def test_a_saved_adapter_is_the_model_that_was_trained(place, tmp_path, method):
    """Attached in memory, loaded from its files, and merged: one model."""
    from appraiser.adapters import load_any, read_weights

    config = settings(place, tmp_path / "run", **METHODS[method])
    train(config)
    attached = prepare_model(config, open_dataset(place / "dataset"))
    read_weights(attached, tmp_path / "run/best")
    loaded = Predictor.load(tmp_path / "run").backbone
    merged = load_any(str(tmp_path / "run"))
    assert not hasattr(merged.model, "get_base_model")
    image = decode(open_dataset(place / "dataset").split("test")[0].images[0])
    inputs = attached.processor(
        text="<|user|>\n<|image_1|>?<|end|>\n<|assistant|>\n", images=[image], return_tensors="pt"
    )
    for other, tolerance in ((loaded, 0.0), (merged, 2e-4)):
        with torch.no_grad():
            expected, found = (backbone.model.eval()(**inputs).logits for backbone in (attached, other))
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def test_trained_weights_are_float32_and_frozen_ones_as_small_as_asked(place, tmp_path):
    config = settings(
        place, tmp_path / "run", model={"dtype": "bfloat16"}, adapter={"kind": "none"}, parts={"tower": "freeze"}
    )
    network = prepare_model(config, open_dataset(place / "dataset")).network
    kinds = {(parameter.requires_grad, parameter.dtype) for parameter in network.parameters()}
    assert kinds == {(True, torch.float32), (False, torch.bfloat16)}


def test_preferences_from_mistakes_prefer_the_truth(place, tmp_path):
    """DPO on an adapter's run: its base is merged, its mistakes are asked for, rewards rise, the pairs are kept."""
    train(settings(place, tmp_path / "start", **METHODS["lora"]))
    dpo = {"pairs": "mistakes", "beta": 0.2, "most_mistakes": 16}
    summary = train(settings(place, tmp_path / "dpo", base=tmp_path / "start", dpo=dpo, run={"steps": 8}))
    lines = [json.loads(line) for line in (tmp_path / "dpo/metrics.jsonl").read_text().splitlines()]
    margins = [line["rewards/margins"] for line in lines if "rewards/margins" in line]
    found = [line["train/loss"] for line in lines if "train/loss" in line]
    assert found[0] == pytest.approx(0.6931, abs=1e-3)
    assert margins[0] == pytest.approx(0, abs=1e-3)
    assert margins[-1] > 0.1
    assert found[-1] < found[0]
    pairs = [json.loads(line) for line in (tmp_path / "dpo/preferences.jsonl").read_text().splitlines()]
    assert 0 < len(pairs) <= 16
    assert all(pair["chosen"].startswith("Product: ") and pair["chosen"] != pair["rejected"] for pair in pairs)
    assert summary.steps == 8
    assert Predictor.load(tmp_path / "dpo").predict(
        [decode(open_dataset(place / "dataset").split("test")[0].images[0])]
    )


def test_a_reference_that_is_gone_ends_a_resumed_preference_run(place, tmp_path):
    dpo = {"pairs": "mistakes", "most_mistakes": 8}
    config = settings(place, tmp_path / "run", dpo=dpo)
    train(config)
    (tmp_path / "run/summary.json").unlink()
    (tmp_path / "run/preferences.jsonl").unlink()
    with pytest.raises(CheckpointError, match=r"preferences.jsonl is missing"):
        train(config, resume=True)


def test_an_adapter_cannot_be_quantized(place, tmp_path):
    pytest.importorskip("bitsandbytes", reason="the extra qlora is not installed")
    train(settings(place, tmp_path / "start", run={"steps": 1}))
    config = settings(place, tmp_path / "next", base=tmp_path / "start", model={"quantize": "nf4"})
    with pytest.raises(ConfigError, match="cannot be merged into weights of 4 bits"):
        train(config)

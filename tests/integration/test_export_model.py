"""`appraiser export RUN OUT` on very small runs of every kind: what lies in OUT, that it is the run's model; misuse.

Reloading is copying: bit for bit. Merging rounds once instead of twice: within the command's own tolerance.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from operator import ge
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import tiny_backbone

import appraiser as package
from appraiser import Predictor, build_dataset, evaluate, make_catalogue, train
from appraiser.adapters import TRAINED_PARTS
from appraiser.config import config_from
from appraiser.data.dataset import open_dataset
from appraiser.data.pictures import decode
from appraiser.evaluation.evaluate import save_result
from appraiser.exporting import export
from appraiser.exporting.answers import MERGE_TOLERANCE
from appraiser.exporting.pictures import reference_products
from appraiser.exporting.reference import read_reference
from appraiser.trained_task import read_task
from appraiser.training.checkpoint import find_damage

Command = Callable[..., Any]
NUM_FEW, NUM_MORE = 3, 10


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("export")
    tiny_backbone(root / "model", num_crops=2)
    make_catalogue(root / "catalogue", 60, seed=3, size=64)
    build_dataset(root / "catalogue", root / "dataset")
    return root


def trained(place: Path, out: str, **sections: dict[str, Any]) -> Path:
    base: dict[str, dict[str, Any]] = {
        "model": {"base": str(place / "model")},
        "adapter": {"kind": "lora", "rank": 4, "alpha": 32.0},
        "optim": {"learning_rate": 1e-2},
        "data": {"dataset": str(place / "dataset")},
        "run": {"out": str(place / out), "steps": 3, "batch_size": 4, "micro_batch_size": 4, "eval_every": 3,
                "eval_records": 2},
        "tracking": {"wandb": "off"},
    }  # fmt: skip
    for name, values in sections.items():
        base[name] = base.get(name, {}) | values
    return train(config_from(base, "test")).out


@pytest.fixture(scope="module")
def lora(place: Path) -> Path:
    """LoRA on decoder and tower, the projector changed in full beside it; evaluated."""
    run = trained(place, "lora", parts={"projector": "train"})
    save_result(evaluate(run, place / "dataset", limit=4, max_baseline_records=20), run)
    return run


@pytest.fixture(scope="module")
def full(place: Path) -> Path:
    """All weights, in bfloat16: frozen ones lie in the checkpoint as such, trained ones as float32."""
    return trained(place, "full", adapter={"kind": "none"}, model={"dtype": "bfloat16"})


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer pictures and shorter answers: the tiny model hardly ever ends one by itself."""
    monkeypatch.setattr(export, "reference_products", partial(reference_products, count=NUM_FEW))
    monkeypatch.setattr(export, "max_answer_tokens", lambda *_: 24)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: value for path in folder.glob("model*.safetensors") for name, value in load_file(path).items()}


def texts(model: Path, dataset: Path, **options: Any) -> list[str]:
    records = list(open_dataset(dataset).split("test"))
    predictions = Predictor.load(model, **options).predict([decode(data) for data in r.images] for r in records)
    return [prediction.text for prediction in predictions]


def shown(answer: str) -> str:
    """An answer as the card prints it, without special tokens; the tiny model writes some."""
    return re.sub(r"<\|\w+\|>", "", answer)


def run_card(folder: Path) -> str:
    """Run the Python of a card in a process of its own, standing in the folder; what it printed."""
    blocks = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    environment = os.environ | {"PYTHONPATH": str(Path(package.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)],
        cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_adapter_is_merged_with_the_parts_trained_beside_it(
    appraiser: Command, place: Path, lora: Path, tmp_path: Path, few: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "reference_products", partial(reference_products, count=NUM_MORE))
    out = tmp_path / "out"
    done = appraiser("export", lora, out)
    assert done.code == 0, done.err
    assert "bit for bit" in done.out
    assert "Merged against attached adapter: the same answers" in done.out
    assert done.out.splitlines()[-1] == f"Saved {out}. Try: appraiser predict {out} photo.jpg"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]

    before, after, parts = weights(place / "model"), weights(out), load_file(lora / "best" / TRAINED_PARTS)
    assert {name: value.shape for name, value in before.items()} == {n: v.shape for n, v in after.items()}
    assert {value.dtype for value in after.values()} == {torch.float32}
    assert parts
    assert all(torch.equal(after[name], value) for name, value in parts.items())
    moved = {name for name in before if not torch.equal(before[name], after[name])} - parts.keys()
    # The tower's last block is never computed, and has no adapter; embeddings, norms and head stay as they were.
    assert len(moved) == 2 * 4 + 2 * 6
    assert all(re.search(r"(proj|fc\d)\.weight", name) for name in moved)

    config = json.loads((out / "config.json").read_text())
    assert config["architectures"] == ["Phi3VForCausalLM"]
    assert config["rope_scaling"]["type"] == "su"
    assert config == json.loads((place / "model/config.json").read_text())
    generation = json.loads((out / "generation_config.json").read_text())
    assert generation["do_sample"] is False
    assert generation["max_new_tokens"] == 24
    for name in ("preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (out / name).read_bytes() == (lora / "best" / name).read_bytes()
    assert read_task(str(out)) == read_task(str(lora / "best")).model_copy(update={"base": None})

    reference = read_reference(out)
    assert (reference.checks.num_products, reference.checks.num_same_answers) == (NUM_MORE, NUM_MORE)
    assert 0 < reference.checks.merge_difference <= MERGE_TOLERANCE
    assert reference.checks.rounding_difference is None
    assert reference.num_crops == json.loads((out / "preprocessor_config.json").read_text())["num_crops"]
    assert {product.origin for product in reference.products} == {"val", "test"}
    assert all(decode((out / path).read_bytes()) for product in reference.products for path in product.pictures)
    for product in reference.products:
        assert product.answer_ids[0] == product.first_tokens[0].id
        assert product.num_image_tokens < product.num_prompt_tokens
        # Greedy: no other token was likelier.
        assert all(map(ge, product.answer_logprobs, product.runner_up_logprobs))
        assert product.prompt == read_task(str(out)).task.prompt()
    assert find_damage(out) is None

    assert texts(out, place / "dataset") == texts(lora, place / "dataset")
    scores = evaluate(out, place / "dataset", controls=(), with_baselines=False, before=False).scores
    assert scores["price_point"] == read_task(str(lora / "best")).price_point

    card = (out / "README.md").read_text()
    assert "LoRA of rank 4 beside parts trained in full" in card
    assert "<|user|>\n<|image_1|>What is shown in this image?<|end|>\n<|assistant|>\n" in card
    assert "By free generation on the 4 products of the test split" in card
    assert "| This model |" in card
    assert "| Before fine-tuning |" in card
    assert "vLLM cannot load it" in card, "the tiny tower is not the published one"
    assert str(place) not in card
    assert shown(reference.products[0].answer) in run_card(out)


@pytest.mark.slow
def test_dora_rounded_to_bfloat16_says_what_rounding_changed(
    appraiser: Command, place: Path, tmp_path: Path, few: None
) -> None:
    run = trained(place, "dora", adapter={"kind": "dora"})
    out = tmp_path / "out"
    done = appraiser("export", run, out, "--dtype", "bfloat16", "--json")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert (document["kind"], document["dtype"], document["method"]) == ("merged", "bfloat16", "DoRA of rank 4")
    assert {value.dtype for value in weights(out).values()} == {torch.bfloat16}
    assert json.loads((out / "config.json").read_text())["torch_dtype"] == "bfloat16"
    checks = read_reference(out).checks
    assert document["checks"] == checks.model_dump(mode="json")
    assert checks.merge_difference <= MERGE_TOLERANCE < checks.rounding_difference
    card = (out / "README.md").read_text()
    assert f"Rounded to bfloat16: {checks.num_same_answers} of {NUM_FEW} answers equal" in card
    assert ("pictures differently" in done.err) == (checks.num_same_answers < NUM_FEW)
    assert "**This model was not evaluated**" in card


def test_a_full_run_keeps_its_weights_to_the_bit(
    appraiser: Command, place: Path, full: Path, tmp_path: Path, few: None
) -> None:
    out = tmp_path / "out"
    done = appraiser("export", full, out, "--dtype", "float32", "--sample-pictures")
    assert done.code == 0, done.err
    before, after = weights(full / "best"), weights(out)
    assert {value.dtype for value in before.values()} == {torch.float32, torch.bfloat16}
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name].float(), value) for name, value in after.items())
    reference = read_reference(out)
    assert (reference.checks.merge_difference, reference.checks.rounding_difference) == (None, None)
    assert {product.origin for product in reference.products} == {"sample"}
    assert texts(out, place / "dataset") == texts(full, place / "dataset")


def test_the_adapter_alone_is_loaded_by_peft(
    appraiser: Command, place: Path, lora: Path, tmp_path: Path, few: None
) -> None:
    out = tmp_path / "out"
    done = appraiser("export", lora, out, "--adapter")
    assert done.code == 0, done.err
    assert "rejects adapters on the fused qkv_proj and gate_up_proj" in done.out
    for name in ("adapter_model.safetensors", TRAINED_PARTS):
        assert (out / name).read_bytes() == (lora / "best" / name).read_bytes()
    assert not list(out.glob("model*"))
    settings = json.loads((out / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == read_task(str(out)).base == str(place / "model")
    assert texts(out, place / "dataset") == texts(lora, place / "dataset")
    card = (out / "README.md").read_text()
    assert "vLLM cannot serve this adapter" in card
    assert "without that line answers are wrong" in card
    assert shown(read_reference(out).products[0].answer) in run_card(out)


def test_what_is_not_the_same_after_reloading_leaves_nothing(
    appraiser: Command, full: Path, tmp_path: Path, few: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_afresh = export.ask_afresh

    ask, answers = export.ask, []

    def remembered(*arguments: Any) -> Any:
        answers[:] = ask(*arguments)
        return list(answers)

    def one_bit_off(*arguments: Any) -> Any:
        logits = answers[-1].logits.clone()
        logits[-1, 0] = torch.nextafter(logits[-1, 0], torch.tensor(torch.inf))
        return [*answers[:-1], replace(answers[-1], logits=logits)]

    monkeypatch.setattr(export, "ask", remembered)
    monkeypatch.setattr(export, "ask_afresh", one_bit_off)
    done = appraiser("export", full, tmp_path / "out")
    assert (done.code, list(tmp_path.iterdir())) == (3, [])
    assert f"picture {NUM_FEW}: logits differ" in done.err

    def cut_short(folder: Path, *arguments: Any) -> Any:
        os.truncate(folder / "model.safetensors", 5000)
        return ask_afresh(folder, *arguments)

    monkeypatch.setattr(export, "ask_afresh", cut_short)
    done = appraiser("export", full, tmp_path / "out")
    assert (done.code, list(tmp_path.iterdir())) == (3, [])
    assert "cannot be loaded in a fresh process: " in done.err
    assert "Traceback" not in done.err


def test_an_adapter_that_answers_otherwise_when_merged_is_refused(
    appraiser: Command, lora: Path, tmp_path: Path, few: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def other_answer(*arguments: Any) -> Any:
        asked.append(ask(*arguments))
        return asked[0] if len(asked) == 1 else [replace(a, ids=(*a.ids[:-1], 7)) for a in asked[-1]]

    ask = export.ask
    monkeypatch.setattr(export, "ask", other_answer)
    done = appraiser("export", lora, tmp_path / "out")
    assert (done.code, list(tmp_path.iterdir())) == (3, [])
    assert "merged into the weights, the adapter answers differently to picture 1" in done.err


def test_misuse_is_said_before_anything_is_made(
    appraiser: Command, place: Path, lora: Path, full: Path, tmp_path: Path
) -> None:
    def refused(code: int, *arguments: object) -> str:
        done = appraiser("export", *arguments)
        assert (done.code, done.out) == (code, ""), done.err
        assert "  fix:   " in done.err
        assert "Traceback" not in done.err
        assert not out.exists()
        return str(done.err)

    out = tmp_path / "out"
    assert "nothing to export at" in refused(3, tmp_path / "absent", out)
    assert "nothing to export at" in refused(3, tmp_path, out)
    assert "has no adapter" in refused(2, full, out, "--adapter")
    assert "keeps the float32" in refused(2, lora, out, "--adapter", "--dtype", "bfloat16")
    assert "exists and is not empty" in appraiser("export", lora, place / "dataset").err

    (tmp_path / ".out.exporting").mkdir()
    assert "another export to" in refused(3, full, out)
    (tmp_path / ".out.exporting").rmdir()

    stopped = shutil.copytree(full, tmp_path / "stopped", symlinks=True)
    (stopped / "summary.json").unlink()
    assert "has not ended" in refused(3, stopped, out)

    damaged = shutil.copytree(full, tmp_path / "damaged", symlinks=True)
    path = damaged / "best" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    assert "model.safetensors was changed" in refused(3, damaged, out)

    lost = shutil.copytree(lora, tmp_path / "lost", symlinks=True)
    for name in (TRAINED_PARTS, "manifest.json"):  # with its manifest, it is damaged
        (lost / "best" / name).unlink()
    assert "lacks weights that were trained beside the adapter (projector)" in refused(3, lost, out)

    (place / "model").rename(place / "moved")
    try:
        said = refused(3, lora, out)
    finally:
        (place / "moved").rename(place / "model")
    assert f"the model under the adapter is gone: {place / 'model'}" in said

    second = shutil.copytree(lora / "best", tmp_path / "second")
    task = read_task(str(second)).model_copy(update={"base": str(lora)})
    (second / "appraiser.json").write_text(task.model_dump_json())
    (second / "manifest.json").unlink()
    assert "is itself an adapter" in refused(2, second, out, "--adapter")

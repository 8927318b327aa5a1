"""Does every method learn, and what does it cost? phi3v-tiny on the sample catalogue, scored on 2,000 fresh products.

    python benchmarks/methods.py OUT [--rows 4000] [--steps 200] [--only full lora ...] [--write results/DATE-methods]

Draws two catalogues, trains each method with its own usual rate and equal steps (`dpo`: 40 % of them), and scores
all of them, and the model before training, on the same products. `dpo` starts from the run of `full` and learns from
its mistakes about training products; `more` starts there as well and is shown more products as before, to compare with.
What lies in OUT already is gone on with, or used again. `--write` makes a page
and the JSON that the support matrix in docs/training.md is generated from.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch

from appraiser import Predictor, build_dataset, make_catalogue, train
from appraiser.config import load_config
from appraiser.data.dataset import Records, open_dataset
from appraiser.data.pictures import decode
from appraiser.evaluation.scores import Truth, columns_of, differences, score_predictions
from appraiser.predict import Prediction

FIELDS = ("title", "category", "price")
ADAPTERS = (
    "adapter.dropout=0",
    "model.frozen_tower_layers=0",
    "optim.muon_learning_rate=null",
    "optim.tower_muon_learning_rate=null",
    "optim.learning_rate=3.0e-3",
    "optim.weight_decay=0",
)
METHODS: dict[str, tuple[str, ...]] = {
    "full": (),
    "frozen": ("parts.tower=freeze", "model.frozen_tower_layers=0", "optim.tower_muon_learning_rate=null"),
    "lora": (*ADAPTERS, "adapter.kind=lora"),
    "dora": (*ADAPTERS, "adapter.kind=dora"),
    "qlora": (*ADAPTERS, "adapter.kind=lora", "model.quantize=nf4"),
    "dpo": (
        *ADAPTERS,
        "adapter.kind=lora",
        "dpo.pairs=mistakes",
        "dpo.most_mistakes=1500",
        "dpo.near_price=0.25",
        "dpo.sft_weight=1",
        "optim.learning_rate=1.0e-3",
    ),
    "more": (*ADAPTERS, "adapter.kind=lora", "optim.learning_rate=1.0e-3"),
}
STARTS_FROM = {"dpo": "full", "more": "full"}
SHARE_OF_STEPS = {"dpo": 0.4, "more": 0.4}


def material(out: Path, rows: int, num_test: int, workers: int) -> tuple[Path, Path]:
    """Data sets to learn from and to be scored on, of different seeds."""
    shares = {"train": 0.94, "val": 0.03, "calib": 0.03, "test": 0.0}
    for name, seed, size, parts in (
        ("learn", 7, rows, shares),
        ("fresh", 11, num_test + 60, {"train": 0.01, "val": 0.01, "calib": 0.01, "test": 0.97}),
    ):
        if not (out / name).exists():
            make_catalogue(out / f"{name}-catalogue", size, seed, num_workers=workers)
            build_dataset(out / f"{name}-catalogue", out / name, shares={k: v for k, v in parts.items() if v})
    return out / "learn", out / "fresh"


def trained(method: str, out: Path, dataset: Path, steps: int, extra: list[str]) -> dict[str, Any]:
    """Train a method, or go on with it; its costs."""
    run = out / method
    steps = round(steps * SHARE_OF_STEPS.get(method, 1))
    settings = [
        f"data.dataset={json.dumps(str(dataset))}", f"run.out={json.dumps(str(run))}", f"run.steps={steps}",
        "run.max_minutes=null", f"run.eval_every={steps}", "run.eval_records=64", "run.save_every=50",
        "augment.mirror=false", "augment.shift=0", "tracking.wandb=off",
    ]  # fmt: skip
    if method in STARTS_FROM:
        settings.append(f"model.base={json.dumps(str(out / STARTS_FROM[method]))}")
    facts = out / f"{method}.json"
    if not facts.exists():
        recipe = () if method in ("full", "frozen") else ("adapter.kind=lora",)
        summary = train(load_config("demo", [*settings, *recipe, *METHODS[method], *extra]), resume=True)
        found = {
            "steps": summary.steps,
            "training_s": round(summary.training_seconds, 1),
            "pictures_per_s": round(summary.pictures_per_s, 1),
            "settings": [*METHODS[method], *extra],
            "warnings": summary.warnings,
        }
        facts.write_text(json.dumps(found, indent=1))
    return dict(json.loads(facts.read_text()))


def answers(model: str, records: Records) -> list[Prediction]:
    return Predictor.load(model).predict([decode(data) for data in record.images] for record in records)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--test", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--only", nargs="*", choices=METHODS, default=list(METHODS))
    parser.add_argument("--set", nargs="*", default=[], dest="extra", help="settings over every method's own")
    parser.add_argument("--write", type=Path, help="path of the page and the JSON, without their endings")
    arguments = parser.parse_args()
    dataset, fresh = material(arguments.out, arguments.rows, arguments.test, os.cpu_count() or 1)
    split = open_dataset(fresh).split("test")
    records = split.take(range(min(arguments.test, len(split))))
    truth = Truth.of([records[row] for row in range(len(records))], FIELDS)
    rows: dict[str, dict[str, Any]] = {}
    columns: dict[str, Any] = {}
    for method in ("before", *arguments.only):
        cost = {} if method == "before" else trained(
            method, arguments.out, dataset, arguments.steps, arguments.extra
        )  # fmt: skip
        begun = time.monotonic()
        said = answers("phi3v-tiny" if method == "before" else str(arguments.out / method), records)
        cost["answering_s"] = round(time.monotonic() - begun, 1)
        columns[method] = columns_of(truth, said, FIELDS)
        rows[method] = {"cost": cost, "scores": score_predictions(truth, said, FIELDS)}
        print(line(method, rows[method]), flush=True)
    gains = {
        method: differences(truth, columns[method], {"start": columns[STARTS_FROM.get(method, "before")]})["start"]
        for method in rows
        if method != "before" and STARTS_FROM.get(method, "before") in columns
    }
    for method, found in gains.items():
        print(method, {field: round_all(part["gain"]) for field, part in found.items()})
    if arguments.write:
        write(arguments.write, rows, gains, arguments, len(records))


def line(method: str, row: dict[str, Any]) -> str:
    scores, cost = row["scores"], row["cost"]
    price, category, title = scores["price"]["median_ape"], scores["category"]["accuracy"], scores["title"]["chrf"]
    parsed = scores["parse_rate"]["value"]
    speed = f"{cost['pictures_per_s']:.0f}" if "pictures_per_s" in cost else "-"
    return (
        f"| {method} | {price['value']:.1%} ({price['low']:.1%} to {price['high']:.1%}) | {category['value']:.1%} "
        f"({category['low']:.1%} to {category['high']:.1%}) | {title['value']:.1f} | {parsed:.1%} | {speed} |"
    )


def round_all(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}


def write(
    path: Path, rows: dict[str, Any], gains: dict[str, Any], arguments: argparse.Namespace, num_products: int
) -> None:
    """The dated page, and the JSON beside it."""
    device = f"CPU ({os.cpu_count()} cores, {platform.machine()})"
    document = {
        "date": date.today().isoformat(),
        "torch": torch.__version__,
        "device": "cpu",
        "dtype": "float32 weights, bfloat16 arithmetic",
        "model": "phi3v-tiny",
        "rows": arguments.rows,
        "steps": arguments.steps,
        "products": num_products,
        "ran": [
            {"method": method, "model": "phi3v-tiny", "what": "trained and scored"}
            for method in gains
            if method != "more"  # LoRA once more
        ],
        "methods": rows,
        "gains": gains,
    }
    path.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    table = "\n".join(line(method, row) for method, row in rows.items())
    told = "\n".join(
        f"| {method} | {STARTS_FROM.get(method, 'before')} | "
        + " | ".join(
            f"{part['gain']['value']:+.4f} ({part['gain']['low']:+.4f} to {part['gain']['high']:+.4f})"
            for part in found.values()
        )
        + " |"
        for method, found in gains.items()
    )
    names = " | ".join(f"{field} ({part['metric']})" for field, part in next(iter(gains.values())).items())
    path.with_suffix(".md").write_text(
        f"# Methods on phi3v-tiny, {document['date']}\n\n"
        f"`python benchmarks/methods.py`, {device}, torch {torch.__version__}. {arguments.rows} products to learn "
        f"from, {arguments.steps} steps of 32 each, scored on {num_products} products of another seed by free "
        "generation.\n\n"
        "| method | price off (median, 95 % interval) | category | title chrF | parsed | pictures/s in training |\n"
        f"| --- | --- | --- | --- | --- | --- |\n{table}\n\n"
        f"Gains, paired on the same products, over the model that each started from:\n\n| method | start | {names} |\n"
        f"| --- | --- {'| --- ' * len(next(iter(gains.values())))}|\n{told}\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()

"""How good is the demo's recipe, whatever the seed? Five catalogues, five runs, their test products taken together.

    python benchmarks/five_seeds.py OUT [--steps 500] [--rows 8000] [--seeds 101,102,103,104,105]

Every run draws its own products, trains phi3v-tiny by the demo's recipe for equal steps, and answers about products it
has never seen: 5 % of its rows. Pooled: median price error and its ratio to the oracle's, categories, visible words of
titles, coverage of the price intervals; and twins whose true change of ln price is large enough, all runs together.
What lies in OUT already is gone on with, or used again. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from appraiser import Predictor, build_dataset, make_catalogue, train
from appraiser.config import load_config
from appraiser.data.dataset import open_dataset
from appraiser.data.pictures import decode
from appraiser.data.twins import read_twins
from appraiser.demo import AUGMENT_NOTHING, SHARES
from appraiser.evaluation.metrics import bootstrap
from appraiser.evaluation.reasoning import reasoning_scores
from appraiser.evaluation.scores import Truth, score_predictions

FIELDS = ("title", "category", "price")
Facts = dict[str, Any]


def trained(out: Path, seed: int, rows: int, steps: int, twins: int) -> tuple[Path, Path]:
    """Run folder and data set of one seed."""
    folder, workers = out / str(seed), os.cpu_count() or 1
    catalogue, dataset, run = folder / "catalogue", folder / "dataset", folder / "run"
    if not dataset.exists():
        if not catalogue.exists():
            make_catalogue(catalogue, rows, seed, num_workers=workers, twins=twins)
        build_dataset(catalogue, dataset, shares=SHARES)
    if not (run / "summary.json").is_file():
        settings = [
            f"data.dataset={json.dumps(str(dataset))}", f"run.out={json.dumps(str(run))}", f"run.steps={steps}",
            "run.max_minutes=null", f"run.seed={seed}", "tracking.wandb=off", *AUGMENT_NOTHING,
        ]  # fmt: skip
        train(load_config("demo", settings), resume=run.exists())
    return run, dataset


def answered(run: Path, dataset: Path) -> Facts:
    """What one run says about its test products and twins, and the truth."""
    data, predictor = open_dataset(dataset), Predictor.load(run)
    records = list(data.split("test"))
    said = predictor.predict([decode(image) for image in record.images] for record in records)
    pairs = list(read_twins(data.folder))
    moved = predictor.predict([decode(image)] for pair in pairs for image in (pair.first_image, pair.second_image))
    return {"records": records, "said": said, "pairs": pairs, "twins": [prediction.price for prediction in moved]}


def price_errors(found: Facts) -> tuple[np.ndarray, np.ndarray, list[tuple[bool, bool]]]:
    """Absolute relative errors of the model (1 where no price could be read) and of the oracle, and whether the 80 and
    90 % intervals hold the truth."""
    mine, oracle, held = [], [], []
    for record, prediction in zip(found["records"], found["said"], strict=True):
        true = float(record.price)
        mine.append(1.0 if prediction.price is None else abs(prediction.price - true) / true)
        oracle.append(abs(float(record.value("truth_oracle_price")) - true) / true)
        intervals = (prediction.price_interval, prediction.price_interval_90)
        held.append(tuple(i is not None and i[0] <= true <= i[1] for i in intervals))
    return np.array(mine), np.array(oracle), held


def ratio(mine: np.ndarray, oracle: np.ndarray, axis: int) -> np.ndarray:
    return np.median(mine, axis=axis) / np.median(oracle, axis=axis)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--rows", type=int, default=8000)
    parser.add_argument("--twins", type=int, default=200, help="pairs drawn with each catalogue")
    parser.add_argument("--seeds", default="101,102,103,104,105")
    arguments = parser.parse_args()
    found: list[Facts] = []
    for seed in map(int, arguments.seeds.split(",")):
        run, dataset = trained(arguments.out, seed, arguments.rows, arguments.steps, arguments.twins)
        found.append(answered(run, dataset))
        mine, oracle, _ = price_errors(found[-1])
        print(
            f"seed {seed}: {np.median(mine):.1%} off, oracle {np.median(oracle):.1%}, {len(mine)} products", flush=True
        )

    parts = [price_errors(one) for one in found]
    mine, oracle = (np.concatenate([part[k] for part in parts]) for k in (0, 1))
    held = np.array([row for part in parts for row in part[2]])
    records = [record for one in found for record in one["records"]]
    said = [prediction for one in found for prediction in one["said"]]
    scores = score_predictions(Truth.of(records, FIELDS), said, FIELDS)
    pairs = [pair for one in found for pair in one["pairs"]]
    prices = [price for one in found for price in one["twins"]]
    moved = [
        float(np.log(second / first)) if first and second else None
        for first, second in zip(prices[::2], prices[1::2], strict=True)
    ]
    summary: Facts = {
        "steps": arguments.steps,
        "products": len(records),
        "price_median_ape": float(np.median(mine)),
        "oracle_median_ape": float(np.median(oracle)),
        "ratio": bootstrap(float(ratio(mine, oracle, 0)), [mine, oracle], ratio),
        "category_accuracy": scores["category"]["accuracy"],
        "visible_words": scores["title"]["visible_words"],
        "parse_rate": scores["parse_rate"],
        "coverage_80": float(held[:, 0].mean()),
        "coverage_90": float(held[:, 1].mean()),
        "reasoning": reasoning_scores(
            [pair.attribute for pair in pairs], moved, [pair.log_price_change for pair in pairs]
        ),
    }
    times = summary["ratio"]
    print(
        f"{len(records)} products: {summary['price_median_ape']:.1%} off, {times['value']:.2f} times the oracle's "
        f"{summary['oracle_median_ape']:.1%} ({times['low']:.2f} to {times['high']:.2f}); "
        f"intervals hold {summary['coverage_80']:.1%} and {summary['coverage_90']:.1%}"
    )
    print(json.dumps(summary))


if __name__ == "__main__":
    main()

"""Default against default, for the same minutes: what has each seen, and what has it learned?

    python benchmarks/defaults.py OUT [--minutes 2.5] [--rows 2000] [--px 448]

phi3v-tiny on a catalogue of pictures of 448 px. `ours` trains by the demo's recipe, with the crops that the data set
was given for its picture sizes. `recipe` does as the origin's script: 16 crops for every picture, one picture at a
time, a step of plain AdamW at 5e-5 every 64, bfloat16 weights, all slots and logits computed (recipe_baseline.py). Both
start from the same weights and answer about the same products, which they have not seen. Picture work is inside the
clock. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import workload
from recipe_baseline import RecipeBaseline
from training_step import fill_slots

from appraiser import Predictor, build_dataset, make_catalogue, train
from appraiser.backbone import load
from appraiser.config import load_config
from appraiser.data.batches import collate
from appraiser.data.dataset import Records, open_dataset
from appraiser.data.examples import training_example
from appraiser.data.pictures import decode
from appraiser.data.task import Task
from appraiser.demo import AUGMENT_NOTHING
from appraiser.evaluation.scores import Truth, score_predictions
from appraiser.trained_task import TrainedTask

FIELDS = ("title", "category", "price")
RECIPE_CROPS, RECIPE_RATE, RECIPE_BATCH = 16, 5e-5, 64
SHARES = {"train": 0.85, "val": 0.03, "calib": 0.02, "test": 0.1}
Facts = dict[str, Any]


def ours(out: Path, dataset: Path, minutes: float) -> tuple[Predictor, Facts]:
    """The demo's recipe, with the data set's own crops."""
    run = out / "ours"
    settings = [
        f"data.dataset={json.dumps(str(dataset))}", f"run.out={json.dumps(str(run))}", f"run.max_minutes={minutes}",
        "model.num_crops=null", "model.attention=auto", "tracking.wandb=off", *AUGMENT_NOTHING,
    ]  # fmt: skip
    summary = train(load_config("demo", settings))
    predictor = Predictor.load(run)
    seen = round(summary.pictures_per_s * summary.training_seconds)
    return predictor, {
        "pictures_per_s": summary.pictures_per_s,
        "pictures": seen,
        "crops": predictor.backbone.num_crops,
    }


def recipe(dataset: Path, minutes: float) -> tuple[Predictor, Facts]:
    """The origin's loop for as long, on the same weights."""
    backbone = load("phi3v-tiny", num_crops=RECIPE_CROPS, attention="eager")
    backbone.model.to(torch.bfloat16)
    runner, task, data = RecipeBaseline(backbone.model), Task(FIELDS), open_dataset(dataset)
    optimizer = runner.optimizer(RECIPE_RATE)
    records = data.split("train")
    order = np.random.default_rng(0)
    backbone.model.train()
    seen, started = 0, time.perf_counter()
    while time.perf_counter() - started < 60 * minutes:
        for row in order.permutation(len(records)).tolist():
            views = [backbone.views(decode(image)) for image in records[row].images]
            example = fill_slots(training_example(backbone, task, records[row], views, 1 << 16), RECIPE_CROPS)
            batch = collate([example], backbone)
            (runner.loss(batch.inputs, batch.labels) / RECIPE_BATCH).backward()
            seen += 1
            if seen % RECIPE_BATCH == 0:
                optimizer.step()
                optimizer.zero_grad()
            if time.perf_counter() - started >= 60 * minutes:
                break
    seconds = time.perf_counter() - started
    backbone.model.float().eval()
    trained = TrainedTask(fields=task.fields, currency=data.manifest.currency)
    return Predictor(backbone, trained), {"pictures_per_s": seen / seconds, "pictures": seen, "crops": RECIPE_CROPS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=2.5)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--px", type=int, default=workload.PICTURE_PX)
    arguments = parser.parse_args()
    workers = os.cpu_count() or 1
    torch.set_num_threads(workers)
    make_catalogue(arguments.out / "catalogue", arguments.rows, 7, size=arguments.px, num_workers=workers)
    dataset = arguments.out / "dataset"
    build_dataset(arguments.out / "catalogue", dataset, shares=SHARES)
    records: Records = open_dataset(dataset).split("test")
    truth = Truth.of([records[row] for row in range(len(records))], FIELDS)
    rows = {}
    for name, (predictor, facts) in (
        ("recipe", recipe(dataset, arguments.minutes)),
        ("ours", ours(arguments.out, dataset, arguments.minutes)),
    ):
        said = predictor.predict([decode(image) for image in record.images] for record in records)
        scores = score_predictions(truth, said, FIELDS)
        rows[name] = facts | {"scores": scores}
        price, category = scores["price"]["median_ape"], scores["category"]["accuracy"]
        print(
            f"{name:7} {facts['crops']:3} crops {facts['pictures']:6} pictures {facts['pictures_per_s']:7.2f}/s; "
            f"prices off by {price['value']:.1%} ({price['low']:.1%} to {price['high']:.1%}), categories "
            f"{category['value']:.1%}, title chrF {scores['title']['chrf']['value']:.1f}, parsed "
            f"{scores['parse_rate']['value']:.1%}",
            flush=True,
        )
    print(f"{rows['ours']['pictures_per_s'] / rows['recipe']['pictures_per_s']:.1f} times as many pictures a second")
    print(json.dumps({"minutes": arguments.minutes, "products": len(records), "rows": rows}))


if __name__ == "__main__":
    main()

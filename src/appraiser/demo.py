"""`appraiser demo`: the whole road on the embedded model, each step by the function that its own command calls."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import typer

from appraiser.config import load_config
from appraiser.errors import ConfigError
from appraiser.json_text import json_text

NUM_SHOWN = 3
SHARES = {"train": 0.89, "val": 0.03, "calib": 0.03, "test": 0.05}
"""Of 6,000 products about 300 to test: more would cost the minutes that training needs."""
NUM_TWINS = 100
# Drawn pictures are cheap. With 9,200 to learn from, prices were off by 10.0 to 10.7 % after 250 to 280 steps (three
# seeds), with 2,400, mirrored and shifted, by 11.3 % (one). The recipe changes pictures for those who have few.
AUGMENT_NOTHING = ("augment.mirror=false", "augment.shift=0")
MAX_BASELINE_RECORDS = 2000


def run_demo(out: Path, rows: int, minutes: float, as_json: bool) -> None:
    """Sample, build, train, evaluate, predict; leaves the run in `out`, catalogue and data set in `out`-data."""
    from appraiser.console import drawing_workers, progress_bar, score_table, stages, stderr, train_with_progress
    from appraiser.data.building.build import build_dataset
    from appraiser.data.pictures import decode
    from appraiser.data.samples.catalogue import make_catalogue
    from appraiser.data.task import Task
    from appraiser.evaluation.evaluate import evaluate, save_result
    from appraiser.evaluation.wandb_table import log_result
    from appraiser.predict import Predictor

    material = out.with_name(f"{out.name}-data")
    for folder in (out, material):
        if folder.is_file() or (folder.exists() and any(folder.iterdir())):
            raise ConfigError(
                f"{folder} exists and is not empty", fix=f"remove it, or name another run: appraiser demo --out {out}-2"
            )

    def say(text: str) -> None:
        stderr.print(text, highlight=False, markup=False)

    times: dict[str, float] = {}
    started = time.monotonic()

    def lap(name: str) -> None:
        times[name] = round(time.monotonic() - started - sum(times.values()), 1)

    catalogue, dataset = material / "catalogue", material / "dataset"
    say(f"1/5  drawing {rows} products")
    with progress_bar("drawing", rows) as report:
        summary = make_catalogue(
            catalogue, rows, num_workers=drawing_workers(None, rows), twins=NUM_TWINS, progress=report
        )
    lap("sample")
    say("2/5  building the data set")
    with progress_bar("building", rows) as report:
        manifest = build_dataset(catalogue, dataset, shares=SHARES, progress=report)
    lap("build")
    say(f"     {manifest.splits['train']} to learn from, {manifest.splits['test']} held out, by product group")
    say("3/5  fine-tuning phi3v-tiny")
    places = [f"data.dataset={json.dumps(str(dataset))}", f"run.out={json.dumps(str(out))}"]
    run = train_with_progress(load_config("demo", [*places, *AUGMENT_NOTHING, f"run.max_minutes={minutes}"]))
    lap("train")
    say("4/5  scoring on products it has never seen")
    with stages() as stage:
        result = evaluate(out, dataset, max_baseline_records=MAX_BASELINE_RECORDS, progress=stage)
    page = save_result(result, out)
    log_result(result, str(out), out, None)
    lap("evaluate")
    say("5/5  three of them")
    shown = [
        {"target": Task().format(record.values(manifest.task_fields)), "answer": prediction.text}
        for record, prediction in zip(result.records[:NUM_SHOWN], result.predictions, strict=False)
    ]
    pictures = [[decode(data) for data in record.images] for record in result.records[:NUM_SHOWN]]
    before = Predictor.load("phi3v-tiny").predict(pictures)
    for number, (answers, untrained) in enumerate(zip(shown, before, strict=True), start=1):
        picture = out / f"example-{number}.jpg"
        picture.write_bytes(result.records[number - 1].images[0])
        answers |= {"picture": str(picture), "before": untrained.text}
    lap("predict")
    document: dict[str, Any] = {
        "out": str(out),
        "report": str(page),
        "seconds": times,
        "pictures_per_s": round(run.pictures_per_s, 1),
        "oracle_median_ape": summary.oracle_median_ape,
        "examples": shown,
        "scores": result.scores,
    }
    if as_json:
        typer.echo(json_text(document))
        return
    typer.echo("\n" + score_table(result.scores) + "\n")
    typer.echo("\n".join(result.verdict) + "\n")
    for answers in shown:
        typer.echo(f"{answers['picture']}\n  before: {answers['before']}\n  now:    {answers['answer']}")
        typer.echo(f"  truth:  {answers['target']}")
    laps = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in times.items())
    typer.echo(f"\n{laps}\nReport: {page}\nTry: appraiser predict {out} {shown[0]['picture']}")

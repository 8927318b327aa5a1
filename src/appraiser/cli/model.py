"""Commands about models: train, evaluate, predict, demo."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from appraiser.cli.app import emit
from appraiser.cli.options import (
    AllowPrivate,
    AnswerShare,
    Closed,
    IgnoreRobots,
    Json,
    PerHost,
    fetch_policy,
    field_columns,
)
from appraiser.console import score_table, stages, stderr, train_with_progress
from appraiser.errors import ConfigError
from appraiser.json_text import json_text


def train(
    dataset: Annotated[
        Path | None, typer.Argument(help="Data set folder; with --resume, default: the run's own.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Run folder to make.")] = Path("runs/first"),
    recipe: Annotated[
        str | None, typer.Option(help="Recipe name or path of a YAML or TOML file; default: demo.")
    ] = None,
    overrides: Annotated[list[str], typer.Option("--set", help="section.key=value, over the recipe.")] = [],  # noqa: B006
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and print the plan; write nothing.")
    ] = False,
    on: Annotated[
        Literal["ray"] | None, typer.Option(help="ray: by processes of a Ray cluster, begun again when one dies.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="--on ray: so many processes; unset: one per GPU, or one.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out from its newest intact checkpoint.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Fine-tune: full, LoRA, DoRA or QLoRA; best checkpoint by validation score.

    SIGINT, SIGTERM and SIGUSR1 save the run and end it; --resume goes on. On several GPUs:
    torchrun --nproc-per-node 8 -m appraiser train ...

    Example:  appraiser train dataset --recipe demo --out runs/first --set run.epochs=4
    """
    from appraiser.config import load_config

    saved = out / "config.yaml"
    places = [f"run.out={json.dumps(str(out))}"]
    if dataset is not None:
        places.append(f"data.dataset={json.dumps(str(dataset))}")
    elif not (resume and saved.is_file()):
        raise ConfigError("no data set is named", fix="appraiser train DATASET --out RUN")
    if resume and recipe is None and saved.is_file():
        recipe = str(saved)
    config = load_config(recipe or "demo", [*overrides, *places])
    if workers is not None and on is None:
        raise ConfigError("--workers is for --on ray", fix="add --on ray, or start with torchrun")
    if on == "ray" and not dry_run:
        from appraiser.training.on_ray import train_on_ray

        summary = train_on_ray(config, workers, resume=resume)
    else:
        summary = train_with_progress(config, dry_run=dry_run, resume=resume)
    if dry_run:
        emit({"dry_run": True, "config": config.model_dump(mode="json")}, as_json, "Dry run: nothing was written.")
        return
    document = {
        "out": str(summary.out),
        "steps": summary.steps,
        "best_step": summary.best_step,
        "best_score": summary.best_score,
        "seconds": round(summary.seconds, 1),
        "training_seconds": round(summary.training_seconds, 1),
        "pictures_per_s": round(summary.pictures_per_s, 2),
        "warnings": summary.warnings,
        "validation": summary.metrics,
    }
    emit(
        document,
        as_json,
        f"Trained {summary.steps} steps in {summary.training_seconds:.0f} s ({summary.pictures_per_s:.0f} pictures/s); "
        f"best validation score {summary.best_score:.3f} at step {summary.best_step}.\n"
        f"Saved {out}. Try: appraiser evaluate {out} {config.data.dataset}",
    )


def evaluate(
    model: Annotated[str, typer.Argument(help="Run, model folder, embedded model or Hub id.")],
    dataset: Annotated[Path, typer.Argument(help="Data set folder.")],
    split: Annotated[str, typer.Option(help="train, val, calib or test.")] = "test",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for report.json and report.html; default: the run, or here if it is none."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many products.")] = None,
    closed: Closed = [],  # noqa: B006
    against: Annotated[str | None, typer.Option(help="Another model: which is better, and what moved?")] = None,
    curve: Annotated[
        bool, typer.Option("--learning-curve", help="Train the run again on parts of its data: are there enough?")
    ] = False,
    with_baselines: Annotated[bool, typer.Option("--baselines/--no-baselines", help="Score cheap methods too.")] = True,
    wandb: Annotated[
        Literal["offline", "online", "off"] | None,
        typer.Option(help="Log scores and a table of pictures to W&B; unset: offline if the run was tracked."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Score a model by free generation, beside baselines and wrong-picture controls; writes the report.

    Example:  appraiser evaluate runs/first dataset
    """
    from appraiser.evaluation.against import against_sentences, compare
    from appraiser.evaluation.evaluate import evaluate as run_evaluation
    from appraiser.evaluation.evaluate import save_result
    from appraiser.evaluation.wandb_table import log_result
    from appraiser.training.learning_curve import learning_curve

    with stages() as report:
        result = run_evaluation(
            model, dataset, split, limit=limit, closed=closed, with_baselines=with_baselines, progress=report
        )
        if against is not None:
            other = run_evaluation(
                against, dataset, split, limit=limit, closed=closed, controls=(), with_baselines=False, before=False,
                progress=lambda what, done, total: report(f"{what}, other model", done, total),
            )  # fmt: skip
            result.scores["against"] = compare(result, other, against)
            result.verdict.extend(against_sentences(result.scores["against"]))
        if curve:
            result.scores["learning_curve"] = learning_curve(
                model, dataset, result, progress=report,
                on_training=lambda share, count: stderr.print(f"training on {share:.0%}: {count:,} products"),
            )  # fmt: skip
            result.verdict.append(result.scores["learning_curve"]["sentence"])
    target = out or (Path(model) if (Path(model) / "config.yaml").is_file() else Path("."))
    page = save_result(result, target)
    log_result(result, model, target, wandb)
    emit(result.scores, as_json, score_table(result.scores) + "\n" + "\n".join(result.verdict) + f"\nReport: {page}")


def predict(
    model: Annotated[str, typer.Argument(help="Run, model folder, embedded model or Hub id.")],
    source: Annotated[
        Path,
        typer.Argument(
            help="A picture, a folder of pictures, a table (.csv, .tsv, .jsonl, .parquet) with paths, URLs or pictures "
            "in it, or a data set folder."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Write .csv, .jsonl or .parquet instead of printing; goes on where it was interrupted."),
    ] = None,
    closed: Closed = [],  # noqa: B006
    answer_share: AnswerShare = None,
    mapping: Annotated[list[str], typer.Option("--map", help="field=column where the guess is wrong: image, id.")] = [],  # noqa: B006
    fresh: Annotated[
        bool, typer.Option("--fresh", help="With --out: throw away what an interrupted run has finished.")
    ] = False,
    allow_private: AllowPrivate = [],  # noqa: B006
    per_host: PerHost = 4,
    ignore_robots: IgnoreRobots = False,
    on: Annotated[
        Literal["ray"] | None, typer.Option(help="ray: by workers of a Ray cluster, each with the model.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="--on ray: so many workers; unset: one per GPU, or one.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Name, sort and price pictures: one row out per row in.

    Example:  appraiser predict runs/first photo.jpg
    """
    from appraiser.predicting.outputs import check_output
    from appraiser.predicting.run import Options, predict_source, predict_to_file

    if workers is not None and on is None:
        raise ConfigError("--workers is for --on ray", fix="add --on ray")
    if fresh and out is None:
        raise ConfigError("--fresh is for --out: nothing is kept without it", fix="leave it out, or add --out FILE")
    if out is not None:
        check_output(out)
    options = Options(fetch_policy(allow_private, per_host, ignore_robots), on, workers)
    fields = field_columns(mapping)
    with stages() as report:

        def progress(done: int, total: int) -> None:
            report("rows", done, total)

        if out is None:
            rows = predict_source(
                model, source, progress, closed=closed, answer_share=answer_share, mapping=fields, options=options
            )
            num_rows, failed = len(rows), sum("error" in row for row in rows)
        else:
            written = predict_to_file(
                model, source, out, progress,
                closed=closed, answer_share=answer_share, mapping=fields, fresh=fresh, options=options,
            )  # fmt: skip
            num_rows, failed = written.rows, written.failed
    if out is not None:
        before = f" ({written.resumed} were finished before)" if written.resumed else ""
        emit(
            {"out": str(out)} | asdict(written),
            as_json,
            f"Wrote {num_rows} rows to {out}, {failed} failed{before}.",
        )
    elif as_json:
        typer.echo(json_text(rows))
    else:
        typer.echo("\n".join(_line(row) for row in rows))
    if failed == num_rows:
        raise typer.Exit(3)


def _line(row: dict[str, Any]) -> str:
    """One prediction for people."""
    if "error" in row:
        return f"{row['picture']}: cannot be read: {row['error']}"
    values = [str(value) for key in ("title", "category") if (value := row.get(key)) is not None]
    others = [f"{key} {row[key]}" for key in row if key not in RESERVED and row[key] is not None]
    if row.get("price") is not None:
        price = f"{row['price']:g} {row['currency'] or ''}".strip()
        if row.get("price_low") is not None:
            price += f" (80 %: {row['price_low']:.0f} to {row['price_high']:.0f})"
        values.append(price)
    elif row.get("abstained"):
        values.append(f"no price, since {row['abstained']}")
    said = ", ".join(values + others) or f"no readable answer: {row['text']!r}"
    return f"{row['picture']}: {said}  [confidence {row['confidence']:.2f}]"


RESERVED = frozenset(
    (
        "picture",
        "id",
        "title",
        "category",
        "price",
        "currency",
        "price_low",
        "price_high",
        "confidence",
        "parsed",
        "text",
        "abstained",
    )
)


def demo(
    out: Annotated[Path, typer.Option(help="Run folder to make.")] = Path("runs/demo"),
    rows: Annotated[int, typer.Option(min=200, help="Products of the sample catalogue.")] = 6000,
    minutes: Annotated[float, typer.Option(min=0.05, help="Training time at most.")] = 2.45,
    as_json: Json = False,
) -> None:
    """The whole road on the embedded model: sample, build, train, evaluate, predict; no network, no GPU.

    Example:  appraiser demo
    """
    from appraiser.demo import run_demo

    run_demo(out, rows, minutes, as_json)

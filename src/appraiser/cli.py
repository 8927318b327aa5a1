"""The command line: every command parses, calls one library function, and prints.

Results go to stdout, progress and warnings to stderr; `--json` prints one document. torch and transformers are imported
inside the commands that need them, so that `--help` opens at once.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from appraiser import __version__
from appraiser.console import (
    WarningLines,
    check_workers,
    drawing_workers,
    progress_bar,
    score_table,
    stages,
    stderr,
    train_with_progress,
)
from appraiser.errors import AppraiserError, ConfigError

if TYPE_CHECKING:
    from appraiser.data.building.collect import Forecast

app = typer.Typer(
    name="appraiser",
    help="Fine-tune Phi-3-Vision on your own product pictures: name, category and price, honestly scored.\n\n"
    "Start here, without network or GPU:  appraiser demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
_state = {"debug": False}


def main() -> None:
    """Run the command line; errors of ours print their three lines, anything else keeps its traceback."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    logging.getLogger("appraiser").handlers = [WarningLines()]
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what matters of it comes as an error of ours as well
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "2")  # of 41 s each: 20 for an address where nobody answers
    try:
        app()
    except AppraiserError as error:
        if _state["debug"]:
            raise
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    debug: Debug = False,
) -> None:
    _state["debug"] = debug
    if version:
        typer.echo(__version__)
        raise typer.Exit


def emit(document: dict[str, Any], as_json: bool, text: str) -> None:
    """Print the result for a machine or for a person."""
    typer.echo(json.dumps(document, ensure_ascii=False, indent=2) if as_json else text)


@app.command()
def sample(
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
    rows: Annotated[int, typer.Option(min=1, help="Number of products.")] = 3040,
    seed: Annotated[int, typer.Option(min=0, help="Other seed, other products.")] = 7,
    size: Annotated[int, typer.Option(min=64, max=2048, help="Side of the pictures in pixels.")] = 336,
    faults: Annotated[
        bool, typer.Option("--faults", help="Spoil one row in five as real ones are; faults.csv tells which and how.")
    ] = False,
    holdout: Annotated[
        Literal["combinations", "backgrounds"] | None,
        typer.Option(help="Add a split column that keeps combinations of attributes, or backgrounds, for the test."),
    ] = None,
    twins: Annotated[int, typer.Option(min=0, help="Pairs of pictures that differ in one attribute.")] = 0,
    explain: Annotated[
        int | None, typer.Option(min=0, help="Draw nothing; say where title and price of this item come from.")
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(
            help="Your own table, or what else build takes: the sample gets its categories, prices and shape of "
            "titles, and no row of it. Adds fidelity.html."
        ),
    ] = None,
    mapping: Annotated[list[str], typer.Option("--map", help="With --like: field=column, as in build.")] = [],  # noqa: B006
    price_locale: Annotated[
        str | None, typer.Option(help="With --like: how its prices are written, e.g. de for 1.290,50.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that draw; unset: one per core, at most 8.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Render a sample catalogue: products.csv (the Burberry schema), pictures, and the truth about them.

    Example:  appraiser sample catalogue --rows 3040 --seed 7
    """
    from appraiser.data.samples.catalogue import explain_row, make_catalogue
    from appraiser.data.samples.explain import as_text

    if like is not None:
        if faults or twins or explain is not None:
            raise ConfigError(
                "--like does not go with --faults, --twins or --explain: these follow the sample's own rules",
                fix="leave one of them out",
            )
        _sample_like(like, out, rows, seed, size, holdout, mapping, price_locale, workers, as_json)
        return
    if mapping or price_locale:
        raise ConfigError("--map and --price-locale say how to read the table of --like", fix="add --like TABLE")
    if explain is not None:
        explanation = explain_row(out, explain, seed)
        emit(asdict(explanation), as_json, as_text(explanation))
        return
    with progress_bar("drawing", rows) as report:
        summary = make_catalogue(
            out,
            rows,
            seed,
            size=size,
            num_workers=drawing_workers(workers, rows),
            faults=faults,
            holdout=holdout,
            twins=twins,
            progress=report,
        )
    extras = [f"{summary.faults} rows are spoilt: see faults.csv."] if faults else []
    extras += [f"{twins} pairs in twins.csv differ in one attribute."] if twins else []
    # Some faults are only found by what is left out, and some are repeated codes.
    options = " --max-quarantined 0.25 --dedupe first" if faults else ""
    options += " --split-by split" if holdout else ""
    emit(
        {"out": str(out)} | asdict(summary),
        as_json,
        f"Drew {rows} products in {out}. An oracle that knows every rule but not the noise is off by "
        f"{summary.oracle_median_ape:.1%} (median).\n"
        + "".join(f"{extra}\n" for extra in extras)
        + f"Try: appraiser build {out} dataset{options}",
    )


def _sample_like(
    like: str,
    out: Path,
    rows: int,
    seed: int,
    size: int,
    holdout: Literal["combinations", "backgrounds"] | None,
    mapping: list[str],
    price_locale: str | None,
    workers: int | None,
    as_json: bool,
) -> None:
    from appraiser.data.samples.like_table import as_text, make_catalogue_like

    with stages() as report:
        summary = make_catalogue_like(
            like,
            out,
            rows,
            seed,
            mapping=_mapping(mapping),
            price_locale=price_locale,
            size=size,
            num_workers=drawing_workers(workers, rows),
            holdout=holdout,
            progress=report,
        )
    options = " --split-by split" if holdout else ""
    document = {"like": summary.profile.facts(), "fidelity": summary.fidelity.to_json()}
    emit(
        {"out": str(out)} | asdict(summary.catalogue) | document,
        as_json,
        f"{as_text(summary)}\nPage: {out / 'fidelity.html'}\nTry: appraiser build {out} dataset{options}",
    )


@app.command()
def build(
    source: Annotated[
        str,
        typer.Argument(
            help="products.csv, .tsv, .jsonl, .parquet, a folder that holds one (or one per split), a folder per "
            "category, the .json conversations of another trainer, what `datasets` saved to disk, a copy of a Hub "
            "repository, a data set or export of appraiser, or hub:owner/name/config@split."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="Data set folder to make.")],
    mapping: Annotated[
        list[str], typer.Option("--map", help="field=column (or column|column as fallbacks); empty drops the field.")
    ] = [],  # noqa: B006 - typer wants a literal default
    currency: Annotated[str | None, typer.Option(help="Currency of tables without such a column.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split.")] = 0,
    num_crops: Annotated[
        int | None, typer.Option(min=1, max=16, help="Crop budget; chosen from the sizes if unset.")
    ] = None,
    shares: Annotated[
        list[str], typer.Option("--share", help="split=share, e.g. test=1 to only score; default 80/5/5/10 %.")
    ] = [],  # noqa: B006
    max_quarantined: Annotated[float, typer.Option(min=0, max=1, help="Share of rows that may be left out.")] = 0.05,
    dedupe: Annotated[
        Literal["first", "last"] | None,
        typer.Option(help="Of rows with the same id, which one stays; unset: they are refused."),
    ] = None,
    split_by: Annotated[
        str | None, typer.Option(help="Column that names the splits; unset: split by product group.")
    ] = None,
    several_currencies: Annotated[
        bool, typer.Option("--several-currencies", help="Keep prices in several currencies, each with its own.")
    ] = False,
    price_locale: Annotated[
        str | None, typer.Option(help="How prices are written, e.g. de or en; unset: plain numbers only.")
    ] = None,
    keep_placeholders: Annotated[
        bool, typer.Option("--keep-placeholders", help="Keep rows whose picture stands for many products.")
    ] = False,
    corrections: Annotated[
        Path | None, typer.Option(help="A file of appraiser check: products to drop, rename or reprice.")
    ] = None,
    retry: Annotated[
        str, typer.Option(help="Reasons, e.g. timeout,http_5xx: rows of OUT left out for them are tried again.")
    ] = "",
    allow_private: Annotated[list[str], typer.Option(help="HOST:PORT of your own picture server.")] = [],  # noqa: B006
    per_host: Annotated[
        int, typer.Option(min=1, max=256, help="Pictures fetched from one host at a time; more only from your own.")
    ] = 4,
    ignore_robots: Annotated[
        bool, typer.Option("--ignore-robots", help="The pictures are your own: robots.txt does not matter.")
    ] = False,
    on: Annotated[
        Literal["here", "ray"],
        typer.Option(help="Where pictures are fetched and decoded: here, or by at most --per-host workers of Ray."),
    ] = "here",
    as_json: Json = False,
) -> None:
    """Build a data set: pictures decoded and stored, bad rows quarantined by cause, split by product group.

    A build that was interrupted goes on where it stopped when it is started again.

    Example:  appraiser build shop/products.csv dataset --map title=name
    """
    from appraiser.data.building.build import build_dataset
    from appraiser.data.fetch import FetchPolicy
    from appraiser.data.records import FieldMap

    policy = FetchPolicy(
        allow_private=frozenset(allow_private),
        num_parallel=max(64, per_host),
        num_parallel_per_host=per_host,
        respect_robots=not ignore_robots,
    )
    with progress_bar("building", 0) as report:
        manifest = build_dataset(
            source,
            out,
            mapping=_mapping(mapping),
            currency=currency,
            seed=seed,
            num_crops=num_crops,
            max_quarantined=max_quarantined,
            shares=_shares(shares),
            dedupe=dedupe,
            split_by=split_by,
            price_locale=price_locale,
            keep_placeholders=keep_placeholders,
            several_currencies=several_currencies,
            corrections=corrections,
            retry=tuple(filter(None, retry.split(","))),
            fetch=policy,
            progress=report,
            on_forecast=_show_forecast,
            on=on,
        )
    shown = FieldMap({field: tuple(columns) for field, columns in manifest.fields.items()})
    reasons = ", ".join(f"{count} {reason}" for reason, count in manifest.quarantined_by_reason.items())
    left_out = f"{manifest.quarantined} left out ({reasons})" if manifest.quarantined else "none left out"
    over_cap = int(manifest.grouping["num_links_over_cap"])
    if over_cap:
        stderr.print(f"warning: {over_cap} look-alike pairs were left apart: together they would be over the group cap")
    if manifest.grouping["split_leak"]:
        stderr.print(
            f"warning: {manifest.grouping['split_leak']:.0%} of the test products have a variant in training: column "
            f"{manifest.split_by!r} splits product groups"
        )
    together = {"pictures twice": "num_exact_duplicates", "look-alike pictures": "num_near_duplicate_links"}
    seen = manifest.cleaning | {name: int(manifest.grouping[key]) for name, key in together.items()}
    cleaned = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in seen.items() if count)
    emit(
        manifest.model_dump(mode="json"),
        as_json,
        f"Columns: {shown.describe()}\n"
        f"{manifest.rows_in} rows: {manifest.ok} kept, {left_out}.\n"
        + (f"Among those kept: {cleaned}.\n" if cleaned else "")
        + f"{', '.join(f'{count} {name}' for name, count in manifest.splits.items())}; "
        f"{manifest.grouping['num_groups']:.0f} product groups. A split by row would have leaked "
        f"{manifest.grouping['row_split_leak']:.0%} of its test products into training.\n"
        f"Pictures are {manifest.median_picture[0]} x {manifest.median_picture[1]} px (median): {manifest.num_crops} "
        f"crop(s) each.\nTry: appraiser train {out} --recipe demo --out runs/first",
    )


def _show_forecast(forecast: Forecast) -> None:
    reasons = ", ".join(f"{count} {reason}" for reason, count in forecast.reasons.items())
    stderr.print(
        f"{forecast.num_ok} of the first {forecast.num_rows} pictures with a URL arrived"
        + (f" (not: {reasons})" if reasons else "")
    )


def _shares(pairs: list[str]) -> dict[str, float] | None:
    shares: dict[str, float] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        try:
            shares[name] = float(value)
        except ValueError:
            raise ConfigError(f"cannot read --share {pair!r}", fix="write --share split=number, e.g. test=1") from None
    return shares or None


def _mapping(pairs: list[str]) -> dict[str, list[str]]:
    fields: dict[str, list[str]] = {}
    for pair in pairs:
        field, equals, columns = pair.partition("=")
        if not equals or not field:
            raise ConfigError(f"cannot read --map {pair!r}", fix="write --map field=column, e.g. --map title=name")
        fields[field.strip()] = [column for column in columns.split("|") if column]
    return fields


@app.command()
def check(
    dataset: Annotated[Path, typer.Argument(help="Data set folder.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for check.json and check.html; default: the data set's.")
    ] = None,
    model: Annotated[str, typer.Option(help="Whose tokens are counted: a model folder, Hub id or phi3v-tiny.")] = (
        "phi3v-tiny"
    ),
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that measure; unset: one per core, at most 8.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Look for problems in a data set; writes a page on which products can be dropped, renamed or repriced.

    Example:  appraiser check dataset
    """
    from appraiser.data.checking.check import check_dataset, save_check
    from appraiser.data.dataset import open_dataset

    rows = open_dataset(dataset).manifest.ok
    with progress_bar("checking", rows) as report:
        result = check_dataset(dataset, model=model, num_workers=check_workers(workers), progress=report)
    page = save_check(result, out or dataset)
    counts = "\n".join(f"{count:>7} {kind}" for kind, count in result.counts.items())
    shortcuts = "".join(
        f"warning: the {probe.label} can be guessed from the {probe.source} alone (skill {probe.skill:.2f} of 1)\n"
        for probe in result.probes
        if probe.warns
    )
    emit(
        result.as_json(),
        as_json,
        f"{len(result.findings)} products checked, {result.num_concerned} to look at.\n"
        + (f"{counts}\n" if counts else "")
        + shortcuts
        + f"Page: {page}",
    )


@app.command()
def train(
    dataset: Annotated[Path, typer.Argument(help="Data set folder.")],
    out: Annotated[Path, typer.Option(help="Run folder to make.")] = Path("runs/first"),
    recipe: Annotated[str, typer.Option(help="Recipe name or path of a YAML or TOML file.")] = "demo",
    overrides: Annotated[list[str], typer.Option("--set", help="section.key=value, over the recipe.")] = [],  # noqa: B006
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and print the plan; write nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Fine-tune: full or LoRA, best checkpoint by validation score.

    Example:  appraiser train dataset --recipe demo --out runs/first --set run.epochs=4
    """
    from appraiser.config import load_config

    config = load_config(
        recipe, [*overrides, f"data.dataset={json.dumps(str(dataset))}", f"run.out={json.dumps(str(out))}"]
    )
    summary = train_with_progress(config, dry_run=dry_run)
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
        f"Saved {out}. Try: appraiser evaluate {out} {dataset}",
    )


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="Run, model folder, embedded model or Hub id.")],
    dataset: Annotated[Path, typer.Argument(help="Data set folder.")],
    split: Annotated[str, typer.Option(help="train, val, calib or test.")] = "test",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for report.json and report.html; default: the run, or here if it is none."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many products.")] = None,
    closed: Annotated[
        list[str], typer.Option(help="Field whose answers must be values of training, e.g. category.")
    ] = [],  # noqa: B006
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


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="Run, model folder, embedded model or Hub id.")],
    source: Annotated[Path, typer.Argument(help="A picture, a folder of pictures, or a table with picture paths.")],
    out: Annotated[Path | None, typer.Option(help="Write .csv, .jsonl or .parquet instead of printing.")] = None,
    closed: Annotated[
        list[str], typer.Option(help="Field whose answers must be values of training, e.g. category.")
    ] = [],  # noqa: B006
    answer_share: Annotated[
        float | None,
        typer.Option(
            min=0.05, max=1, help="Leave prices out where the model is less sure than on this share of usual products."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Name, sort and price pictures.

    Example:  appraiser predict runs/first photo.jpg
    """
    from appraiser.batch_predict import check_output, predict_source, write_rows

    if out is not None:
        check_output(out)
    with stages() as report:
        rows = predict_source(
            model, source, lambda done, total: report("pictures", done, total), closed=closed, answer_share=answer_share
        )
    failed = sum("error" in row for row in rows)
    if out is not None:
        write_rows(rows, out)
        emit(
            {"out": str(out), "rows": len(rows), "failed": failed},
            as_json,
            f"Wrote {len(rows)} rows to {out}, {failed} failed.",
        )
    elif as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False, indent=2))
    else:
        typer.echo("\n".join(_line(row) for row in rows))
    if failed == len(rows):
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


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="Data set folder, as `appraiser build` makes it.")],
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
    layout: Annotated[
        Literal["imagefolder", "webdataset", "csv"] | None,
        typer.Option(
            "--as",
            help="imagefolder and webdataset: as `datasets` and the `webdataset` library read them; csv: one table and "
            "a folder of pictures.",
        ),
    ] = None,
    shard_mib: Annotated[
        int | None, typer.Option(min=1, help="webdataset: size of a tar shard in MiB; 512 if unset.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a data set in the layout of another tool; `appraiser build` reads all of them again.

    Example:  appraiser export dataset dataset-as-csv --as csv
    """
    from appraiser.data.exports.export import export_dataset
    from appraiser.data.exports.web_dataset import SHARD_MIB

    if (folder / "config.yaml").is_file():
        raise ConfigError(
            f"{folder} is a run",
            fix="name a data set folder, as `appraiser build` makes it: only data sets can be exported so far",
        )
    if layout is None:
        raise ConfigError("which layout?", where=str(folder), fix="add --as imagefolder, --as webdataset or --as csv")
    if shard_mib and layout != "webdataset":
        stderr.print(f"warning: --shard-mib is for webdataset: not used for {layout}")
    with progress_bar("exporting", 0) as report:
        facts = export_dataset(folder, out, layout, shard_mib=shard_mib or SHARD_MIB, progress=report)
    splits = ", ".join(f"{count} {split}" for split, count in facts.splits.items())
    marked = f"{facts.num_escaped_cells} texts that a spreadsheet would run are marked with a '.\n"
    renamed = "".join(f"Column {name} is called {other} there.\n" for name, other in facts.renamed.items())
    emit(
        {"out": str(out)} | facts.model_dump(mode="json"),
        as_json,
        f"{sum(facts.splits.values())} records with {facts.num_pictures} pictures are in {out}, counted after writing: "
        f"{splits}.\n{marked if layout == 'csv' else ''}{renamed}Try: appraiser build {out} again",
    )


@app.command()
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


if __name__ == "__main__":
    main()

"""Commands about data: sample, build, check."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from appraiser.cli.app import emit
from appraiser.cli.options import AllowPrivate, IgnoreRobots, Json, PerHost, fetch_policy, field_columns
from appraiser.console import check_workers, drawing_workers, progress_bar, stages, stderr
from appraiser.errors import ConfigError

if TYPE_CHECKING:
    from appraiser.data.building.collect import Forecast


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
            mapping=field_columns(mapping),
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
    allow_private: AllowPrivate = [],  # noqa: B006
    per_host: PerHost = 4,
    ignore_robots: IgnoreRobots = False,
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
    from appraiser.data.records import FieldMap

    policy = fetch_policy(allow_private, per_host, ignore_robots)
    with progress_bar("building", 0) as report:
        manifest = build_dataset(
            source,
            out,
            mapping=field_columns(mapping),
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
        + (f"{manifest.twins} twin pairs, for evaluation alone.\n" if manifest.twins else "")
        + f"Pictures are {manifest.median_picture[0]} x {manifest.median_picture[1]} px (median): "
        f"{manifest.num_crops} crop(s) each.\nTry: appraiser train {out} --recipe demo --out runs/first",
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
    if result.mixed_prices:
        shortcuts += f"warning: {result.mixed_prices}\n"
    emit(
        result.as_json(),
        as_json,
        f"{len(result.findings)} products checked, {result.num_concerned} to look at.\n"
        + (f"{counts}\n" if counts else "")
        + shortcuts
        + f"Page: {page}",
    )

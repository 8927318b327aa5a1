"""A sample that is like a user's own table: profile, drawing, and the comparison of what came out.

table ─▶ Profile ─▶ catalogue folder ─▶ fidelity.json, fidelity.html in it
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, zip_longest
from pathlib import Path

from appraiser.data.fidelity.compare import compare
from appraiser.data.fidelity.nearness import Halves
from appraiser.data.fidelity.page import NUM_EXAMPLES, render_fidelity
from appraiser.data.fidelity.picture_sets import read_pictures
from appraiser.data.fidelity.result import Fidelity
from appraiser.data.records import FieldMap
from appraiser.data.samples import pricing
from appraiser.data.samples.catalogue import CatalogueSummary, make_catalogue
from appraiser.data.samples.drawing import DEFAULT_SIZE
from appraiser.data.samples.holdouts import Holdout
from appraiser.data.samples.items import iter_products
from appraiser.data.samples.likeness import make_likeness
from appraiser.data.samples.profile import MIN_ROWS, Profile, make_profile
from appraiser.data.sources import Source, open_source
from appraiser.data.tables import ProductTable, read_table, table_fields
from appraiser.errors import DataError

HALF_SAMPLE_ROWS = 1000
"""Rows drawn, without pictures, to test the method on one half of the table."""
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class LikeSummary:
    """What was read, drawn and found."""

    fields: FieldMap
    profile: Profile
    catalogue: CatalogueSummary
    fidelity: Fidelity


def make_catalogue_like(
    table: str,
    out: Path,
    rows: int = 3040,
    seed: int = 7,
    *,
    mapping: Mapping[str, Sequence[str]] | None = None,
    price_locale: str | None = None,
    size: int = DEFAULT_SIZE,
    num_workers: int = 1,
    holdout: Holdout | None = None,
    progress: Progress | None = None,
) -> LikeSummary:
    """Write a catalogue in the likeness of a table, with `fidelity.json` and `fidelity.html` about how like it is.

    Args:
        table: what `build` takes; pictures are not needed, and those behind URLs are not fetched.
        mapping: field -> columns, where the guess from their names is wrong.
        progress: called with stage, number done and number in all.

    See `make_catalogue` for the others.

    Raises:
        ConfigError, DataError: as `make_catalogue`; the table cannot be read, or has too few rows; something of it was
            found in the sample, which then lies in `out` with the page that tells where.
    """
    source = open_source(table)
    fields = table_fields(source, mapping or {}, price_locale)
    real = read_table(source, fields)
    profile = make_profile(real)
    found: list[Fidelity] = []

    def finish(folder: Path) -> None:
        fidelity = _compare(source, fields, real, folder, out.name, progress)
        found.append(fidelity)
        document = json.dumps(fidelity.to_json(), ensure_ascii=False, indent=2)
        (folder / "fidelity.json").write_text(document + "\n", encoding="utf-8")
        facts = [("Columns of the real table", fields.describe()), ("Seed of the sample", str(seed))]
        page = render_fidelity(fidelity, profile.drawn_as(), _examples(folder), [*facts, *profile.habits()])
        (folder / "fidelity.html").write_text(page, encoding="utf-8")

    summary = make_catalogue(
        out,
        rows,
        seed,
        size=size,
        num_workers=num_workers,
        holdout=holdout,
        like=profile,
        progress=None if progress is None else lambda done: progress("drawing", done, rows),
        finish=finish,
    )
    if not found[0].passes:
        raise DataError(
            f"the sample holds something of {real.name}: {found[0].warnings[0]}",
            where=str(out / "fidelity.html"),
            fix="do not hand this sample on; draw another with --seed, and report this as a bug of appraiser",
        )
    return LikeSummary(fields, profile, summary, found[0])


def as_text(summary: LikeSummary) -> str:
    """What a person should know: how categories are drawn, how like the sample is, and that nothing leaked."""
    fidelity, profile = summary.fidelity, summary.profile
    lines = [f"Columns: {summary.fields.describe()}"]
    drawn = profile.drawn_as()
    if drawn:
        lines += ["Categories are drawn as the nearest thing there is:"]
        lines += [f"  {name}: {text}" for name, text in drawn.items()]
    else:
        lines += [f"{profile.source} has no categories: the sample keeps its own."]
    lines += [f"Note: {note}" for note in fidelity.notes]
    lines += [
        f"Drew {summary.catalogue.rows} products like {profile.source} ({profile.rows} rows). An oracle that knows "
        f"every rule but not the noise is off by {summary.catalogue.oracle_median_ape:.1%} (median)."
    ]
    scores = [fidelity.measure(f"quality.{key}") for key in ("overall", "column_shapes", "pair_trends")]
    told = ", ".join(f"{score.label.lower()} {score.value:.1%}" for score in scores if score)
    num_warnings = len(fidelity.warnings)
    lines += [f"{told}; {num_warnings} measure{'' if num_warnings == 1 else 's'} to look at.".capitalize()]
    checked = ", ".join(f"0 of {check.num_checked} {check.kind.replace('_', ' ')}" for check in fidelity.leaks)
    if checked:
        lines += [f"Nothing of {profile.source} is in it: {checked}."]
    return "\n".join(lines)


def _compare(
    source: Source, fields: FieldMap, real: ProductTable, folder: Path, name: str, progress: Progress | None
) -> Fidelity:
    drawn = open_source(str(folder / "products.csv"))
    drawn_fields = table_fields(drawn, {})
    sample = replace(read_table(drawn, drawn_fields), name=name)

    def looking(whose: str, total: int) -> Callable[[int], None] | None:
        return None if progress is None else lambda done: progress(f"looking at {whose} pictures", done, total)

    return compare(
        real,
        sample,
        read_pictures(source, fields, len(real), looking("real", len(real))),
        read_pictures(drawn, drawn_fields, len(sample), looking("drawn", len(sample))),
        _halves(real),
        is_drawn=source.sample is not None,
    )


def _examples(folder: Path) -> list[tuple[str, Path]]:
    """(caption, file) of drawn pictures, the categories by turns."""
    waiting: dict[str, list[tuple[str, Path]]] = {}
    with (folder / "truth.csv").open(encoding="utf-8", newline="") as file:
        for row in islice(csv.DictReader(file), 50 * NUM_EXAMPLES):
            picture = (f"{row['title']} ({row['category']})", folder / row["image"])
            waiting.setdefault(row["category"], []).append(picture)
    turns = chain.from_iterable(zip_longest(*waiting.values()))
    return list(islice((picture for picture in turns if picture is not None), NUM_EXAMPLES))


def _halves(real: ProductTable) -> Halves | None:
    """Every other row, a sample of these, and the rows between; None from tables too small for it."""
    if len(real) < 2 * MIN_ROWS:
        return None
    training, holdout = (real.rows(range(first, len(real), 2)) for first in (0, 1))
    like = make_likeness(make_profile(training), pricing.DEFAULT_NOISE)
    items = list(iter_products(HALF_SAMPLE_ROWS, 0, like=like))
    sample = ProductTable(
        name="sample of one half",
        ids=tuple(str(entry.item) for entry in items),
        titles=tuple(entry.labels.title for entry in items),
        categories=tuple(entry.labels.category for entry in items),
        prices=tuple(entry.price for entry in items),
        currency=real.currency,
        num_other_currencies=0,
        num_unreadable_prices=0,
    )
    return Halves(training, sample, holdout)

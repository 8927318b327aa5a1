"""Fidelity -> one HTML page that needs nothing else.

Order of the page: whether anything leaked and how like the sample is, then categories, prices, titles, pictures,
privacy, facts. No row, title or picture of the real table is on it, and no price of fewer than five of its rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path

from appraiser.data.fidelity.plots import (
    Pair,
    columns,
    distance_bins,
    meter,
    paired_bars,
    price_bins,
    price_points,
    word_bins,
)
from appraiser.data.fidelity.result import CategoryFidelity, Fidelity, Measure, shown
from appraiser.data.pictures import read_bytes
from appraiser.data.samples.nouns import SLOT_WORDS
from appraiser.data.tables import ProductTable
from appraiser.pages.page import facts_table, render_page, with_sections
from appraiser.pages.thumbnails import picture_uri
from appraiser.pages.words import escape, shorten

NUM_EXAMPLES = 18
CATEGORY_MARGIN = 0.2
"""How far a category's price score may lie below chance before it is marked: small categories swing widely."""


def render_fidelity(
    fidelity: Fidelity,
    drawn_as: Mapping[str, str],
    images: Sequence[tuple[str, Path]],
    facts: Sequence[tuple[str, str]],
) -> str:
    """The whole page.

    Args:
        drawn_as: per category, in words.
        images: (caption, file) of drawn pictures to show.
        facts: (name, text) for the table at the end.
    """
    sections = [
        ("likeness", "How alike the tables are", _measures(fidelity, ("quality.", "columns.", "pairs.", "coverage."))),
        ("categories", "Categories", _categories(fidelity, drawn_as)),
        ("prices", "Prices", _prices(fidelity)),
        ("titles", "Titles", _titles(fidelity)),
        ("pictures", "Pictures", _pictures(fidelity, images)),
        ("privacy", "Privacy", _privacy(fidelity)),
        ("facts", "Facts", _facts(fidelity, facts)),
    ]
    return render_page(
        f"Fidelity of {fidelity.sample.name}",
        with_sections(_top(fidelity), sections),
        style=resources.files(__package__).joinpath("fidelity.css").read_text(encoding="utf-8"),
    )


def _top(fidelity: Fidelity) -> str:
    real, sample = fidelity.real, fidelity.sample
    lead = (
        f'<p class="lead">{len(sample):,} drawn products held against the {len(real):,} rows of '
        f"<strong>{escape(real.name)}</strong>. This page shows no row, title or picture of that table, and no price "
        "of fewer than five of its rows.</p>"
    )
    leaks = [warning for warning in fidelity.warnings if warning.startswith("LEAK")]
    others = [warning for warning in fidelity.warnings if not warning.startswith("LEAK")]
    loud = ""
    if leaks:
        listed = "".join(f"<li>{escape(warning)}</li>" for warning in leaks)
        loud = (
            '<div class="warning" role="note"><p><strong>⚠ The sample holds something of the real table: do not hand '
            f"it on</strong></p><ul>{listed}</ul></div>"
        )
    told = "".join(f"<li>{escape(warning)}</li>" for warning in others)
    verdict = f"<p>{_badge('right', 'nothing to look at')} No measure is far below what chance lets it be.</p>"
    if others:
        verdict = (
            f"<p>{_badge('near', f'{len(others)} to look at')} Below what chance explains, or beyond a limit:</p>"
            f'<ul class="verdict">{told}</ul>'
        )
    tiles = "\n".join(_tiles(fidelity))
    return f'{lead}\n{loud}\n<div class="tiles">\n{tiles}\n</div>\n<div class="told">{verdict}</div>'


def _tiles(fidelity: Fidelity) -> Iterable[str]:
    overall = fidelity.measure("quality.overall")
    if overall:
        parts = [fidelity.measure(f"quality.{key}") for key in ("column_shapes", "pair_trends")]
        lines = "".join(f"<p>{m.label}: {shown(m, m.value)}</p>{meter(m.value, m.by_chance)}" for m in parts if m)
        yield (
            f'<section class="tile"><h2>{overall.label}</h2><p class="big">{shown(overall, overall.value)}</p>'
            f"{lines}<p>The tick is what two tables of these sizes from one shop would have.</p></section>"
        )
    copies = sum(len({sample for sample, _ in check.hits}) for check in fidelity.leaks)
    checked = "".join(f"<li>{escape(_leak_name(c.kind))}: {c.num_checked:,} checked</li>" for c in fidelity.leaks)
    yield (
        f'<section class="tile"><h2>Taken over from the real table</h2><p class="big {"" if copies else "none"}">'
        f"{copies}</p><p>Has to be 0.</p><ul>{checked}</ul></section>"
    )
    nearest = fidelity.measure("pictures.nearest_minimum")
    new = fidelity.measure("privacy.new_row_synthesis")
    if nearest:
        yield (
            f'<section class="tile"><h2>Closest to a real picture</h2><p class="big">{nearest.value:.0f}'
            f"<small> of 256 bits</small></p><p>{escape(nearest.meaning)} Real pictures come as near to each other as "
            f"{nearest.real:.0f} bits.</p></section>"
        )
    elif new:
        yield (
            f'<section class="tile"><h2>{new.label}</h2><p class="big">{shown(new, new.value)}</p>'
            f"<p>{escape(new.meaning)}</p></section>"
        )


def _measures(fidelity: Fidelity, kinds: tuple[str, ...]) -> str:
    lines = "\n".join(_measure(m) for kind in kinds for m in fidelity.measures if m.path.startswith(kind))
    return f'<ul class="measures">\n{lines}\n</ul>' if lines else ""


def _measure(measure: Measure) -> str:
    mark = _badge("near", "look") if measure.warns else _badge("right", "fine") if measure.limit is not None else ""
    beside = []
    if measure.by_chance is not None:
        beside.append(f"by chance {shown(measure, measure.by_chance)}")
    if measure.real is not None:
        beside.append(f"real table {shown(measure, measure.real)}")
    if measure.limit is not None and measure.better != "nearer":
        beside.append(f"warns {'below' if measure.better == 'higher' else 'above'} {shown(measure, measure.limit)}")
    is_score = measure.unit == "share" and measure.better == "higher"
    bar = meter(measure.value, measure.by_chance) if is_score else "<span></span>"
    return (
        f"<li><strong>{escape(measure.label)}</strong>{bar}"
        f'<span class="num">{shown(measure, measure.value)} {mark}</span>'
        f"<small>{escape(measure.meaning)} <em>{escape('; '.join(beside))}</em></small></li>"
    )


def _legend() -> str:
    marks = "".join(
        f'<li><svg viewBox="0 0 18 18" aria-hidden="true"><rect class="{side}" x="2" y="4" width="14" height="10" '
        f'rx="2"/></svg>{name}</li>'
        for side, name in (("real", "real table"), ("sample", "sample"))
    )
    return f'<ul class="legend">{marks}</ul>'


def _categories(fidelity: Fidelity, drawn_as: Mapping[str, str]) -> str:
    if not fidelity.categories:
        return ""
    groups = [price for category in fidelity.categories for side in category.groups for price in side]
    ends = (min(groups) / 1.2, max(groups) * 1.2) if groups else (1.0, 10.0)
    top = max(max(category.shares) for category in fidelity.categories)
    rows = "\n".join(_category(category, drawn_as, ends, top, fidelity.real) for category in fidelity.categories)
    return (
        f'{_legend()}<p class="quiet">Shares of the rows, then prices: each dot is the mean of a group of neighbouring '
        "prices, five real rows or more; categories with fewer than ten have none.</p>"
        f'<ul class="kinds">\n{rows}\n</ul>'
    )


def _category(
    category: CategoryFidelity, drawn_as: Mapping[str, str], ends: tuple[float, float], top: float, real: ProductTable
) -> str:
    shares = "".join(
        f'<svg class="share" viewBox="0 0 200 8" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="{side}" width="{max(200 * share / top, 1):.1f}" height="8" rx="2"/></svg>'
        for side, share in zip(("real", "sample"), category.shares, strict=True)
    )
    score = ""
    if category.ks_complement is not None and category.by_chance is not None:
        is_low = category.ks_complement < category.by_chance - CATEGORY_MARGIN
        mark = _badge("near", "look") if is_low else _badge("right", "fine")
        score = f"<small>prices {category.ks_complement:.0%} alike, by chance {category.by_chance:.0%}</small> {mark}"
    has_points = bool(category.groups[0] and category.groups[1])
    points = price_points(category.groups, ends, real.currency or "") if has_points else ""
    nothing = "<small>too few real prices to show</small>" if not has_points and category.ks_complement is None else ""
    return (
        f"<li><div><h3>{escape(shorten(category.name))}</h3>"
        f"<small>{escape(drawn_as.get(category.name, ''))}</small></div>"
        f"<div>{shares}<small>{category.shares[0]:.1%} → {category.shares[1]:.1%} of the rows "
        f"({category.rows[0]:,} → {category.rows[1]:,})</small></div>"
        f"<div>{points}{score}{nothing}</div></li>"
    )


def _prices(fidelity: Fidelity) -> str:
    real, sample = ([p for p in table.prices if p is not None] for table in (fidelity.real, fidelity.sample))
    if not real or not sample:
        return ""
    currency = f", {escape(fidelity.real.currency)}" if fidelity.real.currency else ""
    return (
        f'{_legend()}<figure class="plot">{columns(price_bins(real, sample), "Share of the products per price")}'
        f"<figcaption>Share of the products per price{currency}.</figcaption></figure>"
    )


def _titles(fidelity: Fidelity) -> str:
    lengths = [[len(t.split()) for t in table.titles if t is not None] for table in (fidelity.real, fidelity.sample)]
    if not all(lengths):
        return ""
    slots = [m for m in fidelity.measures if m.path.startswith("titles.mentions_") and m.real is not None]
    names = dict(zip(SLOT_WORDS, ("colour", "material", "pattern", "size", "hardware"), strict=True))
    pairs = [Pair(names[m.path.rsplit("_", 1)[-1]], m.real or 0.0, m.value) for m in slots]
    distinct = fidelity.measure("titles.distinct")
    note = f" {distinct.meaning} Real: {distinct.real:.1%}, sample: {distinct.value:.1%}." if distinct else ""
    return (
        f'{_legend()}<div class="pair"><figure class="plot">'
        f"{columns(word_bins(*lengths), 'Share of the titles per number of words')}"
        "<figcaption>Share of the titles per number of words.</figcaption></figure>"
        f'<figure class="plot">{paired_bars(pairs, "Share of the titles that speak of something")}'
        f"<figcaption>Share of the titles with a word for it. A sample's titles are made of visible words alone; where "
        f"the shop's hold names instead, it has more of them.</figcaption></figure></div>"
        f'<p class="quiet">Different titles.{escape(note)}</p>'
    )


def _pictures(fidelity: Fidelity, images: Sequence[tuple[str, Path]]) -> str:
    if not images:
        return ""
    thumbs = "\n".join(
        f'<figure><img src="{picture_uri(read_bytes(path))}" width="160" height="160" alt="Drawn: {escape(name)}">'
        f"<figcaption>{escape(shorten(name))}</figcaption></figure>"
        for name, path in images
    )
    plot = ""
    if fidelity.picture_distances:
        bins = columns(distance_bins(*fidelity.picture_distances), "Share of the pictures per distance")
        plot = (
            f'{_legend()}<figure class="plot">{bins}<figcaption>Bits to the nearest real picture, of 256: of drawn '
            "pictures, and of real ones to each other. Copies would stand at the left.</figcaption></figure>"
        )
    return (
        f'<p class="quiet">Drawn pictures; the real ones are not shown.</p><div class="thumbs">\n{thumbs}\n</div>{plot}'
        f"{_measures(fidelity, ('pictures.',))}"
    )


def _privacy(fidelity: Fidelity) -> str:
    lines = []
    for check in fidelity.leaks:
        count = len({sample for sample, _ in check.hits})
        where = "; ".join(f"row {sample} is row {real} of the real table" for sample, real in check.hits[:20])
        mark = _badge("wrong", "leak") if count else _badge("right", "none")
        lines.append(
            f"<li><strong>{escape(_leak_name(check.kind))}</strong><span></span>"
            f'<span class="num">{count:,} of {check.num_checked:,} {mark}</span>'
            f"<small>{escape(check.meaning)} One is too many. {escape(where)}</small></li>"
        )
    return f'<ul class="measures">\n{"".join(lines)}\n</ul>{_measures(fidelity, ("privacy.", "keys."))}'


def _leak_name(kind: str) -> str:
    return {
        "titles": "Titles",
        "rows": "Rows (title and price)",
        "ids": "Ids",
        "pictures": "Pictures, byte for byte",
        "look_alikes": "Pictures, by their look",
    }[kind]


def _facts(fidelity: Fidelity, facts: Sequence[tuple[str, str]]) -> str:
    rows = [
        ("Real table", f"{fidelity.real.name}, {len(fidelity.real):,} rows"),
        ("Sample", f"{fidelity.sample.name}, {len(fidelity.sample):,} rows"),
        *facts,
        *(("Not looked at", note) for note in fidelity.notes),
    ]
    return facts_table([(name, escape(shorten(text))) for name, text in rows], "Facts of this comparison")


def _badge(mark: str, text: str) -> str:
    sign = {"right": "✓", "near": "≈", "wrong": "✗"}[mark]
    return f'<span class="badge {mark}">{sign} {escape(text)}</span>'

"""CheckResult -> one page on which a shop owner can see each problem and decide what to do about it.

Decisions are collected by check.js and saved as `corrections.csv`, which `appraiser build --corrections` follows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from importlib import resources
from itertools import islice

from appraiser.data.checking.check import CheckResult
from appraiser.data.checking.issues import KINDS, Issue
from appraiser.data.dataset import SPLIT_NAMES
from appraiser.data.pictures import PictureError
from appraiser.data.records import ProductRecord
from appraiser.pages.charts import bar_rows, range_rows
from appraiser.pages.page import facts_table, render_page, with_sections
from appraiser.pages.thumbnails import picture_uri
from appraiser.pages.words import amount, escape, shorten

ISSUES_PER_KIND = 30
PRODUCTS_PER_ISSUE = 6
EXAMPLES = 12
MAX_ROWS = 40
THUMBNAIL_SIDE, MAX_THUMBNAIL_BYTES = 128, 4500


def render_check(result: CheckResult) -> str:
    """The whole page. Every text that comes from data is escaped."""
    shown = _shown(result.issues)
    wanted = {place for issues in shown.values() for issue in issues for place in issue.places[:PRODUCTS_PER_ISSUE]}
    examples = _examples(len(result.findings))
    records = _records(result, wanted | set(examples))
    sections = [
        *(
            (kind, _heading(kind, result), _issue_section(kind, issues, result, records))
            for kind, issues in shown.items()
        ),
        ("shortcuts", "Can labels be guessed without the product?", _shortcuts(result)),
        ("prices", "Prices by category", _prices(result)),
        ("explained", "What explains the price", _explained(result)),
        ("categories", "Products per category", _categories(result)),
        ("costs", "Pictures, titles and what they cost", _costs(result)),
        ("columns", "Columns", _columns(result)),
        ("left-out", "Rows that were left out", _left_out(result)),
        ("examples", "Products, evenly chosen", _cards([_product(records[place], "") for place in examples])),
    ]
    files = resources.files(__package__)
    return render_page(
        f"Check of {result.dataset.folder.name}",
        with_sections(_top(result), sections) + _SAVE_BAR,
        style=files.joinpath("check.css").read_text(encoding="utf-8"),
        script=files.joinpath("check.js").read_text(encoding="utf-8"),
    )


_SAVE_BAR = """
<div class="save" hidden><span></span> <button type="button">Save corrections.csv</button>
<small>then <code>appraiser build SOURCE OUT --corrections corrections.csv</code></small></div>"""


def _top(result: CheckResult) -> str:
    manifest = result.dataset.manifest
    loud = [
        f"The {probe.label} can be guessed from the {'background' if probe.source == 'background' else 'picture file'} "
        f"alone (skill {probe.skill:.2f} of 1). A model may learn that instead of the product."
        for probe in result.probes
        if probe.warns
    ]
    if result.mixed_prices:
        loud.append(f"{result.mixed_prices[0].upper()}{result.mixed_prices[1:]}.")
    leaks = result.counts.get("split_leak", 0)
    if leaks:
        loud.append(
            f"{leaks:,} products or look-alikes stand in training and in another split: scores will be too good."
        )
    warning = "".join(f"<li>{escape(sentence)}</li>" for sentence in loud)
    tiles = (
        (
            f"{manifest.ok:,}",
            "products",
            f"{manifest.splits['train']:,} to learn from, {manifest.splits['test']:,} to test",
        ),
        (f"{manifest.quarantined:,}", "rows left out", f"of {manifest.rows_in:,}; every one with its reason below"),
        (
            f"{result.num_concerned:,}",
            "products to look at",
            f"{len(result.issues):,} issues of {len(result.counts)} kinds",
        ),
    )
    drawn = "".join(
        f'<section class="tile"><h2>{label}</h2><p class="big">{number}</p><p>{note}</p></section>'
        for number, label, note in tiles
    )
    box = (
        f'<div class="warning" role="note"><p><strong>⚠ Read this first</strong></p><ul>{warning}</ul></div>'
        if loud
        else ""
    )
    none = "" if result.issues else "<p>No issue was found.</p>"
    return f'<p class="lead">{escape(manifest.source)}</p>\n{box}<div class="tiles">{drawn}</div>\n{none}'


def _shown(issues: Sequence[Issue]) -> dict[str, list[Issue]]:
    by_kind: dict[str, list[Issue]] = defaultdict(list)
    for issue in issues:
        if len(by_kind[issue.kind]) < ISSUES_PER_KIND:
            by_kind[issue.kind].append(issue)
    return by_kind


def _examples(num_records: int) -> list[int]:
    count = min(EXAMPLES, num_records)
    return [place * num_records // count for place in range(count)]


def _records(result: CheckResult, places: set[int]) -> dict[int, ProductRecord]:
    """The records that the page shows, read in one more pass."""
    found: dict[int, ProductRecord] = {}
    start = 0
    for split in SPLIT_NAMES:
        size = result.dataset.manifest.splits[split]
        if size and any(start <= place < start + size for place in places):
            for place, record in enumerate(result.dataset.stream(split), start):
                if place in places:
                    found[place] = record
        start += size
    return found


def _heading(kind: str, result: CheckResult) -> str:
    return f"{kind.replace('_', ' ').capitalize()} ({result.counts[kind]:,})"


def _issue_section(kind: str, issues: Sequence[Issue], result: CheckResult, records: dict[int, ProductRecord]) -> str:
    words = KINDS[kind]
    more = result.counts[kind] - len(issues)
    rest = f"<p class='quiet'>{more:,} more are in check.json.</p>" if more else ""
    blocks = []
    for issue in issues:
        is_set = len(issue.places) > 1
        detail = "" if is_set else issue.detail
        products = [_product(records[place], detail, issue.picture) for place in issue.places[:PRODUCTS_PER_ISSUE]]
        hidden = len(issue.places) - len(products)
        note = f'<p class="quiet">and {hidden:,} more products: see check.json</p>' if hidden else ""
        together = f'<div class="together"><p class="quiet">{escape(issue.detail)}</p>{_cards(products)}{note}</div>'
        blocks.append((is_set, together if is_set else products[0]))
    singles = _cards([block for several, block in blocks if not several])
    sets = "".join(block for several, block in blocks if several)
    return f"<p>{escape(words.meaning)} <strong>{escape(words.fix)}</strong></p>\n{sets}{singles}\n{rest}"


def _cards(products: Sequence[str]) -> str:
    return f'<div class="cards">{"".join(products)}</div>' if products else ""


def _product(record: ProductRecord, detail: str, picture: int = 0) -> str:
    """A card with the picture, what the data set says, and the choice of what to do."""
    labels = [("title", record.title), ("category", record.category)]
    said = "".join(f'<p class="{name}">{escape(shorten(value))}</p>' for name, value in labels if value)
    if record.price is not None:
        said += f'<p class="price">{escape(amount(record.price, record.currency))}</p>'
    which = f"picture {picture} of {len(record.images)}: " if picture else ""
    note = f'<p class="badges"><span class="badge near">{escape(which + detail)}</span></p>' if detail else ""
    fields = [name for name in ("title", "category", "price") if getattr(record, name) is not None]
    head = f"{_image(record, picture)}<div><h3>{escape(shorten(record.id))}</h3>{said}{note}</div>"
    data = f'data-id="{escape(record.id)}" data-fields="{" ".join(fields)}"'
    return f'<article class="card product" {data}><header>{head}</header></article>'


def _image(record: ProductRecord, picture: int) -> str:
    try:
        uri = picture_uri(record.images[max(picture, 1) - 1], THUMBNAIL_SIDE, MAX_THUMBNAIL_BYTES)
    except PictureError:
        return '<p class="badge wrong">cannot be decoded</p>'
    name = record.title or f"product {record.id}"
    return (
        f'<img src="{uri}" width="{THUMBNAIL_SIDE}" height="{THUMBNAIL_SIDE}" alt="Picture of {escape(shorten(name))}">'
    )


def _shortcuts(result: CheckResult) -> str:
    if not result.probes:
        return ""
    rows = [
        (f"{probe.label} from the {probe.source}", f"{'⚠ ' if probe.warns else ''}{probe.skill:.2f}")
        for probe in result.probes
    ]
    return (
        "<p>A random forest guesses labels of held-out products from the four corners of the picture, and from the "
        "file's size in pixels and bytes. 0 is no better than the usual value, 1 always right; above 0.10 is too "
        "much.</p>" + facts_table(rows, "Skill of guesses without the product")
    )


def _prices(result: CheckResult) -> str:
    rows = list(result.profile.get("prices_by_category", {}).items())
    if not rows:
        return ""
    shown = rows if len(rows) <= MAX_ROWS else sorted(rows, key=lambda row: -row[1]["n"])[:MAX_ROWS]
    left = f'<p class="quiet">The {MAX_ROWS} largest of {len(rows):,} categories.</p>' if len(shown) < len(rows) else ""
    currency = f" in {result.dataset.manifest.currency}" if result.dataset.manifest.currency else ""
    return (
        f"<p>Line: cheapest to dearest{escape(currency)}; bar: the middle half; mark: the median. Logarithmic axis.</p>"
        f"{range_rows(shown, 'Prices by category')}{left}"
    )


def _explained(result: CheckResult) -> str:
    shares = [(name, f"{share:.0%}") for name, share in result.profile.get("price_explained", {}).items()]
    if not shares:
        return ""
    return (
        "<p>Share of the differences between prices (of the variance of ln price) that lie between the values of a "
        "column, for columns of at most 50 different values.</p>" + facts_table(shares, "Price explained by column")
    )


def _categories(result: CheckResult) -> str:
    counts = result.profile.get("categories", {})
    rows = [(name, float(count)) for name, count in islice(counts.items(), MAX_ROWS)]
    left = f'<p class="quiet">The {MAX_ROWS} largest of {len(counts):,}.</p>' if len(counts) > len(rows) else ""
    return f"{bar_rows(rows, 'Products per category')}{left}" if rows else ""


def _costs(result: CheckResult) -> str:
    pictures, titles = result.profile["pictures"], result.profile.get("titles")
    rows = [
        ("Width, px", _spread(pictures["width"])),
        ("Height, px", _spread(pictures["height"])),
        ("File, kB", _spread(pictures["kilobytes"])),
        ("Crops per picture", str(pictures["num_crops"])),
        ("Image tokens per picture", _spread(pictures["image_tokens"])),
        ("Answer, tokens", _spread(result.profile["answer_tokens"])),
    ]
    if titles:
        rows += [("Title, characters", _spread(titles["characters"])), ("Title, tokens", _spread(titles["tokens"]))]
        rows.append(("Different titles", f"{titles['different']:,}"))
    return f"<p>Tokens as {escape(result.tokenizer)} counts them.</p>" + facts_table(rows, "Costs")


def _spread(values: dict[str, float]) -> str:
    if values["min"] == values["max"]:
        return f"{values['median']:,.6g}"
    return f"{values['median']:,.6g} (median; {values['min']:,.6g} to {values['max']:,.6g})"


def _columns(result: CheckResult) -> str:
    lines = "".join(
        f"<tr><th scope='row'>{escape(column['name'])}</th><td>{escape(column['type'])}</td>"
        f"<td>{column['missing']:,}</td><td>{escape(column['example'])}</td></tr>"
        for column in result.profile["columns"]
    )
    return (
        '<div class="scroll" role="region" aria-label="Columns" tabindex="0"><table class="columns"><thead><tr>'
        '<th scope="col">column</th><th scope="col">type</th><th scope="col">missing</th><th scope="col">example</th>'
        f"</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def _left_out(result: CheckResult) -> str:
    if not result.left_out:
        return ""
    counts = [(reason, float(count)) for reason, count in result.dataset.manifest.quarantined_by_reason.items()]
    by_reason: dict[str, list[str]] = defaultdict(list)
    for row in result.left_out:
        by_reason[row["reason"]].append(f"row {row['row']}: {row['detail']}")
    lists = "".join(
        f"<details><summary>{escape(reason)} ({len(rows):,})</summary><ul>"
        + "".join(f"<li>{escape(shorten(line))}</li>" for line in rows[:MAX_ROWS])
        + (f"<li>{len(rows) - MAX_ROWS:,} more: see quarantine.parquet</li>" if len(rows) > MAX_ROWS else "")
        + "</ul></details>"
        for reason, rows in sorted(by_reason.items())
    )
    return bar_rows(counts, "Rows left out by reason") + lists

"""Write a sample catalogue: the table a shop would hand over, its pictures, and the truth behind them.

    OUT/products.csv       the 17 columns of the Burberry tables, then `image` (and `split` where one was asked for)
    OUT/images/000000.jpg  named by row; neither name nor metadata says anything about the product
    OUT/truth.csv          attributes, visible words, resolved category, the oracle's price
    OUT/truth.json         how it was made, and how far off the oracle is on these rows
    OUT/faults.csv         with faults: which rows were spoilt how, and what should become of them
    OUT/twins.csv, twins/  with twins: pairs of pictures that differ in one attribute

Rows are written and drawn in a stream: 600,000 take no more memory than 3,000.
"""

from __future__ import annotations

import csv
import errno
import json
import os
import secrets
import shutil
import statistics
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from io import TextIOWrapper
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from appraiser.data.samples import faults, pricing
from appraiser.data.samples.drawing import DEFAULT_SIZE, draw_scene, encode_jpeg
from appraiser.data.samples.explain import Explanation, explain_item
from appraiser.data.samples.faults import Fault, fault_of, picture_owner, spoil_picture, spoil_row
from appraiser.data.samples.holdouts import HOLDOUTS, Holdout, split_of, with_unseen_background
from appraiser.data.samples.items import GENERATOR_VERSION, CatalogueItem, Purpose, item_scene, iter_products, stream
from appraiser.data.samples.labels import EUR_RATES
from appraiser.data.samples.likeness import Likeness, make_likeness
from appraiser.data.samples.profile import Profile
from appraiser.data.samples.scenes import Scene
from appraiser.data.samples.twins import write_twins
from appraiser.errors import ConfigError, DataError

COLUMNS = (
    "website_name", "competence_date", "country_code", "currency_code", "brand", "category1_code", "category2_code",
    "category3_code", "product_code", "title", "itemurl", "imageurl", "full_price", "price", "full_price_eur",
    "price_eur", "flg_discount", "image",
)  # fmt: skip
TRUTH_COLUMNS = (
    "item", "product_id", "image", "type", "colour", "pattern", "material", "size", "hardware", "line_name", "variant",
    "title", "visible_words", "category", "oracle_price", "price",
)  # fmt: skip

_CHUNK = 32
_CHUNKS_PER_WORKER = 4
"""On their way at a time: enough that no worker waits, and few enough that memory does not grow with the rows."""
_FIRST_CODE, _NUM_CODES = 34_500_000, 46_400_000
_CODE_STEP = 7_368_787  # shares no factor with the number of codes


@dataclass(frozen=True, slots=True)
class CatalogueSettings:
    """What a catalogue is made of; every process that draws gets it.

    Args:
        size: side of the square pictures in pixels.
        price_noise: spread of ln price given everything visible.
        has_faults: rows and pictures are spoilt here and there, as real ones are.
        holdout: a `split` column keeps combinations or backgrounds out of training.
        twins: number of pairs that differ in one attribute.
        like: draws items as a user's own shop has them.
    """

    rows: int = 3040
    seed: int = 7
    size: int = DEFAULT_SIZE
    price_noise: float = pricing.DEFAULT_NOISE
    has_faults: bool = False
    holdout: Holdout | None = None
    twins: int = 0
    like: Likeness | None = None

    def items(self, count: int, start: int = 0) -> Iterator[CatalogueItem]:
        """Items of this catalogue."""
        return iter_products(count, self.seed, start, price_noise=self.price_noise, like=self.like)

    def fault(self, entry: CatalogueItem) -> Fault | None:
        """An item's fault, if it has one."""
        return fault_of(entry, self.seed, self.price_noise) if self.has_faults else None


@dataclass(frozen=True, slots=True)
class CatalogueSummary:
    """What was written; `truth.json` holds the same."""

    generator_version: int
    seed: int
    rows: int
    products: int
    size: int
    price_noise: float
    faults: int
    holdout: Holdout | None
    twins: int
    oracle_median_ape: float
    """Median absolute percentage error of the oracle's price on these rows, rounding of prices included; a fraction."""
    oracle_median_ape_theory: float
    """exp(0.6745 price_noise) - 1."""
    oracle_title_exact: float
    """Share of titles that can be read off the picture whole: those without a line name."""
    oracle_category_accuracy: float
    """Categories follow from what is visible."""


def make_catalogue(
    out: Path,
    rows: int = 3040,
    seed: int = 7,
    *,
    size: int = DEFAULT_SIZE,
    num_workers: int = 1,
    price_noise: float = pricing.DEFAULT_NOISE,
    faults: bool = False,
    holdout: Holdout | None = None,
    twins: int = 0,
    like: Profile | None = None,
    progress: Callable[[int], None] | None = None,
    finish: Callable[[Path], None] | None = None,
) -> CatalogueSummary:
    """Write a catalogue into a new or empty folder; it appears there when it is complete.

    Args:
        num_workers: processes that draw; above 1 they are spawned, so a calling script needs a `__main__` guard.
        like: profile of a user's own table that the sample follows.
        progress: called with the number of pictures drawn so far.
        finish: adds files to the complete folder before it appears.

    See `CatalogueSettings` for the others.

    Raises:
        ConfigError: a setting is out of range.
        DataError: `out` is a file or holds files, or it cannot be written.
    """
    likeness = make_likeness(like, price_noise) if like else None
    settings = CatalogueSettings(rows, seed, size, price_noise, faults, holdout, twins, likeness)
    _check_settings(settings, num_workers)
    out = Path(out).resolve()
    _check_target(out)
    unfinished = out.parent / f".{out.name}.unfinished-{secrets.token_hex(4)}"
    try:
        (unfinished / "images").mkdir(parents=True)
        summary = _write_tables(unfinished, settings)
        _draw_all(unfinished, settings, num_workers, progress)
        if twins:
            write_twins(unfinished, twins, seed, size)
        if finish:
            finish(unfinished)
        os.replace(unfinished, out)
    except OSError as error:
        raise _write_error(error, out, rows) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return summary


def explain_row(folder: Path, item: int, seed: int = 7) -> Explanation:
    """Explain item `item`, counted from 0, of a catalogue folder; of the seed's catalogue where there is none.

    Raises:
        DataError: the catalogue has no such item, or another version of the generator wrote it.
    """
    facts = Path(folder) / "truth.json"
    known = json.loads(facts.read_text(encoding="utf-8")) if facts.is_file() else {"rows": _NUM_CODES, "seed": seed}
    if not 0 <= item < known["rows"]:
        raise DataError(f"there is no item {item}", where=str(folder), fix=f"name one from 0 to {known['rows'] - 1}")
    if "like" in known:
        raise DataError(
            "this sample follows a table of yours, and its prices are not made of attributes and dollars alone",
            where=str(folder),
            fix="explain an item of a sample without --like",
        )
    if known.get("generator_version", GENERATOR_VERSION) != GENERATOR_VERSION:
        raise DataError(
            f"version {known['generator_version']} of the generator drew this, this is version {GENERATOR_VERSION}",
            where=str(folder),
            fix="draw it again, or explain it with the appraiser that drew it",
        )
    noise = known.get("price_noise", pricing.DEFAULT_NOISE)
    return explain_item(next(iter_products(1, known["seed"], item, price_noise=noise)))


def _check_settings(settings: CatalogueSettings, num_workers: int) -> None:
    rules = (
        (1 <= settings.rows <= _NUM_CODES, f"rows is {settings.rows}", f"ask for 1 to {_NUM_CODES} rows"),
        (settings.seed >= 0, f"seed is {settings.seed}", "use a whole number from 0"),
        (32 <= settings.size <= 4096, f"size is {settings.size}", "use 32 to 4096 pixels"),
        (num_workers >= 1, f"num_workers is {num_workers}", "use at least 1"),
        (0.0 <= settings.price_noise <= 2.0, f"price_noise is {settings.price_noise}", "use 0 to 2"),
        (
            settings.holdout in (None, *HOLDOUTS),
            f"holdout is {settings.holdout!r}",
            f"choose from {', '.join(HOLDOUTS)}",
        ),
        (settings.twins >= 0, f"twins is {settings.twins}", "use 0 or more"),
        (
            settings.like is None or not (settings.has_faults or settings.twins),
            "faults and twins are made by the sample's own rules, not by those of a user's table",
            "leave out --like, or --faults and --twins",
        ),
    )
    wrong = [(what, fix) for holds, what, fix in rules if not holds]
    if wrong:
        raise ConfigError(
            "; ".join(what for what, _ in wrong),
            where="sample catalogue",
            fix="; ".join(fix for _, fix in wrong),
        )


def _check_target(out: Path) -> None:
    if out.is_dir():
        if any(out.iterdir()):
            raise DataError(
                "the folder for the catalogue is not empty",
                where=str(out),
                fix="name a new folder, or empty this one",
            )
    elif out.exists():
        raise DataError("the catalogue needs a folder, and this is a file", where=str(out), fix="name a new folder")


def _write_error(error: OSError, out: Path, rows: int) -> DataError:
    fixes = {
        errno.ENOSPC: f"free about {rows * 20 // 1000 + 1} MB there, or ask for fewer rows",
        errno.EDQUOT: f"your quota lacks about {rows * 20 // 1000 + 1} MB; free some, or ask for fewer rows",
        errno.ENOTEMPTY: "another program wrote into the folder meanwhile; name a new one",
        errno.EEXIST: "another program wrote into the folder meanwhile; name a new one",
    }
    fix = fixes.get(error.errno or 0, "name a folder that you may write to")
    return DataError(f"cannot write the catalogue: {error.strerror or error}", where=str(out), fix=fix)


def _write_tables(folder: Path, settings: CatalogueSettings) -> CatalogueSummary:
    errors, num_products, last_id = array("d"), 0, -1
    num_faults = num_readable = num_redrawn = 0
    with (
        _opened(folder / "products.csv") as products_file,
        _opened(folder / "truth.csv") as truth_file,
        _opened(folder / "faults.csv") if settings.has_faults else nullcontext() as faults_file,
    ):
        products = csv.DictWriter(products_file, _columns(settings), lineterminator="\n")
        truth = csv.writer(truth_file, lineterminator="\n")
        spoilt = csv.writer(faults_file, lineterminator="\n") if faults_file else None
        products.writeheader()
        truth.writerow(TRUTH_COLUMNS)
        if spoilt:
            spoilt.writerow(faults.COLUMNS)
        for entry in settings.items(settings.rows):
            fault = settings.fault(entry)
            row = _product_row(entry, settings)
            if fault:
                row = spoil_row(row, fault, _product_row(fault.partner, settings) if fault.partner else None)
                if spoilt:
                    spoilt.writerow(_fault_row(entry, fault, settings))
            products.writerow(row)
            truth.writerow(_truth_row(entry, faults.label_owner(entry, fault)))
            errors.append(abs(entry.labels.oracle_price - entry.price) / entry.price)
            num_products += entry.product_id != last_id
            num_faults += fault is not None
            num_readable += entry.labels.title == entry.labels.visible_words
            num_redrawn += entry.labels.is_redrawn
            last_id = entry.product_id
    summary = CatalogueSummary(
        generator_version=GENERATOR_VERSION,
        seed=settings.seed,
        rows=settings.rows,
        products=num_products,
        size=settings.size,
        price_noise=settings.price_noise,
        faults=num_faults,
        holdout=settings.holdout,
        twins=settings.twins,
        oracle_median_ape=round(statistics.median(errors), 6),
        oracle_median_ape_theory=round(pricing.theoretical_error(settings.price_noise), 6),
        oracle_title_exact=round(num_readable / settings.rows, 6),
        oracle_category_accuracy=1.0,
    )
    facts = asdict(summary)
    if settings.like:
        facts["like"] = settings.like.profile.facts() | {"titles_redrawn": num_redrawn}
    (folder / "truth.json").write_text(json.dumps(facts, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    return summary


def _opened(path: Path) -> TextIOWrapper:
    return path.open("w", encoding="utf-8", newline="")


def _columns(settings: CatalogueSettings) -> tuple[str, ...]:
    return (*COLUMNS, "split") if settings.holdout else COLUMNS


def _code(entry: CatalogueItem, settings: CatalogueSettings) -> int:
    code = _FIRST_CODE + entry.item * _CODE_STEP % _NUM_CODES
    return settings.like.free_code(code, _NUM_CODES) if settings.like else code


def _product_row(entry: CatalogueItem, settings: CatalogueSettings) -> dict[str, Any]:
    labels, price, code = entry.labels, float(entry.price), _code(entry, settings)
    title, rate = labels.title, EUR_RATES.get(labels.currency)
    # Where only the currency is known, neither the country nor the price in euros is.
    country, price_eur = "USA" if labels.currency == "USD" else "N.A.", round(price * rate, 2) if rate else ""
    values: list[Any] = [
        "Sample Shop", "2026-01-15", country, labels.currency, "SAMPLE SHOP", *labels.categories, code, title,
        f"https://shop.example/{title.lower().replace(' ', '-')}-p{code}", "N.A.", price, price, price_eur, price_eur,
        0, entry.image,
    ]  # fmt: skip
    if settings.holdout:
        values.append(split_of(entry.product, settings.holdout))
    return dict(zip(_columns(settings), values, strict=True))


def _truth_row(entry: CatalogueItem, owner: CatalogueItem) -> tuple[str | int | float, ...]:
    labels = owner.labels
    return (
        entry.item, owner.product_id, entry.image, *owner.product.as_dict().values(), labels.title,
        labels.visible_words, labels.category, round(labels.oracle_price, 2), owner.price,
    )  # fmt: skip


def _fault_row(entry: CatalogueItem, fault: Fault, settings: CatalogueSettings) -> tuple[str | int, ...]:
    kind = faults.KINDS[fault.kind]
    partner = _code(fault.partner, settings) if fault.partner else ""
    return (
        entry.item + 1, _code(entry, settings), fault.kind, kind.outcome, kind.code, int(kind.is_perceptual), partner,
    )  # fmt: skip


def _draw_all(
    folder: Path, settings: CatalogueSettings, num_workers: int, progress: Callable[[int], None] | None
) -> None:
    done = 0
    settings = replace(settings, like=settings.like and settings.like.for_pictures())
    for count in _drawn_chunks(folder, settings, num_workers):
        done += count
        if progress is not None:
            progress(done)


def _drawn_chunks(folder: Path, settings: CatalogueSettings, num_workers: int) -> Iterator[int]:
    """Draw every picture; yields the size of each finished chunk."""
    chunks = ((start, min(_CHUNK, settings.rows - start)) for start in range(0, settings.rows, _CHUNK))
    if num_workers == 1 or settings.rows <= _CHUNK:
        for start, count in chunks:
            yield _draw_chunk(folder, start, count, settings)
        return
    with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as pool:
        waiting: deque[Future[int]] = deque()
        try:
            for start, count in chunks:
                waiting.append(pool.submit(_draw_chunk, folder, start, count, settings))
                if len(waiting) >= _CHUNKS_PER_WORKER * num_workers:
                    yield waiting.popleft().result()
            for future in waiting:
                yield future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _draw_chunk(folder: Path, start: int, count: int, settings: CatalogueSettings) -> int:
    for entry in settings.items(count, start):
        fault = settings.fault(entry)
        scene = _scene(picture_owner(entry, fault), settings)
        picture = draw_scene(scene, settings.size)
        data = spoil_picture(picture, scene.quality, fault) if fault else encode_jpeg(picture, scene.quality)
        (folder / entry.image).write_bytes(data)
    return count


def _scene(entry: CatalogueItem, settings: CatalogueSettings) -> Scene:
    scene = item_scene(entry, settings.seed)
    if settings.holdout == "backgrounds" and split_of(entry.product, "backgrounds") == "test":
        return with_unseen_background(scene, stream(settings.seed, entry.item, Purpose.SCENE, part=1))
    return scene

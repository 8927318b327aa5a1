"""Write a sample catalogue: the table a shop would hand over, its pictures, and the truth behind them.

    OUT/products.csv       the 17 columns of the Burberry tables, then `image`
    OUT/images/000000.jpg  named by row; neither name nor metadata says anything about the product
    OUT/truth.csv          attributes, visible words, resolved category, the oracle's price
    OUT/truth.json         how it was made, and how far off the oracle is on these rows

Item k depends on the seed and k alone: not on the number of rows, the number of workers, or the clock. Items come in
blocks of four; a block holds one to four products, and a product's items are its colour variants.
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
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from appraiser.data.samples import pricing
from appraiser.data.samples.attributes import (
    Product,
    categories,
    draw_colours,
    draw_product,
    resolved_category,
)
from appraiser.data.samples.drawing import DEFAULT_SIZE, draw_scene, encode_jpeg
from appraiser.data.samples.scenes import Scene, make_scene
from appraiser.data.samples.titles import make_title, visible_words
from appraiser.errors import ConfigError, DataError

GENERATOR_VERSION = 2
"""Raised whenever the same seed would give other labels or visibly other pictures."""

COLUMNS = (
    "website_name", "competence_date", "country_code", "currency_code", "brand", "category1_code", "category2_code",
    "category3_code", "product_code", "title", "itemurl", "imageurl", "full_price", "price", "full_price_eur",
    "price_eur", "flg_discount", "image",
)  # fmt: skip
TRUTH_COLUMNS = (
    "item", "product_id", "image", "type", "colour", "pattern", "material", "size", "hardware", "line_name", "variant",
    "title", "visible_words", "category", "oracle_price", "price",
)  # fmt: skip

_BLOCK = 4
_SPLITS = ((1, 1, 1, 1), (2, 1, 1), (2, 2), (3, 1), (4,))
_SPLIT_SHARES = (0.45, 0.25, 0.10, 0.10, 0.10)
"""Four items into products: on average 40 % of the items have a colour variant beside them."""
_FOR_BLOCK, _FOR_PRODUCT, _FOR_SCENE = range(3)

_EUR_PER_USD = 0.9225
_CHUNK = 32
_FIRST_CODE, _NUM_CODES, _CODE_STEP = (
    34_500_000,
    46_400_000,
    7_368_787,
)  # the step shares no factor with the number


@dataclass(frozen=True, slots=True)
class CatalogueItem:
    """One row: a product in one colour, its price, and where its picture goes."""

    item: int
    product_id: int
    product: Product
    price: int

    @property
    def image(self) -> str:
        """Path of the picture relative to the catalogue folder."""
        return f"images/{self.item:06d}.jpg"


@dataclass(frozen=True, slots=True)
class CatalogueSummary:
    """What was written; `truth.json` holds the same."""

    generator_version: int
    seed: int
    rows: int
    products: int
    size: int
    price_noise: float
    oracle_median_ape: float
    """Median absolute percentage error of the oracle's price on these rows, rounding of prices included; a fraction."""
    oracle_median_ape_theory: float
    """exp(0.6745 price_noise) - 1."""


def iter_products(
    num_rows: int, seed: int, start: int = 0, *, price_noise: float = pricing.DEFAULT_NOISE
) -> Iterator[CatalogueItem]:
    """Items `start` to `start + num_rows - 1` of the endless catalogue with this seed."""
    for block in range(start // _BLOCK, -(-(start + num_rows) // _BLOCK)):
        for entry in _block_items(seed, block, price_noise):
            if start <= entry.item < start + num_rows:
                yield entry


def item_scene(entry: CatalogueItem, seed: int) -> Scene:
    """The scene of an item's picture."""
    return make_scene(entry.product, _stream(seed, entry.item, _FOR_SCENE))


def draw_item(entry: CatalogueItem, seed: int, size: int = DEFAULT_SIZE) -> Image.Image:
    """The picture of an item before JPEG compression."""
    return draw_scene(item_scene(entry, seed), size)


def make_catalogue(
    out: Path,
    rows: int = 3040,
    seed: int = 7,
    *,
    size: int = DEFAULT_SIZE,
    num_workers: int = 1,
    price_noise: float = pricing.DEFAULT_NOISE,
    progress: Callable[[int], None] | None = None,
) -> CatalogueSummary:
    """Write a catalogue into a new or empty folder; it appears there when it is complete.

    Args:
        size: side of the square pictures in pixels.
        num_workers: processes that draw; above 1 they are spawned, so a calling script needs a `__main__` guard.
        price_noise: spread of ln price given everything visible.
        progress: called with the number of pictures drawn so far.

    Raises:
        ConfigError: a setting is out of range.
        DataError: `out` is a file or holds files, or it cannot be written.
    """
    _check_settings(rows, seed, size, num_workers, price_noise)
    out = Path(out).resolve()
    _check_target(out)
    unfinished = out.parent / f".{out.name}.unfinished-{secrets.token_hex(4)}"
    try:
        (unfinished / "images").mkdir(parents=True)
        summary = _write_tables(unfinished, rows, seed, size, price_noise)
        _draw_all(unfinished, rows, seed, size, num_workers, price_noise, progress)
        os.replace(unfinished, out)
    except OSError as error:
        raise _write_error(error, out, rows) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return summary


def _check_settings(rows: int, seed: int, size: int, num_workers: int, price_noise: float) -> None:
    rules = (
        (1 <= rows <= _NUM_CODES, f"rows is {rows}", f"ask for 1 to {_NUM_CODES} rows"),
        (seed >= 0, f"seed is {seed}", "use a whole number from 0"),
        (32 <= size <= 4096, f"size is {size}", "use 32 to 4096 pixels"),
        (num_workers >= 1, f"num_workers is {num_workers}", "use at least 1"),
        (0.0 <= price_noise <= 2.0, f"price_noise is {price_noise}", "use 0 to 2"),
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


def _stream(seed: int, number: int, purpose: int, part: int = 0) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([seed, number, purpose, part]))


def _block_items(seed: int, block: int, price_noise: float) -> list[CatalogueItem]:
    which = int(np.searchsorted(np.cumsum(_SPLIT_SHARES)[:-1], _stream(seed, block, _FOR_BLOCK).random(), side="right"))
    items: list[CatalogueItem] = []
    for part, count in enumerate(_SPLITS[which]):
        rng = _stream(seed, block, _FOR_PRODUCT, part)
        product = draw_product(rng)
        price = pricing.draw_price(product, float(rng.standard_normal()), price_noise)
        for colour in draw_colours(product.colour, count, rng):
            item = block * _BLOCK + len(items)
            items.append(CatalogueItem(item, block * _BLOCK + part, product.in_colour(colour), price))
    return items


def _write_tables(folder: Path, rows: int, seed: int, size: int, price_noise: float) -> CatalogueSummary:
    errors, num_products, last_id = array("d"), 0, -1
    with (
        (folder / "products.csv").open("w", encoding="utf-8", newline="") as products_file,
        (folder / "truth.csv").open("w", encoding="utf-8", newline="") as truth_file,
    ):
        products = csv.writer(products_file, lineterminator="\n")
        truth = csv.writer(truth_file, lineterminator="\n")
        products.writerow(COLUMNS)
        truth.writerow(TRUTH_COLUMNS)
        for entry in iter_products(rows, seed, price_noise=price_noise):
            products.writerow(_product_row(entry))
            truth.writerow(_truth_row(entry))
            errors.append(abs(pricing.oracle_price(entry.product) - entry.price) / entry.price)
            num_products += entry.product_id != last_id
            last_id = entry.product_id
    summary = CatalogueSummary(
        generator_version=GENERATOR_VERSION,
        seed=seed,
        rows=rows,
        products=num_products,
        size=size,
        price_noise=price_noise,
        oracle_median_ape=round(statistics.median(errors), 6),
        oracle_median_ape_theory=round(pricing.theoretical_error(price_noise), 6),
    )
    (folder / "truth.json").write_text(json.dumps(asdict(summary), indent=2) + "\n", encoding="utf-8")
    return summary


def _product_row(entry: CatalogueItem) -> tuple[str | int | float, ...]:
    title, price = make_title(entry.product), float(entry.price)
    code = _FIRST_CODE + entry.item * _CODE_STEP % _NUM_CODES
    price_eur = round(price * _EUR_PER_USD, 2)
    return (
        "Sample Shop", "2026-01-15", "USA", "USD", "SAMPLE SHOP", *categories(entry.product), code, title,
        f"https://shop.example/{title.lower().replace(' ', '-')}-p{code}", "N.A.", price, price, price_eur, price_eur,
        0, entry.image,
    )  # fmt: skip


def _truth_row(entry: CatalogueItem) -> tuple[str | int | float, ...]:
    product = entry.product
    return (
        entry.item, entry.product_id, entry.image, *product.as_dict().values(), make_title(product),
        " ".join(visible_words(product)), resolved_category(product), round(pricing.oracle_price(product), 2),
        entry.price,
    )  # fmt: skip


def _draw_all(
    folder: Path,
    rows: int,
    seed: int,
    size: int,
    num_workers: int,
    price_noise: float,
    progress: Callable[[int], None] | None,
) -> None:
    done = 0
    for count in _drawn_chunks(folder, rows, seed, size, num_workers, price_noise):
        done += count
        if progress is not None:
            progress(done)


def _drawn_chunks(folder: Path, rows: int, seed: int, size: int, num_workers: int, price_noise: float) -> Iterator[int]:
    """Draw every picture; yields the size of each finished chunk."""
    chunks = [(start, min(_CHUNK, rows - start)) for start in range(0, rows, _CHUNK)]
    if num_workers == 1 or len(chunks) == 1:
        for start, count in chunks:
            yield _draw_chunk(folder, start, count, seed, size, price_noise)
        return
    with ProcessPoolExecutor(min(num_workers, len(chunks)), mp_context=get_context("spawn")) as pool:
        futures: list[Future[int]] = [
            pool.submit(_draw_chunk, folder, start, count, seed, size, price_noise) for start, count in chunks
        ]
        try:
            for future in futures:
                yield future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _draw_chunk(folder: Path, start: int, count: int, seed: int, size: int, price_noise: float) -> int:
    for entry in iter_products(count, seed, start, price_noise=price_noise):
        scene = item_scene(entry, seed)
        (folder / entry.image).write_bytes(encode_jpeg(draw_scene(scene, size), scene.quality))
    return count

"""One row of a source -> the values of its fields, its other columns, and where its pictures are."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appraiser.data.dataset import RECORD_COLUMNS
from appraiser.data.pictures import PictureError, read_bytes
from appraiser.data.prices import parse_price_cell
from appraiser.data.reasons import Reason, RowReason
from appraiser.data.records import FieldMap
from appraiser.data.sources import Source

CORRECTED = ("title", "category", "price")


class RowProblem(Exception):
    """One row cannot be used; `reason` goes into the quarantine."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        # Half characters (lone surrogates) of a broken cell could not be written to the quarantine either.
        self.reason, self.detail = reason, detail.encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True)
class RowValues:
    """What a row says.

    Args:
        fields: id, title, category, price, currency, group, as far as the source has them.
        extra: the source's own columns under their names (`source_` before those that a data set has itself).
        cleaned: what was put right on the way: `html_entities`, `corrected`.
    """

    fields: dict[str, Any]
    extra: dict[str, Any]
    cleaned: frozenset[str] = frozenset()


def row_values(number: int, row: Mapping[str, Any], source: Source, fields: FieldMap) -> RowValues:
    """Values of a row.

    Raises:
        RowProblem: the first thing that is wrong with them.
    """
    values: dict[str, Any] = {"id": record_id(number, row, fields)}
    cleaned: set[str] = set()
    correction = fields.corrections.by_id.get(values["id"])
    if correction and correction.action == "drop":
        raise RowProblem("dropped", "the corrections drop this product")
    corrected = (
        {} if correction is None else {name: getattr(correction, name) for name in CORRECTED if name in fields.columns}
    )
    cleaned |= {"corrected"} if any(corrected.values()) else set()
    needed: dict[str, RowReason] = {"title": "no_title", "category": "no_category", "currency": "no_currency"}
    for field in (*needed, "group"):
        if field in fields.columns:
            value = corrected.get(field) or fields.value(row, field)
            text = None if value is None else " ".join(_unescaped(str(value), cleaned).split())
            if not text and field in needed:
                raise RowProblem(needed[field], f"column {'|'.join(fields.columns[field])} is empty or N.A.")
            values[field] = text
    if "price" in fields.columns:
        cell = corrected.get("price") or fields.value(row, "price")
        # A person's correction is a plain number in any table.
        price = parse_price_cell(cell, None if corrected.get("price") else fields.price_locale)
        if price is None:
            raise RowProblem("bad_price", _price_problem(cell, fields.price_locale))
        values["price"] = price
    image_columns = set(fields.columns["image"])
    extra = {
        (f"source_{name}" if name in RECORD_COLUMNS else name): value
        for name, value in row.items()
        if not (name in image_columns and not isinstance(value, str))
    }
    for name, value in (values | extra).items():
        if isinstance(value, str) and not _is_unicode(value):
            raise RowProblem("bad_text", f"{name} holds half characters (lone surrogates): {value[:100]!r}")
    return RowValues(values, extra | dict((source.truth or {}).get(number, {})), frozenset(cleaned))


def _unescaped(text: str, cleaned: set[str]) -> str:
    """The text without HTML entities, which web shops leave in their tables; taken off once."""
    plain = html.unescape(text) if "&" in text else text
    if plain != text:
        cleaned.add("html_entities")
    return plain


def _price_problem(cell: Any, locale: str | None) -> str:
    if locale:
        return f"{cell!r} is no single positive price as {locale} writes it"
    return f"{cell!r} is no plain positive number such as 1290 or 109.99"


def record_id(number: int, row: Mapping[str, Any], fields: FieldMap) -> str:
    """A row's id; its number where the table has none."""
    identifier = fields.value(row, "id")
    return f"row-{number}" if identifier is None else str(identifier)


def picture_places(row: Mapping[str, Any], fields: FieldMap) -> list[Any]:
    """Where a row's pictures are: paths, URLs, or {"bytes": ...} of an image column.

    Raises:
        RowProblem: it has none.
    """
    value = fields.value(row, "image")
    places = list(value) if isinstance(value, list | tuple) else [] if value is None else [value]
    if not places:
        raise RowProblem("no_image", f"column {'|'.join(fields.columns['image'])} is empty or N.A.")
    # An image column may hold addresses instead of bytes.
    is_address = [isinstance(place, Mapping) and not place.get("bytes") for place in places]
    return [
        place["path"] if found and "://" in str(place.get("path")) else place
        for place, found in zip(places, is_address, strict=True)
    ]


def is_url(place: Any) -> bool:
    """Whether a picture has to be fetched."""
    return isinstance(place, str) and "://" in place


def local_picture(place: Any, source: Source) -> bytes:
    """Bytes of a picture that is in the table or on this machine.

    Raises:
        RowProblem: it is not there, or the source must not name it.
    """
    is_hub_file = False
    if isinstance(place, Mapping):
        data, place = place.get("bytes"), place.get("path")
        if data or (data is not None and place is None):  # b"" with a path: the picture lies there
            return bytes(data)
        is_hub_file = source.folder is None and isinstance(place, str) and _is_in_hub_cache(Path(place))
    if not isinstance(place, str):
        raise RowProblem("no_image", f"{type(place).__name__} is no path, URL or picture")
    if place.startswith("data:"):
        return _data_url(place)
    if source.folder is None and not is_hub_file:
        # Otherwise a table from the Hub could put any picture of this machine into the data set.
        raise RowProblem("missing_file", f"a table of the Hub cannot name a file of this machine: {place[:200]}")
    path = Path(place) if source.folder is None else source.folder / place
    try:
        if not path.is_file():
            raise RowProblem("missing_file", f"no picture at {place[:200]}")
        return read_bytes(path)
    except PictureError as problem:
        raise RowProblem(problem.reason, problem.what) from None
    except (OSError, ValueError) as error:
        raise RowProblem("missing_file", f"cannot read {place[:200]!r}: {error}") from None


def _data_url(place: str) -> bytes:
    head, comma, body = place.partition(",")
    if not comma or not head.endswith(";base64"):
        raise RowProblem("bad_url", f"{place[:80]!r} is no data URL in base64")
    try:
        return base64.b64decode(body, validate=True)
    except ValueError:
        raise RowProblem("bad_url", f"the base64 of {place[:80]!r} is damaged") from None


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _is_in_hub_cache(path: Path) -> bool:
    """Whether a file lies where `datasets` puts what it downloads."""
    from datasets import config
    from huggingface_hub.constants import HF_HUB_CACHE

    folders = (config.HF_DATASETS_CACHE, config.DOWNLOADED_DATASETS_PATH, HF_HUB_CACHE)
    return any(path.resolve().is_relative_to(Path(folder).resolve()) for folder in folders)

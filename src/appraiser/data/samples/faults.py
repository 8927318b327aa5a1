"""Faults of real tables and pictures, put into a sample catalogue on purpose, with the truth about each.

`faults.csv` says for every spoilt row what should become of it: left out by `build` for a reason, named by `check` as
an issue, or kept without loss. So both can be held to finding exactly these.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from appraiser.data.samples.drawing import encode_jpeg
from appraiser.data.samples.items import CatalogueItem, Purpose, iter_products, stream

FAULT_SHARE = 0.2
PLACEHOLDER_WEIGHT = 3
"""A placeholder is known by the number of products that share it; it has to come up more often than the others."""
MAX_STEPS_TO_PARTNER = 16

COLUMNS = ("row", "product_code", "kind", "outcome", "code", "is_perceptual", "partner")
Outcome = Literal["left_out", "issue", "kept"]
Row = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """What should become of a row with a fault.

    Args:
        code: the reason of the quarantine, or the issue's name; empty for rows that are kept.
        needs_partner: it repeats something of an earlier row.
        is_perceptual: found by measuring the picture or the price, so not always.
    """

    outcome: Outcome
    code: str = ""
    needs_partner: bool = False
    is_perceptual: bool = False


KINDS: dict[str, Kind] = {
    # values of the table
    "no_title": Kind("left_out", "no_title"),
    "no_category": Kind("left_out", "no_category"),
    "no_currency": Kind("left_out", "no_currency"),
    "no_image": Kind("left_out", "no_image"),
    "missing_file": Kind("left_out", "missing_file"),
    "bad_price": Kind("left_out", "bad_price"),
    "repeated_code": Kind("left_out", "duplicate_id", needs_partner=True),
    "special_token": Kind("issue", "special_token"),
    "html_entity": Kind("kept"),
    "foreign_letters": Kind("kept"),
    "spaces": Kind("kept"),
    "wrong_price": Kind("issue", "price_outlier", is_perceptual=True),
    # files
    "truncated": Kind("left_out", "truncated"),
    "empty_file": Kind("left_out", "empty"),
    "web_page": Kind("left_out", "not_an_image"),
    "bmp_file": Kind("left_out", "unsupported_format"),
    "thin_strip": Kind("left_out", "too_thin"),
    "huge_picture": Kind("left_out", "too_many_pixels"),
    "turned_by_exif": Kind("kept"),
    "transparent": Kind("kept"),
    "palette": Kind("kept"),
    "cmyk": Kind("kept"),
    "sixteen_bits": Kind("kept"),
    "animated": Kind("kept"),
    "webp": Kind("kept"),
    # what a picture shows
    "placeholder": Kind("left_out", "placeholder"),
    "tiny": Kind("issue", "small_picture"),
    "wide": Kind("issue", "odd_shape"),
    "blank": Kind("issue", "blank_picture"),
    "dark": Kind("issue", "dark_picture"),
    "blurred": Kind("issue", "blurred_picture", is_perceptual=True),
    # two rows together
    "repeated_product": Kind("issue", "same_picture", needs_partner=True),
    "copied_picture": Kind("issue", "label_conflict", needs_partner=True),
    "saved_again": Kind("issue", "near_duplicate", needs_partner=True, is_perceptual=True),
}

_MISSING = ("", "N.A.", "   ")
_BAD_PRICES = ("", "N.A.", "free", "0", "-120", "nan", "inf", "1e9", "1.290", "1,290", "$450", "2 for 500", "410-450")
_SPECIAL = ("<|end|>", "<|image_1|>", "<|user|>", "<|endoftext|>", "<|assistant|>")
_LETTERS = ("Édition Été", "Größe Süß", "日本限定", "Łódź", "عربي")


@dataclass(frozen=True)
class Fault:
    """The fault of one item.

    Args:
        choice: which of a kind's forms, if it has several.
        partner: the earlier item whose code, labels or picture it repeats.
    """

    kind: str
    choice: int
    partner: CatalogueItem | None = None


def fault_of(entry: CatalogueItem, seed: int, price_noise: float) -> Fault | None:
    """The fault of an item; None for most. A function of the seed and the item alone."""
    drawn = _draw(entry.item, seed)
    if drawn is None:
        return None
    kind, choice = drawn
    if not KINDS[kind].needs_partner:
        return Fault(kind, choice)
    first = max(0, entry.item - MAX_STEPS_TO_PARTNER)
    earlier = list(iter_products(entry.item - first, seed, first, price_noise=price_noise))
    sound = [other for other in earlier if other.product_id != entry.product_id and not _draw(other.item, seed)]
    return Fault(kind, choice, sound[-1]) if sound else None


def _draw(item: int, seed: int) -> tuple[str, int] | None:
    rng = stream(seed, item, Purpose.FAULT)
    if rng.random() >= FAULT_SHARE:
        return None
    kinds = [*KINDS, *["placeholder"] * (PLACEHOLDER_WEIGHT - 1)]
    return kinds[int(rng.integers(len(kinds)))], int(rng.integers(2**31))


def spoil_row(row: Mapping[str, Any], fault: Fault, partner: Mapping[str, Any] | None) -> Row:
    """The row of the table with its fault.

    Args:
        partner: the sound row of the fault's partner.
    """
    spoilt, choice = dict(row), fault.choice
    title = str(row["title"])
    match fault.kind:
        case "no_title":
            spoilt["title"] = _of(_MISSING, choice)
        case "no_category":
            spoilt |= dict.fromkeys(("category1_code", "category2_code", "category3_code"), "N.A.")
        case "no_currency":
            spoilt["currency_code"] = _of(_MISSING, choice)
        case "no_image":
            spoilt["image"] = _of(_MISSING, choice)
        case "missing_file":
            spoilt["image"] = str(row["image"]).replace("images/", "images/gone-")
        case "bad_price":
            spoilt["full_price"] = _of(_BAD_PRICES, choice)
        case "repeated_code" if partner is not None:
            spoilt["product_code"] = partner["product_code"]
        case "special_token":
            spoilt["title"] = f"{title} {_of(_SPECIAL, choice)}"
        case "html_entity":
            spoilt["title"] = title.replace(" ", " &amp; ", 1)
        case "foreign_letters":
            spoilt["title"] = f"{title} {_of(_LETTERS, choice)}"
        case "spaces":
            spoilt["title"] = f"  {title.replace(' ', '   ', 1)}\t"
        case "wrong_price":
            # Cents for dollars, or the other way round.
            factor = (100.0, 0.01)[choice % 2]
            spoilt |= {
                name: round(float(row[name]) * factor, 2)
                for name in ("full_price", "price", "full_price_eur", "price_eur")
            }
        case "repeated_product" | "saved_again" if partner is not None:
            own = {name: row[name] for name in ("product_code", "itemurl", "image")}
            spoilt = dict(partner) | own
    return spoilt


def label_owner(entry: CatalogueItem, fault: Fault | None) -> CatalogueItem:
    """Whose title and price an item has."""
    has_partners = ("repeated_product", "saved_again")
    return fault.partner if fault and fault.partner and fault.kind in has_partners else entry


def picture_owner(entry: CatalogueItem, fault: Fault | None) -> CatalogueItem:
    """Whose picture an item shows."""
    shows_partner = ("repeated_product", "copied_picture", "saved_again")
    return fault.partner if fault and fault.partner and fault.kind in shows_partner else entry


def spoil_picture(picture: Image.Image, quality: int, fault: Fault) -> bytes:
    """The file of an item with a fault.

    Args:
        quality: JPEG quality of the sound file.
    """
    if fault.kind in _FILES:
        return _FILES[fault.kind](picture)
    if fault.kind in _LOOKS:
        picture = _LOOKS[fault.kind](picture)
    elif fault.kind == "truncated":
        whole = encode_jpeg(picture, quality)
        return whole[: len(whole) * (30 + fault.choice % 60) // 100]
    elif fault.kind == "saved_again":
        side = round(0.9 * picture.width)
        return encode_jpeg(picture.resize((side, side), Image.Resampling.BICUBIC), 75)
    return encode_jpeg(picture, quality)


def _of(values: tuple[str, ...], choice: int) -> str:
    return values[choice % len(values)]


def _saved(picture: Image.Image, form: str, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **settings)
    return buffer.getvalue()


def _turned(picture: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be seen after a quarter turn clockwise
    return _saved(picture.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=90, exif=exif)


def _transparent(picture: Image.Image) -> bytes:
    """The middle of the picture; its edge is transparent, and black underneath."""
    edge = picture.width // 40 + 1
    alpha = Image.new("L", picture.size, 0)
    alpha.paste(255, (edge, edge, picture.width - edge, picture.height - edge))
    cut = Image.composite(picture, Image.new("RGB", picture.size), alpha)
    cut.putalpha(alpha)
    return _saved(cut, "PNG")


def _sixteen_bits(picture: Image.Image) -> bytes:
    grey = np.asarray(picture.convert("L"), dtype=np.uint16) * np.uint16(257)
    return _saved(Image.fromarray(grey), "PNG")


def _animated(picture: Image.Image) -> bytes:
    second = ImageEnhance.Brightness(picture).enhance(0.3)
    return _saved(picture, "GIF", save_all=True, append_images=[second], duration=200)


def _placeholder(picture: Image.Image) -> bytes:
    """What shops show while a photo is missing: the same file for all; a framed mountain and sun on grey."""
    image = Image.new("RGB", (300, 300), (226, 228, 231))
    pen = ImageDraw.Draw(image)
    pen.rectangle((75, 95, 225, 205), outline=(150, 154, 160), width=6)
    pen.polygon([(90, 192), (135, 140), (165, 172), (185, 152), (212, 192)], fill=(150, 154, 160))
    pen.ellipse((172, 112, 196, 136), fill=(150, 154, 160))
    return encode_jpeg(image, 85)


_FILES: dict[str, Callable[[Image.Image], bytes]] = {
    "empty_file": lambda picture: b"",
    "web_page": lambda picture: b"<!DOCTYPE html><html><body><h1>404 Not Found</h1></body></html>",
    "bmp_file": lambda picture: _saved(picture.resize((48, 48)), "BMP"),
    "thin_strip": lambda picture: _saved(picture.resize((picture.width * 2, 3)), "PNG"),
    "huge_picture": lambda picture: _saved(Image.new("1", (9000, 9000), 1), "PNG"),
    "turned_by_exif": _turned,
    "transparent": _transparent,
    "palette": lambda picture: _saved(picture.quantize(128), "PNG"),
    "cmyk": lambda picture: _saved(picture.convert("CMYK"), "JPEG", quality=90),
    "sixteen_bits": _sixteen_bits,
    "animated": _animated,
    "webp": lambda picture: _saved(picture, "WEBP", quality=90),
    "placeholder": _placeholder,
}


def _blank(picture: Image.Image) -> Image.Image:
    """The studio without the product: the colour of a corner."""
    corner: Any = picture.getpixel((2, 2))
    return Image.new("RGB", picture.size, corner)


def _wide(picture: Image.Image) -> Image.Image:
    canvas = Image.new("RGB", (4 * picture.width, picture.height), (255, 255, 255))
    canvas.paste(picture, (3 * picture.width // 2, 0))
    return canvas


_LOOKS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "tiny": lambda picture: picture.resize((40, 40), Image.Resampling.BOX),
    "wide": _wide,
    "blank": _blank,
    "dark": lambda picture: ImageEnhance.Brightness(picture).enhance(0.12),
    "blurred": lambda picture: picture.filter(ImageFilter.GaussianBlur(0.02 * picture.width)),
}

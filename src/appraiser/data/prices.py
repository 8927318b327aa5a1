"""Price cells as shops write them -> numbers, or nothing: a price that could mean two things is never guessed.

`1.290` is 1,290 euros in Munich and 1.29 dollars in Boston. Which of them a table means has to be said, by a locale;
without one only plain numbers such as 1290 and 109.99 are read.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from functools import cache
from typing import Any

from babel import Locale, UnknownLocaleError
from babel.numbers import NumberFormatError, get_group_symbol, parse_decimal

from appraiser.errors import ConfigError

PRICE_TEXT = re.compile(r"[0-9]+(\.[0-9]+)?")
THOUSANDS = re.compile(r"[0-9]{1,3}\.[0-9]{3}")
NUMBER_TEXT = re.compile(r"[0-9][0-9.,'’ \u00a0\u202f]*")
WRITTEN_UNITS = ("円", "元", "원", "kr.", "kr", "zł", "Kč", "Ft", "руб.", "р.", "lei", "лв.", "TL", "Fr.")
UNIT = "|".join([r"[A-Z]{3}\b", r"\b[A-Z]{3}", *map(re.escape, WRITTEN_UNITS)])
UNIT_TEXT = re.compile(rf"^(?:{UNIT})|(?:{UNIT})$")


def parse_price_cell(value: Any, locale: str | None = None) -> float | None:
    """A positive price from a cell, or None.

    Args:
        locale: how texts are written, such as `en`, `de` or `fr_CH`: decimal and group marks, and a currency before or
            after the number. None takes plain numbers only.
    """
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float | Decimal):
        try:
            price = float(value)
        except (OverflowError, ValueError):
            return None
    else:
        text = str(value).strip()
        found = _localised(text, locale) if locale else _plain(text)
        if found is None:
            return None
        price = found
    # What an answer can write: at least one cent, at most thirteen digits before the point.
    return price if 0.005 < price < 1e13 - 0.01 else None


def check_locale(name: str) -> str:
    """The locale's name as babel knows it.

    Raises:
        ConfigError: there is no such locale.
    """
    try:
        return str(Locale.parse(name.replace("-", "_")))
    except (UnknownLocaleError, ValueError):
        raise ConfigError(
            f"there is no locale {name!r}", fix="use one such as en, de, fr, it, de_CH, pt_BR or ja"
        ) from None


def _plain(text: str) -> float | None:
    # 1.290 is left out although it is a plain number: whoever writes thousands with a point means another.
    return None if not PRICE_TEXT.fullmatch(text) or THOUSANDS.fullmatch(text) else float(text)


def _localised(text: str, locale: str) -> float | None:
    number = UNIT_TEXT.sub("", text).strip()
    if number and unicodedata.category(number[0]) == "Sc":
        number = number[1:].strip()
    elif number and unicodedata.category(number[-1]) == "Sc":
        number = number[:-1].strip()
    if not NUMBER_TEXT.fullmatch(number):
        return None
    group = _group_symbol(locale)
    # People type the marks that their keyboard has: a space for a narrow one, a straight apostrophe for a curved one.
    for alike in ("\u00a0\u202f ", "'’"):
        if group in alike:
            number = re.sub(f"[{alike}]", group, number)
    try:
        price = parse_decimal(number, locale, strict=True)
    except NumberFormatError:
        return None
    exponent = price.as_tuple().exponent
    # A third decimal is thousands in the wrong locale far more often than a tenth of a cent.
    return float(price) if isinstance(exponent, int) and exponent >= -2 else None


@cache
def _group_symbol(locale: str) -> str:
    return get_group_symbol(locale)

"""Prices as people write them -> numbers, or nothing: a price that could mean two things is never guessed.

`1.290` is 1,290 euros in Munich and 1.29 dollars in Boston. Which of them a table means has to be said, by a locale;
without one only plain numbers such as 1290 and 109.99 are read. An answer of a model is in a known language: what can
only be one number is read, and where there are two readings, the language's custom decides, if it has one.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from functools import cache
from typing import Any

from babel import Locale, UnknownLocaleError
from babel.numbers import NumberFormatError, get_decimal_symbol, get_group_symbol, parse_decimal

from appraiser.errors import ConfigError

PRICE_TEXT = re.compile(r"[0-9]+(\.[0-9]+)?")
THOUSANDS = re.compile(r"[0-9]{1,3}\.[0-9]{3}")
NUMBER_TEXT = re.compile(r"[0-9][0-9.,'’ \u00a0\u202f]*")
WRITTEN_UNITS = (
    "円", "元", "원", "kr.", "kr", "Kr.", "Kr", "kroner", "zł", "Kč", "Ft", "руб.", "руб", "рублей", "р.", "р", "lei",
    "leu", "лв.", "TL", "Fr.", "euros", "euro", "евро", "ユーロ", "ドル",
)  # fmt: skip
# US$ and, in French, $US: the sign alone is taken off below.
UNIT = "|".join([r"[A-Z]{3}\b", r"\b[A-Z]{3}", r"[A-Z]{1,2}\$", r"[$£][A-Z]{2}", *map(re.escape, WRITTEN_UNITS)])
UNIT_TEXT = re.compile(rf"^(?:{UNIT})|(?:{UNIT})$")
NO_CENTS = re.compile(r"[.,][-–—]$")
"""`1290,-` says that nothing follows the comma."""
ANSWER_TEXT = re.compile(
    r"(?P<whole>[1-9][0-9]{0,2}(?P<group>[.,' ])[0-9]{3}(?:(?P=group)[0-9]{3})*|[0-9]+)"
    r"(?:(?P<decimal>[.,])(?P<cents>[0-9]{1,2}))?"
)
MAX_DIGITS = 13
"""Before the decimal mark: what an answer can write."""
ALIKE = {"’": "'", "\u00a0": " ", "\u202f": " ", "\u2009": " ", "\u3000": " ", "，": ",", "．": "."}
# Thousands marks that a language has besides the one that babel knows; amounts of money in Norwegian take points too.
OTHER_GROUPS = {"nb": "."}


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


def parse_written_price(text: str, locale: str) -> float | None:
    """The price that a text written for people states, such as `$1,290.50`, `1 290,50 kr` or `１２９０円`; or None.

    Args:
        locale: whose custom decides between two readings: `1,290` is thousands in `en` and could be either in `fr`.
            `1.290,50` is one number everywhere.
    """
    found = ANSWER_TEXT.fullmatch(_without_currency(_in_ascii(text.strip())))
    if found is None:
        return None
    whole, group, decimal, cents = found.group("whole", "group", "decimal", "cents")
    groups, own_decimal = _customs(locale)
    if group and group == decimal:
        return None
    # 1,290 and 1.290: thousands where the language writes them so; elsewhere it could be either.
    if group and group in ".," and not decimal and whole.count(group) == 1 and group not in groups:
        return None
    if not group and decimal == "," and len(cents) == 1 and own_decimal != ",":
        return None  # 1,2 may be 1,290 cut short
    digits = whole.replace(group, "") if group else whole
    return float(f"{digits}.{cents or 0}") if len(digits) <= MAX_DIGITS else None


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
    number = _without_currency(text)
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


def _without_currency(text: str) -> str:
    """The text without a currency's code, name or sign, before or after the number."""
    number = UNIT_TEXT.sub("", text).strip()
    if number and unicodedata.category(number[0]) == "Sc":
        number = number[1:].strip()
    elif number and unicodedata.category(number[-1]) == "Sc":
        number = number[:-1].strip()
    return NO_CENTS.sub("", number)


def _in_ascii(text: str) -> str:
    """Digits of any script, and marks that look like those of ASCII, as ASCII has them."""
    if text.isascii():
        return text
    # Not NFKC: it would make 122 of 12² and 11 of 1①.
    return "".join(str(unicodedata.decimal(sign)) if sign.isdecimal() else ALIKE.get(sign, sign) for sign in text)


@cache
def _customs(locale: str) -> tuple[str, str]:
    """The marks between thousands and the decimal mark of a locale."""
    return _in_ascii(get_group_symbol(locale)) + OTHER_GROUPS.get(locale, ""), get_decimal_symbol(locale)


@cache
def _group_symbol(locale: str) -> str:
    return get_group_symbol(locale)

"""The prompt, the target text, and parse(): the one place where training and prediction agree on words.

    fields {"title": "Mini Check Wool Coat", "category": "COATS", "price": 1290}
      --format-->  Product: Mini Check Wool Coat, Category: COATS, Full Price: 1290
      --parse--->  the same fields

Titles are data. They are encoded as plain text, so `<|end|>` or `<|image_1|>` in a title never becomes a control token,
and `, Category: ` inside a category or price is escaped, so parse(format(fields)) gives the fields back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from appraiser.data.prices import parse_written_price
from appraiser.errors import ConfigError

MAX_ANSWER_TOKENS = 96
"""English predictions end after so many tokens; three times what the longest titles of the shops known take."""
Language = Literal["en", "fr", "ru", "ro", "no", "ja"]
FieldValue = str | float

QUESTIONS: dict[str, str] = {
    "en": "What is shown in this image?",
    "fr": "Que montre cette image ?",
    "ru": "Что показано на этом изображении?",
    "ro": "Ce este prezentat în această imagine?",
    "no": "Hva vises på dette bildet?",
    "ja": "この画像には何が表示されていますか？",
}
LABELS: dict[str, dict[str, str]] = {
    "en": {"title": "Product", "category": "Category", "price": "Full Price", "currency": "Currency"},
    "fr": {"title": "Produit", "category": "Catégorie", "price": "Prix", "currency": "Devise"},
    "ru": {"title": "Продукт", "category": "Категория", "price": "Полная цена", "currency": "Валюта"},
    "ro": {"title": "Produs", "category": "Categorie", "price": "Preț întreg", "currency": "Monedă"},
    "no": {"title": "Produkt", "category": "Kategori", "price": "Full pris", "currency": "Valuta"},
    "ja": {"title": "製品", "category": "カテゴリ", "price": "定価", "currency": "通貨"},
}
LOCALES: dict[str, str] = {"en": "en", "fr": "fr", "ru": "ru", "ro": "ro", "no": "nb", "ja": "ja"}
PLAIN_PRICE = re.compile(r"[0-9]{1,13}(?:\.[0-9]{1,2})?")
"""What format_price writes, in any language: nearly all answers, read in a tenth of the time."""


def format_price(price: float) -> str:
    """A price as answers write it: whole without decimals, else two.

    Raises:
        ValueError: not finite, or negative; records with such prices are quarantined before they get here.
    """
    cents = round(price * 100)
    if not 0 <= cents < 10**15:
        raise ValueError(f"price {price!r} cannot be written: it must be between 0 and 10 ** 13")
    return str(cents // 100) if cents % 100 == 0 else f"{cents // 100}.{cents % 100:02d}"


def parse_price(text: str, language: Language = "en") -> float | None:
    """The price written in `text`, or None if it is not exactly one number.

    Models also write what they saw elsewhere, such as `$1,290.50` or `1 290,50 kr`. The language decides where there
    are two readings; see `parse_written_price`.
    """
    found = PLAIN_PRICE.fullmatch(text.strip())
    return float(found.group()) if found else parse_written_price(text, LOCALES[language])


@dataclass(frozen=True)
class ParsedAnswer:
    """What an answer says.

    `fields` holds what could be read; `is_complete` whether every field of the task was there and readable.
    """

    fields: dict[str, FieldValue]
    is_complete: bool


@dataclass(frozen=True)
class Task:
    """Which fields an answer states, in which language.

    Args:
        fields: names of the columns to state, in order. `price` is a number, everything else text. `currency` is the
            record's own, for data sets with several.
        language: one of the built-in prompt languages.
        question: another question than the language's own.
    """

    fields: tuple[str, ...] = ("title", "category", "price")
    language: Language = "en"
    question: str | None = None

    def __post_init__(self) -> None:
        if not self.fields:
            raise ConfigError("a task needs at least one field", fix="for example fields: [title, category, price]")
        if len(set(self.fields)) != len(self.fields):
            raise ConfigError(f"a field is named twice: {', '.join(self.fields)}")
        labels = [self.label(field) for field in self.fields]
        if len(set(labels)) != len(labels):
            raise ConfigError(f"two fields would have one name in the answer: {', '.join(labels)}")

    def user_text(self, num_images: int = 1) -> str:
        """Picture tags and the question, as the origin's prompt has them (no newline after the tag)."""
        tags = "".join(f"<|image_{number}|>" for number in range(1, num_images + 1))
        return tags + (self.question or QUESTIONS[self.language])

    def prompt(self, num_images: int = 1) -> str:
        """The chat prompt up to the place where the answer starts."""
        return f"<|user|>\n{self.user_text(num_images)}<|end|>\n<|assistant|>\n"

    def label(self, field: str) -> str:
        """How an answer names a field."""
        return LABELS[self.language].get(field) or field.replace("_", " ").capitalize()

    def format(self, values: Mapping[str, FieldValue]) -> str:
        """The target text for a record's values; all fields of the task must be present."""
        parts = []
        for field in self.fields:
            parts.append(f"{self.label(field)}: {self.written(field, values[field])}")
        return ", ".join(parts)

    def written(self, field: str, value: FieldValue) -> str:
        """A field's value as answers hold it: prices in their form, in other than the first field labels escaped."""
        if field == "price":
            return format_price(float(value))
        return str(value) if field == self.fields[0] else self._escape(str(value))

    def parse(self, answer: str) -> ParsedAnswer:
        """Read an answer; the inverse of `format`. What cannot be read is missing from `fields`, never guessed."""
        fields: dict[str, FieldValue] = {}
        rest = answer
        for position in range(len(self.fields) - 1, -1, -1):
            field = self.fields[position]
            separator = f"{self.label(field)}: " if position == 0 else f", {self.label(field)}: "
            # The last one: earlier fields may contain the words of later ones, later ones escape them.
            start = (0 if rest.startswith(separator) else -1) if position == 0 else rest.rfind(separator)
            if start < 0:
                continue
            text = rest[start + len(separator) :]
            rest = rest[:start]
            value: FieldValue | None = (
                parse_price(text, self.language) if field == "price" else self._unescape(text, position)
            )
            if value is not None:
                fields[field] = value
        ordered = {field: fields[field] for field in self.fields if field in fields}
        return ParsedAnswer(ordered, is_complete=len(ordered) == len(self.fields))

    @cached_property
    def _separators(self) -> re.Pattern[str]:
        labels = "|".join(re.escape(self.label(field)) for field in self.fields)
        return re.compile(rf",(\\*) ({labels}): ")

    def _escape(self, text: str) -> str:
        return self._separators.sub(lambda m: f",{m[1]}\\ {m[2]}: ", text)

    def _unescape(self, text: str, position: int) -> str:
        if position == 0:
            return text
        return self._separators.sub(lambda m: f",{m[1][:-1]} {m[2]}: " if m[1] else m[0], text)


def task_fields(available: Sequence[str]) -> tuple[str, ...]:
    """The default fields of a data set: title, category and price, as far as it has them."""
    return tuple(field for field in ("title", "category", "price") if field in available)

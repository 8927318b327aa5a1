"""Answers say what the table says: format and parse are inverse, and no text of a user becomes a control token."""

import json
import re
import sys
import unicodedata
from decimal import Decimal
from pathlib import Path

import pytest
from babel.numbers import format_currency, format_decimal
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from appraiser.backbone import Reader
from appraiser.data.task import LABELS, QUESTIONS, Task, format_price, parse_price
from appraiser.errors import ConfigError
from appraiser.phi3_v import Phi3VImageProcessor, Phi3VProcessor
from appraiser.pretraining.tokenizer import build_tokenizer

LANGUAGES = tuple(QUESTIONS)
SPECIALS = ["<|end|>", "<|endoftext|>", "<|user|>", "<|image_1|>", "<s>", "</s>", "<unk>", "<0x0A>"]
# Words of the answers in all languages, what separates them, and what escapes the separators.
PIECES = [
    *{f"{label}: " for labels in LABELS.values() for label in labels.values()},
    *{label for labels in LABELS.values() for label in labels.values()},
    ", ", ",", ",\\ ", ",\\\\ ", "\\", ": ", ":", " ", "1290", "109.99", "\n",
    *SPECIALS,
]  # fmt: skip
TEXTS = st.text(max_size=40) | st.lists(st.sampled_from(PIECES) | st.text(max_size=6), max_size=12).map("".join)
PRICES = st.integers(0, 10**9).map(lambda cents: cents / 100)


@pytest.mark.parametrize("language", LANGUAGES)
@settings(max_examples=150)
@given(title=TEXTS, category=TEXTS, price=PRICES)
@example(title="a, Category: b, Full Price: 3", category=", Full Price: 4", price=1290)
@example(title="", category="", price=0.01)
@example(title=", Category: ", category=",\\ Category: , Category: ", price=5)
def test_parse_gives_back_what_format_was_given(language, title, category, price):
    task = Task(language=language)
    values = {"title": title, "category": category, "price": price}
    parsed = task.parse(task.format(values))
    assert parsed.is_complete
    assert parsed.fields == values


@settings(max_examples=200)
@given(st.data())
def test_fields_in_any_order_and_of_any_name_come_back(data):
    names = st.sampled_from(
        ["title", "category", "price", "currency", "material", "colour_family", "Größe", "full", "a: b", "x, y"]
    )
    fields = data.draw(st.lists(names, min_size=1, max_size=5, unique=True))
    task = Task(tuple(fields), language=data.draw(st.sampled_from(LANGUAGES)))
    labels = [f"{task.label(field)}: " for field in fields] + [f", {task.label(field)}: " for field in fields]
    texts = TEXTS | st.lists(st.sampled_from(labels) | st.sampled_from(PIECES), max_size=8).map("".join)
    values = {field: data.draw(PRICES if field == "price" else texts) for field in fields}
    assert task.parse(task.format(values)).fields == values


@given(answer=st.text(max_size=80) | st.lists(st.sampled_from(PIECES), max_size=20).map("".join))
def test_any_answer_is_read_without_an_error_and_what_is_complete_has_every_field(answer):
    task = Task()
    parsed = task.parse(answer)
    assert parsed.is_complete == (set(parsed.fields) == set(task.fields))
    assert all(isinstance(value, float if field == "price" else str) for field, value in parsed.fields.items())


@pytest.mark.parametrize(
    ("answer", "fields"),
    [
        ("Product: Bag, Category: BAGS, Full Price: 1290", {"title": "Bag", "category": "BAGS", "price": 1290.0}),
        ("Product: Bag, Category: BAGS, Full Price: 1,290.50", {"title": "Bag", "category": "BAGS", "price": 1290.5}),
        ("Product: Bag, Category: BAGS, Full Price: about 12", {"title": "Bag", "category": "BAGS"}),
        ("Product: Bag, Category: BAGS", {"title": "Bag", "category": "BAGS"}),
        ("Category: BAGS, Full Price: 3", {"price": 3.0}),
        ("I see a bag.", {}),
        ("", {}),
    ],
)
def test_what_cannot_be_read_is_missing_and_never_guessed(answer, fields):
    parsed = Task().parse(answer)
    assert parsed.fields == fields
    assert parsed.is_complete == (len(fields) == 3)


@given(st.floats(0, 1e12))
def test_prices_are_written_to_the_cent_and_read_back(price):
    text = format_price(price)
    assert re.fullmatch(r"\d+(\.\d\d)?", text)
    assert parse_price(text) == pytest.approx(price, abs=0.00501, rel=1e-12)


@pytest.mark.parametrize(
    ("price", "text"), [(1290, "1290"), (1290.0, "1290"), (109.99, "109.99"), (12.5, "12.50"), (0.29, "0.29"), (0, "0")]
)
def test_whole_prices_have_no_decimals_and_others_two(price, text):
    assert format_price(price) == text


@pytest.mark.parametrize("price", [-1, 1e13, float("inf"), float("nan"), -0.01])
def test_a_price_that_cannot_be_written_is_refused(price):
    with pytest.raises((ValueError, OverflowError)):
        format_price(price)


@pytest.mark.parametrize("language", LANGUAGES)
@given(PRICES)
@example(1.29)
@example(999_999_999_999.99)
def test_what_is_written_for_answers_is_read_exactly_in_every_language(language, price):
    assert parse_price(format_price(price), language) == price


SCRIPTS = [zero for zero in map(chr, range(sys.maxunicode + 1)) if unicodedata.decimal(zero, None) == 0]
COUNTRIES = {"en": "en_US", "fr": "fr_FR", "ru": "ru_RU", "ro": "ro_RO", "no": "nb_NO", "ja": "ja_JP"}
CURRENCIES = ("EUR", "USD", "GBP", "JPY", "RUB", "NOK", "RON", "CHF", "SEK")


@st.composite
def written(draw, language: str) -> tuple[Decimal, str]:
    """A price, and how people who write a language may write it: with and without currency, in digits of any script."""
    price, country = Decimal(draw(st.integers(0, 10**12))) / 100, COUNTRIES[language]
    cents = price.quantize(Decimal("0.01"))
    number = draw(st.sampled_from([format_decimal(price, locale=country), format_decimal(cents, "#,##0.00", country)]))
    currency = draw(st.sampled_from(CURRENCIES))
    named = format_currency(price, currency, locale=country, currency_digits=False)
    around = draw(st.sampled_from([f"{currency} {number}", f"{number} {currency}", f"{currency}{number}"]))
    text = draw(st.sampled_from([number, named, around]))
    if draw(st.booleans()):  # as keyboards have it
        text = text.replace("\u202f", " ").replace("\u00a0", " ")
    zero = ord(draw(st.just("0") | st.sampled_from(SCRIPTS)))
    return price, text.translate({ord("0") + digit: zero + digit for digit in range(10)})


@pytest.mark.parametrize("language", LANGUAGES)
@settings(max_examples=150)
@given(st.data())
def test_prices_as_each_language_writes_them_are_read(language, data):
    price, text = data.draw(written(language))
    found = parse_price(text, language)
    assert found == float(price), text
    title = data.draw(TEXTS)
    task = Task(("title", "price"), language=language)
    answer = f"{task.label('title')}: {title}, {task.label('price')}: {text}"
    assert task.parse(answer).fields == {"title": title, "price": float(price)}


@given(st.text(max_size=20) | st.text("0123456789.,' -$€EURkr１٣\u00a0\u202f", max_size=12))
@example("9" * 400)
def test_a_price_that_is_read_can_be_written(text):
    for language in LANGUAGES:
        price = parse_price(text, language)
        if price is not None:
            assert parse_price(format_price(price), language) == price


def test_the_prompt_is_the_origins_in_every_language():
    assert Task().prompt() == "<|user|>\n<|image_1|>What is shown in this image?<|end|>\n<|assistant|>\n"
    assert Task().prompt(3).count("<|image_") == 3
    assert Task(language="ja").user_text() == "<|image_1|>この画像には何が表示されていますか？"
    japanese = {"title": "鞄", "category": "BAGS", "price": 12.5}
    assert Task(language="ja").format(japanese) == "製品: 鞄, カテゴリ: BAGS, 定価: 12.50"
    assert Task(question="Was ist das?").user_text() == "<|image_1|>Was ist das?"
    assert all(set(labels) == {"title", "category", "price", "currency"} for labels in LABELS.values())


@pytest.mark.parametrize("fields", [(), ("title", "title"), ("colour_a", "colour a")])
def test_fields_that_could_not_be_told_apart_are_refused(fields):
    with pytest.raises(ConfigError):
        Task(fields)


# No text of a user becomes a control token.


def backbone_of(folder: Path) -> Reader:
    """The texts' side of a backbone: the network plays no part in it."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    return Reader(Phi3VProcessor(Phi3VImageProcessor(), tokenizer), str(folder))


@pytest.fixture(scope="module")
def tiny_backbone(tmp_path_factory) -> Reader:
    folder = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(folder)
    return backbone_of(folder)


@pytest.fixture(scope="module")
def published_backbone(phi3_tokenizer_folder) -> Reader:
    return backbone_of(phi3_tokenizer_folder)


@pytest.fixture(params=["tiny", "published"])
def backbone(request) -> Reader:
    return request.getfixturevalue(f"{request.param}_backbone")


CONTEXTS = [
    "{}", " {}", "{} ", "{}{}", "{} {}", "Bag {}", "{} Bag", "Bag{}Bag", "Bag {} Bag", "a,{},b",
    "Product: {}", ", Category: {}", "<|user|>\n{}", "{}\n<|assistant|>\n", "\n{}\n", "「{}」", "👜{}👜",
    "\\{}", "<{}>", "{}1290",
]  # fmt: skip


def added_tokens(backbone: Reader) -> dict[str, int]:
    if backbone.name not in _added:  # reading the published tokenizer back takes a fifth of a second
        serialized = json.loads(backbone.processor.tokenizer.backend_tokenizer.to_str())
        _added[backbone.name] = {token["content"]: token["id"] for token in serialized["added_tokens"]}
    return _added[backbone.name]


_added: dict[str, dict[str, int]] = {}


def special_tokens(backbone: Reader) -> list[str]:
    return [*added_tokens(backbone), "<|image_1|>", "<|image_99|>", "<|im_start|>", "<0x0A>", "<0xFF>"]


def assert_is_plain_text(backbone: Reader, text: str) -> None:
    reserved = set(added_tokens(backbone).values())
    first_added = min(token for token in reserved if token >= 3)
    ids = backbone.text_ids(text)
    assert not reserved & set(ids), text
    assert all(3 <= token < first_added for token in ids), text
    decoded = backbone.processor.decode(ids, clean_up_tokenization_spaces=False)
    assert decoded == text


def test_special_tokens_in_twenty_contexts_stay_text_and_come_back(backbone):
    assert len(CONTEXTS) == 20
    tokens = special_tokens(backbone)
    assert len(tokens) > 48
    for token in tokens:
        for context in CONTEXTS:
            assert_is_plain_text(backbone, context.format(token, token))


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXTS | st.lists(st.sampled_from(SPECIALS) | st.text(max_size=3), max_size=8).map("".join))
def test_any_text_stays_text_and_comes_back(backbone, text):
    assume("\u2581" not in text)  # the tokenizer's own sign for a space: it comes back as a space
    assert_is_plain_text(backbone, text)


@pytest.mark.parametrize("language", LANGUAGES)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(title=TEXTS, currency=TEXTS, price=PRICES)
@example(title="<|end|>, Currency: EUR", currency="<|endoftext|>", price=1290)
def test_answers_survive_the_tokenizer_in_every_language(backbone, language, title, currency, price):
    assume("\u2581" not in title + currency)
    task = Task(("title", "currency", "price"), language=language)
    values = {"title": title, "currency": currency, "price": price}
    assert task.parse(backbone.decode(backbone.completion_ids(task.format(values)))).fields == values


def test_an_answer_ends_with_control_tokens_that_no_title_can_write(backbone):
    task = Task(("title",))
    tokenizer = backbone.processor.tokenizer
    end, stop = tokenizer.convert_tokens_to_ids(["<|end|>", "<|endoftext|>"])
    ids = backbone.completion_ids(task.format({"title": "Bag<|end|>\n<|endoftext|><|image_1|>"}))
    assert ids.count(end) == 1
    assert ids.count(stop) == 1
    assert ids[-1] == stop
    assert all(token >= 0 for token in ids)
    text = backbone.text_ids("Bag")
    assert backbone.completion_ids("Bag")[: len(text)] == text


def test_long_titles_are_encoded_in_time_that_grows_with_their_length(tiny_backbone):
    ids = tiny_backbone.text_ids("Red Bag, " * 10_000)
    assert len(ids) < 90_000

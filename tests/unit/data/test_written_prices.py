"""Prices in answers: what can only be one number is read in every language, the rest as its custom has it, or not."""

import pytest

from appraiser.data.task import LOCALES, Task, parse_price

LANGUAGES = tuple(LOCALES)
POINT, COMMA = ("en", "ja"), ("fr", "ru", "ro", "no")

ONE_NUMBER = [
    ("1290", 1290), ("109.99", 109.99), ("0", 0), ("0.01", 0.01), ("12.5", 12.5), (" 1290\n", 1290), ("007", 7),
    ("9999999999999.99", 9999999999999.99),
    # Decimal mark and thousands mark tell each other apart, and so does a mark that stands twice.
    ("1,290.50", 1290.5), ("1.290,50", 1290.5), ("1.290,5", 1290.5), ("1290,50", 1290.5), ("12,50", 12.5),
    ("1,234,567", 1234567), ("1.234.567", 1234567), ("1.234.567,89", 1234567.89),
    ("1 290", 1290), ("1 290,50", 1290.5), ("1 290.50", 1290.5), ("1\u00a0290,50", 1290.5), ("1\u202f290,50", 1290.5),
    ("1\u2009290", 1290), ("12 345 678", 12345678), ("1'290", 1290), ("1’290.50", 1290.5),
    # A currency, before or after.
    ("$1290", 1290), ("$1,290.50", 1290.5), ("US$ 1,290.00", 1290), ("1290 EUR", 1290), ("EUR1290", 1290),
    ("€ 1.290,00", 1290), ("1 290,50\u00a0€", 1290.5), ("£9", 9), ("¥1290", 1290), ("￥1290", 1290), ("1290円", 1290),
    ("1 290 руб.", 1290), ("1290 ₽", 1290), ("1290 lei", 1290), ("1290 kr", 1290), ("kr 1 290,-", 1290),
    ("1290 $US", 1290), ("CHF 1’290.50", 1290.5), ("$12 USD", 12), ("1290 евро", 1290),
    # Digits of other scripts: full-width, Arabic-Indic, Persian, Devanagari, Bengali.
    ("１２９０", 1290), ("１２９０．５０", 1290.5), ("１，２３４，５６７円", 1234567), ("١٢٩٠", 1290), ("۱۲۹۰", 1290),
    ("१२९०", 1290), ("१ २९०,५०", 1290.5), ("১২৯০.৫০", 1290.5),
]  # fmt: skip
BY_CUSTOM = [
    # text, languages that read it, as what
    ("1,290", POINT, 1290), ("$1,290", POINT, 1290), ("１，２９０円", POINT, 1290), ("12,000", POINT, 12000),
    ("1.290", ("ro", "no"), 1290), ("1.290 lei", ("ro", "no"), 1290), ("109.990", ("ro", "no"), 109990),
    ("12,5", COMMA, 12.5), ("0,5 €", COMMA, 0.5),
]  # fmt: skip
NO_NUMBER = [
    "", " ", "abc", "free", "about 12", "$", "EUR", "kr", "12-15", "12–15", "2 for 5.00", "12 13", "12, 13", "12/15",
    "-3", "−3", "+3", "(12)", "12%", "nan", "NaN", "inf", "Infinity", "1e9", "1E3", "0x10", "1_000", "1 2 3", "1.2.3",
    "1,2,3", "12.345,678", "1290.000", "1290,000", "1,290.500", "0,290", "0.290", "01,290", "1,29,000", "1234 567",
    "1.290.50", "1,290,50", "1 290 50", "1,290 500", "1  290", ".5", "5.", "1290,", "12²", "1½", "Ⅻ", "一二九〇",
    "十二", "$12$", "12 dollars and 50", "9" * 14, "1" + " 000" * 5, "9" * 400, "12\n13", "<|end|>", "12<|end|>",
]  # fmt: skip


@pytest.mark.parametrize(("text", "price"), ONE_NUMBER, ids=repr)
def test_what_can_only_be_one_number_is_read_in_every_language(text, price):
    assert {language: parse_price(text, language) for language in LANGUAGES} == dict.fromkeys(LANGUAGES, price)


@pytest.mark.parametrize(("text", "languages", "price"), BY_CUSTOM, ids=repr)
def test_of_two_readings_the_language_decides_if_it_has_a_custom(text, languages, price):
    expected = {language: price if language in languages else None for language in LANGUAGES}
    assert {language: parse_price(text, language) for language in LANGUAGES} == expected


@pytest.mark.parametrize("text", NO_NUMBER, ids=lambda text: repr(text)[:30])
def test_what_is_not_exactly_one_number_is_no_price_in_any_language(text):
    assert {parse_price(text, language) for language in LANGUAGES} == {None}


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_answer_is_read_in_the_language_of_its_task(language):
    task = Task(("title", "price"), language=language)
    answer = f"{task.label('title')}: 1,290, {task.label('price')}: 1,290"
    assert task.parse(answer).fields == {"title": "1,290"} | ({"price": 1290} if language in POINT else {})

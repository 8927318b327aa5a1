"""Price cells: what is read, what is refused, and that nothing is guessed."""

from decimal import Decimal

import pytest
from babel.numbers import format_currency, format_decimal
from hypothesis import example, given
from hypothesis import strategies as st

from appraiser.data.prices import check_locale, parse_price_cell
from appraiser.data.task import format_price, parse_price
from appraiser.errors import ConfigError

LOCALES = ("en", "en_GB", "de", "fr", "fr_CH", "de_CH", "it", "es", "pt_BR", "nl", "sv", "nb", "pl", "cs", "ru", "ro",
           "tr", "ja", "zh", "ko", "hi")  # fmt: skip

GOOD_PRICES = [
    ("1290", 1290.0), ("109.99", 109.99), (" 12.5 ", 12.5), ("0.01", 0.01), ("12.5000", 12.5), ("1290.000", 1290.0),
    (1290, 1290.0), (109.99, 109.99), (Decimal("109.990"), 109.99), ("007", 7.0),
]  # fmt: skip
BAD_PRICES = [
    "1.290", "1,290", "1,290.00", "1.290,00", "£12,99", "£12", "12 €", "$12", "USD 12", "1e9", "1E3", "nan", "inf",
    "-inf", "Infinity", "-3", "+3", "0", "0.00", "0.001", "1_000", "", " ", "free", "12-15", "2 for 5.00", ".5", "5.",
    "0x10", "1 290", "1'290", "12.3.4", "9" * 14, "9" * 400, "N.A.", "12\n13", 0, -1, 0.001, float("nan"), float("inf"),
    1e13, 10**400, True, None, [12], {"price": 12}, Decimal("NaN"), Decimal("-3"), Decimal("Infinity"),
]  # fmt: skip


@pytest.mark.parametrize(("cell", "price"), GOOD_PRICES, ids=repr)
def test_plain_positive_numbers_are_prices(cell, price):
    assert parse_price_cell(cell) == price


@pytest.mark.parametrize("cell", BAD_PRICES, ids=lambda cell: repr(cell)[:30])
def test_anything_else_is_no_price_and_is_not_guessed(cell):
    assert parse_price_cell(cell) is None


@given(st.text(max_size=20) | st.floats() | st.integers() | st.decimals() | st.none() | st.booleans())
@example("9999999999999.999")
@example(9_999_999_999_999.999)
def test_an_accepted_price_can_be_written_in_an_answer_and_read_back(cell):
    price = parse_price_cell(cell)
    if price is not None:
        assert price > 0
        assert abs(parse_price(format_price(price)) - price) <= max(0.00501, price * 1e-12)


@given(st.integers(1, 10**12 - 1))
def test_cents_survive_the_table_exactly(cents):
    text = f"{cents // 100}.{cents % 100:02d}"
    assert round(parse_price_cell(text) * 100) == cents


READ_IN = [
    ("de", "1.290,00 €", 1290.0), ("de", "1.290", 1290.0), ("de", "12,5", 12.5), ("de", "EUR 1.290", 1290.0),
    ("en", "$1,290.00", 1290.0), ("en", "1,290", 1290.0), ("en", "1290.5", 1290.5), ("en", "12 USD", 12.0),
    ("en_GB", "£12.99", 12.99), ("fr", "1 290,00 €", 1290.0), ("fr", "1\u202f290,00\u00a0€", 1290.0),
    ("de_CH", "CHF 1'290.50", 1290.5), ("de_CH", "1’290.50", 1290.5), ("sv", "1 290 kr", 1290.0),
    ("pl", "1 290,50 zł", 1290.5), ("ja", "12,000円", 12000.0), ("ja", "￥12,000", 12000.0), ("hi", "₹1,00,000", 1e5),
    ("pt_BR", "1.290,99", 1290.99), ("nb", "kr 1 290,-", 1290.0), ("fr", "1 290,50 $US", 1290.5), ("de", 1290, 1290.0),
]  # fmt: skip
REFUSED_IN = [
    ("de", "12.90"), ("de", "1,290.00"), ("de", "1.29"), ("en", "1.290,00"), ("en", "1290,50"), ("en", "1.290"),
    ("fr", "1,290.00"), ("de", "€ 12–15"), ("en", "2 for 5.00"), ("en", "free"), ("en", "from 12"), ("en", "-3.50"),
    ("en", "1e9"), ("en", "1_000"), ("en", "1,2,3"), ("en", "."), ("en", ","), ("en", ""), ("en", "$"), ("en", "0"),
    ("en", "$12$"), ("en", "12 12"), ("de", "1.2.3"), ("en", "(12)"), ("en", "12%"), ("en", "١٢"),
]  # fmt: skip


@pytest.mark.parametrize(("locale", "cell", "price"), READ_IN, ids=repr)
def test_a_declared_locale_says_what_the_marks_mean(locale, cell, price):
    assert parse_price_cell(cell, locale) == price


@pytest.mark.parametrize(("locale", "cell"), REFUSED_IN, ids=repr)
def test_what_the_locale_does_not_write_is_refused(locale, cell):
    assert parse_price_cell(cell, locale) is None


@given(st.sampled_from(LOCALES), st.integers(1, 10**9))
def test_what_a_locale_writes_is_read_back(locale, cents):
    price = Decimal(cents) / 100
    assert parse_price_cell(format_decimal(price, locale=locale), locale) == float(price)
    assert parse_price_cell(format_currency(price, "EUR", locale=locale), locale) == float(price)


def test_locales_have_many_spellings_and_a_wrong_one_is_an_error():
    assert check_locale("de-AT") == "de_AT"
    with pytest.raises(ConfigError, match="no locale 'klingon'"):
        check_locale("klingon")

"""File names, cells and numbers of exports: safe for every file system and spreadsheet, and read back as they were."""

import pytest

from appraiser.data.exports.cells import escape, unescape
from appraiser.data.exports.csv_table import number_text
from appraiser.data.exports.names import picture_stem
from appraiser.data.prices import parse_price_cell

CODES = ["P001", "NVPROD4020070V/M46354", "../../x", "CON", "nul", "a\0b", "é", "e\u0301", "a1", "A1", "x" * 4096,
         "=1+1", "C:\\x", ".", "\u202eabc"]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"), ("+1 555", "'+1 555"), ("-x", "'-x"), ("@a", "'@a"), ("\t=1", "'\t=1"), ("\r", "'\r"),
        ("＝1", "'＝1"), ("'=1", "''=1"), ("''@", "'''@"), ("-", "'-"), ("-1+2", "'-1+2"), ("-2-3", "'-2-3"),
        ("-5", "-5"), ("+3.2e4", "+3.2e4"), ("-1.290,00", "-1.290,00"), ("-.5", "-.5"), ("'tis", "'tis"),
        ("a=1", "a=1"), ("", ""), ("1-2", "1-2"), (" =1", " =1"),
    ],
)  # fmt: skip
def test_only_what_a_spreadsheet_would_run_is_marked(text, cell):
    assert escape(text) == cell
    assert unescape(cell) == text


@pytest.mark.parametrize("code", [*CODES, "CON1", "COM1", "P-1", "-P", "", "..", "a.b", "P001 ", "P_1", "LPT0"])
def test_names_of_pictures_are_safe_everywhere(code):
    name = picture_stem(code)
    assert name.replace("-", "").replace("_", "").isalnum()
    assert name.isascii()
    assert 0 < len(name) < 100
    assert name.upper() not in {"CON", "NUL", "COM1", "LPT0"}
    assert picture_stem(code, 1) == f"{name}_2"


def test_every_code_has_a_name_of_its_own_whatever_the_case():
    codes = [*CODES, "P001-2", "P001_2", "p001", "NUL", "Nul", "x" * 4095]
    codes.append(picture_stem("a1").upper())
    names = [picture_stem(code, number).lower() for code in codes for number in (0, 1)]
    assert len(set(names)) == len(names)
    assert picture_stem("80740821") == "80740821"


@pytest.mark.parametrize(
    "price", [1.125, 999.999, 1290.0, 0.01, 9_999_999_999_999.0, 109.99, 0.1 + 0.2, 12.3456, 5e-3 + 1e-9]
)
def test_a_price_is_written_so_that_it_is_read_as_the_same_number(price):
    assert parse_price_cell(number_text(price, is_price=True)) == price


def test_numbers_are_written_in_plain_digits():
    assert [number_text(value) for value in (5.0, 1e-7, 2**62, -2.5, 1e15)] == [
        "5.0", "0.0000001", str(2**62), "-2.5", "1000000000000000.0",
    ]  # fmt: skip

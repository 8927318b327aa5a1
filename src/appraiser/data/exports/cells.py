"""Texts of a CSV that a spreadsheet would take for a formula: marked with a leading ', and read back without it.

Excel, LibreOffice and Google Sheets run a cell that begins with = + - @ or a control character; the ' in front is what
OWASP's "CSV injection" page recommends. Numbers stay as they are: -5, -1,50 and +3.2e4 are no formulas.
"""

from __future__ import annotations

import re

# Quotes in front count, so that a text which really begins with '= comes back as it was.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
_NUMBER = re.compile(r"[+-]?\.?[0-9][0-9.,]*([eE][+-]?[0-9]+)?")


def escape(text: str) -> str:
    """The text as a cell that no spreadsheet runs."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def unescape(cell: str) -> str:
    """The text of an escaped cell."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell

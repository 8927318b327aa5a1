"""Text and numbers of the data as people and browsers can read them."""

from __future__ import annotations

import html

# A title or answer longer than this is cut, and says so: one broken row must not make the page unreadable.
MAX_TEXT = 400


def amount(price: float, currency: str | None = None) -> str:
    """`1,290 USD`; decimals only where there are cents, and none above 1,000 million."""
    if not abs(price) < 1e9:
        text = f"{price:.3g}"
    else:
        text = f"{price:,.0f}" if round(price * 100) % 100 == 0 else f"{price:,.2f}"
    return f"{text} {currency}" if currency else text


def escape(text: object) -> str:
    """Any text of the data as HTML, quotes included, so that it is safe in attributes too."""
    return html.escape(str(text), quote=True)


def shorten(text: str) -> str:
    """The text, cut where it is absurdly long; the cut says how much is missing."""
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}… ({len(text) - MAX_TEXT:,} more characters)"

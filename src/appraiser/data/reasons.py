"""The closed list of reasons for which a row is left out of a data set."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Literal, get_args

from appraiser.errors import ConfigError

RowReason = Literal[
    "no_title", "no_category", "no_currency", "no_image", "bad_price", "bad_text", "missing_file", "dropped"
]
"""Something is wrong with the table's own values, or the user dropped the row."""
TableReason = Literal["duplicate_id", "placeholder"]
"""Something is wrong with rows together, seen when all of them are read."""
FetchReason = Literal[
    "bad_url", "dns", "blocked_address", "robots", "opted_out", "connection", "timeout", "http_4xx", "http_5xx",
    "rate_limited", "redirects", "too_large", "host_down",
]  # fmt: skip
"""A picture could not be fetched, or must not be."""
PictureReason = Literal[
    "empty", "too_large", "not_an_image", "unsupported_format", "too_many_pixels", "too_thin", "truncated"
]
"""Bytes that are no picture that can be used."""
DecodeReason = Literal["decoder_died", "decode_timeout", "out_of_memory"]
"""A picture that its decoder did not survive."""

Reason = RowReason | TableReason | FetchReason | PictureReason | DecodeReason
REASONS: tuple[str, ...] = tuple(
    dict.fromkeys(
        reason
        for kind in (RowReason, TableReason, FetchReason, PictureReason, DecodeReason)
        for reason in get_args(kind)
    )
)


def check_reasons(names: Sequence[str]) -> None:
    """Refuse names that are no reasons.

    Raises:
        ConfigError: one of them is not in the list.
    """
    for name in names:
        if name not in REASONS:
            nearest = difflib.get_close_matches(name, REASONS, n=1)
            raise ConfigError(
                f"there is no reason {name!r}" + (f"; did you mean {nearest[0]}?" if nearest else ""),
                where=f"--retry {','.join(names)}",
                fix=f"choose from {', '.join(REASONS)}",
            )

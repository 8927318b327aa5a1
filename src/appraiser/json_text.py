"""Documents as JSON that every reader takes: report.json, and what commands print with `--json`."""

from __future__ import annotations

import json
import math
from typing import Any


def json_text(document: Any) -> str:
    """Indented JSON, null for numbers that JSON does not know: the loss of a training that diverged is not finite."""
    return json.dumps(_writable(document), ensure_ascii=False, indent=2, allow_nan=False)


def json_line(document: Any) -> str:
    """The same on one line, without the line break."""
    return json.dumps(_writable(document), ensure_ascii=False, allow_nan=False)


def _writable(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {name: _writable(item) for name, item in value.items()}
        case list() | tuple():
            return [_writable(item) for item in value]
    return value

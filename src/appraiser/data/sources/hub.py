"""Data sets of the Hub."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from appraiser.data.sources.source import Source
from appraiser.errors import DataError


def open_hub(name: str) -> Source:
    """Open the train split of `owner/name`."""
    from datasets import Image as ImageFeature
    from datasets import load_dataset

    try:
        loaded = load_dataset(name, split="train")
    except Exception as error:  # the Hub client raises some fifteen kinds; all mean the same to the user
        raise DataError(
            f"cannot load {name} from the Hub: {(str(error) or type(error).__name__).splitlines()[0][:300]}",
            fix="check the name and the network, or HF_ENDPOINT; a private set needs a token (hf auth login)",
        ) from error
    for column, feature in loaded.features.items():
        if isinstance(feature, ImageFeature):
            loaded = loaded.cast_column(column, ImageFeature(decode=False))
    licence = loaded.info.license or None

    def rows() -> Iterator[tuple[int, dict[str, Any]]]:
        return ((number, dict(row)) for number, row in enumerate(loaded, start=1))

    # The fingerprint follows the files' content and what was done to it.
    version = hashlib.sha256(f"{name} {loaded._fingerprint}".encode()).hexdigest()
    return Source(f"hub:{name}", tuple(loaded.column_names), rows, None, version, licence)

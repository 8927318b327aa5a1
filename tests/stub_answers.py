"""A stand-in for a model in tests of batch prediction: it answers from the pixels alone, and at once."""

from __future__ import annotations

import csv
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from appraiser.data.building.decoding import Undecodable
from appraiser.data.fetch import FetchPolicy
from appraiser.predicting.inputs import open_inputs
from appraiser.predicting.run import Written, here, write_predictions


def answer(pictures: Sequence[Sequence[Image.Image]]) -> list[dict[str, Any]]:
    """What can be told apart: the number of pictures, and the colours of each corner."""
    return [
        {
            "title": " ".join("".join(f"{level:02x}" for level in picture.getpixel((0, 0))) for picture in row),
            "price": float(row[0].getpixel((row[0].width - 1, row[0].height - 1))[0]),
            "count": len(row),
        }
        for row in pictures
    ]


def write_stub(
    source: Path,
    out: Path,
    policy: FetchPolicy | None = None,
    rows_at_once: int = 64,
    pause_s: float = 0.0,
    **more: Any,
) -> Written:
    """Predict by the stand-in."""
    inputs = open_inputs(source)

    def slowly(pictures: Sequence[Sequence[Image.Image]]) -> list[dict[str, Any]]:
        time.sleep(pause_s)
        return answer(pictures)

    work = here(lambda: slowly, policy or FetchPolicy(), inputs.source, rows_at_once)
    return write_predictions(inputs, work, out, {"model": "stub"}, **more)


def make_table(folder: Path, num_rows: int, num_pictures: int = 50) -> Path:
    """A CSV of so many rows; pictures are used again and again, some are missing or damaged."""
    from shop_server import picture

    folder.mkdir()
    for number in range(num_pictures):
        (folder / f"{number}.jpg").write_bytes(picture(number)[: 300 if number == 13 else None])
    table = folder / "products.csv"
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "image"])
        for number in range(num_rows):
            name = "nowhere.jpg" if number % 101 == 7 else f"{number * 7 % num_pictures}.jpg"
            writer.writerow([f"P{number}", name])
    return table


def dangerous(pictures: list[bytes]) -> Undecodable:
    """Stands in for a decoder with holes: one picture ends its process, another one never ends."""
    if pictures[0].endswith(b"deadly"):
        os._exit(7)
    if pictures[0].endswith(b"endless"):
        time.sleep(60)
    return Undecodable("truncated", "as all others")


def tell(done: int, total: int) -> None:
    """Progress for who started this process."""
    print(done, flush=True)


if __name__ == "__main__":  # SOURCE OUT ROWS_AT_ONCE PAUSE: what tests start and kill
    write_stub(
        Path(sys.argv[1]), Path(sys.argv[2]), rows_at_once=int(sys.argv[3]), pause_s=float(sys.argv[4]), progress=tell
    )

"""Predict a picture, a folder of pictures or a table of picture paths: one row out per picture in."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from appraiser.data.pictures import PictureError, decode, read_bytes
from appraiser.data.records import guess_fields
from appraiser.data.sources import PICTURE_SUFFIXES, open_source
from appraiser.errors import DataError
from appraiser.predict import Predictor

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
OUTPUT_SUFFIXES = (".csv", ".jsonl", ".parquet")
PICTURES_AT_ONCE = 256


def predict_source(
    model: str | Path,
    source: Path,
    progress: Callable[[int, int], None] | None = None,
    *,
    closed: Sequence[str] = (),
    answer_share: float | None = None,
) -> list[dict[str, Any]]:
    """Answer for every picture of `source`; for `closed` and `answer_share` see `Predictor`.

    Returns:
        One dict per input, in order: `picture`, then the prediction; or `picture` and `error` for an unreadable one.

    Raises:
        DataError: no pictures there.
        CheckpointError: no model there.
    """
    paths = picture_paths(source)
    predictor = Predictor.load(model, closed=closed, answer_share=answer_share)
    rows: list[dict[str, Any]] = []
    for start in range(0, len(paths), PICTURES_AT_ONCE):
        rows += _predict(predictor, paths[start : start + PICTURES_AT_ONCE])
        if progress:
            progress(len(rows), len(paths))
    return rows


def picture_paths(source: Path) -> list[tuple[str, Path]]:
    """(name as the user wrote it, file) of every picture of a picture, a folder or a table."""
    if source.suffix.lower() in TABLE_SUFFIXES and source.is_file():
        return _paths_of_table(source)
    if source.is_dir():
        found = sorted(path for path in source.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
        if not found:
            raise DataError(f"no pictures in {source}", fix=f"it needs files ending in {', '.join(PICTURE_SUFFIXES)}")
        return [(str(path), path) for path in found]
    if not source.is_file():
        raise DataError(f"no picture, folder or table at {source}", fix="check the path")
    return [(str(source), source)]


def _paths_of_table(table: Path) -> list[tuple[str, Path]]:
    opened = open_source(str(table))
    fields = guess_fields(opened.columns, {}, table.name, needs_labels=False)
    paths = []
    for number, row in opened.rows():
        place = fields.value(row, "image")
        place = place.get("path") if isinstance(place, Mapping) else place  # in exports of ours
        if not isinstance(place, str) or "://" in place:
            raise DataError(
                f"row {number} has no picture path but {place!r}",
                where=str(table),
                fix="download the pictures first and give paths relative to the table",
            )
        paths.append((place, table.parent / place))
    if not paths:
        raise DataError(f"{table} has no rows", fix="the table needs one row per picture")
    return paths


def _predict(predictor: Predictor, paths: Sequence[tuple[str, Path]]) -> list[dict[str, Any]]:
    images: list[Image.Image] = []
    rows: list[dict[str, Any]] = []
    for name, path in paths:
        try:
            images.append(decode(read_bytes(path)))
            rows.append({"picture": name})
        except PictureError as error:
            rows.append({"picture": name, "error": f"{error.reason}: {error.what}"})
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            rows.append({"picture": name, "error": f"missing_file: {getattr(error, 'strerror', None) or error}"})
    answers = iter(predictor.predict(images) if images else [])
    for row in rows:
        if "error" not in row:
            row |= next(answers).as_dict()
    return rows


def check_output(out: Path) -> None:
    """Refuse an output that could not be written, before anything is computed."""
    if out.suffix not in OUTPUT_SUFFIXES:
        raise DataError(f"cannot write {out.name}", fix="end the name in .csv, .jsonl or .parquet")
    if out.is_dir():
        raise DataError(f"{out} is a folder", fix="name a file")


def write_rows(rows: Sequence[dict[str, Any]], out: Path) -> None:
    """Write predictions as .csv, .jsonl or .parquet, whole or not at all."""
    check_output(out)
    temporary = out.with_name(f".{out.name}.writing")
    names = list(dict.fromkeys(key for row in rows for key in row))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix == ".csv":
            with temporary.open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, names)
                writer.writeheader()
                writer.writerows(rows)
        elif out.suffix == ".jsonl":
            temporary.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        else:
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.Table.from_pylist([{name: row.get(name) for name in names} for row in rows]), temporary)
        temporary.replace(out)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DataError(f"cannot write {out}: {error.strerror}", fix="check space and permissions") from error

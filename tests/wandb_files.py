"""Reads W&B's offline files back: records of a run, and tables with the pictures in them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK = 32 * 1024
FILE_HEADER, RECORD_HEADER = 7, 7
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4


@dataclass
class OfflineRun:
    """What one .wandb file holds."""

    run_id: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    artifacts: list[Any] = field(default_factory=list)
    exit_code: int | None = None

    @property
    def keys(self) -> set[str]:
        return {key for line in self.history for key in line if not key.startswith("_")}

    def artifact(self, kind: str) -> Any:
        [found] = [artifact for artifact in self.artifacts if artifact.type == kind]
        return found


def offline_runs(run: Path) -> list[OfflineRun]:
    """The W&B runs below a run folder, in the order in which they began."""
    files = [path for path in (run / "wandb").glob("*run-*/*.wandb") if not path.parent.is_symlink()]
    return [read(path) for path in sorted(files, key=lambda path: path.stat().st_ctime_ns)]


def read(path: Path) -> OfflineRun:
    from wandb.proto.wandb_internal_pb2 import Record

    found = OfflineRun()
    for data in records(path.read_bytes()):
        record = Record.FromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found.run_id = record.run.run_id
            found.config |= _items(record.run.config.update)
        elif kind == "history":
            found.history.append(_items(record.history.item))
        elif kind == "artifact":
            found.artifacts.append(record.artifact)
        elif kind == "request" and record.request.WhichOneof("request_type") == "log_artifact":
            found.artifacts.append(record.request.log_artifact.artifact)
        elif kind == "exit":
            found.exit_code = record.exit.exit_code
    return found


def _items(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def records(data: bytes) -> Iterator[bytes]:
    """Records of a LevelDB log; one that was cut at the end is left out."""
    place, parts = FILE_HEADER, b""
    while place + RECORD_HEADER <= len(data):
        if BLOCK - place % BLOCK < RECORD_HEADER:  # too small for another header
            place += BLOCK - place % BLOCK
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        body = data[place + RECORD_HEADER : place + RECORD_HEADER + length]
        place += RECORD_HEADER + length
        if kind not in (WHOLE, FIRST, MIDDLE, LAST) or len(body) < length:
            return
        parts = body if kind in (WHOLE, FIRST) else parts + body
        if kind in (WHOLE, LAST):
            yield parts


def staged_tables(run: Path) -> list[dict[str, Any]]:
    """Tables that wait for their upload; each of their pictures has the path of its file under `file`."""
    staged = [path for path in (run / "wandb/artifacts/staging").iterdir() if path.is_file()]
    contents = {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in staged}
    tables = [json.loads(path.read_text()) for path in staged if path.read_bytes().startswith(b'{"_type": "table"')]
    for table in tables:
        for row in table["data"]:
            for cell in row:
                if isinstance(cell, dict) and "sha256" in cell:
                    cell["file"] = contents[cell["sha256"]]
    return tables

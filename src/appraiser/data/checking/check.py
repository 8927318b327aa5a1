"""Check a data set: measure every picture, look for issues, and write what was found as JSON and as a page.

Records are read in a stream and measured in worker processes; only small values per row stay in memory.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from appraiser import __version__
from appraiser.data.checking.findings import Findings
from appraiser.data.checking.issues import KINDS, Issue, find_issues
from appraiser.data.checking.measures import Measured, measure
from appraiser.data.checking.probes import Probe, probe_shortcuts
from appraiser.data.checking.profile import ColumnCounts, profile
from appraiser.data.dataset import SPLIT_NAMES, ProductDataset, open_dataset
from appraiser.data.records import ProductRecord
from appraiser.data.task import Task

CHECK_FORMAT = 1
CHUNK = 16
MIN_RECORDS_FOR_WORKERS = 200
"""Below, starting processes takes longer than the work."""


@dataclass(frozen=True)
class CheckResult:
    """What a check found.

    Args:
        tokenizer: model whose tokens are counted.
        left_out: rows of the quarantine: row, reason, detail.
    """

    dataset: ProductDataset
    tokenizer: str
    findings: Findings
    issues: list[Issue]
    probes: list[Probe]
    profile: dict[str, Any]
    left_out: list[dict[str, Any]]

    @property
    def counts(self) -> dict[str, int]:
        """Issues of each kind, in the order of `KINDS`; kinds without any are left out."""
        found = Counter(issue.kind for issue in self.issues)
        return {kind: found[kind] for kind in KINDS if found[kind]}

    @property
    def num_concerned(self) -> int:
        """Records that some issue is about."""
        return len({place for issue in self.issues for place in issue.places})

    @property
    def currencies(self) -> dict[str, int]:
        """How many prices are in each currency, the most common first."""
        found = zip(self.findings.prices, self.findings.currencies, strict=True)
        return dict(Counter(currency for price, currency in found if price and currency).most_common())

    @property
    def mixed_prices(self) -> str | None:
        """What a reader has to know where prices are in several currencies."""
        if len(self.currencies) < 2:
            return None
        counts = ", ".join(f"{count:,} {currency}" for currency, count in self.currencies.items())
        return (
            f"prices are in {len(self.currencies)} currencies ({counts}): outliers are looked for in each by itself, "
            "but shortcuts, prices by category and what explains the price compare them as plain numbers"
        )

    def as_json(self) -> dict[str, Any]:
        """The document that `check.json` holds."""
        manifest = self.dataset.manifest
        return {
            "format": CHECK_FORMAT,
            "appraiser": __version__,
            "dataset": str(self.dataset.folder),
            "dataset_sha256": manifest.content_sha256,
            "tokenizer": self.tokenizer,
            "records": len(self.findings),
            "pictures": self.findings.num_pictures,
            "splits": manifest.splits,
            "currencies": self.currencies,
            "left_out": manifest.quarantined_by_reason,
            "issues": self.counts,
            "records_with_issues": self.num_concerned,
            "found": [self._entry(issue) for issue in self.issues],
            "shortcuts": [asdict(probe) | {"warns": probe.warns} for probe in self.probes],
            "profile": self.profile,
        }

    def _entry(self, issue: Issue) -> dict[str, Any]:
        entry: dict[str, Any] = {"kind": issue.kind, "ids": [self.findings.ids[place] for place in issue.places]}
        if issue.picture:
            entry["picture"] = issue.picture
        return entry | {"detail": issue.detail}


def check_dataset(
    folder: str | Path,
    *,
    model: str = "phi3v-tiny",
    num_workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> CheckResult:
    """Check a data set folder.

    Args:
        model: whose tokenizer and processor say what titles and pictures cost.
        num_workers: processes that measure; above 1 they are spawned, so a calling script needs a `__main__` guard.
        progress: called with the number of records done.

    Raises:
        DataError: no data set there, or a damaged one.
        CheckpointError: no such model.
    """
    from appraiser.backbone import load_reader

    dataset = open_dataset(folder)
    manifest = dataset.manifest
    reader, task = load_reader(model, num_crops=manifest.num_crops), Task(fields=manifest.task_fields)
    findings, columns = Findings(), ColumnCounts()
    for split, record, measured in _measured(dataset, num_workers):
        columns.see(record)
        answer = len(reader.completion_ids(task.format(record.values(manifest.task_fields))))
        findings.add(split, record, measured, len(reader.text_ids(record.title or "")), answer)
        if progress and len(findings) % CHUNK == 0:
            progress(len(findings))
    left_out = pq.read_table(dataset.folder / "quarantine.parquet").to_pylist()
    return CheckResult(
        dataset=dataset,
        tokenizer=model,
        findings=findings,
        issues=find_issues(findings),
        probes=probe_shortcuts(findings),
        profile=profile(findings, columns, manifest, reader.num_image_tokens),
        left_out=left_out,
    )


def save_check(result: CheckResult, out: Path) -> Path:
    """Write `check.json` and `check.html`; returns the page's path."""
    from appraiser.data.checking.page import render_check

    out.mkdir(parents=True, exist_ok=True)
    page = out / "check.html"
    page.write_text(render_check(result), encoding="utf-8")
    text = json.dumps(result.as_json(), ensure_ascii=False, indent=2)
    (out / "check.json").write_text(text + "\n", encoding="utf-8")
    return page


def _records(dataset: ProductDataset) -> Iterator[tuple[str, ProductRecord]]:
    for split in SPLIT_NAMES:
        if dataset.manifest.splits[split]:
            yield from ((split, record) for record in dataset.stream(split))


def _measured(dataset: ProductDataset, num_workers: int) -> Iterator[tuple[str, ProductRecord, list[Measured | str]]]:
    """Every record with the measures of its pictures, in order; some chunks are on their way at a time."""
    records = _records(dataset)
    if num_workers == 1 or dataset.manifest.ok < MIN_RECORDS_FOR_WORKERS:
        yield from ((split, record, [measure(data) for data in record.images]) for split, record in records)
        return
    with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as pool:
        waiting: deque[tuple[list[tuple[str, ProductRecord]], Future[list[list[Measured | str]]]]] = deque()
        try:
            while chunk := list(islice(records, CHUNK)):
                waiting.append((chunk, pool.submit(_measure_all, [record.images for _, record in chunk])))
                if len(waiting) > 2 * num_workers:
                    yield from _results(*waiting.popleft())
            while waiting:
                yield from _results(*waiting.popleft())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _results(
    chunk: list[tuple[str, ProductRecord]], future: Future[list[list[Measured | str]]]
) -> Iterator[tuple[str, ProductRecord, list[Measured | str]]]:
    for (split, record), measured in zip(chunk, future.result(), strict=True):
        yield split, record, measured


def _measure_all(pictures: list[tuple[bytes, ...]]) -> list[list[Measured | str]]:
    return [[measure(data) for data in images] for images in pictures]

"""The whole road: rows in, one row each out, in order, each exactly once.

inputs ─▶ rows that are not finished ─▶ work: loaded and answered, here or on a cluster ─▶ ledger ─▶ output file

Work is done in parts, in any order; what it gives is written down at once. The file is written when every row is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from appraiser import __version__
from appraiser.data.fetch import FetchPolicy
from appraiser.data.sources import Source
from appraiser.errors import AppraiserError, ConfigError
from appraiser.json_text import json_line
from appraiser.predicting.answering import Answer, answered
from appraiser.predicting.inputs import InputRow, Inputs, open_inputs
from appraiser.predicting.ledger import Ledger
from appraiser.predicting.loading import Loader, parts
from appraiser.predicting.outputs import check_output, in_order, write_rows

if TYPE_CHECKING:
    from appraiser.predicting.models import ModelFiles, Settings

Batch = list[tuple[int, dict[str, Any]]]
"""(position, row of the output) of rows that are finished."""
Work = Callable[[Iterator[InputRow]], Iterable[Batch]]
"""Finishes rows, each once, in any order."""
Progress = Callable[[int, int], None]
"""Called with the number of rows that are finished, and of all."""


@dataclass(frozen=True)
class Written:
    """What became of the rows.

    Args:
        resumed: rows that were finished by an earlier start.
    """

    rows: int
    failed: int
    resumed: int


@dataclass(frozen=True)
class Options:
    """How a run is done; nothing here changes an answer."""

    fetch: FetchPolicy = field(default_factory=FetchPolicy)
    on: Literal["ray"] | None = None
    num_workers: int | None = None


def predict_source(
    model: str | Path,
    source: Path,
    progress: Progress | None = None,
    *,
    closed: Sequence[str] = (),
    answer_share: float | None = None,
    mapping: Mapping[str, Sequence[str]] | None = None,
    options: Options = Options(),
) -> list[dict[str, Any]]:
    """Answer for every row of `source`; for `closed` and `answer_share` see `Predictor`.

    Returns:
        One dict per input, in order: `picture`, `id` where the table has one, then the prediction; or `error`.

    Raises:
        DataError: no pictures there.
        CheckpointError: no model there.
    """
    inputs = open_inputs(source, mapping)
    # Here, as it brings torch: whoever names a wrong source need not wait for that.
    from appraiser.predicting.models import Settings, model_files

    files = model_files(model)
    with _working(model, Settings(tuple(closed), answer_share), inputs, files, options) as work:
        return predict_rows(inputs, work, progress)


def predict_to_file(
    model: str | Path,
    source: Path,
    out: Path,
    progress: Progress | None = None,
    *,
    closed: Sequence[str] = (),
    answer_share: float | None = None,
    mapping: Mapping[str, Sequence[str]] | None = None,
    fresh: bool = False,
    options: Options = Options(),
) -> Written:
    """As `predict_source`, into a .csv, .jsonl or .parquet file; goes on where an earlier start was ended.

    Args:
        fresh: throw away what an earlier start has finished.

    Raises:
        ConfigError: an earlier start had another source, model or settings; or another process writes this file.
        DataError, CheckpointError: as `predict_source`; or the file cannot be written.
    """
    check_output(out)
    if out.exists() and source.exists() and out.samefile(source):
        raise ConfigError(f"{out} is the table that is read", fix="name another file")
    inputs = open_inputs(source, mapping)
    from appraiser.predicting.models import Settings, model_files

    settings = Settings(tuple(closed), answer_share)
    files = model_files(model)
    facts = {"model": files.fingerprint} | {name: json_line(value) for name, value in asdict(settings).items()}
    with _working(model, settings, inputs, files, options) as work:
        return write_predictions(inputs, work, out, facts | {"appraiser": __version__}, progress, fresh=fresh)


def predict_rows(inputs: Inputs, work: Work, progress: Progress | None = None) -> list[dict[str, Any]]:
    """Rows of the output, in memory."""
    finished: dict[int, dict[str, Any]] = {}
    if progress:
        progress(0, inputs.total)
    for batch in work(inputs.rows()):
        finished |= batch
        if progress:
            progress(len(finished), inputs.total)
    _check(len(finished), inputs.total)
    return list(map(dict, in_order(finished)))


def write_predictions(
    inputs: Inputs,
    work: Work,
    out: Path,
    facts: Mapping[str, str],
    progress: Progress | None = None,
    *,
    fresh: bool = False,
) -> Written:
    """Bring rows through the ledger into a file.

    Args:
        facts: what answers depend on, besides the source: name -> value.
    """
    check_output(out)
    facts = {"source": inputs.sha256, "columns": inputs.fields.describe()} | dict(facts)
    with Ledger(out, facts, fresh=fresh) as ledger:
        done = ledger.done(inputs.total)
        num_done = num_resumed = sum(done)
        if progress:
            progress(num_done, inputs.total)
        if num_done < inputs.total:
            for batch in work(row for row in inputs.rows() if row.position >= len(done) or not done[row.position]):
                ledger.write(batch)
                num_done += len(batch)
                if progress:
                    progress(num_done, inputs.total)
        _check(num_done, inputs.total)
        write_rows(ledger.rows, out)
        failed = ledger.num_failed()
        ledger.remove()
    return Written(num_done, failed, num_resumed)


def here(load: Callable[[], Answer], policy: FetchPolicy, source: Source, rows_at_once: int) -> Work:
    """Work on this machine: pictures of the next rows are loaded while the model answers.

    Args:
        load: gives what answers; called while the first pictures are loaded.
    """

    def work(rows: Iterator[InputRow]) -> Iterator[Batch]:
        with Loader(policy, source) as loader:
            loaded = loader.load(rows, rows_at_once)
            answer = load()
            for part in parts(loaded, rows_at_once):
                yield answered(part, answer)

    return work


def _working(
    model: str | Path, settings: Settings, inputs: Inputs, files: ModelFiles, options: Options
) -> AbstractContextManager[Work]:
    if options.on == "ray":
        from appraiser.predicting.on_ray import working_on_ray

        return working_on_ray(str(model), settings, files, options.fetch, inputs.source, options.num_workers)
    from appraiser.predicting.models import model_answer

    return nullcontext(here(lambda: model_answer(model, settings), options.fetch, inputs.source, files.rows_at_once))


def _check(num_done: int, total: int) -> None:
    if num_done != total:
        raise AppraiserError(
            f"{num_done} of {total} rows have an answer: the source changed meanwhile",
            fix="start again when it stays as it is",
        )

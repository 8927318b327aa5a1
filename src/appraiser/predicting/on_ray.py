"""The same on a Ray cluster: workers load the model once and answer blocks of rows; all else stays with the driver.

here: rows, pictures read and fetched ─▶ workers: decoded, answered ─▶ here: ledger, output

Only bytes and answers travel; workers need the model (under the same path, or of the Hub) and nothing else: what one
machine keeps towards other people's servers, it keeps with any number of workers.
Blocks are handed out as workers get free, so neither side holds the table. Ray begins a worker that died again, and its
blocks; the driver writes down each block once. These are Ray's actors and not Ray Data, which takes rows from memory or
from files that all machines see: with a pass over each part of the table, each pass would load the model anew.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby, islice
from typing import Any

import PIL
import torch

from appraiser import __version__
from appraiser.cluster import connected
from appraiser.data.fetch import FetchPolicy
from appraiser.data.sources import Source
from appraiser.errors import ConfigError
from appraiser.predicting.answering import answered
from appraiser.predicting.inputs import InputRow
from appraiser.predicting.loading import Loader, parts
from appraiser.predicting.models import ModelFiles, Settings, model_answer, model_files
from appraiser.predicting.run import Batch, Work

BLOCKS_PER_WORKER = 2
"""One is answered while the pictures of the other are loaded."""
DECODERS_PER_WORKER = 1
MAX_DEATHS = 3
"""So often a worker may die, and a block be begun again, before the run ends; what was done is kept."""
VERSIONS = {"appraiser": __version__, "Pillow": PIL.__version__, "torch": str(torch.__version__)}
"""Other versions could answer otherwise."""


@contextmanager
def working_on_ray(
    model: str, settings: Settings, files: ModelFiles, policy: FetchPolicy, source: Source, num_workers: int | None
) -> Iterator[Work]:
    """Connect to Ray's cluster (see `cluster.connected`); gives the work that is done there.

    Args:
        num_workers: unset: one per GPU, or one on a cluster without any.

    Raises:
        MissingDependencyError, ConfigError, AppraiserError: as `cluster.connected`; or too many workers.
    """
    with connected("predicting") as ray:
        resources = ray.cluster_resources()
        kind = "GPU" if resources.get("GPU", 0) >= 1 else "CPU"
        most = int(resources.get(kind, 1))
        wanted = num_workers or (most if kind == "GPU" else 1)
        if wanted > most:
            raise ConfigError(f"the cluster has {most} {kind}(s), too few for {wanted} workers", where="--workers")

        def work(rows: Iterator[InputRow]) -> Iterator[Batch]:
            remote = ray.remote(
                max_restarts=MAX_DEATHS,
                max_task_retries=MAX_DEATHS,
                max_concurrency=BLOCKS_PER_WORKER,
                **({"num_gpus": 1} if kind == "GPU" else {"num_cpus": 1}),
            )(Worker)
            arguments = (model, settings, files.fingerprint, files.rows_at_once, VERSIONS)
            workers = [remote.remote(*arguments) for _ in range(wanted)]
            try:
                with Loader(policy, source) as loader:
                    gathered = loader.gather(rows, files.rows_at_once)
                    yield from _handed_out(ray, workers, blocks(gathered, files.rows_at_once))
            finally:
                for worker in workers:
                    ray.kill(worker)

        yield work


def blocks(rows: Iterable[InputRow], rows_at_once: int) -> Iterator[list[InputRow]]:
    """Rows in the blocks whose parts one machine would answer together."""
    return (list(block) for _, block in groupby(rows, lambda row: row.position // rows_at_once))


def _handed_out(ray: Any, workers: list[Any], waiting: Iterator[list[InputRow]]) -> Iterator[Batch]:
    under_way = {
        worker.answer.remote(block): worker
        for worker, block in zip(
            workers * BLOCKS_PER_WORKER, islice(waiting, len(workers) * BLOCKS_PER_WORKER), strict=False
        )
    }
    while under_way:
        (done, *_), _ = ray.wait(list(under_way), num_returns=1)
        worker = under_way.pop(done)
        batch: Batch = ray.get(done)
        for block in islice(waiting, 1):
            under_way[worker.answer.remote(block)] = worker
        yield batch


class Worker:
    """What runs on the cluster: a loaded model, a loader of pictures, and a process that decodes.

    Raises:
        ConfigError: another version of what makes the answers, or another model under the same name.
    """

    def __init__(
        self,
        model: str,
        settings: Settings,
        fingerprint: str,
        rows_at_once: int,
        versions: Mapping[str, str],
    ) -> None:
        if versions != VERSIONS:
            raise ConfigError(f"a worker has {VERSIONS}, the driver {dict(versions)}")
        if model_files(model).fingerprint != fingerprint:
            raise ConfigError(f"a worker finds another model at {model}", fix="put the same one on all machines")
        self._loader = Loader(FetchPolicy(), None, DECODERS_PER_WORKER).__enter__()
        self._answer = model_answer(model, settings)
        self._rows_at_once = rows_at_once
        self._model_is_free = threading.Lock()

    def answer(self, block: list[InputRow]) -> Batch:
        """All rows of a block; several blocks are loaded at once, and answered one after the other."""
        batch: Batch = []
        for part in parts(self._loader.load(block, len(block)), self._rows_at_once):
            with self._model_is_free:
                batch += answered(part, self._answer)
        return batch

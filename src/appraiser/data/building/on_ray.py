"""Fetching and decoding on a Ray cluster: Ray Data hands rows to workers, and their states come back in any order.

here: rows checked, files read ─▶ workers: pictures fetched and decoded ─▶ here: ledger, each row once

The machine that builds reads the table and the files it names, so nothing but addresses and bytes travels, and workers
need neither the disk nor the ledger. A worker that dies is replaced and its rows are done again, by Ray; of a row that
was finished twice the first counts. Limits of fetching are shared out among the workers, so that a host is asked for no
more at a time than by one machine; that is why there are never more workers than pictures allowed from one host.
Robots rules are read, and a host that fails is given up, by each worker for itself.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import PIL

from appraiser import __version__
from appraiser.cluster import connected
from appraiser.data.building.collect import MIN_ON_THE_WAY, Elsewhere, Finished, Pending, finish
from appraiser.data.fetch import Fetcher, FetchPolicy
from appraiser.errors import AppraiserError, ConfigError

ROWS_PER_BLOCK = 16
"""What a worker is handed at a time; Ray Data runs as many coroutines of one block at once."""
DECODERS_PER_WORKER = 1
VERSIONS = {"appraiser": __version__, "Pillow": PIL.__version__}
"""Other versions could decode or store a picture otherwise."""


@contextmanager
def finishing_on_ray(policy: FetchPolicy) -> Iterator[Elsewhere]:
    """Connect to Ray's cluster (see `cluster.connected`); gives the function that finishes rows there."""
    with connected("building") as ray:
        from ray.data import DataContext

        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # its errors are raised as well
        DataContext.get_current().enable_progress_bars = False
        num_workers = num_workers_for(int(ray.cluster_resources().get("CPU", 1)), policy)
        yield lambda waiting: once(waiting, _finished(waiting, num_workers, policy))


def once(waiting: Sequence[Pending], finished: Iterable[Finished]) -> Iterator[Finished]:
    """Every row the first time that it is finished.

    Raises:
        AppraiserError: some were not.
    """
    missing = {pending.row for pending in waiting}
    for one in finished:
        if one.row in missing:
            missing.remove(one.row)
            yield one
    if missing:
        raise AppraiserError(
            f"Ray gave no answer for {len(missing)} rows, {min(missing)} among them",
            fix="start the build again: it goes on where it stopped",
        )


def num_workers_for(num_cpus: int, policy: FetchPolicy) -> int:
    """Workers that all get a share of the limits of fetching."""
    return max(1, min(num_cpus, policy.num_parallel_per_host, policy.num_parallel))


def share_of(policy: FetchPolicy, num_workers: int) -> FetchPolicy:
    """Limits of one worker, which all together keep those of the policy."""
    return replace(
        policy,
        num_parallel=policy.num_parallel // num_workers,
        num_parallel_per_host=policy.num_parallel_per_host // num_workers,
    )


def _finished(waiting: Sequence[Pending], num_workers: int, policy: FetchPolicy) -> Iterator[Finished]:
    """Let Ray Data finish rows, each at least once."""
    import ray.data

    share = share_of(policy, num_workers)
    num_blocks_at_once = -(-max(MIN_ON_THE_WAY, 2 * share.num_parallel) // ROWS_PER_BLOCK)
    workers = ray.data.ActorPoolStrategy(
        min_size=1,
        max_size=num_workers,
        initial_size=num_workers,
        max_tasks_in_flight_per_actor=2 * num_blocks_at_once,
        max_concurrent_calls_per_actor=num_blocks_at_once,
    )
    rows = ray.data.from_items(list(waiting), override_num_blocks=-(-len(waiting) // ROWS_PER_BLOCK))
    finished = rows.map(Worker, fn_constructor_args=(share, VERSIONS), compute=workers, num_cpus=1)
    for row in finished.iter_rows():
        yield row["item"]


class Worker:
    """What runs on the cluster: one event loop with one fetcher, and a process that decodes."""

    def __init__(self, policy: FetchPolicy, versions: Mapping[str, str]) -> None:
        if versions != VERSIONS:
            raise ConfigError(f"a worker has {VERSIONS}, the build {dict(versions)}")
        self._fetcher = Fetcher(policy)

    async def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"item": await finish(row["item"], self._fetcher, DECODERS_PER_WORKER)}

"""Pictures of strangers are decoded in worker processes: one that kills its decoder costs its own row and nothing else.

Workers have a cap on memory and every task a time limit; a worker that dies or hangs is replaced.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import multiprocessing.util
import os
import sys
import types
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from pebble import ProcessExpired, ProcessPool

from appraiser.data.looks import look_of
from appraiser.data.pictures import PictureError, Pixels, StoredPicture, decode, decode_to_pixels, prepare
from appraiser.data.reasons import DecodeReason, PictureReason

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CORES = min(os.cpu_count() or 1, 16)
MAX_SECONDS = 20.0
MAX_MEMORY_BYTES = 2 << 30
"""Address space of a worker beyond what it has at its start. 40 megapixels as floats are half a gigabyte."""


@dataclass(frozen=True)
class Decoded:
    """Pictures of one row, ready to be stored, and the look of the first."""

    pictures: tuple[StoredPicture, ...]
    look: np.ndarray


@dataclass(frozen=True)
class Undecodable:
    """Why a row's pictures cannot be used."""

    reason: PictureReason | DecodeReason
    detail: str


async def decode_apart(pictures: Sequence[bytes], num_workers: int = CORES) -> Decoded | Undecodable:
    """Decode a row's pictures in one of so many worker processes."""
    decoded: Decoded | Undecodable = await _apart(_decode, list(pictures), num_workers)
    return decoded


async def pixels_apart(pictures: Sequence[bytes], num_workers: int = CORES) -> tuple[Pixels, ...] | Undecodable:
    """The pixels of a row's pictures: whoever asked decodes nothing of a stranger's itself."""
    pixels: tuple[Pixels, ...] | Undecodable = await _apart(_pixels, list(pictures), num_workers)
    return pixels


async def _apart(function: Callable[[Any], Any], argument: Any, num_workers: int = CORES) -> Any:
    pool = _pool(num_workers)
    try:
        return await _scheduled(pool, function, argument)
    except RuntimeError:
        # A worker that dies between two tasks, by a lack of memory for instance, ends its pool for good.
        if _pool(num_workers) is pool:
            _pool.cache_clear()
            await asyncio.to_thread(_end, pool)
        return await _scheduled(_pool(num_workers), function, argument)


async def _scheduled(pool: ProcessPool, function: Callable[[Any], Any], argument: Any) -> Any:
    # In a thread, as the first call starts the workers: downloads would stand still for that second.
    task = await asyncio.to_thread(pool.schedule, function, args=[argument], timeout=MAX_SECONDS)
    try:
        return await asyncio.wrap_future(task)
    except TimeoutError:
        return Undecodable("decode_timeout", f"not decoded within {MAX_SECONDS:g} s")
    except ProcessExpired as error:
        return Undecodable("decoder_died", f"the decoder ended with exit code {error.exitcode}")


def _decode(pictures: list[bytes]) -> Decoded | Undecodable:
    try:
        stored = tuple(prepare(data) for data in pictures)
        return Decoded(stored, look_of(decode(stored[0].data)))
    except (PictureError, MemoryError) as problem:
        return _undecodable(problem)


def _pixels(pictures: list[bytes]) -> tuple[Pixels, ...] | Undecodable:
    try:
        return tuple(decode_to_pixels(data) for data in pictures)
    except (PictureError, MemoryError) as problem:
        return _undecodable(problem)


def _undecodable(problem: PictureError | MemoryError) -> Undecodable:
    if isinstance(problem, PictureError):
        return Undecodable(problem.reason, problem.what)
    return Undecodable("out_of_memory", f"needs more than {MAX_MEMORY_BYTES >> 20} MiB to decode")


# Not fork: the parent may hold threads and a model. A fork server starts clean and loads Pillow once.
_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
_CONTEXT: Any = multiprocessing.get_context(_METHOD)


class _Worker(_CONTEXT.Process):
    """A process that does not import the main program once more.

    Others do, so a script without an `if __name__ == "__main__"` would build its data set again in every worker. Ours
    need nothing from it; while they are started, they are shown an empty one.
    """

    @staticmethod
    def _Popen(process: Any) -> Any:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            return _CONTEXT.Process._Popen(process)
        finally:
            sys.modules["__main__"] = main


class _WorkerContext(type(_CONTEXT)):  # type: ignore[misc]
    Process = _Worker


@cache
def _pool(num_workers: int) -> ProcessPool:
    if _METHOD == "forkserver":
        _CONTEXT.set_forkserver_preload(["appraiser.data.building.decoding"])
    pool = ProcessPool(max_workers=num_workers, initializer=_limit_memory, context=_WorkerContext())
    # Not atexit, which processes that multiprocessing started do not run: they would wait for these workers for ever.
    multiprocessing.util.Finalize(None, _end, args=(pool,), exitpriority=100)
    return pool


def _end(pool: ProcessPool) -> None:
    pool.stop()  # type: ignore[no-untyped-call]
    pool.join()


def _limit_memory() -> None:
    if sys.platform != "linux":  # elsewhere the time limit and the pixel cap have to do
        return
    import resource
    from pathlib import Path

    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + MAX_MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

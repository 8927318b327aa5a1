"""The pictures of a table by their looks: how different a set's pictures are, and how near two sets come.

Bits are compared all against all in blocks: 5,000 pictures are 12 million pairs, a second.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from appraiser.data.building.rows import RowProblem, is_url, local_picture, picture_places
from appraiser.data.looks import HASH_BYTES, LOOK_BYTES, MIN_CORRELATION, NEAR_DUPLICATE_BITS, correlation, look_of
from appraiser.data.pictures import PictureError, decode
from appraiser.data.records import FieldMap
from appraiser.data.sources import Source
from appraiser.data.tables import picture_rows

MAX_PICTURES = 5000
ALIKE_BITS = 20
"""Of 256; the nearest unrelated pair of two real picture sets is so far apart."""
_BLOCK = 512


@dataclass(frozen=True)
class PictureSet:
    """The pictures of a table, as far as they could be looked at; one entry per picture in the first three.

    Args:
        rows: row of each picture, counted from 0.
        looks: [n, 800] uint8, see `appraiser.data.looks`.
        digests: SHA-256 of the bytes.
        num_rows, num_missing: rows of the table that have a picture, and rows whose file is not there.
        num_urls, num_unreadable, num_left_out: pictures not looked at: behind a URL, damaged, above MAX_PICTURES.
    """

    rows: tuple[int, ...]
    looks: NDArray[np.uint8]
    digests: tuple[str, ...]
    num_missing: int
    num_urls: int
    num_unreadable: int
    num_left_out: int

    @property
    def hashes(self) -> NDArray[np.bool_]:
        """[n, 256] difference hashes."""
        return np.unpackbits(self.looks[:, :HASH_BYTES], axis=1).astype(np.bool_)


def read_pictures(
    source: Source, fields: FieldMap, num_rows: int, progress: Callable[[int], None] | None = None
) -> PictureSet:
    """Look at the first picture of every row; of evenly chosen rows where there are more than MAX_PICTURES.

    Args:
        progress: called with the number of rows so far.
    """
    step = max(1, -(-num_rows // MAX_PICTURES))
    rows: list[int] = []
    looks: list[NDArray[np.uint8]] = []
    digests: list[str] = []
    num_missing = num_urls = num_unreadable = num_left_out = 0
    for index, row in picture_rows(source, fields):
        if progress:
            progress(index + 1)
        if index % step:
            num_left_out += 1
            continue
        try:
            place = picture_places(row, fields)[0]
            if is_url(place):
                num_urls += 1
                continue
            data = local_picture(place, source)
        except RowProblem:
            num_missing += 1
            continue
        digest = hashlib.sha256(data).hexdigest()
        try:
            looks.append(look_of(decode(data)))
        except PictureError:
            num_unreadable += 1
            continue
        rows.append(index)
        digests.append(digest)
    found = np.stack(looks) if looks else np.zeros((0, LOOK_BYTES), dtype=np.uint8)
    return PictureSet(tuple(rows), found, tuple(digests), num_missing, num_urls, num_unreadable, num_left_out)


def mean_distance(hashes: NDArray[np.bool_]) -> float:
    """Mean number of differing bits over all pairs; two pictures at least.

    A bit that k of n pictures have differs in k (n - k) of the pairs.
    """
    count = len(hashes)
    ones = hashes.sum(axis=0, dtype=np.int64)
    return float((ones * (count - ones)).sum()) / (count * (count - 1) / 2)


def share_alike(hashes: NDArray[np.bool_], max_bits: int = ALIKE_BITS) -> float:
    """Share of the pairs that differ in at most `max_bits` bits."""
    count = len(hashes)
    near = sum(int((block <= max_bits).sum()) for block in _blocks(hashes, hashes))
    return (near - count) / (count * (count - 1))


def nearest(hashes: NDArray[np.bool_], others: NDArray[np.bool_], *, is_same: bool = False) -> NDArray[np.int64]:
    """[n] bits to the nearest of the others.

    Args:
        is_same: both are one set, and a picture is not its own neighbour.
    """
    found: list[NDArray[np.int64]] = []
    start = 0
    for block in _blocks(hashes, others):
        if is_same:
            own = np.arange(len(block))
            block[own, start + own] = hashes.shape[1] + 1
        found.append(block.min(axis=1))
        start += len(block)
    return np.concatenate(found)


def near_copies(sample: PictureSet, real: PictureSet) -> list[tuple[int, int]]:
    """(row of the sample, row of the real table) of near duplicates, as `appraiser.data.looks` defines them.

    Pictures with hardly a mark (blank ones) are left out: they are near everything that is blank.
    """
    hashes, others = sample.hashes, real.hashes
    marked = [bits.sum(axis=1) > 2 * NEAR_DUPLICATE_BITS for bits in (hashes, others)]
    pairs: list[tuple[int, int]] = []
    start = 0
    for block in _blocks(hashes, others):
        close = (block <= NEAR_DUPLICATE_BITS) & marked[0][start : start + len(block), None] & marked[1][None, :]
        for i, j in np.argwhere(close):
            if correlation(sample.looks[start + i], real.looks[j]) >= MIN_CORRELATION:
                pairs.append((sample.rows[start + int(i)], real.rows[int(j)]))
        start += len(block)
    return pairs


def _blocks(hashes: NDArray[np.bool_], others: NDArray[np.bool_]) -> Iterator[NDArray[np.int64]]:
    """Differing bits of some rows of the first with all of the second, block by block."""
    second = others.astype(np.float32)
    ones = second.sum(axis=1)
    for start in range(0, len(hashes), _BLOCK):
        first = hashes[start : start + _BLOCK].astype(np.float32)
        yield (first.sum(axis=1)[:, None] + ones[None, :] - 2 * first @ second.T).astype(np.int64)

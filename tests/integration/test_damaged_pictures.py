"""Damaged pictures by the thousand, through the real build: each costs its own row at most, and none holds it up.

Some hundred in the suite, 50,000 in `make soak` (tests/mutations.py).
"""

import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mutations import DAMAGES, mutated, seeds

from appraiser.data.building import decoding
from appraiser.data.building.build import build_dataset
from appraiser.data.building.decoding import Decoded
from appraiser.data.pictures import prepare
from appraiser.data.reasons import REASONS

ROWS_PER_BUILD = 5000
LOST_DECODERS = {"decoder_died", "decode_timeout", "out_of_memory"}


def test_seeds_are_whole_and_damage_is_the_same_every_time():
    for data in seeds().values():
        assert prepare(data).width >= 8
    assert [mutated(number) for number in range(300)] == [mutated(number) for number in range(300)]
    changed = {mutated(number)[0] for number in range(2000) if mutated(number)[1] not in seeds().values()}
    assert len(changed) == len(seeds()) * len(DAMAGES), "every damage meets every seed"


@pytest.mark.parametrize(
    ("num_pictures", "max_seconds"), [(600, 20.0), pytest.param(50_000, 2.0, marks=pytest.mark.soak)]
)
def test_damaged_pictures_cost_their_own_rows_and_hold_nothing_up(tmp_path, monkeypatch, num_pictures, max_seconds):
    monkeypatch.setattr(decoding, "MAX_SECONDS", max_seconds)
    began = time.monotonic()
    found: Counter[str] = Counter()
    by_damage: dict[str, Counter[str]] = {}
    slowest = (0.0, "")
    for start in range(0, num_pictures, ROWS_PER_BUILD):
        numbers = range(start, min(start + ROWS_PER_BUILD, num_pictures))
        names, pictures = zip(*map(mutated, numbers), strict=True)
        reasons = reasons_of(tmp_path / str(start), pictures)
        for name, data, reason in zip(names, pictures, reasons, strict=True):
            assert reason not in LOST_DECODERS, name
            # The same again in this process, where its time can be taken: no decoder died of it.
            started = time.thread_time()
            here = decoding._decode([data])
            slowest = max(slowest, (time.thread_time() - started, name))
            assert reason == ("ok" if isinstance(here, Decoded) else here.reason), name
            found[reason] += 1
            by_damage.setdefault(name.partition(", ")[2], Counter())[reason] += 1
    print(f"\n{num_pictures} pictures in {time.monotonic() - began:.0f} s: {dict(found)}")
    print("\n".join(f"{damage}: {dict(counts)}" for damage, counts in by_damage.items()))
    print(f"slowest: {slowest[0]:.3f} s, {slowest[1]}")
    assert found.total() == num_pictures
    assert set(found) <= {"ok", *REASONS}
    assert slowest[0] <= max_seconds


def reasons_of(folder: Path, pictures: tuple[bytes, ...]) -> list[str]:
    """What the build makes of the pictures, one after the other: "ok" or the reason."""
    folder.mkdir()
    images = [{"bytes": data, "path": None} for data in pictures]
    pq.write_table(pa.table({"title": ["Article"] * len(images), "image": images}), folder / "products.parquet")
    manifest = build_dataset(folder / "products.parquet", folder / "out", max_quarantined=1.0)
    quarantine = pq.read_table(folder / "out" / "quarantine.parquet").to_pylist()
    assert manifest.rows_in == len(pictures) == manifest.ok + manifest.quarantined
    assert manifest.quarantined == len(quarantine) == sum(manifest.quarantined_by_reason.values())
    assert manifest.quarantined_by_reason == Counter(row["reason"] for row in quarantine)
    by_row = {row["row"]: row["reason"] for row in quarantine}
    return [by_row.get(row, "ok") for row in range(1, len(pictures) + 1)]

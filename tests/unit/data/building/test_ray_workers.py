"""What a build on Ray promises without Ray: limits shared out, each row once, files read here. See integration/ too."""

import asyncio
import io
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from conftest import Outcome
from PIL import Image

from appraiser import cluster
from appraiser.data.building import build as build_module
from appraiser.data.building import collect, on_ray
from appraiser.data.building.build import build_dataset
from appraiser.data.building.collect import Finished, Pending, finish
from appraiser.data.building.ledger import Quarantined
from appraiser.data.fetch import Fetcher, FetchPolicy
from appraiser.errors import AppraiserError, ConfigError, MissingDependencyError


def shop(folder: Path, rows: int = 20) -> Path:
    """A table with a picture file a row; two rows are bad."""
    folder.mkdir(parents=True)
    lines = ["id,title,price,image"]
    for number in range(rows):
        cells = np.random.default_rng(number).integers(0, 255, (9, 9, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(cells).resize((36, 36), Image.Resampling.NEAREST).save(buffer, "JPEG")
        (folder / f"{number}.jpg").write_bytes(buffer.getvalue()[: 200 if number == 5 else None])
        lines.append(f"P{number},Article {number},{10 + number if number != 3 else 'x'},{number}.jpg")
    (folder / "products.csv").write_text("\n".join(lines) + "\n")
    return folder / "products.csv"


def elsewhere(handed: list[list[Pending]]) -> Callable[[list[Pending]], Iterator[Finished]]:
    """Finishes rows here, in another order, and notes what it was handed."""

    async def all_of(waiting: list[Pending]) -> list[Finished]:
        async with Fetcher(FetchPolicy()) as fetcher:
            return [await finish(one, fetcher) for one in random.Random(1).sample(waiting, len(waiting))]

    def do(waiting: list[Pending]) -> Iterator[Finished]:
        handed.append(waiting)
        return iter(asyncio.run(all_of(waiting)))

    return do


@pytest.mark.parametrize("limit", ["rows", "bytes"])
def test_what_is_done_elsewhere_gives_the_same_data_set_and_is_handed_over_in_bounded_parts(
    tmp_path, monkeypatch, limit
):
    table = shop(tmp_path / "shop")
    reference = build_dataset(table, tmp_path / "here", max_quarantined=0.5)
    handed: list[list[Pending]] = []
    monkeypatch.setattr(build_module, "_workers", lambda on, policy: nullcontext(elsewhere(handed)))
    if limit == "rows":
        monkeypatch.setattr(collect, "ROWS_ELSEWHERE", 7)
    else:
        monkeypatch.setattr(collect, "BYTES_ELSEWHERE", 3000)
    assert build_dataset(table, tmp_path / "there", max_quarantined=0.5, on="ray") == reference
    rows = [row for part in handed for row in part]
    assert sorted(row.row for row in rows) == [number for number in range(1, 21) if number != 4]  # 4: bad_price
    assert all(isinstance(picture, bytes) for row in rows for picture in row.pictures)
    if limit == "rows":
        assert [len(part) for part in handed] == [7, 7, 5]
    else:
        assert len(handed) > 3
        assert all(sum(row.num_bytes for row in part[:-1]) < 3000 for part in handed)


@pytest.mark.parametrize(
    ("per_host", "parallel", "cpus"), [(4, 64, 2), (4, 64, 3), (4, 64, 99), (1, 64, 8), (99, 8, 64)]
)
def test_all_workers_together_keep_the_limits_of_one_machine(per_host, parallel, cpus):
    policy = FetchPolicy(num_parallel=parallel, num_parallel_per_host=per_host)
    num_workers = on_ray.num_workers_for(cpus, policy)
    share = on_ray.share_of(policy, num_workers)
    assert 1 <= num_workers <= cpus
    assert 1 <= share.num_parallel_per_host * num_workers <= per_host
    assert 1 <= share.num_parallel * num_workers <= parallel


def finished(row: int) -> Finished:
    return Finished(Quarantined(row, "dns", "no such host"), 0)


def test_a_row_that_was_finished_twice_counts_once():
    twice = [finished(row) for row in (2, 1, 2, 3, 1)]
    assert [one.row for one in on_ray.once([Pending(row, ()) for row in (1, 2, 3)], twice)] == [2, 1, 3]


def test_a_row_that_nobody_finished_is_an_error_that_names_it():
    with pytest.raises(AppraiserError, match="no answer for 2 rows, 1 among them") as caught:
        list(on_ray.once([Pending(row, ()) for row in (1, 2, 3)], [finished(2)]))
    assert "goes on where it stopped" in caught.value.fix


def test_a_worker_with_another_pillow_is_refused():
    with pytest.raises(ConfigError, match=r"a worker has .*, the build .*'Pillow': '1.0'"):
        on_ray.Worker(FetchPolicy(), on_ray.VERSIONS | {"Pillow": "1.0"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Failed to connect to Ray cluster at 10.1.1.1:9\n", "Failed to connect to Ray cluster at 10.1.1.1:9"),
        (
            'ray::MapWorker(Map(Worker)).submit() (pid=30957)\n  File "on_ray.py", line 1, in x\n'
            "ModuleNotFoundError: No module named 'appraiser'\n\nTo change retry attempts, configure something.",
            "ModuleNotFoundError: No module named 'appraiser'",
        ),
        ("", "RuntimeError"),
    ],
)
def test_of_rays_many_lines_the_one_that_names_the_cause_is_shown(text, said):
    assert cluster.cause(RuntimeError(text)) == said


def test_without_ray_the_error_names_the_extra_and_nothing_is_left(tmp_path, monkeypatch):
    table = shop(tmp_path / "shop", 4)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError) as caught:
        build_dataset(table, tmp_path / "out", on="ray")
    assert caught.value.fix == "pip install 'appraiser[ray]'"
    assert [entry.name for entry in tmp_path.iterdir()] == ["shop"]


def test_the_command_line_refuses_other_places(tmp_path, appraiser: Callable[..., Outcome]):
    outcome = appraiser("build", shop(tmp_path / "shop", 4), tmp_path / "out", "--on", "spark")
    assert outcome.code == 2
    assert "spark" in outcome.err

"""Decoding apart: a worker that dies, hangs or eats memory costs one row."""

import asyncio
import io
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from appraiser.data.building import decoding
from appraiser.data.building.decoding import Decoded, Undecodable, decode_apart
from appraiser.data.looks import look_of
from appraiser.data.pictures import encode, prepare


def picture(number: int = 0) -> bytes:
    cells = np.random.default_rng(number).integers(0, 255, (9, 9, 3), dtype=np.uint8)
    return encode(Image.fromarray(cells).resize((45, 45), Image.Resampling.NEAREST), lossless=True)


def apart(function: Any, argument: Any) -> Any:
    async def run() -> Any:
        return await decoding._apart(function, argument)

    return asyncio.run(run())


def eat_memory(size: int) -> Decoded | Undecodable:
    np.ones(size, np.uint8).sum()
    return Undecodable("empty", "it fitted")


def test_pictures_come_back_as_they_would_here():
    data = [picture(1), picture(2)]
    found = asyncio.run(decode_apart(data))
    assert isinstance(found, Decoded)
    assert found.pictures == tuple(map(prepare, data))
    assert np.array_equal(found.look, look_of(Image.open(io.BytesIO(data[0]))))


def test_a_bad_picture_gives_its_reason():
    assert asyncio.run(decode_apart([picture(1), b"no picture"])) == Undecodable(
        "not_an_image", "these bytes are no JPEG, PNG, WebP or GIF picture"
    )


def test_a_worker_that_dies_costs_its_own_row_and_no_other():
    async def together() -> list[Any]:
        tasks = [decode_apart([picture(number)]) for number in range(12)]
        tasks.insert(5, decoding._apart(os._exit, 3))
        return list(await asyncio.gather(*tasks))

    found = asyncio.run(together())
    assert found[5] == Undecodable("decoder_died", "the decoder ended with exit code 3")
    assert sum(isinstance(row, Decoded) for row in found) == 12


def test_a_worker_that_hangs_is_ended(monkeypatch):
    monkeypatch.setattr(decoding, "MAX_SECONDS", 0.3)
    assert apart(time.sleep, 60) == Undecodable("decode_timeout", "not decoded within 0.3 s")
    monkeypatch.undo()
    assert isinstance(asyncio.run(decode_apart([picture()])), Decoded)


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="memory is limited on Linux alone")
def test_a_worker_cannot_take_the_machines_memory():
    assert apart(eat_memory, 2**20) == Undecodable("empty", "it fitted")
    with pytest.raises(MemoryError):
        apart(eat_memory, decoding.MAX_MEMORY_BYTES + 2**20)


def decode_in_child(path: str) -> None:
    found = asyncio.run(decode_apart([picture()]))
    Path(path).write_text(type(found).__name__)


def test_a_process_that_decoded_can_end(tmp_path):
    # The ways out of a child process differ from the main one's: workers that nobody ends would hold it for ever.
    child = multiprocessing.get_context("spawn").Process(target=decode_in_child, args=(str(tmp_path / "kind"),))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert (tmp_path / "kind").read_text() == "Decoded"

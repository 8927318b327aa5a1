"""The ledger: states survive a killed process, half-written pictures do not, and two builds never share one."""

import hashlib

import numpy as np
import pytest
from pictures import random_looks

from appraiser.data.building.decoding import Decoded
from appraiser.data.building.ledger import Ledger, Quarantined
from appraiser.data.pictures import StoredPicture
from appraiser.errors import DataError


def decoded(*texts: bytes) -> Decoded:
    pictures = tuple(StoredPicture(text, hashlib.sha256(text).hexdigest(), 30, 20) for text in texts)
    return Decoded(pictures, random_looks(1, seed=len(texts))[0])


def test_states_come_back_by_row_with_their_pictures(tmp_path):
    two = decoded(b"first", b"second one")
    with Ledger(tmp_path, "source") as ledger:
        ledger.write([(7, two), Quarantined(3, "dns", "no such host")])
        ledger.write([(1, decoded(b"x"))])
    with Ledger(tmp_path, "source") as ledger:
        assert ledger.done() == {1, 3, 7}
        assert ledger.quarantined() == [Quarantined(3, "dns", "no such host")]
        first, second = ledger.kept()
        assert (first.row, second.row, second.size) == (1, 7, (30, 20))
        assert [ledger.picture(place) for place in second.pictures] == [b"first", b"second one"]
        assert second.picture_hash == ":".join(picture.sha256 for picture in two.pictures)
        assert np.array_equal(second.look, two.look)
        assert second.look.dtype == np.uint8


def test_pictures_of_rows_that_never_entered_are_cut_off(tmp_path):
    with Ledger(tmp_path, "source") as ledger:
        ledger.write([(2, decoded(b"late row, early end")), (1, decoded(b"early row, late end"))])
    size = (tmp_path / "pictures.bin").stat().st_size
    with (tmp_path / "pictures.bin").open("ab") as file:
        file.write(b"half of a pic")
    with Ledger(tmp_path, "source") as ledger:
        assert (tmp_path / "pictures.bin").stat().st_size == size
        ledger.write([(3, decoded(b"new"))])
        assert [ledger.picture(row.pictures[0]) for row in ledger.kept()] == [
            b"early row, late end", b"late row, early end", b"new",
        ]  # fmt: skip


def test_rows_without_their_pictures_are_done_again(tmp_path):
    with Ledger(tmp_path, "source") as ledger:
        ledger.write([(1, decoded(b"these bytes get lost"))])
    (tmp_path / "pictures.bin").write_bytes(b"these")
    with Ledger(tmp_path, "source") as ledger:
        assert ledger.done() == set()


@pytest.mark.parametrize("damage", ["another source", "no database"])
def test_what_belongs_to_another_source_or_is_damaged_is_thrown_away(tmp_path, damage):
    with Ledger(tmp_path, "source") as ledger:
        ledger.write([(1, decoded(b"old"))])
    if damage == "no database":
        (tmp_path / "ledger.sqlite").write_bytes(b"this is no database at all" * 100)
    with Ledger(tmp_path, "source" if damage == "no database" else "changed") as ledger:
        assert ledger.done() == set()
        ledger.write([(1, decoded(b"new"))])
        assert ledger.picture(ledger.kept()[0].pictures[0]) == b"new"


def test_rows_are_forgotten_by_reason(tmp_path):
    with Ledger(tmp_path, "source") as ledger:
        ledger.write([(1, decoded(b"x")), Quarantined(2, "timeout", ""), Quarantined(3, "dns", "")])
        ledger.forget(["timeout", "http_5xx"])
        assert ledger.done() == {1, 3}


def test_a_failed_write_enters_nothing(tmp_path):
    with Ledger(tmp_path, "source") as ledger:
        ledger.write([(1, decoded(b"x"))])
        with pytest.raises(Exception, match="UNIQUE"):
            ledger.write([(2, decoded(b"y")), (1, decoded(b"z"))])
        assert ledger.done() == {1}
        ledger.write([(2, decoded(b"y"))])
        assert ledger.done() == {1, 2}


def test_two_builds_cannot_write_one_data_set_at_the_same_time(tmp_path):
    with Ledger(tmp_path, "source"), pytest.raises(DataError, match="another build is writing"):
        Ledger(tmp_path, "source")
    with Ledger(tmp_path, "source") as ledger:
        assert ledger.done() == set()

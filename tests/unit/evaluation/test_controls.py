"""Wrong-picture controls never show a record its own picture where another can be had."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from appraiser.evaluation.controls import derangement


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=40), st.integers(0, 5))
def test_nobody_keeps_their_own_unless_alone(keys: list[str], seed: int) -> None:
    chosen = derangement(keys, seed)
    assert sorted(chosen) == list(range(len(keys)))
    for row, other in enumerate(chosen):
        assert keys[other] == keys[row]
        assert other != row or keys.count(keys[row]) == 1

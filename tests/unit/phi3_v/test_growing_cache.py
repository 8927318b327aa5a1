"""A cache that grows in place holds what a cache that copies would hold, whoever handles it in between."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from appraiser.phi3_v.growing_cache import SPARE_PLACES, GrowingLayer, make_room, whole_room

NUM_LAYERS = 2


@pytest.fixture(autouse=True)
def no_gradient() -> Iterator[None]:
    with torch.no_grad():
        yield


def pair(num_places: int = 40) -> tuple[DynamicCache, DynamicCache]:
    """One cache that grows, and one that copies."""
    growing = DynamicCache()
    make_room(growing, NUM_LAYERS, num_places)
    return growing, DynamicCache()


def feed(caches: tuple[DynamicCache, DynamicCache], length: int, seed: int = 0, rows: int = 2) -> None:
    """The same new keys and values for both, and both return the same."""
    generator = torch.Generator().manual_seed(seed)
    for layer in range(NUM_LAYERS):
        states = [torch.randn(rows, 3, length, 4, generator=generator) for _ in range(2)]
        returned = [cache.update(*states, layer) for cache in caches]
        for actual, expected in zip(*returned, strict=True):
            assert torch.equal(actual, expected)
    assert caches[0].get_seq_length() == caches[1].get_seq_length()


def places(cache: DynamicCache) -> list[int]:
    return [tensor.data_ptr() for layer in cache.layers for tensor in (layer.keys, layer.values)]


def test_chunks_and_tokens_are_written_behind_what_is_there() -> None:
    caches = pair()
    feed(caches, 30)
    before = places(caches[0])
    for step in range(10 + SPARE_PLACES):
        feed(caches, 1, seed=step)
    assert places(caches[0]) == before
    feed(caches, 1)
    assert places(caches[0]) != before
    feed(caches, SPARE_PLACES + 9)


def test_more_than_was_expected_finds_room() -> None:
    caches = pair(num_places=1)
    feed(caches, 700)
    feed(caches, 1500)


def test_rows_that_were_chosen_do_not_write_over_others() -> None:
    caches = pair()
    feed(caches, 5)
    kept = [layer.keys for layer in caches[0].layers]
    copies = [keys.clone() for keys in kept]
    for cache in caches:
        cache.reorder_cache(torch.tensor([1, 1]))
    feed(caches, 3)
    for cache in caches:
        cache.batch_select_indices(torch.tensor([1]))
    feed(caches, 3, rows=1)
    for cache in caches:
        cache.batch_repeat_interleave(2)
    feed(caches, 3)
    assert all(torch.equal(keys, copied) for keys, copied in zip(kept, copies, strict=True))


def test_a_cropped_cache_goes_on_from_there() -> None:
    caches = pair()
    feed(caches, 8)
    longer = [layer.keys for layer in caches[0].layers]
    copies: list[Tensor] = [keys.clone() for keys in longer]
    for cache in caches:
        cache.crop(-3)
    feed(caches, 4, seed=1)
    assert all(torch.equal(keys, copied) for keys, copied in zip(longer, copies, strict=True))


def test_a_copy_of_a_cache_goes_its_own_way() -> None:
    caches = pair()
    feed(caches, 8)
    twins = copy.deepcopy(caches)
    feed(caches, 4, seed=1)
    feed(twins, 4, seed=2)
    feed(caches, 2, seed=3)


def test_a_reset_cache_starts_again() -> None:
    caches = pair()
    feed(caches, 8)
    for cache in caches:
        cache.reset()
    feed(caches, 4, seed=1)


def test_what_was_filled_in_inference_mode_can_be_continued_outside() -> None:
    caches = pair()
    with torch.inference_mode():
        feed(caches, 8)
    feed(caches, 4, seed=1)


def test_the_whole_room_is_known_of_keys_that_fill_most_of_it() -> None:
    layer = GrowingLayer(100)
    states = torch.ones(2, 3, 90, 4)
    keys, values = layer.update(states, states)
    for view in (keys, values):
        room = whole_room(view)
        assert room is not None
        assert room.is_contiguous()
        assert torch.equal(room[:, :, :90], view)
        assert not room[:, :, 90:].any()
    assert whole_room(keys[:, :, :80]) is None
    assert whole_room(torch.ones(2, 3, 90, 4)) is None
    longer, _ = GrowingLayer(90 + SPARE_PLACES + 1).update(states, states)
    assert whole_room(longer) is None  # most of it would be computed in vain


def test_gradients_flow_to_new_keys() -> None:
    caches = pair()
    feed(caches, 8)
    with torch.enable_grad():
        states = torch.randn(2, 3, 1, 4, requires_grad=True)
        for _ in range(2):
            keys, _ = caches[0].update(states, states, 0)
        keys.sum().backward()
    assert torch.equal(states.grad, torch.full_like(states, 2.0))


def test_room_is_made_in_empty_growing_caches_only() -> None:
    filled = DynamicCache()
    filled.update(torch.ones(1, 1, 2, 4), torch.ones(1, 1, 2, 4), 0)
    make_room(filled, 1, 10)
    offloaded = DynamicCache(offloading=True)
    make_room(offloaded, 1, 10)
    assert not any(isinstance(layer, GrowingLayer) for cache in (filled, offloaded) for layer in cache.layers)
    growing = DynamicCache()
    make_room(growing, 1, 10)
    layers = list(growing.layers)
    make_room(growing, 1, 20)  # by the first chunk of a prompt that room was made for
    assert growing.layers == layers

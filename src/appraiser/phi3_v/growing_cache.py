"""A key-value cache with room behind its last key.

transformers' `DynamicCache` joins old and new keys into a new tensor for every chunk and every token: each copies all
that is there, and for that moment a layer is there twice. Here what is new is written behind what is old:

    room    | k0 k1 k2 ... k(n-1) | kn | 0 0 0 0 0 0 0 0 |
            '--------- keys, a view of it ----'

Matrix products in bf16 copy such a view before they begin, so attention takes the whole room (`whole_room`) and leaves
out what is behind the keys. Eight rows of 800 tokens take 17 ms a token so, 24 with keys joined anew, and 33 with views
that are copied (Zen 5, one core).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer

# Places beyond what is needed: most answers are shorter, and every place is computed with.
SPARE_PLACES = 64


class GrowingLayer(DynamicLayer):
    """Keys and values of one layer; where no gradient is asked for, they grow in place.

    Args:
        num_places: how many are expected; room is made for them at once.
    """

    def __init__(self, num_places: int) -> None:
        super().__init__()
        self.num_places = num_places
        self._room: tuple[Tensor, ...] = ()
        self._views: tuple[Tensor, ...] = ()

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append [B, H, n, d] keys and values; return all of them."""
        if torch.is_grad_enabled():
            self._room = self._views = ()
            return super().update(key_states, value_states, *args, **kwargs)
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        past = self.get_seq_length()
        length = past + key_states.shape[-2]
        if not self._has_room(length):
            self._make_room(past, length, key_states, value_states)
        for room, states in zip(self._room, (key_states, value_states), strict=True):
            room[:, :, past:length] = states
        self._views = self.keys, self.values = tuple(_beginning(room, length) for room in self._room)
        return self.keys, self.values

    def _has_room(self, length: int) -> bool:
        """Whether keys and values are where they were left, and `length` of them fit there."""
        if not self._room or self.keys is not self._views[0] or self.values is not self._views[1]:
            return False  # cropped, or rows were chosen, by whoever generates
        is_writable = torch.is_inference_mode_enabled() or not self._room[0].is_inference()
        return is_writable and length <= self._room[0].shape[2]

    def _make_room(self, past: int, length: int, *states: Tensor) -> None:
        num_places = max(self.num_places, length) + SPARE_PLACES
        old, self._room, self._views = (self.keys, self.values), (), ()
        for values, new in zip(old, states, strict=True):
            room = new.new_zeros(*new.shape[:2], num_places, new.shape[3])
            if past:
                room[:, :, :past] = values
            self._room += (room,)


def _beginning(room: Tensor, length: int) -> Tensor:
    view = room[:, :, :length]
    view.room = room  # type: ignore[attr-defined]
    return view


def whole_room(states: Tensor) -> Tensor | None:
    """[B, H, places, d] for keys or values [B, H, n, d] as `GrowingLayer` returns them: packed, and finite behind the n
    that count. None for tensors of other making, and where it is far larger than what is in it."""
    room: Tensor | None = getattr(states, "room", None)
    return room if room is not None and room.shape[2] <= states.shape[2] + 2 * SPARE_PLACES else None


def make_room(cache: Cache, num_layers: int, num_places: int) -> None:
    """Let an empty `DynamicCache` grow in place to `num_places` keys and beyond; others are left as they are, and one
    that grows already."""
    if type(cache) is not DynamicCache or cache.offloading or cache.get_seq_length():
        return
    if not any(isinstance(layer, GrowingLayer) for layer in cache.layers):
        cache.layers[:] = [GrowingLayer(num_places) for _ in range(num_layers)]

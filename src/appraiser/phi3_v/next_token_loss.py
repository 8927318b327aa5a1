"""The next-token loss, from logits or from the states before the head.

A long answer has many logits: 8 captions of 500 tokens over 32,064 words are 0.5 GB in fp32, and the loss holds them
three times. From states the loss takes so many positions at a time that one part's logits stay small, and computes them
again in the backward pass.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

IGNORE_INDEX = -100
# 128 MB in fp32: 1,046 positions of the published vocabulary, more than usual batches of short answers have.
LOGITS_AT_ONCE = 1 << 25


def next_token_loss(logits: Tensor, targets: Tensor, num_items: int | Tensor | None = None) -> Tensor:
    """Cross-entropy in fp32 of [n, vocab] logits against [n] targets; negative targets are not scored.

    Mean over scored targets, or the sum divided by `num_items`.
    """
    targets = targets.masked_fill(targets < 0, IGNORE_INDEX).to(logits.device, torch.long)
    if num_items is None:
        return functional.cross_entropy(logits.float(), targets, ignore_index=IGNORE_INDEX)
    total = functional.cross_entropy(logits.float(), targets, ignore_index=IGNORE_INDEX, reduction="sum")
    return total / num_items


def loss_of_states(
    states: Tensor, targets: Tensor, head: nn.Module, vocab_size: int, num_items: int | Tensor | None = None
) -> Tensor:
    """`next_token_loss` of [n, D] states against [n] targets, of which none is negative; `head` makes logits of states.

    The logits are never all there at once. Gradients are those of one pass, up to the order of their sums. The head
    must not draw random numbers: setting the generator back for its second pass would disturb batches in other threads.
    """
    size = max(1, LOGITS_AT_ONCE // vocab_size)
    if len(states) <= size:
        return next_token_loss(head(states), targets, num_items)
    total = len(targets) if num_items is None else num_items

    def loss_of(some: Tensor, wanted: Tensor) -> Tensor:
        return next_token_loss(head(some), wanted, total)

    parts = zip(torch.split(states, size), torch.split(targets, size), strict=True)
    again = partial(checkpoint, loss_of, use_reentrant=False, preserve_rng_state=False)
    return torch.stack([again(*part) for part in parts]).sum()

"""What a step makes smaller. An objective says what its summed loss is divided by, so that the division happens once
per step, over all micro-batches and ranks.
"""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from appraiser.data.batches import Batch


class Objective(Protocol):
    """One batch -> its share of the step's loss."""

    def num_items(self, batch: Batch) -> int:
        """What the summed loss of this batch counts: supervised tokens, or pairs."""
        ...

    def loss(self, model: Any, batch: Batch, num_items: int) -> tuple[Tensor, dict[str, float]]:
        """The batch's summed loss divided by `num_items` of the whole step, and sums of other numbers to be logged."""
        ...


class NextToken:
    """Cross-entropy of the supervised tokens; logits are computed for these alone, few at a time."""

    def num_items(self, batch: Batch) -> int:
        return batch.num_supervised

    def loss(self, model: Any, batch: Batch, num_items: int) -> tuple[Tensor, dict[str, float]]:
        outputs = model(
            **batch.inputs,
            labels=batch.labels,
            answer_only=True,
            with_logits=False,
            num_items_in_batch=num_items,
            use_cache=False,
        )
        return outputs.loss, {}

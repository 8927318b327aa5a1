"""Which known mistake gives the answers that were found: each one is made here, on the export's own weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from appraiser.backbone import Reader
from appraiser.exporting.answers import Question
from appraiser.verifying.mistakes import Mistake, Shown, inputs_of, known_mistakes, shown
from appraiser.verifying.replay import Replayed

NUM_SCREENED = 4
"""Products that every mistake is tried on; all are tried with mistakes that give half of these answers."""
EXPLAINED_SHARE = 0.8
"""Of the answers a cause has to give: where a server rounds otherwise, a few of its answers differ all the same."""


@dataclass(frozen=True)
class Cause:
    """Mistakes that give the answers found; several where the reference products cannot tell them apart."""

    mistakes: tuple[Mistake, ...]
    num_explained: int


class CauseFinder:
    """Computes what a model answers under known mistakes.

    Args:
        model, reader: of the export, which shows pictures as in training.
    """

    def __init__(self, model: Any, reader: Reader, questions: Sequence[Question]) -> None:
        self.model = model.eval()
        self.reader = reader
        self.shown = [shown(reader, question.prompt, question.images) for question in questions]
        self._right = [inputs_of(reader, what) for what in self.shown]

    def find(
        self, found: Sequence[Replayed], is_same: Sequence[bool], progress: Callable[[int, int], None] | None = None
    ) -> Cause | None:
        """The mistakes that give the most of the answers found, if that is nearly all; None if none does.

        Args:
            found, is_same: answers from somewhere else, and which of them are those of training.
        """
        candidates = [mistake for mistake in known_mistakes(self.reader.num_crops) if self._fits(mistake, found)]
        # Answers that a mistake changed tell more than those that it left alone.
        order = sorted(range(len(found)), key=lambda number: is_same[number])
        screened, scores = order[:NUM_SCREENED], []
        for done, mistake in enumerate(candidates, start=1):
            explained = self._num_explained(mistake, found, screened)
            if 2 * explained >= len(screened):
                scores.append((explained + self._num_explained(mistake, found, order[NUM_SCREENED:]), mistake))
            if progress:
                progress(done, len(candidates))
        best = max((score for score, _ in scores), default=0)
        says_tokens = any(self._other_tokens(mistake) for score, mistake in scores if score == best)
        if best < EXPLAINED_SHARE * len(found) or (best <= sum(is_same) and not says_tokens):
            return None
        return Cause(tuple(mistake for score, mistake in scores if score == best), best)

    def _fits(self, mistake: Mistake, found: Sequence[Replayed]) -> bool:
        """Whether a mistake changes anything, and gives prompts as long as those that were counted."""
        changes = False
        for what, right, answer in zip(self.shown, self._right, found, strict=True):
            inputs = self._inputs(mistake, what)
            if inputs is None:
                return False
            length = inputs["input_ids"].shape[1]
            if answer.num_prompt_tokens not in (None, length):
                return False
            changes = changes or _differ(inputs, right)
        return changes

    def _other_tokens(self, mistake: Mistake) -> bool:
        first = self._inputs(mistake, self.shown[0])
        return first is not None and first["input_ids"].shape != self._right[0]["input_ids"].shape

    def _inputs(self, mistake: Mistake, what: Shown) -> dict[str, Any] | None:
        """None where the mistake cannot be made with this product."""
        try:
            return inputs_of(self.reader, mistake.apply(what))
        except ValueError:  # too long and thin for so few crops
            return None

    def _num_explained(self, mistake: Mistake, found: Sequence[Replayed], numbers: Sequence[int]) -> int:
        return sum(self._answer(mistake, self.shown[number]) == found[number].text for number in numbers)

    @torch.inference_mode()
    def _answer(self, mistake: Mistake, what: Shown) -> str:
        inputs = inputs_of(self.reader, mistake.apply(what))
        device = next(self.model.parameters()).device
        ids = self.model.generate(**{name: value.to(device) for name, value in inputs.items()})
        return self.reader.decode(ids[0, inputs["input_ids"].shape[1] :].tolist())


def _differ(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() != other.keys() or any(not torch.equal(one[name], other[name]) for name in one)

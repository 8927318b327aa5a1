"""What somewhere else answers to the reference products, and how far that is from what the export answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from appraiser.backbone import Reader
from appraiser.exporting.reference import ReferenceAnswer


@dataclass(frozen=True)
class Replayed:
    """One product's answer from somewhere else.

    Args:
        num_prompt_tokens, logprobs: None where that is not known; the answer's end may be among the logprobs.
        input_ids_sha256, pixel_values_sha256: of a folder; no server tells.
    """

    text: str
    num_prompt_tokens: int | None
    logprobs: tuple[float, ...] | None
    input_ids_sha256: str | None = None
    pixel_values_sha256: str | None = None


@dataclass(frozen=True)
class Comparison:
    """One product, there and in the reference. Distances are of natural logarithms of probabilities (nats).

    Args:
        prompt_tokens: there and in the reference; None where either is not known.
        gap: how much likelier the recorded token was than the next one where the texts part; None where they do not,
            or where it was not recorded.
        distances: of the answer's tokens, for equal answers; empty where either side has none.
    """

    picture: str
    expected: str
    found: str
    prompt_tokens: tuple[int, int] | None
    gap: float | None
    distances: tuple[float, ...]
    other_ids: bool
    other_pixels: bool

    @property
    def is_same(self) -> bool:
        return self.found == self.expected

    @property
    def has_other_prompt(self) -> bool:
        """Another number of tokens, or other ones."""
        return self.other_ids or (self.prompt_tokens is not None and self.prompt_tokens[0] != self.prompt_tokens[1])

    def is_clear(self, tolerance: float) -> bool:
        """Whether another answer is more than rounding at a place where two tokens were nearly equally likely."""
        return not self.is_same and (self.gap is None or self.gap > tolerance)


def compare(reader: Reader, expected: ReferenceAnswer, found: Replayed) -> Comparison:
    """One product, there and in the reference."""
    counts = (found.num_prompt_tokens, expected.num_prompt_tokens)
    return Comparison(
        picture=expected.pictures[0],
        expected=expected.answer,
        found=found.text,
        prompt_tokens=None if counts[0] is None or counts[1] is None else (counts[0], counts[1]),
        gap=_gap(reader, expected, found.text) if found.text != expected.answer else None,
        distances=_distances(expected, found) if found.text == expected.answer else (),
        other_ids=found.input_ids_sha256 not in (None, expected.input_ids_sha256),
        other_pixels=found.pixel_values_sha256 not in (None, expected.pixel_values_sha256),
    )


def _gap(reader: Reader, expected: ReferenceAnswer, text: str) -> float | None:
    chosen, others = expected.answer_logprobs, expected.runner_up_logprobs
    if not chosen or not others:
        return None
    step = parting_step(reader, expected.answer_ids, text)
    return chosen[step] - others[step]


def parting_step(reader: Reader, ids: Sequence[int], text: str) -> int:
    """Which of an answer's tokens is the first that another text does not have."""
    for step in range(len(ids) - 1, 0, -1):
        if text.startswith(reader.decode(ids[:step])):
            return step
    return 0


def _distances(expected: ReferenceAnswer, found: Replayed) -> tuple[float, ...]:
    """Of equal answers; none where the tokens cannot be told to be the same ones."""
    known = expected.answer_logprobs
    if known is None or found.logprobs is None or not len(known) - 1 <= len(found.logprobs) <= len(known):
        return ()
    return tuple(abs(one - other) for one, other in zip(known, found.logprobs, strict=False))

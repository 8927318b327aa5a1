"""What looks at a batch while it is generated: rows that nobody waits for end, tokens go out as they are chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, StoppingCriteria

from appraiser.serving.engine import Abandoned, Job

MIN_TEMPERATURE = 1e-3
"""Below, the likeliest token is as good as certain, and logits divided by it overflow."""


class Watch(StoppingCriteria):
    """Ends rows whose job is no longer wanted, or has the tokens it asked for.

    Args:
        most_tokens: of each row's answer.
        on_end: called with a row's number and ids as soon as its answer is complete.

    Raises:
        Abandoned: from within `generate`, when nobody waits for any row.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        most_tokens: Sequence[int],
        prompt_length: int,
        stops: Sequence[int],
        on_end: Callable[[int, list[int]], None] | None = None,
    ) -> None:
        self.jobs = jobs
        self.most_tokens = most_tokens
        self.prompt_length = prompt_length
        self.stops = frozenset(stops)
        self.on_end = on_end
        self.lengths = [0] * len(jobs)
        """Tokens of each answer so far, its end included."""
        self._open = [True] * len(jobs)

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        chosen = input_ids[:, -1].tolist()
        num_tokens = input_ids.shape[1] - self.prompt_length
        for row, (job, token) in enumerate(zip(self.jobs, chosen, strict=True)):
            if not self._open[row]:
                continue
            self.lengths[row] = num_tokens
            if job.on_token is not None and token not in self.stops and not job.is_cancelled:
                job.on_token(token)
            is_complete = token in self.stops or num_tokens >= self.most_tokens[row]
            self._open[row] = job.is_wanted and not is_complete
            if is_complete and self.on_end is not None:
                self.on_end(row, input_ids[row, self.prompt_length :].tolist())
        if not any(job.is_wanted for job in self.jobs):
            raise Abandoned
        return torch.tensor([not is_open for is_open in self._open], device=input_ids.device)


class Sampling(LogitsProcessor):
    """Draws tokens at each row's own temperature while the batch is decoded greedily.

    The largest of logits / temperature + Gumbel noise is a draw from their softmax; rows of temperature 0 stay greedy.

    Args:
        seeds: of each row; equal seeds draw equal noise.
    """

    def __init__(self, temperatures: Sequence[float], seeds: Sequence[int]) -> None:
        self.rows = [
            (row, temperature, torch.Generator().manual_seed(seed))
            for row, (temperature, seed) in enumerate(zip(temperatures, seeds, strict=True))
            if temperature >= MIN_TEMPERATURE
        ]

    def __call__(self, input_ids: Any, scores: Any) -> Tensor:
        noisy: Tensor = scores.clone()
        for row, temperature, generator in self.rows:
            exponential = torch.empty(scores.shape[-1]).exponential_(generator=generator).clamp_min_(1e-20)
            noisy[row] = scores[row].float() / temperature - exponential.log().to(scores.device)
        return noisy

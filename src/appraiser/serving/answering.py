"""What the engine's workers do with the jobs of a batch: appraise pictures, or go on with a chat."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import torch
from transformers import LogitsProcessorList, StoppingCriteriaList

from appraiser.backbone import IGNORE_INDEX, Backbone, Views
from appraiser.data.batches import Example, collate
from appraiser.data.examples import prompt_example
from appraiser.predict import Prediction, Predictor
from appraiser.serving.engine import Job
from appraiser.serving.evidence import Evidence, Similar
from appraiser.serving.watch import Sampling, Watch

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class AppraiseWork:
    """Pictures of one product."""

    pictures: tuple[Views, ...]


@dataclass(frozen=True)
class Appraisal:
    """The model's answer about one product, and the known products that look most like it."""

    prediction: Prediction
    similar: list[Similar]
    num_together: int


@dataclass(frozen=True)
class ChatWork:
    """A prompt with pictures, and how to go on.

    Args:
        input_ids: [S], pictures as placeholders.
        max_tokens: of the answer.
        temperature: 0 takes the likeliest token.
        top_logprobs: alternatives to report at each token; None: no probabilities at all.
    """

    input_ids: tuple[int, ...]
    pictures: tuple[Views, ...]
    max_tokens: int
    temperature: float = 0.0
    seed: int = 0
    top_logprobs: int | None = None


@dataclass(frozen=True)
class TokenLogProb:
    """A chosen token, and those that could have stood there, the likeliest first."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class ChatAnswer:
    """Tokens of an answer without what ends it."""

    ids: tuple[int, ...]
    text: str
    finish_reason: FinishReason
    num_tokens: int
    """Generated, the end included."""
    logprobs: tuple[TokenLogProb, ...] | None


class Appraiser:
    """Answers jobs of kind `appraise`; the tower runs once, for the answer and for the search of similar products."""

    def __init__(self, predictor: Predictor, evidence: Evidence) -> None:
        self.predictor = predictor
        self.evidence = evidence

    def __call__(self, jobs: Sequence[Job]) -> list[Appraisal]:
        backbone, task = self.predictor.backbone, self.predictor.task
        pictures = [picture for job in jobs for picture in job.work.pictures]
        seen = iter(backbone.see(pictures))
        rows = [tuple(islice(seen, len(job.work.pictures))) for job in jobs]
        examples = [prompt_example(backbone, task, str(number), row) for number, row in enumerate(rows)]
        most = [self.predictor.max_new_tokens] * len(jobs)
        predictions = self.predictor.answer_together(
            examples, lambda length: Watch(jobs, most, length, backbone.stop_token_ids)
        )
        similar = self.evidence.similar([row[0].patches[0] for row in rows])
        return [
            Appraisal(prediction, found, len(jobs))
            for prediction, found in zip(predictions, similar, strict=True)
        ]  # fmt: skip


class Chat:
    """Answers jobs of kind `chat`."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone

    @torch.inference_mode()
    def __call__(self, jobs: Sequence[Job]) -> list[ChatAnswer]:
        works: list[ChatWork] = [job.work for job in jobs]
        examples = [
            Example(str(number), work.input_ids, (IGNORE_INDEX,) * len(work.input_ids), work.pictures)
            for number, work in enumerate(works)
        ]
        backbone = self.backbone
        batch = collate(examples, backbone, padding_side="left").to(backbone.device)
        inputs = {key: value for key, value in batch.inputs.items() if key != "position_ids"}
        prompt_length = inputs["input_ids"].shape[1]

        def on_end(row: int, ids: list[int]) -> None:
            # A short answer does not wait for the longest of its batch.
            if works[row].top_logprobs is None:
                with suppress(InvalidStateError):  # given up meanwhile
                    jobs[row].future.set_result(self._read(ids, row, works[row], None))

        most = [work.max_tokens for work in works]
        watch = Watch(jobs, most, prompt_length, backbone.stop_token_ids, on_end)
        sampling = Sampling([work.temperature for work in works], [work.seed for work in works])
        wants_logprobs = any(work.top_logprobs is not None for work in works)
        output = backbone.model.generate(
            **inputs,
            max_new_tokens=max(work.max_tokens for work in works),
            do_sample=False,
            eos_token_id=backbone.stop_token_ids,
            return_dict_in_generate=True,
            output_logits=wants_logprobs,
            stopping_criteria=StoppingCriteriaList([watch]),
            logits_processor=LogitsProcessorList([sampling] if sampling.rows else []),
        )
        ids = output.sequences[:, prompt_length:].tolist()
        return [
            self._read(row[: watch.lengths[number]], number, work, output)
            for number, (row, work) in enumerate(zip(ids, works, strict=True))
        ]

    def _read(self, ids: list[int], row: int, work: ChatWork, output: Any) -> ChatAnswer:
        stops = set(self.backbone.stop_token_ids)
        ended = bool(ids) and ids[-1] in stops
        kept = ids[:-1] if ended else ids
        logprobs = None
        if work.top_logprobs is not None:
            logprobs = tuple(
                _logprob(output.logits[step][row], token, work.top_logprobs) for step, token in enumerate(kept)
            )
        return ChatAnswer(
            ids=tuple(kept),
            text=self.backbone.decode(kept),
            finish_reason="stop" if ended else "length",
            num_tokens=len(ids),
            logprobs=logprobs,
        )


def _logprob(logits: torch.Tensor, token: int, num_top: int) -> TokenLogProb:
    logs = logits.float().log_softmax(-1)
    top = logs.topk(num_top) if num_top else None
    pairs = () if top is None else tuple(zip(top.indices.tolist(), top.values.tolist(), strict=True))
    return TokenLogProb(token, float(logs[token]), pairs)

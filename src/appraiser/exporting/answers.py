"""Greedy answers with the logits of every step, and how two models' answers are compared.

Everything is computed in float32, a picture at a time, with plain SDPA attention and weights at aligned addresses: then
two processes on one machine compute the same bits from the same weights.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from appraiser.backbone import SMALL_MODEL, Reader
from appraiser.errors import CheckpointError

ATTENTION = "sdpa"
MERGE_TOLERANCE = 1e-4
"""Largest difference of a logit, as a share of the largest logit. W x + B A x is rounded twice where (W + B A) x is
rounded once; tiny models differ by 3e-6, and 32 layers add up."""
_ANSWERS, _LOGITS = "answers.json", "logits.safetensors"


@dataclass(frozen=True)
class Question:
    """A prompt with its pictures."""

    prompt: str
    images: tuple[Image.Image, ...]


@dataclass(frozen=True)
class Answer:
    """What a model made of a question.

    Args:
        ids: of the answer, its end included.
        logits: [len(ids), vocabulary], on the CPU.
    """

    input_ids_sha256: str
    num_prompt_tokens: int
    num_image_tokens: int
    pixel_values_sha256: str
    ids: tuple[int, ...]
    text: str
    logits: Tensor


def ask(
    model: Any, reader: Reader, questions: Sequence[Question], progress: Callable[[int], None] | None = None
) -> list[Answer]:
    """Answer questions one by one, greedily, to the model's own generation settings."""
    answers: list[Answer] = []
    model.eval()
    _align(model)
    with _few_threads(model):
        for question in questions:
            answers.append(_answer(model, reader, question))
            if progress:
                progress(len(answers))
    return answers


@torch.inference_mode()
def _answer(model: Any, reader: Reader, question: Question) -> Answer:
    inputs = reader.processor(text=question.prompt, images=list(question.images), return_tensors="pt")
    ids, pixels = inputs["input_ids"], inputs["pixel_values"]
    device = next(model.parameters()).device
    output = model.generate(
        **{name: value.to(device) for name, value in inputs.items()}, return_dict_in_generate=True, output_logits=True
    )
    answer = output.sequences[0, ids.shape[1] :].tolist()
    return Answer(
        input_ids_sha256=_sha256(ids),
        num_prompt_tokens=ids.shape[1],
        num_image_tokens=int((ids < 0).sum()),
        pixel_values_sha256=_sha256(pixels),
        ids=tuple(answer),
        text=reader.decode(answer),
        logits=torch.stack([step[0].float().cpu() for step in output.logits]),
    )


def _sha256(values: Tensor) -> str:
    return hashlib.sha256(values.contiguous().numpy().tobytes()).hexdigest()


def _align(model: Any) -> None:
    """Copy weights that safetensors mapped to odd addresses: matrix kernels may round by where a matrix begins."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.data_ptr() % 64:
                parameter.data = parameter.data.clone()


@contextmanager
def _few_threads(model: Any) -> Iterator[None]:
    """One thread for small models on a CPU, whose operations are too short for two."""
    threads = torch.get_num_threads()
    if sum(parameter.numel() for parameter in model.parameters()) <= SMALL_MODEL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def check_equal(expected: Sequence[Answer], found: Sequence[Answer]) -> None:
    """Refuse answers that differ in a single bit.

    Raises:
        CheckpointError: the first difference.
    """
    for number, (one, other) in enumerate(zip(expected, found, strict=True), start=1):
        if one.input_ids_sha256 != other.input_ids_sha256:
            raise _differs(number, "the prompt has other token ids")
        if one.pixel_values_sha256 != other.pixel_values_sha256:
            raise _differs(number, "the picture is processed to other pixels")
        if one.ids != other.ids:
            raise _differs(number, f"{other.text!r} instead of {one.text!r}")
        if not torch.equal(one.logits, other.logits):
            raise _differs(number, f"logits differ by up to {difference(one, other):.3g} of the largest")


def check_merged(attached: Sequence[Answer], merged: Sequence[Answer]) -> float:
    """The largest difference of logits, as a share of the largest one.

    Raises:
        CheckpointError: more than MERGE_TOLERANCE, or another answer.
    """
    worst = 0.0
    for number, (one, other) in enumerate(zip(attached, merged, strict=True), start=1):
        found = difference(one, other)
        if one.ids != other.ids or not found <= MERGE_TOLERANCE:
            raise CheckpointError(
                f"merged into the weights, the adapter answers differently to picture {number}: {other.text!r} "
                f"instead of {one.text!r}, logits {found:.2g} apart (allowed: {MERGE_TOLERANCE:g} of the largest)",
                fix="export the adapter itself: --adapter",
            )
        worst = max(worst, found)
    return worst


def difference(one: Answer, other: Answer) -> float:
    """Largest difference of two answers' logits up to the step where the texts part, as a share of the largest."""
    pairs = zip(one.ids, other.ids, strict=False)
    agreed = next((step for step, (mine, theirs) in enumerate(pairs) if mine != theirs), None)
    steps = min(len(one.ids), len(other.ids)) if agreed is None else agreed + 1
    first, second = one.logits[:steps], other.logits[:steps]
    return float((first - second).abs().max() / first.abs().max())


def _differs(number: int, what: str) -> CheckpointError:
    return CheckpointError(
        f"reloaded in a fresh process, the export is not the model that was exported: picture {number}: {what}",
        fix="nothing was left behind; export again, and report it if it stays so",
    )


def write_answers(answers: Sequence[Answer], folder: Path) -> None:
    """Write answers for another process."""
    save_file({str(number): answer.logits for number, answer in enumerate(answers)}, folder / _LOGITS)
    plain = [vars(answer) | {"logits": None} for answer in answers]
    (folder / _ANSWERS).write_text(json.dumps(plain), encoding="utf-8")


def read_answers(folder: Path) -> list[Answer]:
    """Read what `write_answers` wrote."""
    logits = load_file(folder / _LOGITS)
    plain = json.loads((folder / _ANSWERS).read_text(encoding="utf-8"))
    return [
        Answer(**(entry | {"ids": tuple(entry["ids"]), "logits": logits[str(number)]}))
        for number, entry in enumerate(plain)
    ]

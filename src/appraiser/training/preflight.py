"""Proof, before step 1, that the picture reaches the model, that it is the right one, and that every part learns.

The widely copied script for this job trains a model that never sees the picture, and its loss falls all the same. So
a run is refused unless

    another picture changes the logits, and gradient arrives in every part that is trained
    placeholders, supervised tokens and pictures of the first batch are those of its records
"""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from appraiser.backbone import IGNORE_INDEX, Backbone, Features, Reader, Views
from appraiser.data.batches import Batch, Example, collate
from appraiser.errors import ConfigError
from appraiser.training.gradients import StepGradients
from appraiser.training.optim import part_of

MOST_DIFFERENCE = 0.1
"""Of a picture's features, seen twice, as a share of their length."""


@dataclass(frozen=True)
class PreflightReport:
    """What the checks found; printed before training."""

    num_image_tokens: int
    num_supervised_tokens: int
    num_tokens: int
    logit_change: float
    """Largest change of an answer's logits when the picture is replaced."""
    gradient_norms: dict[str, float]
    supervised_text: str


@dataclass(frozen=True)
class StepCost:
    """What one step takes, measured on its first micro-batch."""

    seconds: float
    memory_gib: float
    """Weights, gradients, optimizer and activations: of the GPU, or of the process on a CPU."""


def preflight(backbone: Backbone, example: Example, other: Example) -> PreflightReport:
    """Check one training example against the model.

    Args:
        other: an example with another picture; its picture is put into the first one's place.

    Raises:
        ConfigError: nothing is supervised, the picture changes nothing, or a trained part gets no gradient.
    """
    batch = collate([example], backbone).to(backbone.device)
    if batch.num_supervised == 0:
        raise ConfigError("no token of the answer is supervised", fix="check data.fields and the records' values")
    _check_places(example, backbone)
    network = backbone.model
    network.eval()
    with torch.no_grad():
        right = network(**batch.inputs, labels=batch.labels, answer_only=True, use_cache=False).logits
        inverted = tuple(_inverted(picture) for picture in example.pictures)
        pictures = other.pictures if _same_shape(example, other) else inverted
        wrong_batch = collate([replace(example, pictures=pictures)], backbone).to(backbone.device)
        wrong = network(**wrong_batch.inputs, labels=batch.labels, answer_only=True, use_cache=False).logits
    change = float((right - wrong).abs().max())
    if change == 0.0:
        raise ConfigError(
            "another picture gives exactly the same logits: the model does not see the picture",
            fix="check that the prompt has a picture tag and that pixel_values reach the model",
        )
    norms = _gradient_norms(backbone, batch)
    network.zero_grad(set_to_none=True)
    silent = [part for part, norm in norms.items() if not norm > 0.0]
    if silent:
        raise ConfigError(
            f"no gradient arrives in: {', '.join(silent)}",
            fix="freeze that part (parts.NAME=freeze), or find what detaches it",
        )
    supervised = [token for token in example.labels if token >= 0]
    return PreflightReport(
        num_image_tokens=sum(token < 0 for token in example.input_ids),
        num_supervised_tokens=batch.num_supervised,
        num_tokens=len(example.input_ids),
        logit_change=change,
        gradient_norms=norms,
        supervised_text=backbone.processor.decode(supervised),
    )


def _check_places(example: Example, reader: Reader) -> None:
    """As many placeholders as the formula says for the pictures' sizes, where the prompt has its tags."""
    expected = sum(reader.num_image_tokens(width, height) for height, width in (p.size for p in example.pictures))
    found = sum(token < 0 for token in example.input_ids)
    if found != expected:
        raise ConfigError(
            f"record {example.record_id!r} has {found} places for image tokens, its {len(example.pictures)} "
            f"picture(s) need {expected}",
            fix="put one tag <|image_N|> per picture into the prompt",
        )
    prompt = [token for token, label in zip(example.input_ids, example.labels, strict=True) if label == IGNORE_INDEX]
    if prompt[-1] < 0:  # where tokens go whose tag is missing
        raise ConfigError(
            f"a picture of record {example.record_id!r} stands behind the whole prompt, which has no tag for it",
            fix="put one tag <|image_N|> per picture into the prompt",
        )


def check_batch(
    batch: Batch,
    examples: Sequence[Example],
    targets: Sequence[str],
    pictures: Sequence[Sequence[Views | Features]],
    reader: Reader,
) -> None:
    """Compare a micro-batch with the records it was made from.

    Args:
        examples: what the batch was made of, in its order.
        targets: the records' answers, written anew.
        pictures: the records' pictures, processed anew.

    Raises:
        ConfigError: padding or prompts are supervised, an answer is not the record's, or a picture is another's.
    """
    ids, labels, is_real = batch.inputs["input_ids"], batch.labels, batch.inputs.get("attention_mask")
    if is_real is not None and bool((labels[is_real == 0] != IGNORE_INDEX).any()):
        raise ConfigError("padding is supervised", fix="labels of padded positions have to be IGNORE_INDEX")
    supervised = labels != IGNORE_INDEX
    if bool((labels[supervised] != ids[supervised]).any()):
        raise ConfigError("labels are not the tokens of their own positions", fix="the model shifts them itself")
    answers: list[int] = []
    for example, target in zip(examples, targets, strict=True):
        _check_places(example, reader)
        completion = reader.completion_ids(target)
        answers += completion
        if [token for token in example.labels if token != IGNORE_INDEX] != completion:
            raise ConfigError(
                f"what is supervised of record {example.record_id!r} is not its answer {target!r}",
                fix="supervise the completion alone: answer, <|end|>, newline, <|endoftext|>",
            )
    if int(supervised.sum()) != len(answers):
        raise ConfigError(
            f"{int(supervised.sum())} tokens are supervised, the answers have {len(answers)}",
            fix="labels of prompts and padding have to be IGNORE_INDEX",
        )
    tokens = [token for example in examples for token in example.input_ids]
    real = ids.flatten() if is_real is None else ids[is_real != 0]
    if real.tolist() != tokens or ids[supervised].tolist() != answers:
        raise ConfigError(
            "prompts and answers of the batch are not those of its records, in their order",
            fix="pictures and texts of a batch have to be in the same order",
        )
    expected = [
        (example.record_id, picture) for example, own in zip(examples, pictures, strict=True) for picture in own
    ]
    shown = _pictures_of(batch, [picture for _, picture in expected])
    sizes = batch.inputs["image_sizes"].tolist() if expected else []
    if sizes != [list(picture.size) for _, picture in expected]:
        raise ConfigError(
            f"the batch has pictures of the sizes {sizes}, its records have others",
            fix="pictures and their sizes have to be in the same order",
        )
    for content, (record_id, picture) in zip(shown, expected, strict=True):
        if not _is_picture(content, picture):
            raise ConfigError(
                f"the picture beside the answer of record {record_id!r} is not that record's picture",
                fix="pictures and texts of a batch have to be in the same order",
            )


def _pictures_of(batch: Batch, expected: Sequence[Views | Features]) -> list[Tensor]:
    """What the model will be shown, picture by picture; padding views left out."""
    features, pixels = batch.inputs.get("image_features"), batch.inputs.get("pixel_values")
    counts = [len(_content(picture)) for picture in expected]
    if features is not None and len(features) == sum(counts):
        return list(torch.split(features, counts))
    if pixels is not None and len(pixels) == len(counts):
        return [views[:count] for views, count in zip(pixels, counts, strict=True)]
    raise ConfigError(
        f"the batch holds other pictures than the {len(counts)} of its records",
        fix="give every record's pictures to the batch, in the order of the records",
    )


def _is_picture(shown: Tensor, picture: Views | Features) -> bool:
    content = _content(picture)
    if isinstance(picture, Views):
        return torch.equal(shown, content)
    if shown.shape != content.shape:
        return False
    # Seen in another company, last bits differ; in bfloat16 single numbers differ much, all together by 1 to 2 %.
    difference = (shown.float() - content.float()).norm()
    return bool(difference <= MOST_DIFFERENCE * content.float().norm())


def measure_step(gradients: StepGradients, batch: Batch, num_batches: int, optimizer_bytes: int) -> StepCost:
    """Time one micro-batch of a step's `num_batches`, and leave no gradient behind."""
    device = gradients.replica.ranks.device
    gradients([batch])  # the first time, memory is asked for and kernels are chosen
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begun = time.monotonic()
    gradients([batch])
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds = (time.monotonic() - begun) * num_batches
    gradients.forget()
    used = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _resident_bytes()
    return StepCost(seconds, (used + optimizer_bytes) / 2**30)


def _resident_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _same_shape(example: Example, other: Example) -> bool:
    return [picture.size for picture in example.pictures] == [picture.size for picture in other.pictures] and any(
        not torch.equal(_content(mine), _content(theirs))
        for mine, theirs in zip(example.pictures, other.pictures, strict=True)
    )


def _content(picture: Views | Features) -> Tensor:
    return picture.pixels if isinstance(picture, Views) else picture.patches


def _inverted(picture: Views | Features) -> Views | Features:
    if isinstance(picture, Views):
        return replace(picture, pixels=-picture.pixels)
    return replace(picture, patches=-picture.patches)


def _gradient_norms(backbone: Backbone, batch: Batch) -> dict[str, float]:
    """Gradient norm of one batch per trained part. LoRA's B starts at zero, so its A has none yet: B counts."""
    network = backbone.model
    network.train()
    network(**batch.inputs, labels=batch.labels, answer_only=True, use_cache=False).loss.backward()
    squares: dict[str, float] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            square = float(parameter.grad.float().pow(2).sum()) if parameter.grad is not None else 0.0
            squares[part_of(name)] = squares.get(part_of(name), 0.0) + square
    return {part: square**0.5 for part, square in sorted(squares.items())}

"""Proof, before step 1, that the picture reaches the model and that every trained part learns.

The widely copied script for this job trains a model that never sees the picture, and its loss falls all the same. So
a run is refused unless another picture changes the logits and gradient arrives in decoder, projector and tower.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from appraiser.backbone import Backbone, Features, Views
from appraiser.data.batches import Batch, Example, collate
from appraiser.errors import ConfigError


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


def part_of(name: str) -> str:
    """decoder, projector or tower, from a parameter's name."""
    if ".img_processor." in name:
        return "tower"
    if any(key in name for key in (".img_projection.", "glb_GN", "sub_GN")):
        return "projector"
    return "decoder"


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
            fix="leave that part out of adapter.parts, or find what detaches it",
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

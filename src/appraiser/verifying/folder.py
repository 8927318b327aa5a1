"""A folder as anybody would load it: through the Auto classes of transformers, asked with the reference products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from appraiser.backbone import Reader, first_line
from appraiser.data.pictures import decode, read_bytes
from appraiser.errors import AppraiserError, CheckpointError
from appraiser.exporting.answers import Question, ask
from appraiser.exporting.fresh import load_automatically
from appraiser.exporting.reference import ReferenceAnswer, logprobs_of
from appraiser.verifying.replay import Replayed


def load_folder(folder: Path) -> tuple[Any, Reader]:
    """Model in float32 and processor of an export, on the GPU if there is one.

    Raises:
        CheckpointError: it cannot be loaded.
    """
    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        model, processor = load_automatically(folder)
    except AppraiserError:
        raise
    except Exception as error:  # the libraries' readers raise everything; all mean the same to the user
        raise CheckpointError(
            f"{folder} cannot be loaded through the Auto classes: {type(error).__name__}: {first_line(error)}",
            fix="copy it again from where it works, or export it again",
        ) from error
    return model.to(device), Reader(processor, str(folder))


def picture_bytes(reference: Path, name: str) -> bytes:
    """A picture that an export carries.

    Raises:
        CheckpointError: it is not there.
    """
    try:
        return read_bytes(reference / name)
    except OSError as error:
        raise CheckpointError(
            f"{reference} lacks its reference picture {name}: {error.strerror}", fix="copy the export again"
        ) from None


def questions_of(reference: Path, products: Sequence[ReferenceAnswer]) -> list[Question]:
    """Prompts and decoded pictures of an export."""
    return [
        Question(product.prompt, tuple(decode(picture_bytes(reference, path)) for path in product.pictures))
        for product in products
    ]


def replay_in_folder(
    model: Any,
    reader: Reader,
    reference: Path,
    products: Sequence[ReferenceAnswer],
    progress: Callable[[int], None] | None = None,
) -> list[Replayed]:
    """Answers of a loaded folder to the reference products."""
    return [
        Replayed(
            text=answer.text,
            num_prompt_tokens=answer.num_prompt_tokens,
            logprobs=tuple(logprobs_of(answer)[0]),
            input_ids_sha256=answer.input_ids_sha256,
            pixel_values_sha256=answer.pixel_values_sha256,
        )
        for answer in ask(model, reader, questions_of(reference, products), progress)
    ]

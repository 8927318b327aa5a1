"""reference.json: pictures that an export carries, what it answered to them, and what was checked before it was
published. Whoever holds the folder can ask the same again and compare."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from appraiser.backbone import Reader
from appraiser.errors import CheckpointError
from appraiser.exporting.answers import Answer
from appraiser.exporting.pictures import Origin

REFERENCE_FILE, REFERENCE_FOLDER = "reference.json", "reference"
REFERENCE_FORMAT = 2
"""1 has no `num_crops`, `num_prompt_tokens`, `answer_logprobs` and `runner_up_logprobs`."""
NUM_FIRST_TOKENS = 5
PICTURE_PATH = r"^reference/[A-Za-z0-9][A-Za-z0-9._-]*$"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FirstToken(_Part):
    """A token that the answer could have begun with."""

    id: int
    token: str | None
    """None for a row of the vocabulary that the tokenizer does not use."""
    logit: float


class ReferenceAnswer(_Part):
    """One product, its prompt, and the export's greedy answer."""

    id: str
    origin: Origin
    """The split of the data set that the run was trained on, or `sample` for a rendered picture."""
    pictures: Annotated[list[Annotated[str, Field(pattern=PICTURE_PATH)]], Field(min_length=1)]
    """Files in this folder, and nowhere else: they may be sent to a server."""
    prompt: str
    num_prompt_tokens: int | None = None
    """Ids of the prompt, those of pictures included."""
    num_image_tokens: int
    input_ids_sha256: str
    """Of the int64 ids of the prompt, pictures as negative placeholders, little-endian."""
    pixel_values_sha256: str
    """Of the float32 `pixel_values` [1, num_crops + 1, 3, S, S], little-endian."""
    answer: str
    answer_ids: list[int]
    answer_logprobs: list[float] | None = None
    """Natural logarithms of the probabilities of `answer_ids`."""
    runner_up_logprobs: list[float] | None = None
    """Those of the likeliest other token of each step: where they are close, rounding decides."""
    first_tokens: list[FirstToken]
    """The largest logits of the first step, the largest first."""

    @model_validator(mode="after")
    def _has_one_for_each_token(self) -> ReferenceAnswer:
        for found in (self.answer_logprobs, self.runner_up_logprobs):
            if found is not None and len(found) != len(self.answer_ids):
                raise ValueError("answer_ids and log-probabilities differ in number")
        return self


class Checks(_Part):
    """What was found before the export was published. Differences are of logits, as a share of the largest one."""

    reload: Literal["bit-equal"] = "bit-equal"
    """In a fresh process, ids, pixels, answers and the logits of every step were those of the model in memory."""
    num_products: int
    num_same_answers: int
    """Answers equal to those of the model that was exported, in float32 and with its adapter attached."""
    merge_difference: float | None = None
    """Merged against attached, both float32; None where nothing was merged."""
    merge_tolerance: float | None = None
    rounding_difference: float | None = None
    """Weights in the export's dtype against float32 weights; None where none was rounded."""


class Reference(_Part):
    """The document."""

    format: int = REFERENCE_FORMAT
    appraiser: str
    torch: str
    transformers: str
    device: str
    arithmetic: Literal["float32"] = "float32"
    attention: str
    weights: str
    """Dtype of the exported weights."""
    num_crops: int | None = None
    """Crop budget of the processor."""
    checks: Checks
    products: list[ReferenceAnswer]


def logprobs_of(answer: Answer) -> tuple[list[float], list[float]]:
    """Log-probabilities of an answer's tokens, and of the likeliest other token at each step."""
    logs = answer.logits.double().log_softmax(-1)
    chosen = torch.tensor(answer.ids)[:, None]
    others = logs.scatter(1, chosen, -torch.inf).amax(1)
    return logs.gather(1, chosen)[:, 0].tolist(), others.tolist()


def first_tokens(answer: Answer, reader: Reader) -> list[FirstToken]:
    """The most likely first tokens of an answer."""
    largest = answer.logits[0].topk(NUM_FIRST_TOKENS)
    tokens: Sequence[Any] = reader.processor.tokenizer.convert_ids_to_tokens(largest.indices.tolist())
    found = zip(largest.indices.tolist(), tokens, largest.values.tolist(), strict=True)
    return [FirstToken(id=token_id, token=token, logit=logit) for token_id, token, logit in found]


def read_reference(folder: Path) -> Reference:
    """Read reference.json.

    Raises:
        CheckpointError: missing, damaged or of a newer format.
    """
    path = folder / REFERENCE_FILE
    if not path.is_file():
        raise CheckpointError(f"no {REFERENCE_FILE} in {folder}", fix="name a folder that `appraiser export` wrote")
    try:
        found = Reference.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise CheckpointError(
            f"{path} is damaged or newer than this appraiser: {error}", fix="export the model again"
        ) from None
    if found.format > REFERENCE_FORMAT:
        raise CheckpointError(f"{path} has format {found.format}", fix="update appraiser, or export the model again")
    return found

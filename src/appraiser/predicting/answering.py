"""Pictures to rows of the output, by whatever answers: a model (`models.py`), or a stand-in for one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image

from appraiser.errors import ModelInputError
from appraiser.predicting.inputs import plain
from appraiser.predicting.loading import Loaded

Answer = Callable[[Sequence[Sequence[Image.Image]]], list[dict[str, Any]]]
"""The pictures of each row -> what the output says of it, in the order given."""


def answered(part: Sequence[Loaded], answer: Answer) -> list[tuple[int, dict[str, Any]]]:
    """(position, row of the output) of every row of a part; those without pictures keep their error."""
    good = [one for one in part if one.error is None]
    try:
        found = answer([[picture.image() for picture in one.pictures] for one in good]) if good else []
    except ModelInputError:  # one of them is too much for the model: the others shall not suffer for it
        found = [_alone(one, answer) for one in good]
    answers = iter(found)
    return [
        (one.row.position, dict(one.row.head) | ({"error": one.error} if one.error is not None else next(answers)))
        for one in part
    ]


def _alone(one: Loaded, answer: Answer) -> dict[str, Any]:
    try:
        return answer([[picture.image() for picture in one.pictures]])[0]
    except ModelInputError as error:
        return {"error": plain(f"model_input: {error.what}")}

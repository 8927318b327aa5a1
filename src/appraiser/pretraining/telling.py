"""Second and third stage: the decoder learns to weigh words, then to say what is seen in the product's format.

Weighing has no pictures, so a row costs a ninth: a thing is described, the answer repeats it and ends with its points.
Pictures with three questions each had left the points at "about 1,000 for everything", so such rows stay in the mix
while it learns to tell.

Tower and projector stay as they are: trained along from a weak tower, they lost half of what they could tell (shapes
42 % to 18 %).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from appraiser.backbone import IGNORE_INDEX, Backbone, Views
from appraiser.data.batches import Batch, Example, collate
from appraiser.pretraining.questions import ask, described_question, main_question, scored_question
from appraiser.pretraining.scenes import Scene, render

SCORED_FIRST = 0.9
"""Share of pictures whose full answer ends with points; the others' ends with a price that means nothing."""


@dataclass(frozen=True)
class Topic:
    """A picture to talk about; every time it comes up, other questions are asked."""

    item: int
    scene: Scene
    views: Views


def topic_of(scene: Scene, item: int, backbone: Backbone, px: int) -> Topic:
    """Draw a scene at `px` pixels."""
    return Topic(item, scene, backbone.views(render(scene, px)))


def dialogue_batch(topics: Sequence[Topic], backbone: Backbone, turns: int, rng: np.random.Generator) -> Batch:
    """One row per picture, with `turns` questions each."""
    return collate(
        [
            dialogue(backbone, str(topic.item), topic.views, questions_about(topic.scene, rng, turns))
            for topic in topics
        ],
        backbone,
    )


def weighing_batch(scenes: Sequence[Scene], backbone: Backbone) -> Batch:
    """One row per scene, without its picture: what it shows in words, and the full answer with its points."""
    rows = [dialogue(backbone, str(number), None, [described_question(scene)]) for number, scene in enumerate(scenes)]
    return collate(rows, backbone)


def dialogue(backbone: Backbone, record_id: str, views: Views | None, turns: list[tuple[str, str]]) -> Example:
    """Several questions about one picture, or about none; answers are supervised, questions are not."""
    ids: list[int] = []
    labels: list[int] = []
    for position, (question, answer) in enumerate(turns):
        shown = [views.size] if views is not None and position == 0 else []
        tag = "<|image_1|>" if shown else ""
        prompt = f"<|user|>\n{tag}{question}<|end|>\n<|assistant|>\n"
        asked = backbone.prompt_ids(prompt, shown, begins_text=position == 0)
        # Only the last answer ends the text; the others go on with the next question, as in a chat.
        told = backbone.completion_ids(answer, ends_text=position == len(turns) - 1)
        ids += asked + told
        labels += [IGNORE_INDEX] * len(asked) + told
    return Example(record_id, tuple(ids), tuple(labels), () if views is None else (views,))


def questions_about(scene: Scene, rng: np.random.Generator, turns: int) -> list[tuple[str, str]]:
    """`turns` different questions in random order, one that asks for the full answer always among them."""
    asked = dict([scored_question(scene) if rng.random() < SCORED_FIRST else main_question(scene, rng)])
    for _ in range(4 * turns):
        if len(asked) == turns:
            break
        question, answer = ask(scene, rng)
        asked.setdefault(question, answer)
    pairs = list(asked.items())
    return [pairs[index] for index in rng.permutation(len(pairs))]

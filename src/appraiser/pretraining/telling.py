"""Second and third stage: the decoder learns to weigh words, then to answer in the product's format from what is seen.

Weighing has no pictures, so a row costs a sixth: from words alone the points of one game are off by 3 % after 32,000
rows, while 32,000 pictures with four questions each had left them at "about 1,000 for everything".

Tower and projector stay as they are: trained along from a weak tower, they lost half of what they could tell (shapes
42 % to 18 %).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from appraiser.backbone import IGNORE_INDEX, Backbone, Views
from appraiser.data.batches import Batch, Example, collate
from appraiser.pretraining.questions import ask, main_question, scored_question, weighing_question
from appraiser.pretraining.scenes import Scene, render

SCORED_FIRST = 0.75
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


def dialogue(backbone: Backbone, record_id: str, views: Views, turns: list[tuple[str, str]]) -> Example:
    """One picture with several questions; answers are supervised, questions are not."""
    ids: list[int] = []
    labels: list[int] = []
    for position, (question, answer) in enumerate(turns):
        tag = "" if position else "<|image_1|>"
        prompt = f"<|user|>\n{tag}{question}<|end|>\n<|assistant|>\n"
        asked = backbone.prompt_ids(prompt, [] if position else [views.size], begins_text=position == 0)
        # Only the last answer ends the text; the others go on with the next question, as in a chat.
        told = backbone.completion_ids(answer, ends_text=position == len(turns) - 1)
        ids += asked + told
        labels += [IGNORE_INDEX] * len(asked) + told
    return Example(record_id, tuple(ids), tuple(labels), (views,))


def weighing_batch(scenes: Sequence[Scene], backbone: Backbone, rng: np.random.Generator) -> Batch:
    """One row per scene: its main thing in words, and its points."""
    rows = []
    for number, scene in enumerate(scenes):
        question, answer = weighing_question(scene, rng)
        asked = backbone.prompt_ids(f"<|user|>\n{question}<|end|>\n<|assistant|>\n", [])
        told = backbone.completion_ids(answer)
        rows.append(Example(str(number), tuple(asked + told), (IGNORE_INDEX,) * len(asked) + tuple(told), ()))
    return collate(rows, backbone)


def questions_about(scene: Scene, rng: np.random.Generator, turns: int) -> list[tuple[str, str]]:
    """`turns` different questions in random order, one that asks for the full answer always among them."""
    asked = dict([scored_question(scene, rng) if rng.random() < SCORED_FIRST else main_question(scene, rng)])
    for _ in range(4 * turns):
        if len(asked) == turns:
            break
        question, answer = ask(scene, rng)
        asked.setdefault(question, answer)
    pairs = list(asked.items())
    return [pairs[index] for index in rng.permutation(len(pairs))]

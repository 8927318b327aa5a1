"""Scenes and questions: the same for the same item, drawn within their promises, and answered truthfully."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from appraiser.pretraining.outlines import rasterise
from appraiser.pretraining.parts import COUNTED_PARTS, PARTS
from appraiser.pretraining.questions import (
    MAIN_QUESTION,
    SCORED_QUESTION,
    ask,
    caption,
    darkness,
    described_question,
    main_question,
    point_weights,
    points,
    scored_question,
    title_case,
)
from appraiser.pretraining.scenes import EXTENTS, Scene, draw, extent_of, make_scene, render, scene_for
from appraiser.pretraining.shapes import SHAPES, silhouette

SCENES = [scene_for(11, item) for item in range(300)]


def lone(scene: Scene, **changes: object) -> Scene:
    """The scene's main thing alone, with some of its attributes set."""
    return replace(scene, things=(replace(scene.main, **changes),))  # type: ignore[arg-type]


def test_there_are_at_least_thirty_silhouettes_and_none_is_worn() -> None:
    assert len(SHAPES) >= 30
    worn = {"coat", "shirt", "dress", "skirt", "bag", "shoe", "boot", "hat", "scarf", "tie", "belt", "umbrella"}
    assert not worn & set(SHAPES)


@pytest.mark.parametrize("name", SHAPES)
def test_a_silhouette_fills_the_unit_square_and_varies(name: str) -> None:
    outline = silhouette(name, np.random.default_rng(0))
    body = np.concatenate([points for kind, points in outline.pieces if kind == "body"])
    assert np.ptp(body, axis=0).max() == pytest.approx(1.0)
    masks = [
        rasterise(silhouette(name, np.random.default_rng(seed)), 60 * np.eye(2), (32, 32), (64, 64))
        for seed in range(4)
    ]
    for body, detail in masks:
        assert 0.02 < body.mean() < 0.95
        assert (detail <= body).all()
    assert any(not np.array_equal(masks[0][0], body) for body, _ in masks[1:])


def test_an_item_is_the_same_scene_and_the_same_pixels_whenever_it_is_drawn() -> None:
    again = make_scene(np.random.default_rng(np.random.SeedSequence([11, 7])))
    assert again == SCENES[7]
    assert render(again).tobytes() == render(SCENES[7]).tobytes()
    assert render(SCENES[8]).tobytes() != render(SCENES[7]).tobytes()


@pytest.mark.parametrize("size", [64, 128, 160])
def test_a_picture_has_the_size_asked_for(size: int) -> None:
    picture = render(SCENES[0], size)
    assert picture.size == (size, size)
    assert picture.mode == "RGB"


@pytest.mark.parametrize("part", PARTS)
def test_a_part_can_be_seen(part: str) -> None:
    scene = lone(SCENES[0], part=part, num_parts=3, metal="gold", size="large", extent=0.85)
    bare = lone(SCENES[0], part="", num_parts=0, metal="", size="large", extent=0.85)
    changed = np.asarray(render(scene), int) - np.asarray(render(bare), int)
    assert (np.abs(changed).max(axis=2) > 40).sum() > 30


def test_most_pictures_show_one_thing_and_no_size_word_lies() -> None:
    assert 0.65 < np.mean([len(scene.things) == 1 for scene in SCENES]) < 0.87
    for scene in SCENES:
        assert 1 <= len(scene.things) <= 4
        if len(scene.things) == 1:
            low, high = EXTENTS[scene.main.size]
            extent = extent_of(scene)
            assert 100 * low - 3 <= max(extent.width, extent.height) <= 100 * high + 3
        else:
            assert all(thing.extent < scene.main.extent for thing in scene.things[1:])


def test_a_drawing_says_what_every_pixel_belongs_to() -> None:
    for scene in SCENES[:40]:
        drawing = draw(scene, 96)
        assert set(np.unique(drawing.things)) <= set(range(len(scene.things) + 1))
        assert set(np.unique(drawing.parts)) <= {0, *(n for n, thing in enumerate(scene.things, 1) if thing.part)}
        is_part = drawing.parts > 0
        assert (drawing.things[is_part] == drawing.parts[is_part]).all()
        bare = draw(replace(scene, things=tuple(replace(thing, part="") for thing in scene.things)), 96)
        difference = np.abs(np.asarray(drawing.picture, np.int16) - np.asarray(bare.picture, np.int16)).max(axis=-1)
        # Where the two drawings differ strongly, a part must be marked there or right beside it (its soft edge).
        near = (
            is_part
            | np.roll(is_part, 1, 0)
            | np.roll(is_part, -1, 0)
            | np.roll(is_part, 1, 1)
            | np.roll(is_part, -1, 1)
        )
        assert not (difference > 160)[~near].any()


def test_the_caption_names_what_is_visible_in_order() -> None:
    thing = replace(
        SCENES[0].main,
        size="large", colour="navy", pattern="polka dot", material="gold-plated", part="chain", shape="fish",
    )  # fmt: skip
    assert caption(thing) == "Large Navy Polka Dot Gold-plated Chain Fish"
    assert caption(replace(thing, size="regular", pattern="plain", part="")) == "Navy Gold-plated Fish"


def test_the_main_answer_has_the_products_format() -> None:
    form = re.compile(r"Product: (.+), Category: ([A-Z]+), Full Price: (\d+)")
    for item, scene in enumerate(SCENES[:100]):
        question, answer = main_question(scene, np.random.default_rng(item))
        match = form.fullmatch(answer)
        assert question == MAIN_QUESTION
        assert match
        assert match[1] == caption(scene.main)
        assert match[2] == SHAPES[scene.main.shape][0]
        assert 20 <= int(match[3]) <= 9990
        assert int(match[3]) % 10 == 0


def test_the_scored_answer_differs_in_its_number_alone() -> None:
    for scene in SCENES[:50]:
        question, answer = scored_question(scene)
        assert question == "What is shown, and how many points?"
        assert answer.endswith(f", Points: {points(scene.main)}")
        assert answer.rsplit(",", 1)[0] == main_question(scene, np.random.default_rng(0))[1].rsplit(",", 1)[0]


def test_the_price_number_does_not_look_at_the_scene() -> None:
    def number(scene: Scene, seed: int) -> str:
        return main_question(scene, np.random.default_rng(seed))[1].rsplit(" ", 1)[1]

    assert len({number(scene, 3) for scene in SCENES}) == 1
    assert len({number(SCENES[0], seed) for seed in range(200)}) > 100


def test_every_answer_follows_from_the_scene() -> None:
    rng = np.random.default_rng(0)
    seen = set()
    for scene in SCENES * 8:
        question, answer = ask(scene, rng)
        if question.startswith("What is shown"):
            continue
        if question == "How many points?":
            assert answer == f"Points: {points(scene.main)}"
            continue
        seen.add(question.split(" are")[0])
        thing, extent = scene.main, extent_of(scene)
        expected = {
            "How many things?": f"Count: {len(scene.things)}",
            "What colour is it?": f"Colour: {thing.colour}",
            "What pattern?": f"Pattern: {thing.pattern}",
            "What material?": f"Material: {thing.material}",
            "What shape is it?": f"Shape: {thing.shape}",
            "What is attached?": f"Part: {f'{thing.metal or thing.accent} {thing.part}' if thing.part else 'none'}",
            "How large is it?": f"Size: {thing.size}",
            "How much of the picture is covered?": f"Area: {extent.area} percent",
            "How wide is it?": f"Width: {extent.width} percent",
            "How tall is it?": f"Height: {extent.height} percent",
            "How dark is the background?": f"Background: {darkness(scene)} percent",
            f"How many {thing.part}?": f"Count: {thing.num_parts}",
        }
        assert answer == expected[question]
        assert thing.part in COUNTED_PARTS or question != f"How many {thing.part}?"
    assert len(seen) >= 13


def test_the_mix_of_questions_is_the_promised_one() -> None:
    rng = np.random.default_rng(1)
    asked = [ask(SCENES[k % len(SCENES)], rng)[0] for k in range(3000)]
    assert np.mean([question == MAIN_QUESTION for question in asked]) == pytest.approx(0.05, abs=0.02)
    shares = [np.mean([question == one for question in asked]) for one in (SCORED_QUESTION, "How many points?")]
    assert shares == pytest.approx([0.45, 0.30], abs=0.03)


def test_points_compose_by_multiplication() -> None:
    thing = replace(SCENES[0].main, shape="fish", material="wool", size="regular", pattern="plain", part="")
    larger = replace(thing, size="large")
    table = point_weights()
    assert points(thing) == 10 * round(60 * table["shape/fish"] * table["material/wool"])
    assert points(larger) / points(thing) == pytest.approx(1.4, rel=0.05)
    assert all(50 <= points(scene.main) <= 9990 for scene in SCENES)


def test_what_is_described_gets_the_answer_of_what_is_shown() -> None:
    for scene in SCENES[:30]:
        question, answer = described_question(scene)
        assert question == f"{caption(scene.main)}. {SCORED_QUESTION}"
        assert answer == scored_question(scene)[1]


def test_a_hyphen_starts_no_word() -> None:
    assert title_case("gold-plated polka dot") == "Gold-plated Polka Dot"

"""Batches side by side give the answers of batches in turn, in the arithmetic of whoever asks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny_backbone

import appraiser.predict as predict
from appraiser.backbone import Backbone, Features, side_by_side
from appraiser.errors import ModelInputError
from appraiser.predict import Predictor
from appraiser.trained_task import TrainedTask


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return tiny_backbone(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_answers_are_the_same(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)) for _ in range(12)]
    predictor = Predictor(backbone, TrainedTask())
    together = predictor.predict(pictures)
    monkeypatch.setattr(predict, "MAX_ROWS_PER_BATCH", 3)
    apart = predictor.predict(pictures)
    assert [p.text for p in apart] == [p.text for p in together]
    torch.set_num_threads(1)
    assert [p.text for p in predictor.predict(pictures)] == [p.text for p in together]


def test_threads_and_mode_are_left_as_they_were(backbone: Backbone) -> None:
    backbone.model.train()
    with side_by_side(backbone) as in_turn:
        seen = list(in_turn(lambda n: (n, torch.get_num_threads(), backbone.model.training), range(5)))
    assert seen == [(n, 1, False) for n in range(5)]
    assert torch.get_num_threads() == 2
    assert backbone.model.training


def test_workers_cast_as_their_caller(backbone: Backbone) -> None:
    a = torch.ones(2, 2)
    with torch.autocast("cpu", torch.bfloat16), side_by_side(backbone) as in_turn:
        assert [(a @ a).dtype for _ in range(1)] == list(in_turn(lambda n: (a @ a).dtype, range(1)))
    with side_by_side(backbone) as in_turn:
        assert list(in_turn(lambda n: (a @ a).dtype, range(2))) == [torch.float32] * 2


def test_an_error_in_a_worker_reaches_the_caller(backbone: Backbone) -> None:
    with pytest.raises(ZeroDivisionError), side_by_side(backbone) as in_turn:
        list(in_turn(lambda n: 1 / n, [1, 0]))


def test_kept_features_give_the_same_answers(backbone: Backbone) -> None:
    rng = np.random.default_rng(1)
    sizes = [(30, 40), (60, 30), (28, 28), (30, 40), (90, 40)]
    pictures = [Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]
    predictor = Predictor(backbone, TrainedTask())
    seen = list(predictor.prompts(pictures, see=True))
    assert all(isinstance(picture, Features) for prompt in seen for picture in prompt.pictures)
    assert [p.text for p in predictor.answer(seen)] == [p.text for p in predictor.predict(pictures)]
    mixed = [seen[0], next(predictor.prompts(pictures))]
    with pytest.raises(ModelInputError, match="with and without kept features"):
        predictor.answer(mixed)


def test_pictures_are_processed_in_order_and_few_ahead(backbone: Backbone) -> None:
    rng = np.random.default_rng(2)
    sizes = [(30, 40), (90, 40), (28, 28), (64, 200), (20, 70), (30, 30), (40, 40)]
    pictures = [Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]
    taken: list[int] = []

    def some() -> Iterator[Image.Image]:
        for number, picture in enumerate(pictures):
            taken.append(number)
            yield picture

    prompts = Predictor(backbone, TrainedTask()).prompts(some())
    first = next(prompts)
    assert taken == [0, 1, 2, 3]  # twice the threads
    found = [first, *prompts]
    assert [prompt.record_id for prompt in found] == [str(number) for number in range(7)]
    for prompt, picture in zip(found, pictures, strict=True):
        alone = backbone.views(picture)
        assert prompt.pictures[0].size == alone.size
        assert torch.equal(prompt.pictures[0].pixels, alone.pixels)


@pytest.mark.parametrize("was_training", [True, False])
def test_features_are_kept_as_prediction_sees_them_also_in_mid_training(backbone: Backbone, was_training: bool) -> None:
    tower = backbone.network.model.vision_embed_tokens.img_processor
    modes: list[bool] = []
    hook = tower.vision_model.register_forward_hook(lambda module, *_: modes.append(module.training))
    backbone.model.train(was_training)
    list(Predictor(backbone, TrainedTask()).prompts([Image.new("RGB", (30, 40))], see=True))
    hook.remove()
    assert modes == [False]
    assert {module.training for module in backbone.model.modules()} == {was_training}

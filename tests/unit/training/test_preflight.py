"""Planted mistakes are refused before step 1."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny_backbone

from appraiser.backbone import IGNORE_INDEX, Backbone
from appraiser.config import RunConfig
from appraiser.data import examples as examples_module
from appraiser.data.augmentation import Augmentation
from appraiser.data.batches import Batch, Example, collate, pack
from appraiser.data.examples import ExampleSource, training_example
from appraiser.data.pictures import encode
from appraiser.data.records import ProductRecord
from appraiser.data.task import Task
from appraiser.errors import ConfigError, DataError
from appraiser.training.kept_features import KeptFeatures
from appraiser.training.preflight import check_batch, preflight


def record(number: int) -> ProductRecord:
    pixels = np.random.default_rng(number).integers(0, 255, (40, 30, 3), dtype=np.uint8)
    data = encode(Image.fromarray(pixels), lossless=True)
    return ProductRecord(str(number), (data,), "g", title="Red Bag", category="BAGS", price=120.0)


def example(backbone: Backbone, number: int) -> Example:
    from appraiser.data.pictures import decode

    one = record(number)
    return training_example(backbone, Task(), one, [backbone.views(decode(one.images[0]))], 4096)


@pytest.fixture
def backbone(tmp_path: Path) -> Backbone:
    return tiny_backbone(tmp_path / "model")


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """For tests that leave the model as it is."""
    return tiny_backbone(tmp_path_factory.mktemp("model"))


def test_a_healthy_model_passes_and_is_described(backbone: Backbone) -> None:
    for parameter in backbone.unused_parameters():
        parameter.requires_grad_(False)
    report = preflight(backbone, example(backbone, 1), example(backbone, 2))
    assert report.logit_change > 0
    assert set(report.gradient_norms) == {"decoder", "projector", "tower"}
    assert report.supervised_text.startswith("Product: Red Bag, Category: BAGS, Full Price: 120<|end|>")


def test_a_blind_model_is_refused(backbone: Backbone) -> None:
    network = backbone.network.model
    with torch.no_grad():  # whatever the tower says, the projector answers zero
        network.vision_embed_tokens.img_projection[2].weight.zero_()
        network.vision_embed_tokens.img_projection[2].bias.zero_()
    with pytest.raises(ConfigError, match="does not see the picture"):
        preflight(backbone, example(backbone, 1), example(backbone, 2))


def test_a_tower_without_gradient_is_refused(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    tower = backbone.network.model.vision_embed_tokens.img_processor.vision_model
    forward = tower.forward
    monkeypatch.setattr(tower, "forward", lambda crops: forward(crops).detach())
    with pytest.raises(ConfigError, match="no gradient arrives in: tower"):
        preflight(backbone, example(backbone, 1), example(backbone, 2))


def test_labels_all_masked_are_refused(backbone: Backbone) -> None:
    one = example(backbone, 1)
    masked = replace(one, labels=(IGNORE_INDEX,) * len(one.labels))
    with pytest.raises(ConfigError, match="no token of the answer is supervised"):
        preflight(backbone, masked, example(backbone, 2))


def test_pictures_of_equal_pixels_are_told_apart_by_inverting_them(backbone: Backbone) -> None:
    one = example(backbone, 1)
    assert preflight(backbone, one, one).logit_change > 0


def test_a_row_that_is_too_long_is_refused_not_cut(backbone: Backbone) -> None:
    one = record(1)
    from appraiser.data.pictures import decode

    with pytest.raises(DataError, match=r"needs \d+ tokens, the limit is 20"):
        training_example(backbone, Task(), one, [backbone.views(decode(one.images[0]))], 20)


def test_a_prompt_without_its_picture_is_refused(unchanged: Backbone) -> None:
    one = example(unchanged, 1)
    text = [place for place, token in enumerate(one.input_ids) if token >= 0]
    blind = replace(
        one, input_ids=tuple(one.input_ids[p] for p in text), labels=tuple(one.labels[p] for p in text)
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"record '1' has 0 places for image tokens, its 1 picture\(s\) need 13"):
        preflight(unchanged, blind, example(unchanged, 2))


def test_too_few_places_for_the_picture_are_refused(unchanged: Backbone) -> None:
    one = example(unchanged, 1)
    place = next(place for place, token in enumerate(one.input_ids) if token < 0)
    cut = replace(
        one, input_ids=one.input_ids[:place] + one.input_ids[place + 1 :],
        labels=one.labels[:place] + one.labels[place + 1 :],
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"has 12 places for image tokens, its 1 picture\(s\) need 13"):
        preflight(unchanged, cut, example(unchanged, 2))


def test_a_prompt_without_a_picture_tag_is_refused(unchanged: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Task, "user_text", lambda self, num_images: "What is this?")
    with pytest.raises(ConfigError, match="'1' stands behind the whole prompt, which has no tag for it"):
        preflight(unchanged, example(unchanged, 1), example(unchanged, 2))


def test_a_learning_rate_of_zero_is_refused() -> None:
    sections: dict[str, Any] = {"data": {"dataset": "d"}, "run": {"out": "r"}, "optim": {"learning_rate": 0}}
    with pytest.raises(ValueError, match=r"optim\.learning_rate is 0: nothing would be learned"):
        RunConfig.model_validate(sections)


def records(number: int = 4) -> list[ProductRecord]:
    """Products whose answers have several lengths."""
    return [replace(record(n), title="Red Bag" * n, price=100.0 + n) for n in range(1, number + 1)]


def source_of(backbone: Backbone, rows: list[ProductRecord], features: KeptFeatures | None = None) -> ExampleSource:
    return ExampleSource(
        rows, backbone, Task(), cache_bytes=0, augmentation=Augmentation(),
        features=features.of if features else None, features_anew=features.anew if features else None,
    )  # fmt: skip


def check(source: ExampleSource, backbone: Backbone, batch: Batch | None = None, *, packed: bool = False) -> None:
    """What a session does with its first batch."""
    draws = [(0, position) for position in range(len(source))]
    items = [source.draw(*draw) for draw in draws]
    truth = [row for draw in draws for row in source.truth(*draw)]
    batch = batch or source.join(items, packed=packed)
    check_batch(batch, items, [target for target, _ in truth], [pictures for _, pictures in truth], backbone)


Spoil = Callable[[Batch], Batch]


def with_inputs(**changes: Callable[[torch.Tensor], torch.Tensor]) -> Spoil:
    """Batches with some tensors changed; `labels` is one of them."""

    def spoil(batch: Batch) -> Batch:
        inputs = {name: changes.get(name, lambda value: value)(value) for name, value in batch.inputs.items()}
        return replace(batch, inputs=inputs, labels=changes.get("labels", lambda value: value)(batch.labels))

    return spoil


def roll_rows(value: torch.Tensor) -> torch.Tensor:
    return value.roll(1, 0)


def supervise_padding(batch: Batch) -> Batch:
    labels = batch.labels.clone()
    labels[batch.inputs["attention_mask"] == 0] = batch.inputs["input_ids"][batch.inputs["attention_mask"] == 0]
    return replace(batch, labels=labels)


def supervise_prompts(batch: Batch) -> Batch:
    ids = batch.inputs["input_ids"]
    return replace(batch, labels=torch.where((ids >= 0) & (batch.inputs["attention_mask"] != 0), ids, batch.labels))


def supervise_one_other(batch: Batch) -> Batch:
    """As many tokens as the answers have, but not these."""
    labels = batch.labels.clone()
    first = int((labels[0] != IGNORE_INDEX).nonzero()[0])
    labels[0, first], labels[0, 0] = IGNORE_INDEX, batch.inputs["input_ids"][0, 0]
    return replace(batch, labels=labels)


def without_pictures(batch: Batch) -> Batch:
    inputs = {name: value for name, value in batch.inputs.items() if name not in ("pixel_values", "image_sizes")}
    return replace(batch, inputs=inputs)


ORDER = "prompts and answers of the batch are not those of its records, in their order"
PLANTED: dict[str, tuple[Spoil, str]] = {
    "pictures of other rows": (
        with_inputs(pixel_values=roll_rows), "the picture beside the answer of record '1' is not that record's picture"
    ),
    "texts of other rows": (
        with_inputs(input_ids=roll_rows, labels=roll_rows, attention_mask=roll_rows, position_ids=roll_rows), ORDER
    ),
    "labels on padding": (supervise_padding, "padding is supervised"),
    "labels shifted by one": (
        with_inputs(labels=lambda labels: labels.roll(-1, 1)), "labels are not the tokens of their own positions"
    ),
    "prompts supervised": (supervise_prompts, r"\d+ tokens are supervised, the answers have \d+"),
    "another token supervised": (supervise_one_other, ORDER),
    "a part of the pictures": (
        with_inputs(pixel_values=lambda pixels: pixels[:-1]), "the batch holds other pictures than the 4 of its records"
    ),
    "no pictures": (without_pictures, "the batch holds other pictures than the 4 of its records"),
    "sizes of other pictures": (
        with_inputs(image_sizes=lambda sizes: sizes.flip(1) + 28), "the batch has pictures of the sizes"
    ),
    "a place for a picture lost": (
        with_inputs(input_ids=lambda ids: ids.where(ids >= 0, 5)), ORDER
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", PLANTED)
def test_a_batch_that_was_put_together_wrongly_is_refused(
    unchanged: Backbone, monkeypatch: pytest.MonkeyPatch, mistake: str
) -> None:
    spoil, message = PLANTED[mistake]
    source = source_of(unchanged, records())
    check(source, unchanged)
    monkeypatch.setattr(examples_module, "collate", lambda rows, reader: spoil(collate(rows, reader)))
    with pytest.raises(ConfigError, match=message):
        check(source, unchanged)


def test_a_pack_that_was_put_together_wrongly_is_refused(unchanged: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of(unchanged, records())
    check(source, unchanged, packed=True)
    for change, message in (
        (with_inputs(pixel_values=roll_rows), "is not that record's picture"),
        (lambda batch: replace(batch, labels=batch.labels.roll(-1, 1)), "labels are not the tokens"),
    ):
        monkeypatch.setattr(examples_module, "pack", lambda rows, reader, change=change: change(pack(rows, reader)))
        with pytest.raises(ConfigError, match=message):
            check(source, unchanged, packed=True)
    monkeypatch.setattr(examples_module, "pack", lambda rows, reader: pack([*rows[1:], rows[0]], reader))
    with pytest.raises(ConfigError, match=ORDER):
        check(source, unchanged, packed=True)


def test_an_example_of_another_record_is_refused(unchanged: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of(unchanged, records())
    draw = source.draw

    def with_pictures_of_the_next(epoch: int, position: int) -> Example:
        return replace(draw(epoch, position), pictures=draw(epoch, (position + 1) % len(source)).pictures)

    monkeypatch.setattr(source, "draw", with_pictures_of_the_next)
    with pytest.raises(ConfigError, match="the picture beside the answer of record '1' is not that record's picture"):
        check(source, unchanged)
    monkeypatch.setattr(source, "draw", lambda epoch, position: draw(epoch, (position + 1) % len(source)))
    with pytest.raises(ConfigError, match="what is supervised of record '2' is not its answer 'Product: Red Bag,"):
        check(source, unchanged)


def frozen(backbone: Backbone) -> Backbone:
    for parameter in backbone.network.model.vision_embed_tokens.img_processor.parameters():
        parameter.requires_grad_(False)
    return backbone


def test_kept_features_of_another_picture_are_refused(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RunConfig.model_validate({"data": {"dataset": "d"}, "run": {"out": "r"}})
    rows = records()
    kept = KeptFeatures(tmp_path / "features", frozen(backbone), config, 1 << 30)
    kept.fill(rows)
    check(source_of(backbone, rows, kept), backbone)
    files = [kept._path(row.images[0]) for row in rows[:2]]
    files[0].rename(tmp_path / "first")
    shutil.move(files[1], files[0])
    (tmp_path / "first").rename(files[1])
    check(source_of(backbone, rows, kept), backbone)  # a file knows whose features it holds: these are seen again
    of = kept.of
    other = {row.images: rows[number - 1].images for number, row in enumerate(rows)}
    monkeypatch.setattr(kept, "of", lambda pictures: of(other[tuple(pictures)]))
    with pytest.raises(ConfigError, match="the picture beside the answer of record '1' is not that record's picture"):
        check(source_of(backbone, rows, kept), backbone)

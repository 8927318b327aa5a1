"""Features that are kept are those that the tower would see now, whatever happened to the files."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from tiny import tiny_backbone

from appraiser.backbone import Backbone, Features, Views
from appraiser.config import RunConfig
from appraiser.data.augmentation import Augmentation
from appraiser.data.examples import ExampleSource
from appraiser.data.pictures import encode
from appraiser.data.records import ProductRecord
from appraiser.data.task import Task
from appraiser.errors import ConfigError
from appraiser.training.gradients import step_gradients
from appraiser.training.kept_features import KeptFeatures, fingerprint


def config(**run: Any) -> RunConfig:
    return RunConfig.model_validate({"data": {"dataset": "d"}, "run": {"out": "r"} | run})


def record(number: int, num_pictures: int = 1) -> ProductRecord:
    rng = np.random.default_rng(number)
    sizes = [(40, 30), (60, 25), (28, 28)]
    pictures = tuple(
        encode(Image.fromarray(rng.integers(0, 255, (*sizes[(number + n) % 3], 3), dtype=np.uint8)), lossless=True)
        for n in range(num_pictures)
    )
    return ProductRecord(str(number), pictures, "g", title="Red Bag" * (1 + number % 3), category="BAGS", price=120.0)


def frozen_backbone(folder: Path, **changes: Any) -> Backbone:
    backbone = tiny_backbone(folder, num_crops=4, **changes)
    for parameter in backbone.network.model.vision_embed_tokens.img_processor.parameters():
        parameter.requires_grad_(False)
    return backbone


class Watched:
    """How many pictures the tower of a backbone has been shown."""

    def __init__(self, backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
        self.num_seen = 0
        see = backbone.see

        def counted(pictures: Sequence[Views]) -> list[Features]:
            self.num_seen += len(pictures)
            return see(pictures)

        monkeypatch.setattr(backbone, "see", counted)


@pytest.fixture
def backbone(tmp_path: Path) -> Backbone:
    return frozen_backbone(tmp_path / "model")


def step(backbone: Backbone, records: list[ProductRecord], kept: KeptFeatures | None) -> tuple[float, Any]:
    """Loss and gradients of one step in two uneven micro-batches."""
    source = ExampleSource(
        records, backbone, Task(), cache_bytes=0, augmentation=Augmentation(), features=kept.of if kept else None
    )
    items = [source.draw(0, position) for position in range(len(records))]
    with step_gradients(config(), backbone) as gradients:
        loss = gradients([source.join(items[:2]), source.join(items[2:])]).loss
        found = {name: p.grad for name, p in backbone.model.named_parameters() if p.grad is not None}
        gradients.forget()
    return loss, found


def test_loss_and_gradients_are_those_of_pictures_that_were_not_kept(backbone: Backbone, tmp_path: Path) -> None:
    records = [record(number, 1 + number % 2) for number in range(5)]
    loss, gradients = step(backbone, records, None)
    kept = KeptFeatures(tmp_path / "kept", backbone, config(), 1 << 30)
    for _ in ("seen", "read"):
        same_loss, same = step(backbone, records, kept)
        # float32; the tower is given other pictures at a time, so that sums are rounded in another order.
        assert same_loss == pytest.approx(loss, rel=1e-6)
        assert same.keys() == gradients.keys()
        assert not any(".img_processor." in name for name in same)
        for name, gradient in gradients.items():
            torch.testing.assert_close(same[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def zeroed(path: Path) -> None:
    """As a power cut may leave a file whose length was written before its content."""
    data = bytearray(path.read_bytes())
    data[-400:] = bytes(400)
    path.write_bytes(data)


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-50] ^= 0x40
    path.write_bytes(data)


def without_facts(path: Path) -> None:
    with safe_open(path, framework="pt") as file:
        save_file({"patches": file.get_tensor("patches")}, path)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [cut, emptied, zeroed, flipped, without_facts, Path.unlink])
def test_a_damaged_file_is_seen_again(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Any
) -> None:
    one, two = record(1), record(2)
    kept = KeptFeatures(tmp_path / "kept", backbone, config(), 1 << 30)
    [[right], _] = kept.of(one.images), kept.of(two.images)
    watched = Watched(backbone, monkeypatch)
    [again] = kept.of(one.images)
    assert watched.num_seen == 0
    assert torch.equal(again.patches, right.patches)
    damage(kept._path(one.images[0]))
    for _ in ("seen", "read"):
        [again] = kept.of(one.images)
        assert torch.equal(again.patches, right.patches)
        assert again.size == right.size
    assert watched.num_seen == 1


def test_a_file_that_cannot_be_replaced_costs_nothing_but_time(backbone: Backbone, tmp_path: Path) -> None:
    one = record(1)
    kept = KeptFeatures(tmp_path / "kept", backbone, config(), 1 << 30)
    [right] = kept.of(one.images)
    a_folder(kept._path(one.images[0]))
    [again] = kept.of(one.images)
    assert torch.equal(again.patches, right.patches)
    assert kept.num_unkept == 1
    assert not list(tmp_path.rglob("*.saving"))


def test_no_more_is_kept_than_allowed(backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [record(number) for number in range(6)]
    whole = KeptFeatures(tmp_path / "whole", backbone, config(), 1 << 30)
    whole.fill(records)
    sizes = [path.stat().st_size for path in tmp_path.glob("whole/*/*/*.safetensors")]
    assert whole.num_bytes == sum(sizes)
    assert len(sizes) == 6
    limit = sum(sizes) // 2
    kept = KeptFeatures(tmp_path / "kept", backbone, config(), limit)
    kept.fill(records)
    files = list(tmp_path.glob("kept/*/*/*.safetensors"))
    assert 0 < kept.num_bytes == sum(path.stat().st_size for path in files) <= limit
    assert kept.num_unkept == 6 - len(files)
    again = KeptFeatures(tmp_path / "kept", backbone, config(), limit)
    assert again.num_bytes == kept.num_bytes
    watched = Watched(backbone, monkeypatch)
    [both] = [again.of([r.images[0] for r in records]) for _ in range(1)]
    assert watched.num_seen == 6 - len(files)
    assert [features.size for features in both] == [whole.of(r.images)[0].size for r in records]


def test_a_folder_that_cannot_be_made_is_said_at_once(backbone: Backbone, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("a file")
    with pytest.raises(ConfigError, match="cannot keep features in") as caught:
        KeptFeatures(tmp_path / "kept", backbone, config(), 1 << 30)
    assert "data.features_folder" in str(caught.value.fix)


def test_what_killed_processes_left_is_removed_and_what_others_write_is_not(backbone: Backbone, tmp_path: Path) -> None:
    kept = KeptFeatures(tmp_path, backbone, config(), 1 << 30)
    kept.of(record(1).images)
    folder = kept._path(record(1).images[0]).parent
    old, new = folder / "tmpold.saving", folder / "tmpnew.saving"
    for path in (old, new):
        path.touch()
    os.utime(old, (time.time() - 7200,) * 2)
    assert KeptFeatures(tmp_path, backbone, config(), 1 << 30).num_bytes == kept.num_bytes
    assert (old.exists(), new.exists()) == (False, True)


def test_whatever_changes_what_is_seen_has_a_folder_of_its_own(tmp_path: Path) -> None:
    def print_of(change: str = "", **settings: Any) -> str:
        backbone = frozen_backbone(tmp_path / f"model{len(seen)}")
        network = backbone.network
        tower = network.model.vision_embed_tokens.img_processor.vision_model
        with torch.no_grad():
            if change == "tower":
                tower.encoder.layers[0].mlp.fc1.weight[0, 0] += 1e-3
            elif change == "decoder":
                network.model.layers[0].mlp.down_proj.weight += 1
                network.model.vision_embed_tokens.img_projection[0].weight += 1
            elif change == "crops":
                backbone.processor.image_processor.num_crops = 2
            elif change == "mean":
                backbone.processor.image_processor.image_mean = [0.5, 0.5, 0.5]
            elif change == "dtype":
                network.bfloat16()
        return fingerprint(backbone, config(**settings))

    seen: list[str] = []
    for change in ("", "tower", "crops", "mean", "dtype"):
        seen.append(print_of(change))
    seen.append(print_of(autocast=True))
    assert len(set(seen)) == len(seen)
    assert print_of("decoder") == seen[0]
    assert print_of(seed=3) == seen[0]


def _fill(folder: Path, model: Path, begin: Any) -> None:
    torch.set_num_threads(1)
    kept = KeptFeatures(folder, frozen_backbone(model), config(), 1 << 30)
    begin.wait()
    kept.fill([record(number) for number in range(24)])


def test_two_processes_may_fill_it_at_once(backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Forked: a process that imports torch anew takes seconds.
    context = multiprocessing.get_context("fork")
    begin = context.Barrier(2)
    processes = [context.Process(target=_fill, args=(tmp_path / "kept", tmp_path / f"m{n}", begin)) for n in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    kept = KeptFeatures(tmp_path / "kept", backbone, config(), 1 << 30)
    watched = Watched(backbone, monkeypatch)
    for number in range(24):
        [features] = kept.of(record(number).images)
        [right] = kept.anew(record(number).images)
        assert features.size == right.size
        torch.testing.assert_close(features.patches, right.patches, rtol=1e-4, atol=1e-5)
    assert watched.num_seen == 24
    assert len(list(tmp_path.glob("kept/*/*/*"))) == 24

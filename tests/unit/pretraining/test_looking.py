"""What the first stage asks about: patches, tokens, the replay of pictures, and the tower's first weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from appraiser.backbone import Backbone
from appraiser.pretraining.beginning import POSITION_CHANNELS, REACH, begin_locally
from appraiser.pretraining.looking import ATTRIBUTES, Looking, look_at, look_batch
from appraiser.pretraining.parts import PARTS
from appraiser.pretraining.pretrain import PATCHES_PER_SIDE, new_backbone
from appraiser.pretraining.replay import Replay
from appraiser.pretraining.scenes import draw, scene_for

PX = 144


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return new_backbone(Path(tmp_path_factory.mktemp("new")), seed=0)


def test_a_patch_is_labelled_by_what_covers_it(backbone: Backbone) -> None:
    for item in range(20):
        scene = scene_for(4, item)
        look = look_at(scene, backbone, PATCHES_PER_SIDE, PX)
        things, cell = draw(scene, PX).things, PX // PATCHES_PER_SIDE
        for row in range(PATCHES_PER_SIDE):
            for column in range(PATCHES_PER_SIDE):
                patch = things[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell]
                assert look.things[row, column] == np.bincount(patch.ravel(), minlength=5).argmax()
        assert (look.parts > 0).any() == any(thing.part for thing in scene.things) or not look.parts.any()
        assert [values[k] for values, k in zip(ATTRIBUTES.values(), look.classes[0], strict=True)] == [
            getattr(scene.main, name) for name in ATTRIBUTES
        ]


def test_a_mirrored_picture_has_mirrored_labels(backbone: Backbone) -> None:
    look = look_at(scene_for(4, 1), backbone, PATCHES_PER_SIDE, PX)
    batch = look_batch([look] * 32, np.random.default_rng(0))
    plain, mirrored = look.things.ravel(), look.things[:, ::-1].ravel()
    assert not np.array_equal(plain, mirrored)
    found = {row.numpy().tobytes() for row in batch.things}
    assert found == {plain.tobytes(), mirrored.tobytes()}
    for view, labels in zip(batch.views, batch.things, strict=True):
        own, other = look.pixels.float(), look.pixels.float().flip(-1)
        is_plain = np.array_equal(labels.numpy(), plain)
        near, far = ((view - other_view).abs().mean() for other_view in ((own, other) if is_plain else (other, own)))
        assert near < far


def test_a_step_lowers_the_loss_of_its_own_batch(backbone: Backbone) -> None:
    torch.manual_seed(0)
    looks = [look_at(scene_for(4, item), backbone, PATCHES_PER_SIDE, PX) for item in range(6)]
    batch = look_batch(looks, np.random.default_rng(0))
    looking = Looking(backbone.model)
    before = looking(batch)
    before.backward()
    with torch.no_grad():
        for parameter in looking.parameters():
            if parameter.grad is not None:
                parameter -= 0.01 * parameter.grad / (parameter.grad.norm() + 1e-9)
    assert looking(batch) < before
    looking.zero_grad()


def test_every_part_of_the_scenes_has_a_class() -> None:
    assert set(ATTRIBUTES["part"]) == {"", *PARTS}


def test_heads_first_look_at_the_neighbour_they_are_meant_for(backbone: Backbone) -> None:
    tower = backbone.model.model.vision_embed_tokens.img_processor.vision_model
    views = torch.stack([look_at(scene_for(4, i), backbone, PATCHES_PER_SIDE, PX).pixels.float() for i in range(60)])
    begin_locally(tower, views)
    layer = tower.encoder.layers[0].self_attn
    hidden = tower.encoder.layers[0].layer_norm1(tower.pre_layrnorm(tower.embeddings(views)))
    shape = (len(views), hidden.shape[1], -1, layer.head_dim)
    query, key = (project(hidden).view(shape).transpose(1, 2) for project in (layer.q_proj, layer.k_proj))
    weights = (query @ key.transpose(2, 3) * layer.scaling).softmax(-1).mean(0)
    side = PATCHES_PER_SIDE
    middle = 1 + (side // 2) * side + side // 2
    for head, offset in enumerate((1, -1, side, -side)):  # right, left, below, above
        assert weights[head, middle].argmax() == middle + REACH[0] * offset


def test_patches_begin_whitened(backbone: Backbone) -> None:
    tower = backbone.model.model.vision_embed_tokens.img_processor.vision_model
    views = torch.stack([look_at(scene_for(4, i), backbone, PATCHES_PER_SIDE, PX).pixels.float() for i in range(200)])
    begin_locally(tower, views)
    with torch.no_grad():
        patches = tower.embeddings(views)[:, 1:, POSITION_CHANNELS:].flatten(0, 1)
    moments = patches.T @ patches / len(patches)
    assert torch.allclose(moments, torch.diag(moments.diagonal()), atol=0.02)
    assert 0.9 < moments.diagonal()[0] <= 1.0


def test_the_replay_keeps_the_latest_and_repeats_itself() -> None:
    def drawn() -> list[list[int]]:
        replay = Replay(lambda item: item, first=1, stride=2, capacity=4, seed=[5])
        replay.add(3)
        found = [replay.draw(3)]
        replay.add(4)
        return [*found, sorted(replay.draw(4))]

    first, second = drawn(), drawn()
    assert first == second
    assert sorted(first[0]) == [1, 3, 5]
    assert first[1] == [7, 9, 11, 13]


def test_things_are_told_apart_in_a_picture_of_several(backbone: Backbone) -> None:
    scene = next(s for s in (scene_for(4, i) for i in range(200)) if len({t.shape for t in s.things}) > 1)
    look = look_at(scene, backbone, PATCHES_PER_SIDE, PX)
    assert len(np.unique(look.things)) > 2
    assert len(np.unique(look.classes[: len(scene.things), 0])) > 1

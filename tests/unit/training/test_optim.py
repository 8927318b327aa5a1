"""Schedule, parameter groups, record order."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from tiny import tiny_backbone

from appraiser.training.optim import build_optimizers, schedule_factor
from appraiser.training.order import RecordOrder, micro_batches, split_into


def test_schedule_warms_up_peaks_and_ends_where_asked() -> None:
    factors = [schedule_factor(step, 100, 10, final=0.1) for step in range(101)]
    assert factors[0] == pytest.approx(1 / 11)
    assert max(factors) == pytest.approx(1.0)
    assert factors.index(max(factors)) == 10
    assert factors[100] == pytest.approx(0.1)
    assert all(later <= earlier for earlier, later in pairwise(factors[10:]))


def test_every_trained_parameter_is_in_exactly_one_group(tmp_path: Path) -> None:
    model = tiny_backbone(tmp_path / "m").model
    [optimizer] = build_optimizers(model, learning_rate=1e-3, part_rates={"tower": 1e-4}, weight_decay=0.1)
    counts = Counter(id(p) for group in optimizer.param_groups for p in group["params"])
    assert counts == Counter(id(p) for p in model.parameters())
    rates = {
        group["lr"] for group in optimizer.param_groups for p in group["params"]
        if p is model.model.vision_embed_tokens.img_processor.vision_model.pre_layrnorm.weight
    }  # fmt: skip
    assert rates == {1e-4}
    undecayed = {id(p) for group in optimizer.param_groups if group["weight_decay"] == 0 for p in group["params"]}
    assert id(model.model.norm.weight) in undecayed
    assert id(model.model.vision_embed_tokens.sub_GN) in undecayed
    assert id(model.lm_head.weight) not in undecayed


def test_muon_takes_the_inner_matrices_and_adamw_the_rest(tmp_path: Path) -> None:
    model = tiny_backbone(tmp_path / "m").model
    adam, muon = build_optimizers(model, learning_rate=1e-3, muon_learning_rate=0.01)
    taken = {id(p) for group in muon.param_groups for p in group["params"]}
    assert id(model.model.layers[0].mlp.down_proj.weight) in taken
    assert id(model.lm_head.weight) not in taken
    assert id(model.model.embed_tokens.weight) not in taken
    rest = {id(p) for group in adam.param_groups for p in group["params"]}
    assert not taken & rest
    assert len(taken | rest) == len(list(model.parameters()))


def test_the_tower_has_rates_of_its_own(tmp_path: Path) -> None:
    model = tiny_backbone(tmp_path).model
    rates = {"learning_rate": 1e-3, "part_rates": {"tower": 2e-4}, "muon_learning_rate": 0.01}
    optimizers = build_optimizers(model, **rates, tower_muon_learning_rate=0.003, muon_parts=2)
    found = {id(p): group["initial_lr"] for o in optimizers for group in o.param_groups for p in group["params"]}
    names = dict(model.named_parameters())
    assert len(found) == len(names)
    tower = "model.vision_embed_tokens.img_processor.vision_model.encoder.layers.0."
    assert found[id(names[tower + "mlp.fc1.weight"])] == 0.003
    assert found[id(names[tower + "mlp.fc1.bias"])] == 2e-4
    assert found[id(names["model.layers.0.mlp.down_proj.weight"])] == 0.01
    assert found[id(names["model.embed_tokens.weight"])] == 1e-3


def test_each_epoch_holds_every_record_once_in_an_order_of_its_own() -> None:
    order = [RecordOrder(17, 4, seed=3).at(place) for place in range(51)]
    epochs = [[position for epoch, position in order if epoch == number] for number in range(3)]
    assert all(sorted(epoch) == list(range(17)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    steps = [draw for step in range(13) for draw in RecordOrder(17, 4, seed=3).step(step)]
    assert order == steps[:51]


def test_ranks_share_the_draws_of_a_step() -> None:
    order = RecordOrder(17, 8, seed=3)
    for num_ranks in (2, 4):
        shares = [order.step(5, rank, num_ranks) for rank in range(num_ranks)]
        assert sorted(draw for share in shares for draw in share) == sorted(order.step(5))
        assert {len(share) for share in shares} == {8 // num_ranks}


def test_muon_in_parts_takes_the_same_step(tmp_path: Path) -> None:
    def stepped(parts: int) -> dict[str, torch.Tensor]:
        model = tiny_backbone(tmp_path / f"parts{parts}").model
        for position, parameter in enumerate(model.parameters()):
            parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(position))
        optimizers = build_optimizers(model, learning_rate=1e-3, muon_learning_rate=0.02, muon_parts=parts)
        assert len(optimizers) == 1 + parts
        for optimizer in optimizers:
            optimizer.step()
        return {name: parameter.detach() for name, parameter in model.named_parameters()}

    whole, shared = stepped(1), stepped(3)
    assert all(torch.equal(value, shared[name]) for name, value in whole.items())


def test_micro_batches_keep_both_limits_and_lose_nothing() -> None:
    lengths = [5, 90, 7, 30, 30, 12, 64, 5]
    groups = micro_batches(lengths, lambda length: length, most_examples=3, most_tokens=96)
    assert sorted(length for group in groups for length in group) == sorted(lengths)
    assert all(len(group) <= 3 and (len(group) == 1 or max(group) * len(group) <= 96) for group in groups)
    assert [max(group) for group in groups] == sorted((max(group) for group in groups), reverse=True)
    cut = split_into(groups, 6)
    assert len(cut) == 6
    assert sorted(length for group in cut for length in group) == sorted(lengths)

"""One step is one step, however its rows are put together. fp32; tolerances are those of sums in another order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny import formula_picture, tiny_backbone

from appraiser.backbone import Backbone
from appraiser.config import RunConfig
from appraiser.data.batches import Batch, Example, collate, pack
from appraiser.data.examples import training_example, views_of
from appraiser.data.records import ProductRecord
from appraiser.data.task import Task
from appraiser.training.gradients import StepGradients
from appraiser.training.replica import Replica

TASK = Task(("title", "price"))
CONFIG = RunConfig.model_validate({"data": {"dataset": "-"}, "run": {"out": "-"}, "adapter": {"kind": "none"}})


def examples(backbone: Backbone, sizes: list[tuple[int, int]]) -> list[Example]:
    """Rows of several lengths, with pictures of several shapes; the third has two of them."""
    rows = []
    for number, size in enumerate(sizes):
        record = ProductRecord(
            str(number), (), group=str(number), title="Bag " + "with a zip " * number, price=100.0 + number
        )
        images = [formula_picture(*size, number)] + [formula_picture(28, 28, 50)] * (number == 2)
        rows.append(training_example(backbone, TASK, record, views_of(images, backbone), 4096))
    return rows


def step(folder: Path, attention: str, cut: Callable[[list[Example], Backbone], list[Batch]]) -> tuple[float, dict]:
    backbone = tiny_backbone(folder, num_crops=4)
    backbone.network.set_attn_implementation(attention)
    backbone.model.train()
    gradients = StepGradients(CONFIG, Replica(backbone))
    loss = gradients(cut(examples(backbone, [(40, 40), (90, 20), (28, 28), (30, 70)]), backbone)).loss
    return loss, {name: parameter.grad for name, parameter in backbone.model.named_parameters()}


CUTS: dict[str, Callable[[list[Example], Backbone], list[Batch]]] = {
    "one at a time": lambda rows, backbone: [collate([row], backbone) for row in rows],
    "uneven micro-batches": lambda rows, backbone: [collate(rows[:3], backbone), collate(rows[3:], backbone)],
    "one pack": lambda rows, backbone: [pack(rows, backbone)],
    "two packs": lambda rows, backbone: [pack(rows[1:], backbone), pack(rows[:1], backbone)],
}


@pytest.mark.parametrize("attention", ["eager", "sdpa", "blocks"])
@pytest.mark.parametrize("way", CUTS)
def test_a_step_does_not_depend_on_how_its_rows_are_put_together(tmp_path, attention, way):
    loss, expected = step(tmp_path / "a", "eager", lambda rows, backbone: [collate(rows, backbone)])
    found_loss, found = step(tmp_path / "b", attention, CUTS[way])
    assert found_loss == pytest.approx(loss, rel=1e-5)
    for name, gradient in expected.items():
        if gradient is None:
            assert found[name] is None or not found[name].any(), name
            continue
        torch.testing.assert_close(found[name], gradient, rtol=2e-4, atol=2e-6, msg=name)


def test_a_pack_of_a_long_and_a_short_row_keeps_each_rows_rope_factors(tmp_path):
    """Short and long factors side by side in one row of ids."""
    backbone = tiny_backbone(tmp_path / "model", num_crops=4)
    limit = backbone.config.original_max_position_embeddings
    rows = examples(backbone, [(40, 40), (28, 28)])
    tail = tuple(backbone.text_ids("Bag " * limit))[: limit + 5]
    long = Example("long", rows[0].input_ids + tail, rows[0].labels + tail, rows[0].pictures)
    backbone.model.eval()
    with torch.no_grad():
        packed = backbone.model(**pack([long, rows[1]], backbone).inputs).logits[0]
        alone = [backbone.model(**collate([row], backbone).inputs).logits[0] for row in (long, rows[1])]
        with pytest.raises(ValueError, match="packed rows cannot fill a cache"):
            backbone.model(**pack(rows, backbone).inputs, use_cache=True)
    torch.testing.assert_close(packed, torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_padding_behind_rows_needs_no_mask(tmp_path, monkeypatch):
    """Plain causal attention on rows that are padded on the right; a mask is built where padding is in front."""
    import appraiser.phi3_v.modeling_phi3_v as modeling

    asked = []
    build = modeling.create_causal_mask

    def noting(**settings):
        asked.append(settings["attention_mask"] is not None)
        return build(**settings)

    monkeypatch.setattr(modeling, "create_causal_mask", noting)
    backbone = tiny_backbone(tmp_path / "model", num_crops=4)
    backbone.model.eval()
    rows = examples(backbone, [(40, 40), (90, 20)])
    for side in ("right", "left"):
        batch = collate(rows, backbone, padding_side=side)
        with torch.no_grad():
            logits = backbone.model(**batch.inputs, use_cache=False).logits
            for row, example in enumerate(rows):
                alone = backbone.model(**collate([example], backbone).inputs, use_cache=False).logits[0]
                own = logits[row][batch.inputs["attention_mask"][row].bool()]
                torch.testing.assert_close(own, alone, rtol=1e-4, atol=1e-5)
    assert asked == [False, False, False, True, False, False]

"""Preference pairs: read, made of mistakes, and the loss of the method's paper."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from tiny import formula_picture, tiny_backbone

from appraiser.adapters import attach_adapters
from appraiser.backbone import IGNORE_INDEX, Backbone
from appraiser.config import AdapterConfig
from appraiser.data.augmentation import Augmentation
from appraiser.data.examples import ExampleSource
from appraiser.data.pictures import encode
from appraiser.data.records import ProductRecord
from appraiser.data.task import Task
from appraiser.errors import DataError
from appraiser.training.preferences import (
    DirectPreference,
    PairSource,
    Preference,
    kept_mistakes,
    kept_reference,
    log_probabilities,
    mistakes,
    read_preferences,
    reference_numbers,
    write_preferences,
)

TASK = Task(("title", "price"))


def record(number: int) -> ProductRecord:
    picture = encode(formula_picture(40, 40 + 9 * number, number), lossless=True)
    return ProductRecord(str(number), (picture,), group=str(number), title=f"Bag {number}", price=100.0 + number)


def source_of(backbone: Backbone, num_pairs: int = 3) -> PairSource:
    records = [record(number) for number in range(num_pairs)]
    answers = [f"Product: Red{'!' * number}, Full Price: {70 + number}" for number in range(num_pairs)]
    examples = ExampleSource(records, backbone, TASK, cache_bytes=0, augmentation=Augmentation())
    return PairSource(mistakes(records, answers, TASK), backbone, TASK, examples)


@pytest.fixture
def adapted(tmp_path: Path) -> Backbone:
    backbone = attach_adapters(
        tiny_backbone(tmp_path / "model"), AdapterConfig(rank=2, dropout=0.0), ("decoder", "tower", "projector")
    )
    return backbone


def disturb(backbone: Backbone) -> None:
    """Give every adapter something to say."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in backbone.model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)


def test_only_wrong_answers_make_pairs() -> None:
    records = [record(0), record(1)]
    found = mistakes(records, [TASK.format(records[0].values(TASK.fields)), "Product: Hat, Full Price: 3"], TASK)
    assert [(pair.record.id, pair.chosen, pair.rejected) for pair in found] == [
        ("1", "Product: Bag 1, Full Price: 101", "Product: Hat, Full Price: 3")
    ]


def test_a_price_that_is_near_enough_is_no_mistake() -> None:
    records = [record(number) for number in range(5)]  # they cost 100 to 104
    answers = ["Product: Bag 0, Full Price: 119", "Product: Bag 1, Full Price: 122", "Product: Hat, Full Price: 95",
               "Product: Hat, Full Price: 70", "Product: Bag 4"]  # fmt: skip
    found = mistakes(records, answers, TASK, near_price=0.2)
    assert [(pair.record.id, pair.rejected) for pair in found] == [
        ("1", "Product: Bag 1, Full Price: 122"),
        ("2", "Product: Hat, Full Price: 102"),
        ("3", "Product: Hat, Full Price: 70"),
        ("4", "Product: Bag 4"),
    ]
    assert len(mistakes(records, answers, TASK)) == 5
    assert len(mistakes(records[:1], ["Product: Bag 0, Full Price: 100.00"], TASK)) == 1  # as it was said, if not asked


def test_at_the_start_the_loss_is_ln_2_and_nobody_is_preferred(adapted: Backbone) -> None:
    source = source_of(adapted)
    adapted.model.eval()
    source.reference = reference_numbers(adapted, source, 2)
    batch = source.join([source.draw(0, position) for position in range(3)])
    loss, numbers = DirectPreference(0.1).loss(adapted.model, batch, 3)
    assert float(loss.detach()) == pytest.approx(math.log(2), abs=1e-6)
    assert numbers["rewards/margins"] == pytest.approx(0, abs=1e-6)


def test_the_loss_is_that_of_the_formula_row_by_row(adapted: Backbone) -> None:
    source = source_of(adapted)
    adapted.model.eval()
    source.reference = reference_numbers(adapted, source, 1)
    disturb(adapted)
    pairs = [source.draw(0, position) for position in range(3)]
    loss, numbers = DirectPreference(0.4).loss(adapted.model, source.join(pairs), 3)
    margins = []
    for pair in pairs:
        alone = [log_probabilities(adapted.model, source.join([pair]))[0][row].item() for row in (0, 1)]
        assert pair.reference is not None
        margins.append(0.4 * ((alone[0] - pair.reference[0]) - (alone[1] - pair.reference[1])))
    assert numbers["rewards/margins"] == pytest.approx(sum(margins) / 3, rel=1e-4)
    assert max(abs(margin) for margin in margins) > 0.01
    assert float(loss.detach()) == pytest.approx(sum(math.log1p(math.exp(-margin)) for margin in margins) / 3, rel=1e-5)


def test_a_pack_has_the_same_log_probabilities(adapted: Backbone) -> None:
    source = source_of(adapted)
    adapted.model.eval()
    pairs = [source.draw(0, position) for position in range(3)]
    with torch.no_grad():
        padded = log_probabilities(adapted.model, source.join(pairs))
        packed = log_probabilities(adapted.model, source.join(pairs, packed=True))
    torch.testing.assert_close(packed[0], padded[0], rtol=1e-5, atol=1e-4)
    assert packed[1].tolist() == padded[1].tolist() == [
        (torch.tensor(example.labels) != IGNORE_INDEX).sum() for example in source.rows(pairs)
    ]  # fmt: skip


def test_the_truth_can_be_kept_likely(adapted: Backbone) -> None:
    """The second term is the mean over pairs of the chosen answer's negative log-probability per token."""
    source = source_of(adapted)
    adapted.model.eval()
    source.reference = reference_numbers(adapted, source, 1)
    disturb(adapted)
    pairs = [source.draw(0, position) for position in range(3)]
    batch = source.join(pairs)
    alone, numbers = DirectPreference(0.4).loss(adapted.model, batch, 3)
    both, _ = DirectPreference(0.4, sft_weight=0.7).loss(adapted.model, batch, 3)
    expected = []
    for pair in pairs:
        (total, _), (length, _) = log_probabilities(adapted.model, source.join([pair]))
        expected.append(-total.item() / length.item())
    assert len({round(value, 3) for value in expected}) == 3
    assert numbers["nll_loss"] == pytest.approx(sum(expected) / 3, rel=1e-5)
    assert float((both - alone).detach()) == pytest.approx(0.7 * sum(expected) / 3, rel=1e-5)


def test_kept_pairs_come_back_to_the_bit(adapted: Backbone, tmp_path: Path) -> None:
    source = source_of(adapted)
    adapted.model.eval()
    source.reference = reference_numbers(adapted, source, 2)
    write_preferences(tmp_path / "preferences.jsonl", source)
    assert kept_reference(tmp_path / "preferences.jsonl") == source.reference
    again = kept_mistakes(tmp_path / "preferences.jsonl", [record(number) for number in range(3)])
    assert again == source.preferences


def write_table(folder: Path, rows: list[dict[str, str]]) -> Path:
    (folder / "a.png").write_bytes(encode(formula_picture(40, 40, 1), lossless=True))
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_table_of_pairs_is_read(tmp_path: Path) -> None:
    rows = [
        {"image": "a.png", "chosen": "10", "rejected": "20"},
        {"image": "a.png", "chosen": "x", "rejected": "y", "prompt": "Which?"},
    ]
    first, second = read_preferences(write_table(tmp_path, rows))
    assert (first.chosen, first.rejected, first.prompt) == ("10", "20", None)
    assert second.prompt == "Which?"
    assert isinstance(first, Preference)


def test_every_row_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    rows = [
        {"image": "a.png", "chosen": "10", "rejected": "10"},
        {"image": "missing.png", "chosen": "1", "rejected": "2"},
        {"image": "a.png", "chosen": "1"},
    ]
    with pytest.raises(DataError) as caught:
        read_preferences(write_table(tmp_path, rows))
    assert "3 of 3 pairs cannot be used" in caught.value.what
    for part in ("row 1: chosen and rejected are the same", "row 2: missing.png", "row 3: no rejected"):
        assert part in caught.value.what
    with pytest.raises(DataError, match=r"read from .jsonl, .csv and .parquet"):
        read_preferences(tmp_path / "pairs.xlsx")

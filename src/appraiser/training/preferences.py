"""Direct preference optimisation: of two answers to the same pictures, make the better one likelier.

Pairs come from a table, or are the model's own mistakes (chosen: the truth, rejected: what it said). The reference is
the model as the run found it: its log-probabilities of all answers are computed once, before the first step, and kept.

    loss of a pair = -log sigmoid(beta * ((chosen - its reference) - (rejected - its reference)))
                     - sft_weight * chosen / its tokens

The first term alone is content when both answers become less likely, the rejected one faster; the second keeps the
chosen one likely.

Source: Rafailov et al. 2023, arXiv:2305.18290; for the second term Pang et al. 2024, arXiv:2404.19733. The sums are
those of TRL's DPOTrainer, and a test compares them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.csv
import pyarrow.parquet
import torch
from torch import Tensor
from torch.nn import functional

from appraiser.backbone import IGNORE_INDEX, Backbone, Features, Reader, Views
from appraiser.data.batches import Batch, Example, collate, pack
from appraiser.data.examples import ExampleSource, RecordSequence, answered, prompt_example
from appraiser.data.pictures import decode, read_bytes
from appraiser.data.records import ProductRecord
from appraiser.data.task import FieldValue, Task
from appraiser.errors import DataError, ModelInputError

MISTAKES = "mistakes"


@dataclass(frozen=True)
class Preference:
    """Two answers to one question about a product's pictures."""

    record: ProductRecord
    chosen: str
    rejected: str
    prompt: str | None = None
    """The question; None: the task's own."""


@dataclass(frozen=True)
class Pair:
    """A preference as the model reads it."""

    chosen: Example
    rejected: Example
    reference: tuple[float, float] | None = None
    """Log-probabilities of both answers under the reference model."""


class PairSource:
    """Pairs by position; what `ExampleSource` is for ordinary training.

    Args:
        pictures: gives a record's pictures as they are shown in an epoch.
    """

    def __init__(self, preferences: Sequence[Preference], reader: Reader, task: Task, source: ExampleSource) -> None:
        self.preferences, self.reader, self.task, self.source = preferences, reader, task, source
        self.reference: list[tuple[float, float]] | None = None

    def __len__(self) -> int:
        return len(self.preferences)

    @property
    def records(self) -> list[ProductRecord]:
        return [preference.record for preference in self.preferences]

    def draw(self, epoch: int, position: int) -> Pair:
        """The pair at `position` as it is shown in an epoch."""
        preference = self.preferences[position]
        task = self.task if preference.prompt is None else replace(self.task, question=preference.prompt)
        pictures = self.source.pictures(preference.record, epoch, position)
        prompt = prompt_example(self.reader, task, preference.record.id, pictures)
        chosen, rejected = (
            answered(self.reader, prompt, text, self.source.max_tokens)
            for text in (preference.chosen, preference.rejected)
        )
        return Pair(chosen, rejected, self.reference[position] if self.reference else None)

    def length(self, pair: Pair) -> int:
        """Tokens of the longer row."""
        return max(len(pair.chosen.input_ids), len(pair.rejected.input_ids))

    def join(self, pairs: Sequence[Pair], *, packed: bool = False) -> Batch:
        """Rows chosen, rejected, chosen, rejected, ...; the reference's numbers go along as `reference` [2 n]."""
        batch = (pack if packed else collate)(self.rows(pairs), self.reader)
        if any(pair.reference is None for pair in pairs):
            return batch
        numbers = [number for pair in pairs for number in (pair.reference or ())]
        return replace(batch, reference=torch.tensor(numbers, dtype=torch.float64))

    def rows(self, pairs: Sequence[Pair]) -> list[Example]:
        """The rows of a batch of these pairs."""
        return [example for pair in pairs for example in (pair.chosen, pair.rejected)]

    def truth(self, epoch: int, position: int) -> list[tuple[str, Sequence[Views | Features]]]:
        """Answer and pictures of every row, made anew from the record."""
        preference = self.preferences[position]
        pictures = self.source.pictures(preference.record, epoch, position, anew=True)
        return [(preference.chosen, pictures), (preference.rejected, pictures)]


class DirectPreference:
    """The DPO objective; its loss is summed over pairs.

    Args:
        beta: how dear it is to leave the reference.
        sft_weight: of the chosen answer's mean negative log-probability per token.
    """

    def __init__(self, beta: float, sft_weight: float = 0.0) -> None:
        self.beta, self.sft_weight = beta, sft_weight

    def num_items(self, batch: Batch) -> int:
        return batch.num_examples // 2

    def loss(self, model: Any, batch: Batch, num_items: int) -> tuple[Tensor, dict[str, float]]:
        if batch.reference is None:
            raise ModelInputError("the batch has no log-probabilities of the reference model")
        found, lengths = log_probabilities(model, batch)
        rewards = self.beta * (found - batch.reference.to(batch.labels.device, torch.float32))
        chosen, rejected = rewards[0::2], rewards[1::2]
        margins = chosen - rejected
        surprise = -found[0::2] / lengths[0::2]
        loss = (self.sft_weight * surprise - functional.logsigmoid(margins)).sum() / num_items
        numbers = {
            "rewards/chosen": chosen,
            "rewards/rejected": rejected,
            "rewards/margins": margins,
            "rewards/accuracies": (margins > 0).float(),
            "nll_loss": surprise,
        }
        return loss, {name: float(values.detach().sum()) / num_items for name, values in numbers.items()}


def log_probabilities(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """[rows] summed log-probability of each row's supervised tokens, in fp32, and [rows] how many these are."""
    outputs = model(**batch.inputs, labels=batch.labels, answer_only=True, use_cache=False)
    targets = functional.pad(batch.labels[:, 1:], (0, 1), value=IGNORE_INDEX)
    scored = targets != IGNORE_INDEX
    found = torch.log_softmax(outputs.logits.float(), -1).gather(1, targets[scored][:, None])[:, 0]
    rows = batch.row_numbers(scored)
    return (
        found.new_zeros(batch.num_examples).index_add(0, rows, found),
        torch.bincount(rows, minlength=batch.num_examples),
    )


@torch.no_grad()
def reference_numbers(
    backbone: Backbone, source: PairSource, micro_batch_size: int, progress: Callable[[int], None] | None = None
) -> list[tuple[float, float]]:
    """Log-probabilities of every pair's answers under the model as it is now, in evaluation mode."""
    was_training = backbone.model.training
    backbone.model.eval()
    found: list[tuple[float, float]] = []
    try:
        for start in range(0, len(source), micro_batch_size):
            pairs = [source.draw(0, position) for position in range(start, min(len(source), start + micro_batch_size))]
            sums, _ = log_probabilities(backbone.model, source.join(pairs).to(backbone.device))
            numbers = sums.double().tolist()
            found += zip(numbers[0::2], numbers[1::2], strict=True)
            if progress:
                progress(len(found))
    finally:
        backbone.model.train(was_training)
    return found


def read_preferences(path: Path) -> list[Preference]:
    """Pairs of a table: `image` (a path beside the table), `chosen`, `rejected`, and `prompt` or none.

    Args:
        path: .jsonl, .csv or .parquet.

    Raises:
        DataError: no such table, a column or a picture is missing, or both answers are the same; bad rows are named.
    """
    rows = _rows(path)
    found, problems = [], []
    for number, row in enumerate(rows, start=1):
        missing = [name for name in ("image", "chosen", "rejected") if not row.get(name)]
        if missing:
            problems.append(f"row {number}: no {', '.join(missing)}")
            continue
        chosen, rejected = str(row["chosen"]), str(row["rejected"])
        if chosen == rejected:
            problems.append(f"row {number}: chosen and rejected are the same")
            continue
        try:
            data = read_bytes(path.parent / str(row["image"]))
            decode(data)
        except (OSError, ValueError) as error:
            problems.append(f"row {number}: {row['image']}: {error}")
            continue
        record = ProductRecord(str(row.get("id") or number), (data,), group=str(number))
        found.append(Preference(record, chosen, rejected, row.get("prompt") or None))
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise DataError(
            f"{len(problems)} of {len(rows)} pairs cannot be used: {'; '.join(problems[:5])}{more}",
            where=str(path),
            fix="mend or remove these rows",
        )
    if not found:
        raise DataError("the table holds no pairs", where=str(path), fix="name a table of image, chosen, rejected")
    return found


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        if path.suffix == ".csv":
            return list(pyarrow.csv.read_csv(path).to_pylist())
        if path.suffix == ".parquet":
            return list(pyarrow.parquet.read_table(path).to_pylist())
    except (OSError, ValueError) as error:
        raise DataError(f"the pairs cannot be read: {error}", where=str(path), fix="mend the file") from None
    raise DataError(
        f"pairs are read from .jsonl, .csv and .parquet, not from {path.name!r}",
        fix=f"dpo.pairs=PATH of such a table, or dpo.pairs={MISTAKES}",
    )


def mistakes(
    records: Sequence[ProductRecord], answers: Sequence[str], task: Task, near_price: float = 0.0
) -> list[Preference]:
    """A pair for every product whose answer was not the truth: chosen the truth, rejected what was said.

    Args:
        near_price: prices off by at most this share of the truth are no mistakes: the rejected answer has the true one.
    """
    found = []
    for record, answer in zip(records, answers, strict=True):
        values = record.values(task.fields)
        truth, said = task.format(values), _with_near_price(answer.strip(), values, task, near_price)
        if said != truth:
            found.append(Preference(record, truth, said))
    return found


def _with_near_price(answer: str, values: Mapping[str, FieldValue], task: Task, near_price: float) -> str:
    parsed = task.parse(answer)
    if not near_price or "price" not in task.fields or not parsed.is_complete:
        return answer
    price = float(values["price"])
    if abs(float(parsed.fields["price"]) - price) > near_price * price:
        return answer
    return task.format(parsed.fields | {"price": price})


def write_preferences(path: Path, source: PairSource) -> None:
    """Keep the pairs and the reference's numbers beside the run: going on must compare with the same reference."""
    lines = [
        {
            "id": pair.record.id,
            "chosen": pair.chosen,
            "rejected": pair.rejected,
            "prompt": pair.prompt,
            "reference": ref,
        }
        for pair, ref in zip(source.preferences, source.reference or (), strict=True)
    ]
    temporary = path.with_suffix(".saving")
    temporary.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    temporary.replace(path)


def kept_mistakes(path: Path, records: RecordSequence) -> list[Preference]:
    """The pairs of `write_preferences` again, with the pictures of the training products."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    wanted = {line["id"] for line in lines}
    by_id = {record.id: record for record in (records[row] for row in range(len(records))) if record.id in wanted}
    return [Preference(by_id[line["id"]], line["chosen"], line["rejected"], line["prompt"]) for line in lines]


def kept_reference(path: Path) -> list[tuple[float, float]]:
    """The reference's numbers of `write_preferences`, to the bit."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(line["reference"][0], line["reference"][1]) for line in lines]

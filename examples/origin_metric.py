"""The origin's price error beside honest scores: the same models on the same test products.

    python examples/origin_metric.py runs/walk runs/walk-data/dataset

The origin never lets its model answer. It feeds prompt and TRUE answer, takes the likeliest next token at every place,
and reads the last word of that text as the price: title, category and all earlier digits of the price are given.
Between that and an honest answer lies a model that is given title and category, but has to write the price itself.

Prints a table; RUN/origin_metric.json keeps the numbers. All models are scored on the same products, so the lead of the
fine-tuned model over the one without pictures is also given as a paired difference.

Source: `evaluate` and `extract_price_from_predictions` in code/04.Finetuning/Phi-3-vision-Trainingscript.py of
microsoft/PhiCookBook, commit 54d670b1. The prices here are read as described there; no code is taken over.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from PIL import Image

from appraiser import Predictor, load, open_dataset
from appraiser.data.batches import Batch, Example, collate
from appraiser.data.dataset import ProductDataset, Records
from appraiser.data.examples import prompt_example, training_example, views_of
from appraiser.data.pictures import decode
from appraiser.data.records import ProductRecord
from appraiser.data.task import parse_price
from appraiser.evaluation.controls import derangement
from appraiser.evaluation.evaluate import base_of
from appraiser.evaluation.metrics import Scores, price_array, price_scores, score
from appraiser.trained_task import TrainedTask
from appraiser.training.order import RecordOrder

SEES, BLIND = "fine-tuned", "trained without any picture"
ROWS_AT_ONCE = 32
MAX_PRICE_TOKENS = 16
Pictures = Sequence[Sequence[Image.Image]]


def origin_price(text: str) -> float:
    """The price as the origin reads it: the last word without commas; 0 where that is no number.

    No word at all ends the program there, `nan` spoils the average, and `1.290,00` is 1.29; so it does here.
    """
    try:
        return float(text.split()[-1].replace(",", ""))
    except ValueError:
        return 0.0


@dataclass(frozen=True)
class Contestant:
    """A model, and what it is shown of every product: its pictures, other ones, or none."""

    name: str
    model: Predictor
    records: Sequence[ProductRecord]
    shown: Pictures

    def origin_prices(self) -> list[float]:
        """What the origin calls predicted prices: read off below the true answer."""
        found = []
        for batch in self._batches(up_to_price=False, padding_side="right"):
            likeliest = self.model.backbone.model(**batch.inputs).logits.argmax(-1)
            for ids, mask in zip(likeliest, batch.inputs["attention_mask"], strict=True):
                # The last place counts too: what the model would write after the end of the answer.
                text = self.model.backbone.processor.decode(ids[mask.bool()].tolist(), skip_special_tokens=True)
                found.append(origin_price(text))
        return found

    def prices_after_true_title(self) -> list[float | None]:
        """Prices that the model writes by itself after the true title and category."""
        found: list[float | None] = []
        backbone = self.model.backbone
        for batch in self._batches(up_to_price=True, padding_side="left"):
            inputs = {key: value for key, value in batch.inputs.items() if key != "position_ids"}
            stops = backbone.stop_token_ids
            written = backbone.model.generate(
                **inputs, max_new_tokens=MAX_PRICE_TOKENS, do_sample=False, eos_token_id=stops
            )
            answers = written[:, inputs["input_ids"].shape[1] :].tolist()
            found += [parse_price(backbone.decode(answer)) for answer in answers]
        return found

    def _batches(self, *, up_to_price: bool, padding_side: str) -> Iterator[Batch]:
        """Prompt and true answer, whole or up to its price, which is the last word."""
        backbone, task = self.model.backbone, self.model.task
        backbone.model.eval()
        for start in range(0, len(self.records), ROWS_AT_ONCE):
            examples = []
            for record, pictures in zip(self.records[start : start + ROWS_AT_ONCE], self.shown[start:], strict=False):
                prompt = prompt_example(backbone, task, record.id, views_of(pictures, backbone))
                answer = task.format(record.values(task.fields))
                given = answer.rpartition(" ")[0] if up_to_price else answer
                end = () if up_to_price else (backbone.stop_token_ids[0],)
                ids = (*prompt.input_ids, *backbone.text_ids(given), *end)
                examples.append(Example(record.id, ids, ids, prompt.pictures))
            yield collate(examples, backbone, padding_side=padding_side).to(backbone.device)


def trained_without_pictures(base: str, trained: TrainedTask, records: Records, steps: int) -> Predictor:
    """The base model fine-tuned on questions and answers alone, as the origin's was: no picture ever reached it."""
    backbone = load(base)
    optimizer = torch.optim.AdamW(backbone.model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    order = RecordOrder(len(records), ROWS_AT_ONCE, seed=0)
    backbone.model.train()
    for step in range(steps):
        drawn = [records[position] for _, position in order.step(step)]
        batch = collate([training_example(backbone, trained.task, record, (), 8192) for record in drawn], backbone)
        backbone.model(**batch.inputs, labels=batch.labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(backbone.model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return Predictor(backbone, trained)


def contestants(run: str, data: ProductDataset, records: list[ProductRecord], steps: int) -> Iterator[Contestant]:
    """The run with right and wrong pictures, a model that never saw any, and the model before fine-tuning."""
    pictures = [[decode(image) for image in record.images] for record in records]
    model, base = Predictor.load(run), base_of(run)
    yield Contestant(SEES, model, records, pictures)
    others = [pictures[row] for row in derangement([None] * len(records))]
    yield Contestant(f"{SEES}, with another product's picture", model, records, others)
    white = [[Image.new("RGB", picture.size, "white") for picture in group] for group in pictures]
    yield Contestant(f"{SEES}, with a white picture", model, records, white)
    if base:
        blind = trained_without_pictures(base, model.trained, data.split("train"), steps)
        yield Contestant(BLIND, blind, records, [()] * len(records))
        yield Contestant("before fine-tuning", Predictor(load(base), model.trained), records, pictures)


def compare(run: str, data: ProductDataset, limit: int | None, steps: int) -> dict[str, Any]:
    """Scores of every model and of one price for everything, and the product that the origin reads worst."""
    test = data.split("test")
    records = list(test.take(range(min(limit or len(test), len(test)))))
    true = [float(record.price) for record in records if record.price is not None]
    models: list[dict[str, Any]] = []
    errors: dict[str, dict[str, Any]] = {}
    worst: dict[str, Any] = {}
    for each in contestants(run, data, records, steps):
        print(f"{each.name} ...", file=sys.stderr)
        with torch.inference_mode():
            claimed, given = each.origin_prices(), each.prices_after_true_title()
        own = [answer.price for answer in each.model.predict(each.shown)]
        said: dict[str, Sequence[float | None]] = {"origin": claimed, "given": given, "own": own}
        off = {column: abs(price_array(prices) - price_array(true)) for column, prices in said.items()}
        errors[each.name] = off
        row = int(off["origin"].argmax())
        worst = worst or {"title": records[row].title, "true": true[row], "origin": claimed[row], "own": own[row]}
        models.append(
            {
                "model": each.name,
                "origin": {"mae": score(off["origin"]), "read_as_0": score([price == 0 for price in claimed])},
                "given": errors_of(given, true),
                "own": errors_of(own, true),
            }
        )
    usual = [median(map(float, data.split("train").column("price")))] * len(true)
    models.append({"model": "one price for everything", "own": errors_of(usual, true)})
    found = {"currency": data.manifest.currency, "steps_without_pictures": steps, "models": models, "worst": worst}
    if BLIND in errors:
        found["blind_worse_by"] = {name: score(errors[BLIND][name] - off) for name, off in errors[SEES].items()}
    return found


def errors_of(prices: Sequence[float | None], true: Sequence[float]) -> Scores:
    """Mean error in the currency and median relative error, with their 95 % intervals."""
    scores = price_scores(prices, true)
    return {name: scores[name] for name in ("mae", "median_ape")}


def as_table(found: dict[str, Any]) -> str:
    """The comparison in Markdown."""
    lines = [
        f"| mean price error in {found['currency']} | the origin's metric (95 % interval) | price written after the "
        "true title (median error) | everything written by itself (median error) |\n| --- | --- | --- | --- |"
    ]
    for row in found["models"]:
        cells = ["-", "-"]
        if "origin" in row:
            cells = ["{value:,.0f} ({low:,.0f} to {high:,.0f})".format(**row["origin"]["mae"]), _of(row["given"])]
        lines.append(f"| {' | '.join([row['model'], *cells, _of(row['own'])])} |")
    if "blind_worse_by" in found:
        gaps = ["{value:,.0f} ({low:,.0f} to {high:,.0f})".format(**gap) for gap in found["blind_worse_by"].values()]
        lines.append(f"| *never saw a picture: worse by, on the same products* | {' | '.join(gaps)} |")
    worst = found["worst"]
    own = "no price" if worst["own"] is None else f"{worst['own']:,.0f}"
    return "\n".join(lines) + (
        f"\n\nRead worst: {worst['title']}, true price {worst['true']:,.0f}. The fine-tuned model by itself says "
        f"{own}, the origin's metric reads {worst['origin']:,.0f}."
    )


def _of(errors: Scores) -> str:
    return f"{errors['mae']['value']:,.0f} ({errors['median_ape']['value']:.1%})"


def main() -> None:
    """Compare, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("dataset")
    parser.add_argument("--steps", type=int, default=250, help="of the model that is trained without pictures")
    parser.add_argument("--limit", type=int, help="only the first so many test products")
    arguments = parser.parse_args()
    # A model of millions, not billions: on a busy machine a training step took seven times as long with two threads.
    torch.set_num_threads(1)
    data = open_dataset(arguments.dataset)
    found = compare(arguments.run, data, arguments.limit, arguments.steps)
    (Path(arguments.run) / "origin_metric.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(as_table(found))


if __name__ == "__main__":
    main()

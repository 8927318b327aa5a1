"""Score a model by free generation on products that were not in training, beside baselines and controls."""

from __future__ import annotations

import json
import logging
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image

from appraiser import __version__
from appraiser.backbone import Backbone, load
from appraiser.config import RunConfig, load_config
from appraiser.data.dataset import ProductDataset, open_dataset
from appraiser.data.pictures import decode
from appraiser.data.records import ProductRecord
from appraiser.data.twins import read_twins
from appraiser.errors import ConfigError, DataError
from appraiser.evaluation.baselines import MAX_TRAIN_RECORDS, baseline_answers
from appraiser.evaluation.controls import CONTROLS, control_predictions
from appraiser.evaluation.intervals import risk_coverage
from appraiser.evaluation.metrics import Columns, absolute_percentage_errors
from appraiser.evaluation.reasoning import reasoning_scores
from appraiser.evaluation.scores import Part, Truth, columns_of, differences, score_columns, score_predictions
from appraiser.evaluation.slices import slices
from appraiser.evaluation.verdict import verdict
from appraiser.json_text import json_text
from appraiser.predict import Prediction, Predictor
from appraiser.trained_task import checkpoint_folder

REPORT_FORMAT = 2
MAX_CONFUSED = 25
"""Categories in the confusion table; the rarer ones are counted together."""
OTHER_LABELS = "(others)"

_log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class EvalResult:
    """Everything an evaluation found.

    Args:
        scores: the document of `report.json`.
        records, predictions: what was scored, row by row.
        neighbours: the training products that look most like each, nearest first; empty without baselines.
    """

    scores: dict[str, Any]
    records: list[ProductRecord]
    predictions: list[Prediction]
    verdict: list[str] = field(default_factory=list)
    neighbours: list[list[ProductRecord]] = field(default_factory=list)


def evaluate(
    model: str | Path | Predictor,
    dataset: str | Path | ProductDataset,
    split: str = "test",
    *,
    controls: Sequence[str] = CONTROLS,
    with_baselines: bool = True,
    before: bool = True,
    limit: int | None = None,
    closed: Sequence[str] = (),
    max_baseline_records: int = MAX_TRAIN_RECORDS,
    progress: Progress | None = None,
) -> EvalResult:
    """Evaluate a run, a model folder or a loaded predictor on one split.

    A predictor that leaves unsure prices out (`answer_share`) is scored with all its prices.

    Args:
        controls: wrong-picture controls to run, of shuffled, same_category, blank and surroundings.
        before: also score the model that fine-tuning started from.
        limit: only the first so many records, and pairs of twins.
        max_baseline_records: training records that the baselines know, the first ones.
        closed: fields whose answers have to be among the values of training; only for models that are loaded here.
        progress: called with (what, done, total).

    Raises:
        ConfigError: `closed` for a loaded predictor.
        DataError: no such split, nothing in it that the model answers, or a run whose metrics.jsonl is damaged.
        CheckpointError: no model there.
    """
    data = dataset if isinstance(dataset, ProductDataset) else open_dataset(dataset)
    scoring = _Scoring.of(_predictor(model, closed), data, split, limit, progress)
    predictor, records, truth = scoring.predictor, scoring.records, scoring.truth
    run = _run_facts(model)  # first: answers take long, and a damaged run is known at once
    started = time.perf_counter()
    predictions = scoring.answer("test pictures", scoring.pictures())
    seconds = time.perf_counter() - started
    name = predictor.backbone.name if isinstance(model, Predictor) else str(model)
    scores = _heading(name, data, split, scoring, seconds)
    if closed:
        scores["closed"] = list(closed)
    scores |= scoring.part(predictions)
    answers = scoring.columns(predictions)
    wrong = _controls(scoring, controls, predictions)
    scores["controls"] = {name: scoring.part(shown) for name, shown in wrong.items()}
    rivals = {name: scoring.columns(shown) for name, shown in wrong.items()}
    neighbours: list[list[ProductRecord]] = []
    base = base_of(model)
    if with_baselines or before:
        first = _untrained(base, predictor)
        if with_baselines:
            known = _reference(model, data).split("train")
            known = known.take(range(min(len(known), max_baseline_records)))
            cheap = baseline_answers(known, records, predictor.task.fields, first)
            scores["baseline_records"] = len(known)
            scores["baselines"] = {name: score_columns(truth, columns) for name, columns in cheap.methods.items()}
            rivals |= cheap.methods
            neighbours = cheap.neighbours
        if before and base:
            shown = _answers_before(scoring, first)
            scores["before"] = scoring.part(shown)
            rivals["before"] = scoring.columns(shown)
    oracle = _oracle_prices(records, truth)
    if oracle:
        scores["oracle"] = score_columns(truth, {"price": oracle})
    scores["differences"] = differences(truth, answers, rivals)
    scores |= _closer_look(truth, records, predictions, answers)
    if data.manifest.twins:
        scores["reasoning"] = _reasoning(scoring, data, limit)
    scores["data"] = _data_facts(data, truth)
    scores["versions"] = {
        "python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__,
    }  # fmt: skip
    scores |= run
    result = EvalResult(scores, records, predictions, verdict(scores), neighbours)
    scores["verdict"] = result.verdict
    return result


@dataclass(frozen=True)
class _Scoring:
    """The products of an evaluation, what is true of them, and how a model answers for them."""

    predictor: Predictor
    records: list[ProductRecord]
    truth: Truth
    progress: Progress | None

    @classmethod
    def of(
        cls, predictor: Predictor, data: ProductDataset, split: str, limit: int | None, progress: Progress | None
    ) -> _Scoring:
        """The first `limit` records of a split.

        Raises:
            DataError: no such split, or nothing in it that the model answers.
        """
        found = data.split(split)
        records = [found[position] for position in range(min(limit or len(found), len(found)))]
        fields = predictor.task.fields
        truth = Truth.of(records, fields)
        if records and not truth.columns:
            raise DataError(
                f"the model answers {', '.join(fields)}; the data set has none of these",
                fix="build the data set with these columns (--map), or train on this data set",
            )
        return cls(predictor, records, truth, progress)

    def pictures(self) -> Iterable[Sequence[Image.Image]]:
        """Decoded as they are needed: together they may be larger than memory."""
        return ([decode(data) for data in record.images] for record in self.records)

    def answer(
        self,
        what: str,
        pictures: Iterable[Sequence[Image.Image]],
        by: Predictor | None = None,
        total: int | None = None,
    ) -> list[Prediction]:
        def report(done: int) -> None:
            if self.progress:
                self.progress(what, done, total or len(self.records))

        return (by or self.predictor).predict(pictures, report)

    def columns(self, predictions: Sequence[Prediction]) -> Columns:
        return columns_of(self.truth, predictions, self.predictor.task.fields)

    def part(self, predictions: Sequence[Prediction]) -> Part:
        return score_predictions(self.truth, predictions, self.predictor.task.fields)


def _predictor(model: str | Path | Predictor, closed: Sequence[str]) -> Predictor:
    if not isinstance(model, Predictor):
        return Predictor.load(model, closed=closed)
    if closed:
        raise ConfigError("a loaded predictor keeps its own `closed`", fix="load it with closed=[...], or pass the run")
    if model.abstains:
        # A price that is left out would count as 0, as if the model had said nothing: the surer it has to be, the worse
        # its scores.
        _log.warning("answer_share is not used: all prices are scored; risk_coverage tells what leaving some out buys")
        return model.answering_always()
    return model


def _heading(model: str, data: ProductDataset, split: str, scoring: _Scoring, seconds: float) -> dict[str, Any]:
    """What was evaluated, on what, and how fast."""
    return {
        "format": REPORT_FORMAT,
        "appraiser": __version__,
        "model": model,
        "dataset": str(data.folder),
        "dataset_sha256": data.manifest.content_sha256,
        "split": split,
        "seconds": round(seconds, 3),
        "products_per_s": round(len(scoring.records) / seconds, 3),
        "device": str(scoring.predictor.backbone.device),
        "price_point": scoring.predictor.trained.price_point,
    }


def _run_facts(model: str | Path | Predictor) -> dict[str, Any]:
    """Settings and curves of the run that a model belongs to."""
    config = config_of(model)
    return {} if config is None else {"settings": config.model_dump(mode="json"), "curves": _curves(run_of(model))}


def _controls(
    scoring: _Scoring, names: Sequence[str], predictions: Sequence[Prediction]
) -> dict[str, list[Prediction]]:
    """What the model answers to wrong pictures."""
    return {
        name: control_predictions(name, scoring.records, predictions, partial(scoring.answer, f"{name} pictures"))
        for name in names
        if name != "same_category" or "category" in scoring.truth.columns
    }


def _answers_before(scoring: _Scoring, first: Backbone) -> list[Prediction]:
    """What the model that fine-tuning started from answers."""
    untrained = Predictor(first, scoring.predictor.trained.model_copy(update={"price_intervals": None}))
    return scoring.answer("before fine-tuning", scoring.pictures(), untrained)


def _oracle_prices(records: Sequence[ProductRecord], truth: Truth) -> list[float]:
    """Prices by the rule behind them, for sample data; nothing where one record has none."""
    prices = [record.value("truth_oracle_price") for record in records]
    if "price" not in truth.columns or None in prices:
        return []
    return [float(price) for price in prices if price is not None]


def _untrained(base: str | None, predictor: Predictor) -> Backbone:
    """The model that fine-tuning started from, with the same crops; the model itself where nothing is known."""
    if base is None:
        return predictor.backbone
    return load(base, num_crops=predictor.backbone.num_crops, device=predictor.backbone.device)


def _closer_look(
    truth: Truth, records: Sequence[ProductRecord], predictions: Sequence[Prediction], answers: Columns
) -> dict[str, Any]:
    """Slices, confusion of categories, and what abstaining would buy."""
    found: dict[str, Any] = {"slices": slices(records, truth, answers)}
    if "category" in truth.columns and "category" in answers:
        found["confusion"] = confusion(*truth.known("category", answers["category"]))
    if "price" in truth.columns and any(p.uncertainty is not None for p in predictions):
        errors = absolute_percentage_errors(*truth.known("price", answers["price"]))
        known = [p for p, true in zip(predictions, truth.columns["price"], strict=True) if true is not None]
        spreads = [np.inf if p.uncertainty is None else p.uncertainty for p in known]
        found["risk_coverage"] = risk_coverage(errors, np.array(spreads))
    return found


def confusion(said: Sequence[Any], true: Sequence[Any]) -> dict[str, Any]:
    """Counts [true, said] over the most common true labels; what is none of them is counted together."""
    names, counts = np.unique(np.array([str(label) for label in true]), return_counts=True)
    labels = [str(name) for name in names[np.argsort(-counts, kind="stable")][:MAX_CONFUSED]]
    index = {label: place for place, label in enumerate(labels)}
    table = np.zeros((len(labels) + 1, len(labels) + 1), dtype=int)
    for mine, theirs in zip(said, true, strict=True):
        table[index.get(str(theirs), len(labels)), index.get(str(mine), len(labels))] += 1
    return {"labels": [*labels, OTHER_LABELS], "counts": table.tolist()}


def _reasoning(scoring: _Scoring, data: ProductDataset, limit: int | None) -> dict[str, Any]:
    """Scores of the data set's twins."""
    pairs = list(islice(read_twins(data.folder), limit))
    pictures = ([decode(image)] for pair in pairs for image in (pair.first_image, pair.second_image))
    prices = [p.price for p in scoring.answer("twins", pictures, total=2 * len(pairs))]
    moved = [
        float(np.log(second / first)) if first and second else None
        for first, second in zip(prices[::2], prices[1::2], strict=True)
    ]
    return reasoning_scores([pair.attribute for pair in pairs], moved, [pair.log_price_change for pair in pairs])


def _data_facts(data: ProductDataset, truth: Truth) -> dict[str, Any]:
    """The data set; where its prices are in several currencies, how many of the products have which."""
    manifest = data.manifest
    currencies = dict(Counter(filter(None, truth.currencies)).most_common()) if manifest.has_currencies else None
    return {
        "source": manifest.source,
        "licence": manifest.licence,
        "rows_in": manifest.rows_in,
        "kept": manifest.ok,
        "quarantined": manifest.quarantined,
        "quarantined_by_reason": manifest.quarantined_by_reason,
        "splits": manifest.splits,
        "groups": int(manifest.grouping["num_groups"]),
        "row_split_leak": manifest.grouping["row_split_leak"],
        "num_crops": manifest.num_crops,
        "seed": manifest.seed,
    } | ({"currencies": currencies} if currencies else {})


def _curves(run: Path | None) -> dict[str, list[list[float]]]:
    """Numbers of the run's metrics.jsonl: name -> [step, value] pairs.

    A run that was killed while it wrote has half a last line; that one is left out.

    Raises:
        DataError: any other line is damaged.
    """
    found: dict[str, list[list[float]]] = {}
    path = None if run is None else run / "metrics.jsonl"
    if path is None or not path.is_file():
        return found
    lines = path.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except ValueError:
            if number == len(lines) and not line.endswith(b"\n"):
                _log.warning("the last line of %s was cut off: it is missing in the curves", path)
                break
            raise DataError("not JSON", where=f"{path}, line {number}", fix="remove this line") from None
        for name, value in record.items():
            if name != "step":
                found.setdefault(name, []).append([record["step"], value])
    return found


def _reference(model: str | Path | Predictor, data: ProductDataset) -> ProductDataset:
    """The data set whose training products the baselines know: this one, or the run's own where it has none."""
    if data.manifest.splits.get("train", 0) > 0:
        return data
    config = config_of(model)
    if config is None:
        raise DataError(
            f"{data.folder} has no training products for the baselines",
            fix="evaluate a run whose own data set is still there, or leave baselines out (--no-baselines)",
        )
    return open_dataset(config.data.dataset)


def base_of(model: str | Path | Predictor) -> str | None:
    """The model that a run started from; None if unknown."""
    config = config_of(model)
    return None if config is None else config.model.base


def run_of(model: str | Path | Predictor) -> Path | None:
    """The run folder that a model belongs to; None for models that are no run's."""
    if isinstance(model, Predictor):
        return None
    checkpoint = Path(checkpoint_folder(model)).resolve()
    for folder in (Path(model), *checkpoint.parents[:2]):
        if (folder / "config.yaml").is_file():
            return folder
    return None


def config_of(model: str | Path | Predictor) -> RunConfig | None:
    """The settings of the run that a model belongs to; None for models that are no run's."""
    run = run_of(model)
    return None if run is None else load_config(run / "config.yaml")


def save_result(result: EvalResult, folder: Path) -> Path:
    """Write report.json, report.html, and gallery.html with all products; returns the path of the report."""
    from appraiser.evaluation.report.gallery import render_gallery
    from appraiser.evaluation.report.page import render_report

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json_text(result.scores) + "\n", encoding="utf-8")
    page, gallery = folder / "report.html", folder / "gallery.html"
    gallery.write_text(render_gallery(result, page.name), encoding="utf-8")
    page.write_text(render_report(result, gallery.name), encoding="utf-8")
    return page

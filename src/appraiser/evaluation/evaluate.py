"""Score a model by free generation on products that were not in training, beside baselines and controls."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from appraiser import __version__
from appraiser.backbone import load
from appraiser.config import RunConfig, load_config
from appraiser.data.dataset import ProductDataset, open_dataset
from appraiser.data.pictures import decode
from appraiser.data.records import ProductRecord
from appraiser.errors import DataError
from appraiser.evaluation.baselines import MAX_TRAIN_RECORDS, Part, baselines, score_parts
from appraiser.evaluation.controls import CONTROLS, control_predictions
from appraiser.evaluation.metrics import Score, interval_coverage, score, visible_words
from appraiser.predict import Prediction, Predictor, checkpoint_folder

REPORT_FORMAT = 1


@dataclass(frozen=True)
class EvalResult:
    """Everything an evaluation found.

    Args:
        scores: the document of `report.json`.
        records, predictions: what was scored, row by row.
    """

    scores: dict[str, Any]
    records: list[ProductRecord]
    predictions: list[Prediction]
    verdict: list[str] = field(default_factory=list)


def score_predictions(
    records: Sequence[ProductRecord], predictions: Sequence[Prediction], fields: Sequence[str]
) -> dict[str, Any]:
    """Parse and stop rates, and the scores of every field of the task that the records have."""
    prices = [price_in_currency(p, record, fields) for p, record in zip(predictions, records, strict=True)]
    part: dict[str, Any] = {
        "n": len(records),
        "parse_rate": score([p.parsed for p in predictions]),
        "stop_rate": score([p.stopped for p in predictions]),
    }
    part |= score_parts(
        records,
        price=prices if "price" in fields else None,
        title=[p.title for p in predictions] if "title" in fields else None,
        category=[p.category for p in predictions] if "category" in fields else None,
    )
    if "price" in part and any(p.price_interval for p in predictions):
        targets = [record.price or 0.0 for record in records]
        intervals = [p.price_interval if price else None for p, price in zip(predictions, prices, strict=True)]
        part["price"]["interval_80_coverage"] = interval_coverage(intervals, targets)
    words = [(record.extra or {}).get("truth_visible_words") for record in records]
    if "title" in part and all(words):
        part["title"]["visible_words"] = visible_words([p.title for p in predictions], [str(w) for w in words])
    return part


def price_in_currency(prediction: Prediction, record: ProductRecord, fields: Sequence[str]) -> float | None:
    """The predicted price; None where answers state a currency and this one states another than the record's."""
    is_other = "currency" in fields and record.currency not in (None, prediction.currency)
    return None if is_other else prediction.price


def validation_score(part: dict[str, Any], category_median_ape: float | None) -> float:
    """What chooses the best checkpoint: the mean over the fields present of price skill, chrF / 100 and accuracy.

    Price skill is 1 - median APE / median APE of the category median; it falls below 0 for a model that is worse.
    """
    found: list[float] = []
    if "price" in part:
        reference = category_median_ape or 1.0
        found.append(1.0 - part["price"]["median_ape"]["value"] / reference)
    if "title" in part:
        found.append(part["title"]["chrf"]["value"] / 100)
    if "category" in part:
        found.append(part["category"]["accuracy"]["value"])
    return float(np.mean(found)) if found else part["parse_rate"]["value"]


def evaluate(
    model: str | Path | Predictor,
    dataset: str | Path | ProductDataset,
    split: str = "test",
    *,
    controls: Sequence[str] = CONTROLS,
    with_baselines: bool = True,
    before: bool = True,
    limit: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> EvalResult:
    """Evaluate a run, a model folder or a loaded predictor on one split.

    Args:
        controls: wrong-picture controls to run, of shuffled, same_category and blank.
        before: also score the model that fine-tuning started from.
        limit: only the first so many records.
        progress: called with (what, done, total).

    Raises:
        DataError: no such split, or nothing in it that the model answers.
        CheckpointError: no model there.
    """
    data = dataset if isinstance(dataset, ProductDataset) else open_dataset(dataset)
    predictor = model if isinstance(model, Predictor) else Predictor.load(model)
    all_records = data.split(split)
    records = [all_records[position] for position in range(min(limit or len(all_records), len(all_records)))]
    _check_fields(predictor, records)

    def answer(what: str, pictures: Sequence[Sequence[Image.Image]], by: Predictor) -> list[Prediction]:
        def report(done: int) -> None:
            if progress:
                progress(what, done, len(records))

        return by.predict(pictures, report)

    own = [[decode(picture) for picture in record.images] for record in records]
    started = time.perf_counter()
    predictions = answer("test pictures", own, predictor)
    seconds = time.perf_counter() - started
    scores: dict[str, Any] = {
        "format": REPORT_FORMAT,
        "appraiser": __version__,
        "model": str(model) if not isinstance(model, Predictor) else predictor.backbone.name,
        "dataset": str(data.folder),
        "dataset_sha256": data.manifest.content_sha256,
        "split": split,
        "seconds": round(seconds, 3),
        "products_per_s": round(len(records) / seconds, 3),
    }
    fields = predictor.task.fields
    scores |= score_predictions(records, predictions, fields)
    scores["controls"] = {
        name: score_predictions(records, control_predictions(name, records, predictions, predictor.predict), fields)
        for name in controls
        if name != "same_category" or records[0].category is not None
    }
    base = base_of(model)
    if with_baselines or before:
        base_backbone = load(base, num_crops=predictor.backbone.num_crops) if base else predictor.backbone
        if with_baselines:
            known = _reference(model, data).split("train")
            scores["baseline_records"] = min(len(known), MAX_TRAIN_RECORDS)
            scores["baselines"] = baselines(known, records, base_backbone)
        if before and base:
            untrained = Predictor(base_backbone, predictor.trained.model_copy(update={"interval_80_log": None}))
            scores["before"] = score_predictions(records, answer("before fine-tuning", own, untrained), fields)
    oracle = [(record.extra or {}).get("truth_oracle_price") for record in records]
    if all(price is not None for price in oracle):
        scores["oracle"] = score_parts(records, price=[float(price) for price in oracle if price is not None])
    result = EvalResult(scores, records, predictions, verdict(scores))
    scores["verdict"] = result.verdict
    return result


def _reference(model: str | Path | Predictor, data: ProductDataset) -> ProductDataset:
    """The data set whose training products the baselines know: this one, or the run's own where it has none."""
    if data.manifest.splits.get("train", 0) > 0:
        return data
    config = config_of(model)
    if config is None:
        raise DataError(
            f"{data.folder} has no training products for the baselines",
            fix="evaluate a run whose own data set is still there (from Python: with_baselines=False)",
        )
    return open_dataset(config.data.dataset)


def base_of(model: str | Path | Predictor) -> str | None:
    """The model that a run started from; None if unknown."""
    config = config_of(model)
    return None if config is None else config.model.base


def config_of(model: str | Path | Predictor) -> RunConfig | None:
    """The settings of the run that a model belongs to; None for models that are no run's."""
    if isinstance(model, Predictor):
        return None
    checkpoint = Path(checkpoint_folder(model)).resolve()
    for folder in (Path(model), *checkpoint.parents[:2]):
        if (folder / "config.yaml").is_file():
            return load_config(folder / "config.yaml")
    return None


def _check_fields(predictor: Predictor, records: Sequence[ProductRecord]) -> None:
    known = [name for name in predictor.task.fields if name in ("title", "category", "price")]
    if records and all(getattr(records[0], name) is None for name in known):
        raise DataError(
            f"the model answers {', '.join(predictor.task.fields)}; the data set has none of these",
            fix="build the data set with these columns (--map), or train on this data set",
        )


def verdict(scores: dict[str, Any]) -> list[str]:
    """Sentences for people, strongest first: better than the baselines? does it use the picture? how far off?"""
    said: list[str] = []
    n = scores["n"]
    if "price" in scores:
        mine = scores["price"]["median_ape"]
        said.append(
            f"Half of the prices are within {mine['value']:.1%} of the truth (95 % interval {mine['low']:.1%} to "
            f"{mine['high']:.1%}, {n} products)."
        )
        rivals = {
            name: part["price"]["median_ape"] for name, part in scores.get("baselines", {}).items() if "price" in part
        }
        if rivals:
            name, best = min(rivals.items(), key=lambda item: item[1]["value"])
            said.append(_compare("Prices", mine, best, name, lower_is_better=True))
    if "category" in scores:
        mine = scores["category"]["accuracy"]
        said.append(f"{mine['value']:.1%} of the categories are right ({mine['low']:.1%} to {mine['high']:.1%}).")
        rivals = {
            name: part["category"]["accuracy"]
            for name, part in scores.get("baselines", {}).items()
            if "category" in part
        }
        if rivals:
            name, best = max(rivals.items(), key=lambda item: item[1]["value"])
            said.append(_compare("Categories", mine, best, name, lower_is_better=False))
    shuffled = scores.get("controls", {}).get("shuffled")
    if shuffled:
        said.append(_looks(scores, shuffled))
    if scores["parse_rate"]["value"] < 1:
        said.append(f"{1 - scores['parse_rate']['value']:.1%} of the answers could not be read; they count as wrong.")
    return said


BASELINE_NAMES = {
    "global_median": "one price for everything",
    "category_median": "the median price of the true category",
    "knn": "nearest neighbours",
    "ridge": "linear regression on the features of the tower before fine-tuning",
}


def _compare(what: str, mine: Score, best: Score, name: str, *, lower_is_better: bool) -> str:
    other = BASELINE_NAMES.get(name, name)
    apart = mine["high"] < best["low"] if lower_is_better else mine["low"] > best["high"]
    ahead = mine["value"] < best["value"] if lower_is_better else mine["value"] > best["value"]
    figures = f"{mine['value']:.1%} against {best['value']:.1%}"
    if apart:
        return f"{what} beat every baseline; the best of them is {other} ({figures})."
    if ahead:
        return (
            f"{what} are ahead of the best baseline, {other} ({figures}), but the intervals overlap: more data needed."
        )
    return f"{what} do NOT beat the baseline {other} ({figures})."


def _looks(scores: dict[str, Any], shuffled: Part) -> str:
    """Whether shuffled pictures make the model clearly worse, by the first field that was scored."""
    for name, metric, lower_is_better, sentence in (
        ("price", "median_ape", True, "half of the prices are off by {:.1%} or more"),
        ("category", "accuracy", False, "{:.1%} of the categories are right"),
        ("title", "chrf", False, "titles reach a chrF of {:.1f}"),
    ):
        if name not in scores or name not in shuffled:
            continue
        mine, control = scores[name][metric], shuffled[name][metric]
        worse = control["low"] > mine["high"] if lower_is_better else control["high"] < mine["low"]
        found = "The model looks" if worse else "WARNING: the model may not need the picture"
        return (
            f"{found}: {sentence.format(mine['value'])} with the right picture, "
            f"{sentence.format(control['value'])} with another product's."
        )
    return "No field was scored with shuffled pictures."


def save_result(result: EvalResult, folder: Path) -> Path:
    """Write report.json and report.html; returns the path of the page."""
    from appraiser.evaluation.report import render_report

    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result.scores, indent=2, ensure_ascii=False)
    (folder / "report.json").write_text(text + "\n", encoding="utf-8")
    page = folder / "report.html"
    page.write_text(render_report(result), encoding="utf-8")
    return page

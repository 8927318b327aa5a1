"""How many pictures are enough? The run's own training again on an eighth, a quarter and a half of them.

Every part holds the smaller ones, whole product groups, and every model is scored on the same products.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from appraiser.config import RunConfig, load_config
from appraiser.data.dataset import ProductDataset, open_dataset, share_of
from appraiser.errors import DataError
from appraiser.evaluation.evaluate import EvalResult, Progress, evaluate, run_of
from appraiser.evaluation.metrics import Columns
from appraiser.evaluation.scores import Part, Truth, columns_of, differences, part_fields, score_columns
from appraiser.predict import Prediction
from appraiser.training.trainer import train

_log = logging.getLogger(__name__)

SHARES = (0.125, 0.25, 0.5)


def learning_curve(
    run: str | Path,
    dataset: str | Path,
    result: EvalResult,
    *,
    shares: Sequence[float] = SHARES,
    progress: Progress | None = None,
    on_training: Callable[[float, int], None] | None = None,
) -> Part:
    """Train on parts of the run's data and score them, for the part `learning_curve` of report.json.

    Args:
        result: evaluation of the run itself, which is the curve's last point.
        on_training: called before each training with the share and the number of its products.

    Raises:
        DataError: the model is no run, so how it was trained is not known.
    """
    folder = run_of(run)
    if folder is None:
        raise DataError(f"{run} is no run: how it was trained is not known", fix="name a run folder")
    config = load_config(folder / "config.yaml")
    data = open_dataset(config.data.dataset)
    fields = list(part_fields(result.scores))
    truth = Truth.of(result.records, fields)
    points: list[dict[str, Any]] = []
    answers: list[Columns] = []
    for share in shares:
        part = _part_of(config, folder / "learning-curve" / f"share-{share:g}", share)
        count = len(share_of(data.split("train"), part.data.train_share, config.run.seed))
        if on_training:
            on_training(share, count)
        warnings, predictions = _trained(part, dataset, result, progress)
        for warning in warnings:
            _log.warning("training on %s: %s", f"{share:.0%}", warning)
        answers.append(columns_of(truth, predictions, fields))
        points.append({"share": share, "n": count, "scores": score_columns(truth, answers[-1]), "warnings": warnings})
    answers.append(columns_of(truth, result.predictions, fields))
    whole = len(share_of(data.split("train"), config.data.train_share, config.run.seed))
    points.append({"share": 1.0, "n": whole, "scores": score_columns(truth, answers[-1])})
    gains = differences(truth, answers[-1], {"half": answers[-2]})["half"]
    return {"points": points, "last_doubling": gains, "sentence": sentence(points, gains)}


def _part_of(config: RunConfig, out: Path, share: float) -> RunConfig:
    """The same run on a share of its own training products."""
    return config.model_copy(
        update={
            "data": config.data.model_copy(update={"train_share": share * config.data.train_share}),
            "run": config.run.model_copy(update={"out": str(out)}),
            "tracking": config.tracking.model_copy(update={"wandb": "off"}),
        }
    )


def _trained(
    config: RunConfig, dataset: str | Path, result: EvalResult, progress: Progress | None
) -> tuple[list[str], list[Prediction]]:
    """Warnings of a training for the curve, and the answers of its model.

    Its folder is made anew, since an earlier one may be of another run.
    """
    shutil.rmtree(config.run.out, ignore_errors=True)
    warnings = train(config).warnings
    data: ProductDataset = open_dataset(dataset)
    answered = evaluate(
        config.run.out,
        data,
        result.scores["split"],
        controls=(),
        with_baselines=False,
        before=False,
        limit=len(result.records),
        closed=result.scores.get("closed", ()),
        progress=progress,
    )
    return warnings, answered.predictions


def sentence(points: Sequence[dict[str, Any]], gains: Part) -> str:
    """Whether more pictures would help, by what the last step of the curve brought."""
    field, found = next(iter(gains.items()))
    few, many = points[-2]["n"], points[-1]["n"]
    factor, unit = (1, "points of chrF") if found["metric"] == "chrf" else (100, "points")
    gain = found["gain"]
    span = f"{gain['value'] * factor:.1f} {unit} ({gain['low'] * factor:+.1f} to {gain['high'] * factor:+.1f})"
    if gain["low"] > 0:
        return f"From {few:,} to {many:,} pictures the {field} gained {span}: more pictures will help."
    return f"From {few:,} to {many:,} pictures the {field} gained no clear {span}: {few:,} are about enough."

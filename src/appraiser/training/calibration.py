"""After training: which price of a distribution to predict, and how wide its intervals must be.

The validation split chooses; the calibration split, which neither training nor any choice has seen, measures.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np

from appraiser.data.dataset import Records
from appraiser.data.pictures import decode
from appraiser.data.records import ProductRecord
from appraiser.evaluation.scores import price_in_currency
from appraiser.predict import Prediction, Predictor, price_at
from appraiser.price_intervals import PriceIntervals, calibrate, log_errors, narrower_when_scaled
from appraiser.trained_task import PricePoint, TrainedTask

MAX_VALIDATION = 500
MAX_CALIBRATION = 2000
"""More products would move the bounds by less than their own uncertainty, and take hours with the real model."""
MISSING_PRICE_ERROR = math.log(10)
"""Of ln price, for an answer without one."""
POINTS: tuple[PricePoint, ...] = ("median", "mean", "answer")


def calibrated(
    predictor: Predictor, validation: Records, calibration: Records | None
) -> tuple[TrainedTask, str | None]:
    """The predictor's task with its price point and intervals, and a warning where there are none of the latter."""
    trained = predictor.trained
    records, predictions = _answers(predictor, validation, MAX_VALIDATION)
    if predictor.finds_distributions and records:
        trained = trained.model_copy(update={"price_point": best_price_point(predictor, records, predictions)})
    if calibration is None:
        return trained, "no price intervals: the data set has no calibration products"
    scaled = narrower_when_scaled(*_errors(predictor, trained.price_point, records, predictions))
    records, predictions = _answers(predictor, calibration, MAX_CALIBRATION)
    errors, spreads = _errors(predictor, trained.price_point, records, predictions)
    intervals: PriceIntervals | None = calibrate(errors, spreads, scaled=scaled)
    if intervals is None:
        readable = sum(math.isfinite(error) for error in errors)
        return trained, (
            f"no price intervals: {readable} of {len(errors)} calibration products have a readable price, too few for "
            "80 %"
        )
    return trained.model_copy(update={"price_intervals": intervals}), None


def _answers(predictor: Predictor, split: Records, limit: int) -> tuple[list[ProductRecord], list[Prediction]]:
    """A fixed sample of a split's records that have a price, and their answers."""
    rows = sorted(np.random.default_rng(0).permutation(len(split))[:limit].tolist())
    records = [record for record in (split[row] for row in rows) if record.price]
    return records, predictor.predict([decode(data) for data in record.images] for record in records)


def best_price_point(
    predictor: Predictor, records: Sequence[ProductRecord], predictions: Sequence[Prediction]
) -> PricePoint:
    """The price of its distributions that errs least.

    By the mean of |ln error|: medians of some hundred errors hop from one product to the next.
    """

    def mean_error(point: PricePoint) -> float:
        errors, _ = _errors(predictor, point, records, predictions)
        return statistics.fmean(min(error, MISSING_PRICE_ERROR) for error in errors)

    return min(POINTS, key=mean_error)


def _errors(
    predictor: Predictor, point: PricePoint, records: Sequence[ProductRecord], predictions: Sequence[Prediction]
) -> tuple[list[float], list[float | None]]:
    """|ln error| of one price of the distributions, and their spreads; a price in a wrong currency is none."""
    prices = [
        price_at(point, p.price_distribution, predictor.task.parse(p.text))
        if price_in_currency(p, record.currency, predictor.task.fields)
        else None
        for p, record in zip(predictions, records, strict=True)
    ]
    errors = log_errors(prices, [float(record.price or 0.0) for record in records])
    return errors, [p.uncertainty for p in predictions]

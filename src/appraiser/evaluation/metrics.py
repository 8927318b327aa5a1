"""Scores of predictions against the truth; plain functions on columns, each score with a bootstrap interval.

An answer that does not parse is wrong and stays in every denominator: a missing price counts as a price of 0 (100 %
off), a missing text as an empty one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics import CHRF
from scipy.stats import rankdata, spearmanr
from sklearn.metrics import f1_score

from appraiser.data.task import FieldValue

NUM_RESAMPLES = 1000
RESAMPLED_AT_ONCE = 4_000_000
"""Row numbers in memory: 32 MB, whatever the number of rows."""
MAX_CLASSES = 50
"""Text fields with more values than this have no F1 per value."""
Floats = NDArray[np.float64]
Statistic = Callable[..., Floats]


class Score(TypedDict):
    """A metric with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


Scores = dict[str, Score]
Column = Sequence[FieldValue | None]
Columns = Mapping[str, Column]
"""What was said of every product: field -> values in the order of the products; None where nothing could be read."""


def resamples(n: int, seed: int = 0) -> Iterator[NDArray[np.int64]]:
    """Row numbers drawn with replacement, [NUM_RESAMPLES, n] in all, some at a time; the same for every metric."""
    at_once = max(1, RESAMPLED_AT_ONCE // max(1, n))
    if at_once >= NUM_RESAMPLES:
        yield _all_resamples(n, seed)
        return
    rng = np.random.default_rng(seed)
    for start in range(0, NUM_RESAMPLES, at_once):
        yield rng.integers(0, n, size=(min(at_once, NUM_RESAMPLES - start), n))


@lru_cache(maxsize=4)
def _all_resamples(n: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, n, size=(NUM_RESAMPLES, n))


def bootstrap(value: float, columns: Sequence[NDArray[np.generic]], statistic: Statistic) -> Score:
    """The value with the interval that its statistic has over resampled rows.

    Args:
        statistic: takes the resampled columns, each [k, n], and `axis`; gives [k].
    """
    drawn = [statistic(*(column[rows] for column in columns), axis=1) for rows in resamples(len(columns[0]))]
    low, high = np.nanpercentile(np.concatenate(drawn), [2.5, 97.5])
    return {"value": float(value), "low": float(low), "high": float(high)}


def score(rows: Sequence[float] | Floats, statistic: Statistic = np.mean) -> Score:
    """A statistic of per-row values with its interval; `statistic` takes an axis."""
    values = np.asarray(rows, dtype=np.float64)
    return bootstrap(float(statistic(values, axis=0)), [values], statistic)


def _root_mean(values: Floats, axis: int) -> Floats:
    return np.sqrt(np.mean(values, axis=axis))


def price_array(prices: Column) -> Floats:
    """Prices as numbers; a missing one is 0, which is 100 % off."""
    return np.array([0.0 if price is None else float(price) for price in prices], dtype=np.float64)


def absolute_percentage_errors(predicted: Column, true: Column) -> Floats:
    """|p - t| / t of every row."""
    t = price_array(true)
    return np.abs(price_array(predicted) - t) / t


def price_scores(predicted: Column, true: Column) -> Scores:
    """Price metrics.

    median_ape: median of |p - t| / t. mae: mean |p - t| in the currency. rmsle: root mean square of
    ln(1 + p) - ln(1 + t). smape: mean of |p - t| / ((p + t) / 2), 0 to 2. within_10, within_20, within_25: share with
    |p - t| / t at most 0.1, 0.2, 0.25. spearman: rank correlation; left out where all prices are one, which has none.
    """
    p, t = price_array(predicted), price_array(true)
    ape = absolute_percentage_errors(predicted, true)
    scores = {
        "median_ape": score(ape, np.median),
        "mae": score(np.abs(p - t)),
        "rmsle": score((np.log1p(p) - np.log1p(t)) ** 2, _root_mean),
        "smape": score(np.abs(p - t) / ((p + t) / 2)),
    }
    scores |= {
        f"within_{percent}": score((ape <= percent / 100 + 1e-12).astype(np.float64)) for percent in (10, 20, 25)
    }
    if len(set(p)) > 1 and len(set(t)) > 1:
        scores["spearman"] = bootstrap(float(spearmanr(p, t).statistic), [p, t], _rank_correlation)
    return scores


def _rank_correlation(p: Floats, t: Floats, axis: int) -> Floats:
    """Spearman's correlation of many resamples at once; 0 for a resample of one price."""
    ranks = [rankdata(values, axis=axis) for values in (p, t)]
    a, b = (values - values.mean(axis=axis, keepdims=True) for values in ranks)
    spread = np.sqrt((a**2).sum(axis=axis) * (b**2).sum(axis=axis))
    return np.divide((a * b).sum(axis=axis), spread, out=np.zeros_like(spread), where=spread > 0)


def normalize_title(title: str) -> str:
    """Lower case, single spaces, no punctuation: what `exact` compares."""
    return " ".join(re.findall(r"\w+", title.lower()))


_CHRF = CHRF()


@lru_cache(maxsize=100_000)
def sentence_chrf(said: str, true: str) -> float:
    """sacrebleu's sentence chrF2 of one text, 0 to 100; kept, since tables, cards and differences all ask for it."""
    return float(_CHRF.sentence_score(said, [true]).score)


def token_f1(said: str, true: str) -> float:
    """Harmonic mean of the shares of words that are right and that are found, words counted as often as they occur."""
    mine, theirs = Counter(normalize_title(said).split()), Counter(normalize_title(true).split())
    common = (mine & theirs).total()
    if not mine or not theirs:
        return float(mine == theirs)
    return 2 * common / (mine.total() + theirs.total())


def _texts(values: Column) -> list[str]:
    return ["" if value is None else str(value) for value in values]


def title_scores(predicted: Column, true: Column) -> Scores:
    """Metrics of free text.

    exact: share equal after normalising. chrf: mean over rows of sacrebleu's sentence chrF2, 0 to 100. token_f1: mean
    over rows.
    """
    pairs = list(zip(_texts(predicted), _texts(true), strict=True))
    return {
        "exact": score([normalize_title(p) == normalize_title(t) for p, t in pairs]),
        "chrf": score([sentence_chrf(p, t) for p, t in pairs]),
        "token_f1": score([token_f1(p, t) for p, t in pairs]),
    }


def visible_words(predicted: Column, visible: Sequence[str]) -> Score:
    """Mean share of the words that the picture shows and the predicted title has (sample data only)."""
    shares = []
    for title, words in zip(_texts(predicted), visible, strict=True):
        said = set(normalize_title(title).split())
        wanted = normalize_title(words).split()
        shares.append(sum(word in said for word in wanted) / max(1, len(wanted)))
    return score(shares)


def category_scores(predicted: Column, true: Column) -> Scores:
    """Category metrics: accuracy, and F1 averaged over the true categories (macro)."""
    guesses, truth = _texts(predicted), _texts(true)
    labels = sorted(set(truth))
    index = {label: number for number, label in enumerate(labels)}
    # Anything outside the known labels falls into one extra class that is never true.
    p = np.array([index.get(label, len(labels)) for label in guesses])
    t = np.array([index[label] for label in truth])
    value = f1_score(t, p, labels=list(range(len(labels))), average="macro", zero_division=0.0)

    def macro_f1(some: NDArray[np.int64], theirs: NDArray[np.int64], axis: int) -> Floats:
        return np.array([_macro_f1(a, b, len(labels)) for a, b in zip(some, theirs, strict=True)])

    return {"accuracy": score(p == t), "macro_f1": bootstrap(float(value), [p, t], macro_f1)}


def _macro_f1(predicted: NDArray[np.int64], true: NDArray[np.int64], num_labels: int) -> float:
    """Macro F1 over the labels present in a resample; counting is 50 times faster than scikit-learn's validation."""
    hits = np.bincount(true[predicted == true], minlength=num_labels)[:num_labels]
    guessed = np.bincount(predicted, minlength=num_labels + 1)[:num_labels]
    present = np.bincount(true, minlength=num_labels)[:num_labels]
    f1 = 2 * hits / np.maximum(guessed + present, 1)
    return float(f1[present > 0].mean())


def text_scores(predicted: Column, true: Column) -> Scores:
    """Metrics of any other text: those of titles, and accuracy and macro F1 where there are few different values."""
    scores = title_scores(predicted, true)
    return scores | category_scores(predicted, true) if is_closed(true) else scores


def is_closed(true: Column) -> bool:
    """Whether a column holds labels rather than free text: few different values, most of them more than once."""
    different = len(set(true))
    return different <= MAX_CLASSES and 2 * different <= len(true)


SCORERS: Mapping[str, Callable[[Column, Column], Scores]] = {
    "price": price_scores,
    "title": title_scores,
    "category": category_scores,
}


def field_scores(field: str, predicted: Column, true: Column) -> Scores:
    """All metrics of one field."""
    return SCORERS.get(field, text_scores)(predicted, true)


@dataclass(frozen=True)
class Headline:
    """The one metric of a field by which methods are compared, with its value for every row.

    Args:
        metric: its key among the field's scores.
        rows: [n] per product; `statistic` of them is the metric.
    """

    metric: str
    lower_is_better: bool
    rows: Floats
    statistic: Statistic


def headline(field: str, predicted: Column, true: Column) -> Headline:
    """What a field is compared by: price error, likeness of titles, share of right categories."""
    if field == "price":
        return Headline("median_ape", True, absolute_percentage_errors(predicted, true), np.median)
    pairs = list(zip(_texts(predicted), _texts(true), strict=True))
    if field == "category" or (field != "title" and is_closed(true)):
        return Headline("accuracy", False, np.array([float(p == t) for p, t in pairs]), np.mean)
    return Headline("chrf", False, np.array([sentence_chrf(p, t) for p, t in pairs]), np.mean)


def difference(mine: Headline, other: Headline) -> Score:
    """How much better `mine` is than `other` on the same rows, with the interval over resampled rows.

    Paired: both are scored on the same resample, so what makes rows hard for everybody falls out. Above 0: mine is
    better.
    """
    sign = -1.0 if mine.lower_is_better else 1.0

    def gain(a: Floats, b: Floats, axis: int) -> Floats:
        return sign * (mine.statistic(a, axis=axis) - mine.statistic(b, axis=axis))

    return bootstrap(float(gain(mine.rows, other.rows, axis=0)), [mine.rows, other.rows], gain)

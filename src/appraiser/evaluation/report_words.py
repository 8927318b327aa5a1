"""The report's words: how metrics, units and compared methods are named, explained and written for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

from appraiser.evaluation.metrics import Score
from appraiser.pages.words import amount

Unit = Literal["share", "points", "money", "plain"]


@dataclass(frozen=True)
class Metric:
    """A number of `report.json` and its words.

    Args:
        field, key: where it lies: scores[field][key], or scores[key] for an empty field.
        label: heading of its column; the field is named above it.
    """

    field: str
    key: str
    label: str
    unit: Unit
    lower_is_better: bool
    explanation: str

    @property
    def name(self) -> str:
        """The label with its field, for places without a heading above."""
        return f"{(self.field or 'answer').capitalize()}: {self.label}"


METRICS = (
    Metric("price", "median_ape", "median error", "share", True,
           "Price error is |predicted - true| / true. Half of the products have a smaller error than this."),
    Metric("price", "within_10", "within 10 %", "share", False, "Share of prices at most 10 % off."),
    Metric("price", "within_20", "within 20 %", "share", False, "Share of prices at most 20 % off."),
    Metric("category", "accuracy", "right", "share", False,
           "Share of products whose category is exactly the true one."),
    Metric("category", "macro_f1", "macro F1", "share", False,
           "F1 averaged over the true categories, so that a rare category counts as much as a common one."),
    Metric("title", "visible_words", "visible words", "share", False,
           "Share of the words a picture can show (colour, pattern, material, kind) that the predicted title has."),
    Metric("title", "chrf", "chrF", "points", False,
           "Likeness of titles by runs of characters, 0 to 100; a near miss gets credit."),
    Metric("title", "exact", "exact", "share", False,
           "Share of titles equal to the true one, letter case, spaces and punctuation aside."),
    Metric("", "parse_rate", "read", "share", False,
           "Share of answers in which every field could be read. An answer that cannot be read counts as wrong."),
)  # fmt: skip
# Beside the table: about this model only.
MORE_METRICS = (
    Metric("price", "interval_80_coverage", "truth inside the 80 % interval", "share", False,
           "Share of true prices inside their predicted interval; 80 % is what the interval promises."),
    Metric("price", "mae", "mean error", "money", True, "Mean of |predicted - true|, in the currency of the prices."),
    Metric("price", "rmsle", "log error (RMSLE)", "plain", True,
           "Root mean square of ln(1 + predicted) - ln(1 + true): 0.1 is about 10 %, and large errors weigh more."),
    Metric("", "stop_rate", "ended by itself", "share", False,
           "Share of answers that ended by themselves instead of at the length limit."),
)  # fmt: skip


@dataclass(frozen=True)
class Method:
    """A row of the table: what was scored on the same products.

    Args:
        may_lead: whether it counts against the model to be behind it; the oracle is a bound, not a rival.
    """

    group: str
    name: str
    explanation: str
    part: dict[str, Any]
    may_lead: bool = True


BASELINES = {
    "global_median": (
        "One answer for all",
        "The median training price and the most common category, whatever the picture shows.",
    ),
    "category_median": (
        "Category median",
        "The median training price of the product's true category. It is told the true category, which no method that "
        "sees only the picture can know.",
    ),
    "knn": (
        "Nearest neighbours",
        "The training pictures that look most alike to the model before fine-tuning: their mean price, their most "
        "common category, the title of the nearest.",
    ),
    "ridge": (
        "Linear models",
        "Ridge regression of the log price and logistic regression of the category, on the picture features of the "
        "model before fine-tuning.",
    ),
}
CONTROLS = {
    "shuffled": (
        "Another product's picture",
        "This model, shown the picture of another product. It should fall far behind.",
    ),
    "same_category": (
        "Same-category picture",
        "This model, shown another product of the same true category: what is left is what the category alone tells.",
    ),
    "blank": ("Blank picture", "This model, shown white: what it answers without seeing anything."),
}


def methods(scores: dict[str, Any]) -> list[Method]:
    """The rows of the table that `scores` has, the model first."""
    found = [Method("Model", "This model", "The evaluated model, on every product's own picture.", scores, False)]
    if "before" in scores:
        explanation = "The model that fine-tuning started from, asked the same question."
        found.append(Method("Model", "Before fine-tuning", explanation, scores["before"]))
    for group, known, parts in (
        ("Baselines: cheap methods", BASELINES, scores.get("baselines", {})),
        ("Controls: the model on wrong pictures", CONTROLS, scores.get("controls", {})),
    ):
        for key, part in parts.items():
            name, explanation = known.get(key, (key.replace("_", " "), f"`{key}` of report.json."))
            found.append(Method(group, name, explanation, part))
    if "oracle" in scores:
        explanation = (
            "Knows the rule by which the sample data's prices were made; what is left is their random part. No method "
            "can be expected to do better."
        )
        found.append(Method("Bound", "Oracle (knows the rule)", explanation, scores["oracle"], False))
    return found


def lookup(part: dict[str, Any], metric: Metric) -> Score | None:
    """The metric's score in a part of `report.json`, None where it was not scored."""
    holder = part.get(metric.field, {}) if metric.field else part
    found: Score | None = holder.get(metric.key)
    return found


def unnamed(scores: dict[str, Any]) -> list[tuple[str, Score]]:
    """(path, score) of this model's metrics without words here: a new metric is shown before it is named."""
    known = {(metric.field, metric.key) for metric in (*METRICS, *MORE_METRICS)}
    return [
        (f"{field}.{key}", cast(Score, score))
        for field, part in scores.items()
        if isinstance(part, dict)
        for key, score in part.items()
        if isinstance(score, dict) and {"value", "low", "high"} <= score.keys() and (field, key) not in known
    ]


def number(value: float, unit: Unit) -> str:
    """A metric's value as people write it."""
    match unit:
        case "share":
            return f"{value:.1%}"
        case "points":
            return f"{value:.1f}"
        case "money":
            return amount(value)
        case "plain":
            return f"{value:.3f}"


def span(score: Score, unit: Unit) -> str:
    """The 95 % interval as `7.9% to 9.1%`."""
    return f"{number(score['low'], unit)} to {number(score['high'], unit)}"


def short_span(score: Score, unit: Unit) -> str:
    """The same as `7.9-9.1%`, for table cells."""
    low = number(score["low"], unit).removesuffix("%")
    return f"{low}\N{EN DASH}{number(score['high'], unit)}"

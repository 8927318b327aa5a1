"""The report's words: how metrics, units and compared methods are named, explained and written for people."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from appraiser.evaluation.metrics import Score
from appraiser.evaluation.scores import USUAL_FIELDS, part_fields
from appraiser.pages.words import amount

Unit = Literal["share", "points", "money", "plain", "times", "count"]
MINUS, NO_BREAK = "\N{MINUS SIGN}", "\N{NO-BREAK SPACE}"


@dataclass(frozen=True)
class Metric:
    """A number of `report.json` and its words.

    Args:
        field, key: where it lies: the field's scores, or the part itself for an empty field.
        label: heading of its column; the field is named above it.
        lower_is_better: None where neither is.
    """

    field: str
    key: str
    label: str
    unit: Unit
    lower_is_better: bool | None
    explanation: str

    @property
    def name(self) -> str:
        """The label with its field, for places without a heading above."""
        return f"{(self.field or 'answer').capitalize()}: {self.label}"

    @property
    def arrow(self) -> str:
        """Which way is better."""
        return {True: f"{NO_BREAK}↓", False: f"{NO_BREAK}↑", None: ""}[self.lower_is_better]


CHRF = "Likeness of texts by runs of characters, 0 to 100; a near miss gets credit."
TOKEN_F1 = "Harmonic mean of the share of predicted words that are true and the share of true words that are predicted."

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
    Metric("title", "chrf", "chrF", "points", False, CHRF),
    Metric("title", "exact", "exact", "share", False,
           "Share of titles equal to the true one, letter case, spaces and punctuation aside."),
    Metric("", "parse_rate", "read", "share", False,
           "Share of answers in which every field could be read. An answer that cannot be read counts as wrong."),
)  # fmt: skip
"""Columns of the table of all methods."""
MORE_METRICS = (
    Metric("price", "within_25", "within 25 %", "share", False, "Share of prices at most 25 % off."),
    Metric("price", "mae", "mean error", "money", True, "Mean of |predicted - true|, in the currency of the prices."),
    Metric("price", "smape", "symmetric error (sMAPE)", "share", True,
           "Mean of |predicted - true| / the mean of both, 0 to 200 %: half and double the price are equally wrong."),
    Metric("price", "rmsle", "log error (RMSLE)", "plain", True,
           "Root mean square of ln(1 + predicted) - ln(1 + true): 0.1 is about 10 %, and large errors weigh more."),
    Metric("price", "spearman", "rank correlation", "plain", False,
           "Spearman's: 1 where the dearer of two products is always called dearer, 0 for prices without any order."),
    Metric("price", "interval_80_coverage", "truth inside the 80 % interval", "share", None,
           "Share of true prices inside their predicted interval; 80 % is what the interval promises."),
    Metric("price", "interval_80_width", "width of the 80 % interval", "times", True,
           "Its upper end divided by its lower end, in the median: 1.5 is from 100 to 150. Narrow is good only where "
           "the truth lies inside as often as promised."),
    Metric("price", "interval_90_coverage", "truth inside the 90 % interval", "share", None,
           "The same for the wider interval; 90 % is what it promises."),
    Metric("price", "interval_90_width", "width of the 90 % interval", "times", True,
           "Upper end divided by lower end, in the median."),
    Metric("title", "token_f1", "words in common (token F1)", "share", False, TOKEN_F1),
    Metric("", "stop_rate", "ended by itself", "share", False,
           "Share of answers that ended by themselves instead of at the length limit."),
    Metric("", "answer_tokens", "length in tokens", "count", None,
           "Mean length of an answer; it decides how long answering takes."),
)  # fmt: skip
"""Beside the table: about this model only."""

FIELD_METRICS = (
    Metric("", "accuracy", "right", "share", False, "Share of values that are exactly the true one."),
    Metric("", "macro_f1", "macro F1", "share", False, "F1 averaged over the true values, rare and common alike."),
    Metric("", "chrf", "chrF", "points", False, CHRF),
    Metric("", "token_f1", "token F1", "share", False, TOKEN_F1),
    Metric("", "exact", "exact", "share", False,
           "Share equal to the true text, letter case, spaces and punctuation aside."),
)  # fmt: skip
"""Of every field that is none of price, title and category."""


SHOWN_FIRST = ("price", "category", "title")


def shown_fields(part: dict[str, Any]) -> list[str]:
    """The fields of a part in the order of the page."""
    found = part_fields(part)
    return [field for field in SHOWN_FIRST if field in found] + [field for field in found if field not in SHOWN_FIRST]


def other_metrics(scores: dict[str, Any]) -> list[Metric]:
    """Metrics of the fields beyond the usual ones."""
    return [
        replace(metric, field=field)
        for field, found in part_fields(scores).items()
        if field not in USUAL_FIELDS
        for metric in FIELD_METRICS
        if metric.key in found
    ]


def metric_of(field: str, key: str) -> Metric:
    """The words for any metric; its own key where it has none yet."""
    for metric in (*METRICS, *MORE_METRICS):
        if (metric.field, metric.key) == (field, key):
            return metric
    for metric in FIELD_METRICS:
        if metric.key == key:
            return replace(metric, field=field)
    return Metric(field, key, key.replace("_", " "), "plain", None, "")


def headline_metric(field: str, part: dict[str, Any]) -> Metric:
    """The figure that stands for a field."""
    known = part_fields(part)[field]
    for key in ("median_ape", "accuracy", "visible_words", "chrf"):
        if key in known:
            return metric_of(field, key)
    return metric_of(field, next(iter(known)))


@dataclass(frozen=True)
class Method:
    """A row of the table: what was scored on the same products.

    Args:
        key: its name among `differences`; empty for this model and for the oracle.
        may_lead: whether it counts against the model to be behind it; the oracle is a bound, not a rival.
    """

    key: str
    group: str
    name: str
    explanation: str
    part: dict[str, Any]
    may_lead: bool = True


BASELINES = {
    "prior": (
        "Best guess without a picture",
        "The median training price, the most common category and the most typical title, whatever the picture shows.",
    ),
    "global_median": (
        "One price for everything",
        "The median training price.",
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
    "surroundings": (
        "The rim of the own picture",
        "This model, shown the rim of the product's own picture, its middle painted over. What is left was learnt from "
        "the background, not from the product.",
    ),
}
MODELS, CHEAP, WRONG_PICTURES, BOUND = (
    "Models", "Baselines: cheap methods", "Controls: the model on wrong pictures", "Bound",
)  # fmt: skip


def methods(scores: dict[str, Any]) -> list[Method]:
    """The rows of the table that `scores` has, the model first."""
    found = [Method("", MODELS, "This model", "The evaluated model, on every product's own picture.", scores, False)]
    if "before" in scores:
        explanation = "The model that fine-tuning started from, asked the same question."
        found.append(Method("before", MODELS, "Before fine-tuning", explanation, scores["before"]))
    if "against" in scores:
        other = scores["against"]
        explanation = "Another model that was asked about the same pictures."
        found.append(Method("against", MODELS, f"Other model: {other['model']}", explanation, other["scores"]))
    for group, known, parts in (
        (CHEAP, BASELINES, scores.get("baselines", {})),
        (WRONG_PICTURES, CONTROLS, scores.get("controls", {})),
    ):
        for key, part in parts.items():
            name, explanation = known.get(key, (key.replace("_", " "), f"`{key}` of report.json."))
            found.append(Method(key, group, name, explanation, part))
    if "oracle" in scores:
        explanation = (
            "Knows the rule by which the sample data's prices were made; what is left is their random part. No method "
            "can be expected to do better."
        )
        found.append(Method("", BOUND, "Oracle (knows the rule)", explanation, scores["oracle"], False))
    return found


def lookup(part: dict[str, Any], metric: Metric) -> Score | None:
    """The metric's score in a part of `report.json`, None where it was not scored."""
    holder: dict[str, Any] = dict(part_fields(part).get(metric.field, {})) if metric.field else part
    found: Score | None = holder.get(metric.key)
    return found


def unnamed(scores: dict[str, Any]) -> list[tuple[str, Score]]:
    """(path, score) of this model's metrics without words here: a new metric is shown before it is named."""
    known = {(metric.field, metric.key) for metric in (*METRICS, *MORE_METRICS, *other_metrics(scores))}
    known |= {("reasoning", "sign_accuracy"), ("reasoning", "slope")}
    other_methods = {"before", "against", "oracle"}
    parts = {key: part for key, part in scores.items() if isinstance(part, dict) and key not in other_methods}
    fields = {"": scores} | parts | part_fields(scores)
    return [
        (f"{field}.{key}".removeprefix("."), found)
        for field, part in fields.items()
        for key, found in part.items()
        if is_score(found) and (field, key) not in known
    ]


def is_score(found: object) -> bool:
    return isinstance(found, dict) and {"value", "low", "high"} <= found.keys()


def number(value: float, unit: Unit) -> str:
    """A metric's value as people write it."""
    match unit:
        case "share":
            return f"{value:.1%}"
        case "points" | "count":
            return f"{value:.1f}"
        case "money":
            return amount(value)
        case "times":
            return f"{value:.2f}×"
        case "plain":
            return f"{value:.3f}".replace("-", MINUS)


def span(score: Score, unit: Unit) -> str:
    """The 95 % interval as `7.9% to 9.1%`."""
    return f"{number(score['low'], unit)} to {number(score['high'], unit)}"


def short_span(score: Score, unit: Unit) -> str:
    """The same as `7.9-9.1%`, for table cells; a single number where both ends are one."""
    low, high = number(score["low"], unit), number(score["high"], unit)
    dash = " to " if score["low"] < 0 else "\N{EN DASH}"
    return high if low == high else f"{low.removesuffix('%').removesuffix('×')}{dash}{high}"


def gain_number(value: float, unit: Unit) -> str:
    """A difference of two values: `+4.2`, shares in percentage points, with a true minus sign."""
    scaled = round(100 * value if unit == "share" else value, 1)
    return f"{scaled:+.1f}".replace("-", MINUS) if scaled else "0.0"


def gain_unit(unit: Unit) -> str:
    return "percentage points" if unit == "share" else "points"


def chance(p_value: float) -> str:
    """A p-value of a test with 1,000 swaps, which cannot be smaller than 1 / 1,001."""
    return "p ≤ 0.001" if p_value <= 0.001 else f"p {p_value:.3f}"

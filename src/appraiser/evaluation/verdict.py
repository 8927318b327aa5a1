"""What an evaluation means, in sentences for people, loud where a model is not what it seems.

Is it better than cheap methods? Does it use the picture, and the right part of it? How far off are its prices?
"""

from __future__ import annotations

from appraiser.evaluation.metrics import Score
from appraiser.evaluation.scores import Part, part_fields

TOLD_THE_TRUTH = ("category_median",)
"""Baselines that know what no model can know; the model is compared with them, but need not beat them."""
METHOD_NAMES = {
    "global_median": "one price for everything",
    "prior": "the best guess without a picture",
    "category_median": "the median price of the true category",
    "knn": "nearest neighbours",
    "ridge": "linear models on the features of the tower before fine-tuning",
}
FEW_PRODUCTS = 50
"""To tell anything: a lead that may be chance is then no warning."""
MAX_P_VALUE = 0.01
"""Above it, the model may not need the picture."""
LEAK_SHARE = 0.5
"""Of what the picture tells, found in its rim alone: more, and the model judges the surroundings."""


def verdict(scores: Part) -> list[str]:
    """Sentences; those that begin with WARNING or hold NOT in capitals speak against the model."""
    said: list[str] = []
    for field, metrics in part_fields(scores).items():
        said += _field_sentences(scores, field, metrics)
    said += _currencies(scores)
    said += _looks(scores)
    said += _surroundings(scores)
    said += _reasons(scores)
    if scores["parse_rate"]["value"] < 1:
        said.append(f"{1 - scores['parse_rate']['value']:.1%} of the answers could not be read; they count as wrong.")
    return said


def _field_sentences(scores: Part, field: str, metrics: Part) -> list[str]:
    if field == "price":
        error = metrics["median_ape"]
        first = (
            f"Half of the prices are within {error['value']:.1%} of the truth (95 % interval {error['low']:.1%} to "
            f"{error['high']:.1%}, {scores['n']:,} products)."
        )
        return [first, *_against_baselines(scores, "price", "Prices", "median_ape")]
    if "accuracy" in metrics:
        right = metrics["accuracy"]
        what = "categories" if field == "category" else f"values of {field}"
        first = f"{right['value']:.1%} of the {what} are right ({right['low']:.1%} to {right['high']:.1%})."
        return [first, *_against_baselines(scores, field, what.capitalize(), "accuracy")]
    if field == "title":
        return []  # the headline figures have it
    likeness = metrics["chrf"]
    first = (
        f"{field.capitalize()}: chrF {likeness['value']:.1f} of 100 ({likeness['low']:.1f} to {likeness['high']:.1f})."
    )
    return [first, *_against_baselines(scores, field, f"Answers of {field}", "chrf")]


def _against_baselines(scores: Part, field: str, what: str, metric: str) -> list[str]:
    """How the model stands against the baseline that is hardest to beat, by the paired difference."""
    rivals = {
        name: scores["differences"][name][field]["gain"]
        for name in scores.get("baselines", {})
        if name not in TOLD_THE_TRUTH and field in scores.get("differences", {}).get(name, {})
    }
    if not rivals:
        return []
    name, gain = min(rivals.items(), key=lambda item: item[1]["value"])
    mine = part_fields(scores)[field][metric]["value"]
    theirs = part_fields(scores["baselines"][name])[field][metric]["value"]
    form = "{:.1f}" if metric == "chrf" else "{:.1%}"
    figures = f"{form.format(mine)} against {form.format(theirs)}"
    other = METHOD_NAMES.get(name, name)
    if gain["low"] > 0:
        return [f"{what} beat every baseline; the best of them is {other} ({figures})."]
    if gain["value"] > 0:
        return [
            f"{what} are ahead of the best baseline, {other} ({figures}), but the difference may be chance: its 95 % "
            "interval holds 0. More test products would tell."
        ]
    return [f"{what} do NOT beat the baseline {other} ({figures})."]


def _currencies(scores: Part) -> list[str]:
    currencies = scores.get("data", {}).get("currencies")
    if not currencies or "price" not in scores:
        return []
    counts = ", ".join(f"{count:,} {currency}" for currency, count in currencies.items())
    return [
        f"WARNING: prices are in several currencies (here {counts}): baselines, errors in money and price bands "
        "compare them as plain numbers."
    ]


def _looks(scores: Part) -> list[str]:
    """Whether another product's picture makes the model clearly worse, by the first field that was scored."""
    control = scores.get("controls", {}).get("shuffled")
    if not control:
        return []
    gains = scores.get("differences", {}).get("shuffled", {})
    for field in (field for field in part_fields(scores) if field in gains):
        found = gains[field]
        mine = _in_words(found["metric"], part_fields(scores)[field][found["metric"]], field)
        theirs = _in_words(found["metric"], part_fields(control)[field][found["metric"]], field)
        needs = found["gain"]["low"] > 0 and found["p_value"] <= MAX_P_VALUE
        start = "The model looks" if needs else "WARNING: the model may not need the picture"
        if not needs and found["gain"]["value"] > 0 and scores["n"] < FEW_PRODUCTS:
            start = f"Whether the model needs the picture cannot be told from {scores['n']} products"
        chance = f"p = {found['p_value']:.3f}" if found["p_value"] > 0.001 else "p about 0.001"
        return [f"{start}: {mine} with the right picture, {theirs} with another product's ({chance})."]
    return []


def _in_words(metric: str, score: Score, field: str) -> str:
    if metric == "median_ape":
        return f"half of the prices are off by {score['value']:.1%} or more"
    if metric == "accuracy":
        return f"{score['value']:.1%} of the {'categories' if field == 'category' else field} are right"
    return f"a chrF of {score['value']:.1f} is reached"


def rim_share(scores: Part, field: str) -> float | None:
    """Of what a model gains by seeing the right picture instead of another's, the share that the rim alone gives."""
    gains = scores.get("differences", {})
    if not {"shuffled", "surroundings"} <= gains.keys() or field not in gains["shuffled"]:
        return None
    whole = gains["shuffled"][field]["gain"]
    if whole["low"] <= 0:
        return None
    return float(1 - gains["surroundings"][field]["gain"]["value"] / whole["value"])


def _surroundings(scores: Part) -> list[str]:
    found = {field: rim_share(scores, field) for field in scores.get("differences", {}).get("surroundings", {})}
    leaks = {field: share for field, share in found.items() if share is not None and share > LEAK_SHARE}
    return [
        f"WARNING: the rim of the picture alone, its middle painted over, gives {share:.0%} of what the model knows "
        f"about the {field}: it may judge where pictures were taken, not what they show."
        for field, share in leaks.items()
    ]


def _reasons(scores: Part) -> list[str]:
    reasoning = scores.get("reasoning")
    if not reasoning:
        return []
    sign, slope = reasoning["sign_accuracy"], reasoning["slope"]
    moved = (
        f"{sign['value']:.0%} of {reasoning['n']:,} twins (one visible feature changed) move the price the right way, "
        f"by {slope['value']:.2f} of the true change"
    )
    if sign["low"] <= 0.5 or slope["low"] <= 0:
        return [f"WARNING: the model does not follow visible features: {moved}."]
    return [f"The model follows visible features: {moved}."]

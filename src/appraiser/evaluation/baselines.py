"""What cheap methods answer for the same rows: medians, and neighbours and linear models on the model's first tower.

A fine-tuned model has to beat all of them to be worth its training.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from appraiser.backbone import Backbone
from appraiser.data.records import ProductRecord
from appraiser.data.task import FieldValue
from appraiser.evaluation.metrics import Columns, is_closed, sentence_chrf
from appraiser.tower_features import Features, tower_features

NUM_NEIGHBOURS = 5
# Training records whose features are computed: enough for the methods, bounded for large catalogues.
MAX_TRAIN_RECORDS = 20_000
MAX_TYPICAL = 60
"""Titles among which the most typical one is looked for: each is compared with each."""

Values = dict[str, list[FieldValue]]


@dataclass(frozen=True)
class CheapAnswers:
    """Columns of answers by method, and which training records look most like each target, nearest first."""

    methods: dict[str, Columns]
    neighbours: list[list[ProductRecord]]


def baseline_answers(
    train: Iterable[ProductRecord], targets: Sequence[ProductRecord], fields: Sequence[str], backbone: Backbone
) -> CheapAnswers:
    """Answers of all baselines to the fields that every training record has.

    global_median: one price for everything. prior: the best guess without a picture, namely that price, the most
    common category, the most typical title. category_median: the training median of the *true* category, which no
    method without the truth can know. knn: price (geometric mean), labels (majority) and title (the nearest one's) of
    the nearest training pictures by cosine. ridge: ridge regression of log price and logistic regression of labels.

    Args:
        backbone: the model before fine-tuning; its tower gives the features.
    """
    known = list(train)
    values: Values = {}
    for field in fields:
        column = [record.value(field) for record in known]
        if all(value is not None for value in column):
            values[field] = [value for value in column if value is not None]
    methods = _guesses(values, targets)
    known_features, features = tower_features(known, backbone), tower_features(targets, backbone)
    scaler = StandardScaler().fit(known_features)
    known_features, features = scaler.transform(known_features), scaler.transform(features)
    index = NearestNeighbors(n_neighbors=min(NUM_NEIGHBOURS, len(known)), metric="cosine").fit(known_features)
    nearest: list[list[int]] = index.kneighbors(features, return_distance=False).tolist()
    methods["knn"] = {field: [_agreed(field, column, row) for row in nearest] for field, column in values.items()}
    methods["ridge"] = {
        field: answers
        for field, column in values.items()
        if (answers := _linear(field, column, known_features, features)) is not None
    }
    return CheapAnswers(
        {name: columns for name, columns in methods.items() if columns},
        [[known[position] for position in row] for row in nearest],
    )


def _guesses(values: Values, targets: Sequence[ProductRecord]) -> dict[str, Columns]:
    """What can be said without looking at the picture."""
    prior = {field: [_best_guess(field, column)] * len(targets) for field, column in values.items()}
    methods: dict[str, Columns] = {"prior": prior}
    if "price" in values:
        methods["global_median"] = {"price": prior["price"]}
    if "price" in values and "category" in values:
        by_category: dict[FieldValue | None, list[float]] = defaultdict(list)
        for category, price in zip(values["category"], values["price"], strict=True):
            by_category[category].append(float(price))
        medians = {category: statistics.median(prices) for category, prices in by_category.items()}
        overall = prior["price"][0]
        methods["category_median"] = {"price": [medians.get(record.category, overall) for record in targets]}
    return methods


def _best_guess(field: str, column: Sequence[FieldValue]) -> FieldValue:
    if field == "price":
        return statistics.median(map(float, column))
    if field == "category" or is_closed(column):
        return Counter(column).most_common(1)[0][0]
    some = [str(column[i * len(column) // MAX_TYPICAL]) for i in range(MAX_TYPICAL)]
    return max(dict.fromkeys(some), key=lambda title: sum(sentence_chrf(title, other) for other in some))


def _agreed(field: str, column: Sequence[FieldValue], rows: Sequence[int]) -> FieldValue:
    """What neighbours, nearest first, say together."""
    found = [column[row] for row in rows]
    if field == "price":
        return float(np.exp(np.mean(np.log([float(price) for price in found]))))
    return Counter(found).most_common(1)[0][0] if field == "category" or is_closed(column) else found[0]


def _linear(
    field: str, column: Sequence[FieldValue], known_features: Features, features: Features
) -> list[FieldValue] | None:
    """Prices by ridge regression of their logarithm, labels by logistic regression; None for free text."""
    if field == "price":
        # alpha: features are standardised and often outnumber a small catalogue's rows.
        model = Ridge(alpha=float(known_features.shape[1])).fit(known_features, np.log([float(p) for p in column]))
        return [float(price) for price in np.exp(model.predict(features))]
    if not (field == "category" or is_closed(column)) or len(set(column)) == 1:
        return None
    classifier = LogisticRegression(C=0.01, max_iter=300).fit(known_features, [str(value) for value in column])
    return [str(label) for label in classifier.predict(features)]

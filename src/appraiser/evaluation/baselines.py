"""What cheap methods score on the same rows: medians, and neighbours and ridge on features of the model's first tower.

A fine-tuned model has to beat all of them to be worth its training.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from appraiser.backbone import Backbone
from appraiser.data.examples import RecordSequence, views_of
from appraiser.data.pictures import decode
from appraiser.data.records import ProductRecord
from appraiser.evaluation.metrics import Scores, category_scores, price_scores, title_scores

NUM_NEIGHBOURS = 5
# Training records whose features are computed: enough for the methods, bounded for large catalogues.
MAX_TRAIN_RECORDS = 20_000
PICTURES_PER_BATCH = 32

Features = NDArray[np.float32]
Part = dict[str, Scores]


@torch.inference_mode()
def tower_features(records: RecordSequence, backbone: Backbone) -> Features:
    """[n, 2 C] mean and spread of the tower's patch features over each record's first picture's global view."""
    rows = []
    for start in range(0, len(records), PICTURES_PER_BATCH):
        chunk = [records[position] for position in range(start, min(start + PICTURES_PER_BATCH, len(records)))]
        views = [views_of([decode(record.images[0])], backbone)[0].pixels[0] for record in chunk]
        patches = backbone.patch_features(torch.stack(views)).float()
        rows.append(torch.cat([patches.mean(1), patches.std(1)], dim=-1).cpu().numpy())
    return np.concatenate(rows)


def score_parts(
    targets: Sequence[ProductRecord],
    price: Sequence[float | None] | None = None,
    title: Sequence[str | None] | None = None,
    category: Sequence[str | None] | None = None,
) -> Part:
    """Scores of predicted columns against records; columns that are None, or that records lack, are left out."""
    part: Part = {}
    if price is not None and targets[0].price is not None:
        part["price"] = price_scores(price, [record.price or 0.0 for record in targets])
    if title is not None and targets[0].title is not None:
        part["title"] = title_scores(title, [record.title or "" for record in targets])
    if category is not None and targets[0].category is not None:
        part["category"] = category_scores(category, [record.category or "" for record in targets])
    return part


def baselines(train: RecordSequence, targets: Sequence[ProductRecord], backbone: Backbone) -> dict[str, Part]:
    """All baselines for the fields that the records have.

    global_median: one price for everything, the most common category. category_median: the training median of the
    *true* category, which no method without the truth can know. knn: price (geometric mean), title and category of the
    nearest training pictures by cosine. ridge: ridge regression of log price and logistic regression of the category.

    Args:
        backbone: the model before fine-tuning; its tower gives the features.
    """
    limit = min(len(train), MAX_TRAIN_RECORDS)
    known = [train[position] for position in range(limit)]
    result = _medians(known, targets)
    known_features = tower_features(known, backbone)
    target_features = tower_features(targets, backbone)
    scaler = StandardScaler().fit(known_features)
    known_features, target_features = scaler.transform(known_features), scaler.transform(target_features)
    result["knn"] = _nearest(known, targets, known_features, target_features)
    result["ridge"] = _linear(known, targets, known_features, target_features)
    return {name: part for name, part in result.items() if part}


def _medians(known: Sequence[ProductRecord], targets: Sequence[ProductRecord]) -> dict[str, Part]:
    prices = [record.price for record in known if record.price is not None]
    overall = statistics.median(prices) if prices else None
    common = Counter(record.category for record in known).most_common(1)[0][0]
    result = {"global_median": score_parts(targets, [overall] * len(targets), category=[common] * len(targets))}
    if prices and targets[0].category is not None:
        by_category: dict[str | None, list[float]] = defaultdict(list)
        for record in known:
            by_category[record.category].append(record.price or 0.0)
        medians = {category: statistics.median(values) for category, values in by_category.items()}
        result["category_median"] = score_parts(targets, [medians.get(r.category, overall) for r in targets])
    return result


def _nearest(
    known: Sequence[ProductRecord], targets: Sequence[ProductRecord], known_features: Features, features: Features
) -> Part:
    count = min(NUM_NEIGHBOURS, len(known))
    index = NearestNeighbors(n_neighbors=count, metric="cosine").fit(known_features)
    neighbours = [[known[i] for i in row] for row in index.kneighbors(features, return_distance=False)]
    prices = None
    if known[0].price is not None:
        prices = [float(np.exp(np.mean([np.log(n.price or 1.0) for n in row]))) for row in neighbours]
    categories = [Counter(n.category for n in row).most_common(1)[0][0] for row in neighbours]
    return score_parts(targets, prices, [row[0].title for row in neighbours], categories)


def _linear(
    known: Sequence[ProductRecord], targets: Sequence[ProductRecord], known_features: Features, features: Features
) -> Part:
    prices = categories = None
    if known[0].price is not None:
        # alpha: features are standardised and often outnumber a small catalogue's rows.
        model = Ridge(alpha=float(known_features.shape[1])).fit(
            known_features, np.log([record.price or 1.0 for record in known])
        )
        prices = [float(price) for price in np.exp(model.predict(features))]
    if len({record.category for record in known}) > 1:
        classifier = LogisticRegression(C=0.01, max_iter=300).fit(known_features, [r.category for r in known])
        categories = [str(category) for category in classifier.predict(features)]
    return score_parts(targets, prices, category=categories)

"""Do labels show without looking at the product? What can be guessed from a picture's corners, or from its file.

If the background gives prices or categories away - dear things photographed on marble, coats by another studio - a
model learns the background, and its score says nothing about new pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from appraiser.data.checking.findings import Findings

MIN_RECORDS = 100
MAX_RECORDS = 5000
"""More would cost minutes and change the second digit."""
WARN_ABOVE = 0.10
"""Chance alone stays below 0.05 at 100 records."""
NUM_FOLDS = 5


@dataclass(frozen=True)
class Probe:
    """How well a label is guessed from something that should not tell it.

    Args:
        source: `background` (corners of the first picture) or `file` (its size in pixels and bytes).
        label: `price` or `category`.
        skill: 0 for no better than the usual value, 1 for always right, on products left out of the fitting: R2 of
            ln price; for categories the share of errors that are avoided.
    """

    source: str
    label: str
    skill: float
    num_records: int

    @property
    def warns(self) -> bool:
        return self.skill > WARN_ABOVE


def probe_shortcuts(findings: Findings, seed: int = 0) -> list[Probe]:
    """Probe both sources for both labels, as far as there are enough records with them."""
    first: dict[int, int] = {}
    for row, place in enumerate(findings.record):
        first.setdefault(place, row)
    places, rows = np.array(list(first), dtype=int), np.array(list(first.values()), dtype=int)
    if len(places) < MIN_RECORDS:
        return []
    sources = {"background": findings.picture_corners()[rows], "file": _file_features(findings)[rows]}
    groups = np.array(findings.groups)[places]
    prices = [findings.prices[place] for place in places]
    categories = [findings.categories[place] for place in places]
    probes = []
    for source, features in sources.items():
        for label, values in (("price", prices), ("category", categories)):
            known = _chosen([value is not None for value in values], seed)
            if len(known) >= MIN_RECORDS and len({values[place] for place in known}) > 1:
                skill = skill_of(features[known], [values[place] for place in known], groups[known], seed)
                probes.append(Probe(source, label, round(skill, 4), len(known)))
    return probes


def skill_of(
    features: NDArray[np.float32], values: Sequence[float | str | None], groups: Sequence[str], seed: int
) -> float:
    """Skill of a random forest that guesses values, on product groups that it was not fitted to."""
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
    from sklearn.model_selection import GroupKFold, cross_val_predict

    folds = GroupKFold(min(NUM_FOLDS, len(set(groups))), shuffle=True, random_state=seed)
    settings = {"n_estimators": 60, "min_samples_leaf": 5, "max_depth": 12, "random_state": seed}
    if isinstance(values[0], str):
        names = np.asarray(values)
        guessed = cross_val_predict(RandomForestClassifier(**settings), features, names, groups=groups, cv=folds)
        usual = max(np.unique(names, return_counts=True)[1]) / len(names)
        return float((np.mean(guessed == names) - usual) / (1.0 - usual))
    logs = np.log(np.asarray(values, dtype=float))
    guessed = cross_val_predict(RandomForestRegressor(**settings), features, logs, groups=groups, cv=folds)
    return float(1.0 - np.mean((guessed - logs) ** 2) / np.var(logs)) if np.var(logs) > 0 else 0.0


def _file_features(findings: Findings) -> NDArray[np.float32]:
    width, height = findings.picture_numbers("width"), findings.picture_numbers("height")
    size = findings.picture_numbers("num_bytes")
    return np.stack([width, height, width / height, size, size / (width * height)], axis=1).astype(np.float32)


def _chosen(known: Sequence[bool], seed: int) -> NDArray[np.int64]:
    places = np.flatnonzero(known)
    if len(places) > MAX_RECORDS:
        places = np.sort(np.random.default_rng(seed).permutation(places)[:MAX_RECORDS])
    return places

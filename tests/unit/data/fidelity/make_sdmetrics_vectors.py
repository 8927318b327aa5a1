"""Write sdmetrics_0_32.json: random tables, and what SDMetrics 0.32.0 says about them.

Not part of the tests: SDMetrics needs other packages than this project. In a virtual environment of its own:
    pip install sdmetrics==0.32.0 && python make_sdmetrics_vectors.py
The numbers in the repository were made with Python 3.11.7, numpy 2.4.6, pandas 2.3.3 and scipy 1.17.1.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from sdmetrics.column_pairs import ContingencySimilarity, CorrelationSimilarity, ReferentialIntegrity
from sdmetrics.single_column import (
    BoundaryAdherence,
    CategoryCoverage,
    KeyUniqueness,
    KSComplement,
    RangeCoverage,
    TVComplement,
)
from sdmetrics.single_table import DCRBaselineProtection, DCROverfittingProtection, NewRowSynthesis

NUM_TABLES = 12
METADATA = {
    "columns": {
        "price": {"sdtype": "numerical"},
        "words": {"sdtype": "numerical"},
        "category": {"sdtype": "categorical"},
        "colour": {"sdtype": "categorical"},
    }
}
RANDOM_SEED = 5


def table(rng: np.random.Generator, rows: int, kinds: int) -> pd.DataFrame:
    kind = rng.integers(0, kinds, rows)
    return pd.DataFrame({
        "price": np.round(np.exp(rng.normal(4 + 0.4 * kind, 0.5, rows)), 2),
        "words": rng.integers(2, 7, rows),
        "category": np.array(list("ABCDEFG"))[kind],
        "colour": rng.choice(["red", "blue", "green"], rows),
    })  # fmt: skip


def scores(real: pd.DataFrame, sample: pd.DataFrame, holdout: pd.DataFrame) -> dict[str, float]:
    DCRBaselineProtection._seed = RANDOM_SEED
    pair = ["category", "price"]
    return {
        "ks_price": KSComplement.compute(real.price, sample.price),
        "ks_words": KSComplement.compute(real.words, sample.words),
        "tv_category": TVComplement.compute(real.category, sample.category),
        "correlation": CorrelationSimilarity.compute(real[["price", "words"]], sample[["price", "words"]]),
        "contingency": ContingencySimilarity.compute(real[["category", "colour"]], sample[["category", "colour"]]),
        "contingency_price": ContingencySimilarity.compute(
            real[pair].copy(), sample[pair].copy(), continuous_column_names=["price"]
        ),
        "category_coverage": CategoryCoverage.compute(real.category, sample.category),
        "range_coverage": RangeCoverage.compute(real.price, sample.price),
        "boundary_adherence": BoundaryAdherence.compute(real.price, sample.price),
        "key_uniqueness": KeyUniqueness.compute(real.words, sample.words),
        "referential_integrity": ReferentialIntegrity.compute(
            (real.words, real.words), (sample.words[sample.words > 3].drop_duplicates(), sample.words)
        ),
        "new_rows": NewRowSynthesis.compute(real.copy(), sample.copy(), METADATA),
        "dcr_baseline": DCRBaselineProtection.compute_breakdown(real, sample, METADATA, None)["score"],
        "dcr_overfitting": DCROverfittingProtection.compute(real, sample, holdout, METADATA, None),
    }


def main() -> None:
    warnings.simplefilter("ignore")
    cases = []
    for number in range(NUM_TABLES):
        rng = np.random.default_rng(number)
        real, holdout = table(rng, int(rng.integers(20, 60)), 5), table(rng, 30, 5)
        sample = table(rng, int(rng.integers(20, 60)), 4 if number % 3 else 6)
        # Copies, some of them off by half a percent, so that the privacy measures have something to find.
        copies = real.sample(number, random_state=number)
        sample = pd.concat([sample, copies.assign(price=copies.price * 1.005)], ignore_index=True)
        tables = {
            name: frame.to_dict("list") for name, frame in (("real", real), ("sample", sample), ("holdout", holdout))
        }
        cases.append(tables | {"scores": {name: float(value) for name, value in scores(real, sample, holdout).items()}})
    text = json.dumps(cases, separators=(",", ":")).replace('{"real"', '\n{"real"')
    Path(__file__).with_name("sdmetrics_0_32.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

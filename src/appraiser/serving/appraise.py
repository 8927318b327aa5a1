"""POST /v1/appraise: pictures of one product in, a typed answer out."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from appraiser.data.task import FieldValue
from appraiser.price_distribution import PriceDistribution
from appraiser.serving.answering import Appraisal
from appraiser.serving.engine import Job
from appraiser.serving.evidence import PriceRange, Similar

NUM_ALTERNATIVES = 4
PictureUrl = Annotated[str, Field(min_length=1, max_length=64 << 20)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AppraiseRequest(_Part):
    """Pictures of one product."""

    pictures: Annotated[list[PictureUrl], Field(min_length=1, max_length=64)]
    """`data:image/...;base64,` URLs, or http(s) addresses where the service fetches them."""


class Interval(_Part):
    """A range that holds the true price in so many of a hundred cases."""

    low: float
    high: float
    percent: Literal[80, 90]


class PriceAlternative(_Part):
    """A price that the model holds possible, and how likely."""

    price: float
    probability: float


class CategoryPrices(_Part):
    """Usual prices of the answer's category in the training data: 5th to 95th percentile."""

    low: float
    median: float
    high: float
    num_products: int


class SimilarProduct(_Part):
    """A training product that looks alike; `similarity` is at most 1."""

    id: str
    title: str | None
    category: str | None
    price: float | None
    similarity: float
    thumbnail: str
    """A JPEG as a data: URL."""


class Latency(_Part):
    """Where the time went, in milliseconds."""

    waiting: float
    answering: float
    total: float
    answered_together: int
    """Requests in the same batch."""


class AppraiseAnswer(_Part):
    """What the model sees in the pictures, and how far to trust it."""

    id: str
    model: str
    title: str | None
    category: str | None
    price: float | None
    currency: str | None
    fields: dict[str, str | float]
    """Everything the model was trained to state and could be read."""
    price_interval: Interval | None
    price_interval_90: Interval | None
    confidence: float
    parsed: bool
    """Whether every field was there and readable."""
    abstained: str | None
    """Why the price was left out although there is one."""
    text: str
    """The answer as the model wrote it."""
    alternatives: list[PriceAlternative]
    category_prices: CategoryPrices | None
    similar: list[SimilarProduct]
    latency_ms: Latency


def answer_of(
    job: Job, appraisal: Appraisal, ranges: dict[str, PriceRange], model: str, began_at: float
) -> AppraiseAnswer:
    """The answer to a request.

    Args:
        began_at: `time.monotonic()` of the request's first byte.
    """
    found = appraisal.prediction
    now, started = time.monotonic(), job.began_at or job.submitted_at
    usual = ranges.get(found.category or "")
    fields: dict[str, FieldValue] = found.fields
    return AppraiseAnswer(
        id=f"appraisal-{uuid.uuid4().hex}",
        model=model,
        title=found.title,
        category=found.category,
        price=found.price,
        currency=found.currency if found.price is not None else None,
        fields=fields,
        price_interval=_interval(found.price_interval, 80),
        price_interval_90=_interval(found.price_interval_90, 90),
        confidence=round(found.confidence, 4),
        parsed=found.parsed,
        abstained=found.abstained,
        text=found.text,
        alternatives=[] if found.abstained else _alternatives(found.price_distribution, found.price),
        category_prices=None
        if usual is None
        else CategoryPrices(low=usual.low, median=usual.median, high=usual.high, num_products=usual.num_products),
        similar=[_similar(one) for one in appraisal.similar],
        latency_ms=Latency(
            waiting=round(1000 * (started - job.submitted_at), 1),
            answering=round(1000 * (now - started), 1),
            total=round(1000 * (now - began_at), 1),
            answered_together=appraisal.num_together,
        ),
    )


def _interval(bounds: tuple[float, float] | None, percent: Literal[80, 90]) -> Interval | None:
    return None if bounds is None else Interval(low=round(bounds[0], 2), high=round(bounds[1], 2), percent=percent)


def _alternatives(distribution: PriceDistribution | None, price: float | None) -> list[PriceAlternative]:
    """The likeliest prices besides the one that is answered."""
    if distribution is None:
        return []
    pairs: Sequence[tuple[float, float]] = list(zip(distribution.prices, distribution.probabilities, strict=True))
    ranked = sorted((pair for pair in pairs if pair[0] != price), key=lambda pair: -pair[1])
    return [
        PriceAlternative(price=value, probability=round(probability, 4))
        for value, probability in ranked[:NUM_ALTERNATIVES]
    ]


def _similar(found: Similar) -> SimilarProduct:
    product = found.product
    return SimilarProduct(
        id=product.id,
        title=product.title,
        category=product.category,
        price=product.price,
        similarity=round(found.similarity, 4),
        thumbnail=f"data:image/jpeg;base64,{product.thumbnail}",
    )

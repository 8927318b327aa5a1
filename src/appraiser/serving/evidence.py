"""Known products that look like the one in question, and what its category usually costs: why to believe a price.

A share of the training products is kept as vectors of the served model's own tower, with thumbnails. Where a run is
served, they are kept beside it for the next start.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from appraiser.backbone import Backbone
from appraiser.data.dataset import ProductDataset, Records
from appraiser.data.pictures import decode, thumbnail
from appraiser.tower_features import summary, tower_features

logger = logging.getLogger(__name__)

EVIDENCE_FORMAT = 1
NUM_SIMILAR = 4
THUMBNAIL_SIDE = 128
MIN_PRICES = 5
"""A category with fewer known prices has no usual range."""


@dataclass(frozen=True)
class KnownProduct:
    """A training product as answers name it; `thumbnail` is a JPEG in base64."""

    id: str
    title: str | None
    category: str | None
    price: float | None
    thumbnail: str


@dataclass(frozen=True)
class Similar:
    """A known product and how alike it looks: the cosine of standardised tower features, at most 1."""

    product: KnownProduct
    similarity: float


@dataclass(frozen=True)
class PriceRange:
    """Usual prices of a category: from its 5th to its 95th percentile, in the data set's currency."""

    low: float
    median: float
    high: float
    num_products: int


class Evidence:
    """Known products by their looks.

    Args:
        features: [n, 2 C] of the products; may be empty.
        ranges: usual prices by category.
    """

    def __init__(
        self, products: Sequence[KnownProduct], features: NDArray[np.float32], ranges: dict[str, PriceRange]
    ) -> None:
        self.products = products
        self.ranges = ranges
        self.features = features
        self._mean = features.mean(0, keepdims=True) if len(products) else features
        self._scale = features.std(0) + 1e-6 if len(products) else features
        self._known = self._standard(features) if len(products) else features

    @classmethod
    def none(cls) -> Self:
        """Nothing is known but the model."""
        return cls((), np.zeros((0, 0), np.float32), {})

    def similar(self, patches: Sequence[Tensor]) -> list[list[Similar]]:
        """The most similar known products of each picture, the nearest first.

        Args:
            patches: [P, C] tower features of each picture's global view.
        """
        if not self.products:
            return [[] for _ in patches]
        asked = self._standard(np.concatenate([summary(picture[None]) for picture in patches]))
        cosines = asked @ self._known.T
        nearest = np.argsort(-cosines, axis=1)[:, :NUM_SIMILAR]
        return [
            [Similar(self.products[place], float(cosines[row, place])) for place in places]
            for row, places in enumerate(nearest)
        ]

    def _standard(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        scaled = (features - self._mean) / self._scale
        standard: NDArray[np.float32] = scaled / (np.linalg.norm(scaled, axis=1, keepdims=True) + 1e-9)
        return standard

    def save(self, folder: Path, identity: str) -> None:
        """Keep for the next start; a folder that cannot be written is no reason not to serve."""
        try:
            folder.mkdir(exist_ok=True)
            features = folder / ".features.safetensors"
            save_file({"features": np.ascontiguousarray(self.features)}, features, {"identity": identity})
            features.replace(folder / "features.safetensors")
            document = {
                "format": EVIDENCE_FORMAT,
                "identity": identity,
                "products": [asdict(product) for product in self.products],
                "ranges": {name: asdict(found) for name, found in self.ranges.items()},
            }
            temporary = folder / ".products.json"
            temporary.write_text(json.dumps(document), encoding="utf-8")
            temporary.replace(folder / "products.json")
        except OSError as error:
            logger.warning("similar products are not kept for the next start: %s: %s", folder, error.strerror)

    @classmethod
    def load(cls, folder: Path, identity: str) -> Self | None:
        """What was kept for this very model and data set; None where there is nothing of the kind."""
        try:
            document = json.loads((folder / "products.json").read_text(encoding="utf-8"))
            if document["format"] != EVIDENCE_FORMAT or document["identity"] != identity:
                return None
            with safe_open(folder / "features.safetensors", "numpy") as file:
                if (file.metadata() or {}).get("identity") != identity:
                    return None  # a kill between the two files
                features = file.get_tensor("features")
            return cls(
                [KnownProduct(**product) for product in document["products"]],
                features,
                {name: PriceRange(**found) for name, found in document["ranges"].items()},
            )
        except (OSError, ValueError, KeyError, TypeError, SafetensorError):
            return None


def gather(data: ProductDataset, backbone: Backbone, num_products: int) -> Evidence:
    """Look at training products, spread over the split; price ranges are of all of them."""
    train = data.split("train")
    positions = sorted(set(np.linspace(0, len(train) - 1, min(num_products, len(train))).round().astype(int).tolist()))
    records = train.take(positions)
    products = [
        KnownProduct(
            id=record.id,
            title=record.title,
            category=record.category,
            price=record.price,
            thumbnail=base64.b64encode(thumbnail(decode(record.images[0]), THUMBNAIL_SIDE)).decode("ascii"),
        )
        for record in records
    ]
    ranges = {} if data.manifest.has_currencies else price_ranges(train)
    return Evidence(products, tower_features(records, backbone), ranges)


def price_ranges(train: Records) -> dict[str, PriceRange]:
    """Usual prices of every category with enough of them."""
    if not {"price", "category"} <= set(train.column_names):
        return {}
    prices: defaultdict[str, list[float]] = defaultdict(list)
    for category, price in zip(train.column("category"), train.column("price"), strict=True):
        if category is not None and price is not None:
            prices[category].append(float(price))
    return {name: _range(found) for name, found in prices.items() if len(found) >= MIN_PRICES}


def _range(prices: Sequence[float]) -> PriceRange:
    low, median, high = (float(value) for value in np.percentile(prices, [5, 50, 95]))
    return PriceRange(low, median, high, len(prices))


def identity_of(checkpoint: Path, data: ProductDataset, num_products: int) -> str:
    """Changes with the weights, the data set, and how many products are looked at."""
    weights: list[Any] = [
        (path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(checkpoint.glob("*.safetensors"))
    ]
    facts = [str(checkpoint.resolve()), weights, data.manifest.content_sha256, num_products]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

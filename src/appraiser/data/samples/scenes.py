"""From a product to everything the picture depends on, as plain data.

A scene is the product's visible attributes plus what a photographer adds: pose, background, light, camera. The second
part is drawn from its own stream in the same way for every product, so nothing about the price can be read from it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

import numpy as np

from appraiser.data.samples.attributes import Product
from appraiser.errors import DataError

SIZE_SCALES: dict[str, float] = {"mini": 0.60, "regular": 0.86, "oversized": 1.08}
"""Object size in the frame. The gaps are far wider than the scale's own play, or the word could not be seen."""
_SCALE_PLAY = 0.035


@dataclass(frozen=True, slots=True)
class Scene:
    """One picture before it is drawn. All numbers; `from_dict(as_dict())` gives the same scene."""

    type: str
    colour: str
    pattern: str
    material: str
    size: str
    hardware: str
    variant: int

    rotation: float
    """Degrees, clockwise."""
    scale: float
    """Half the frame's side times this is one unit of the silhouette."""
    shift_x: float
    shift_y: float
    """Parts of the frame's side."""
    is_mirrored: bool
    backdrop_top: float
    backdrop_bottom: float
    """Grey levels, 0..1."""
    backdrop_tint: float
    """Warm above 0, cool below."""
    shadow: float
    shadow_x: float
    """Strength of the shadow, and how far it falls to the side in parts of the frame."""
    light_x: float
    light_y: float
    """Fall-off of the light over the frame."""
    exposure: float
    temperature: float
    noise: float
    """Spread of the camera noise, 0..1."""
    quality: int
    """JPEG quality."""
    texture_seed: int

    def as_dict(self) -> dict[str, str | int | float | bool]:
        """The scene as JSON-able data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, str | int | float | bool]) -> Scene:
        """The scene that `as_dict` wrote.

        Raises:
            DataError: names are missing or unknown.
        """
        expected = {entry.name for entry in fields(cls)}
        if values.keys() != expected:
            wrong = sorted(values.keys() ^ expected)
            raise DataError(
                f"not a scene: {', '.join(wrong)} missing or unknown", fix="pass what Scene.as_dict returned"
            )
        return cls(**values)  # type: ignore[arg-type]


def make_scene(product: Product, rng: np.random.Generator) -> Scene:
    """Pose, background, light and camera for one picture of a product."""

    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    top = between(0.88, 0.985)
    return Scene(
        type=product.type,
        colour=product.colour,
        pattern=product.pattern,
        material=product.material,
        size=product.size,
        hardware=product.hardware,
        variant=product.variant,
        rotation=between(-4.0, 4.0),
        scale=SIZE_SCALES[product.size] * (1.0 + between(-_SCALE_PLAY, _SCALE_PLAY)),
        shift_x=between(-0.02, 0.02),
        shift_y=between(-0.02, 0.02),
        is_mirrored=bool(rng.random() < 0.5),
        backdrop_top=top,
        backdrop_bottom=top - between(0.0, 0.10),
        backdrop_tint=between(-0.012, 0.012),
        shadow=between(0.30, 0.55),
        shadow_x=between(-0.02, 0.02),
        light_x=between(-0.07, 0.07),
        light_y=between(-0.06, 0.02),
        exposure=between(0.95, 1.05),
        temperature=between(-0.022, 0.022),
        noise=between(0.002, 0.010),
        quality=int(rng.integers(75, 96)),
        texture_seed=int(rng.integers(2**31)),
    )

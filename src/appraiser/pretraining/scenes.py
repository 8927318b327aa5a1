"""Pictures of the pre-training world: a scene is pure data, and `render` is the only thing that draws it.

    make_scene(rng) ──▶ Scene(things, background, light) ──▶ render(scene, size) ──▶ PIL picture
                              └─▶ extent_of(scene), questions.ask(scene, rng)

One large thing in the middle, as on a packshot, is the usual picture; some hold two to four. The surfaces come from
the painter that the sample catalogue uses too (`data/samples/textures.py`), the silhouettes never do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import cos, pi, sin
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from appraiser.data.samples.textures import COLOURS, MATERIALS, PATTERNS, paint
from appraiser.data.samples.textures import METALS as PLATED
from appraiser.pretraining.outlines import FloatArray, Outline, blurred, rasterise
from appraiser.pretraining.parts import COUNTED_PARTS, METAL_PARTS, METALS, PARTS, Rgb, draw_part
from appraiser.pretraining.shapes import SHAPES, silhouette

Size = Literal["small", "regular", "large"]

PLAIN = "plain"
_SIZES: tuple[Size, ...] = ("small", "regular", "large")
EXTENTS: dict[Size, tuple[float, float]] = {
    "small": (0.36, 0.46),
    "regular": (0.6, 0.7),
    "large": (0.84, 0.94),
}
"""The longer side of a lone thing as a share of the picture; gaps between the words, so that each can be seen."""

PART_CHANCE = 0.55
THIN_SHAPES = frozenset("anchor axe bolt chair goblet hammer key lamp plane spiral spoon stool table windmill".split())
"""Shapes whose limbs a plated rim would fill, so that the colour inside could not be seen."""


@dataclass(frozen=True)
class Thing:
    """One object with all that can be asked about it. `seed` fixes its proportions and the weave of its surface."""

    shape: str
    colour: str
    accent: str
    pattern: str
    material: str
    size: Size
    part: str
    """One of PARTS, or empty."""
    num_parts: int
    metal: str
    """Tone of a metal part; empty when there is none."""
    x: float
    y: float
    extent: float
    """Centre and longer side, as shares of the picture."""
    stretch: float
    angle: float
    is_flipped: bool
    seed: int

    @property
    def family(self) -> str:
        return SHAPES[self.shape][0]


@dataclass(frozen=True)
class Scene:
    """Things, the first one being what the picture is of, on a background, in a light."""

    things: tuple[Thing, ...]
    background: Rgb
    floor: float
    """How much darker (negative: lighter) the background gets towards the bottom."""
    light_angle: float
    light_gain: float
    shadow: float
    seed: int

    @property
    def main(self) -> Thing:
        return self.things[0]


@dataclass(frozen=True)
class Extent:
    """What the bodies cover, in whole percent of the picture: its area, and the width and height of the main thing."""

    area: int
    width: int
    height: int


def scene_for(seed: int, item: int) -> Scene:
    """The scene number `item` of a seed: the same whatever was drawn before it, in whatever process."""
    return make_scene(np.random.default_rng(np.random.SeedSequence([seed, item])))


def make_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene: mostly one centred thing, at times equal ones to count, at times companions of other kinds."""
    kind = rng.random()
    main = _make_thing(rng)
    if kind < 0.76:
        things: tuple[Thing, ...] = (main,)
    else:
        num = int(rng.integers(2, 5))
        others = [_make_thing(rng) if kind > 0.9 else main for _ in range(num - 1)]
        things = _spread((main, *others), rng)
    background = _background(rng, main)
    return Scene(
        things=things,
        background=background,
        floor=float(rng.uniform(-0.06, 0.2)) if rng.random() < 0.6 else 0.0,
        light_angle=float(rng.uniform(0, 2 * pi)),
        light_gain=float(rng.uniform(0.86, 1.08)),
        shadow=float(rng.uniform(0.0, 0.4)),
        seed=_seed(rng),
    )


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))


def _choice(rng: np.random.Generator, names: tuple[str, ...]) -> str:
    return names[int(rng.integers(len(names)))]


def _distance(a: Rgb, b: Rgb) -> float:
    return max(abs(x - y) for x, y in zip(a, b, strict=True))


def _make_thing(rng: np.random.Generator) -> Thing:
    colour = _choice(rng, _COLOUR_NAMES)
    # An accent that cannot be told from the ground would make a pattern or a strap a lie in the caption.
    far = tuple(name for name in _COLOUR_NAMES if _distance(_RGB[name], _RGB[colour]) > 0.35)
    size = _SIZES[int(rng.choice(3, p=(0.22, 0.53, 0.25)))]
    part = _choice(rng, PARTS) if rng.random() < PART_CHANCE else ""
    low, high = COUNTED_PARTS.get(part, (1, 1))
    shape = _choice(rng, tuple(SHAPES))
    return Thing(
        shape=shape,
        colour=colour,
        accent=_choice(rng, far),
        pattern=PLAIN if rng.random() < 0.45 else _choice(rng, PATTERN_NAMES),
        material=_choice(rng, _CLOTH_NAMES if shape in THIN_SHAPES else MATERIAL_NAMES),
        size=size,
        part=part,
        num_parts=int(rng.integers(low, high + 1)) if part else 0,
        metal=_choice(rng, tuple(METALS)) if part in METAL_PARTS else "",
        x=0.5 + float(rng.normal(0, 0.012)),
        y=0.5 + float(rng.normal(0, 0.012)),
        extent=float(rng.uniform(*EXTENTS[size])),
        stretch=float(rng.uniform(0.86, 1.16)),
        angle=float(rng.normal(0, 5) if rng.random() < 0.8 else rng.uniform(-35, 35)),
        is_flipped=bool(rng.random() < 0.5),
        seed=_seed(rng),
    )


def _spread(things: tuple[Thing, ...], rng: np.random.Generator) -> tuple[Thing, ...]:
    """Give several things a place each, without overlap; sizes are relative words, so they become `regular`."""
    num = len(things)
    if num == 2 and rng.random() < 0.5:
        places, cell = [(0.27, 0.5), (0.73, 0.5)], 0.44
    elif num == 2:
        places, cell = [(0.5, 0.27), (0.5, 0.73)], 0.44
    elif num == 3:
        places, cell = [(0.5, 0.27), (0.27, 0.73), (0.73, 0.73)], 0.42
    else:
        places, cell = [(0.27, 0.27), (0.73, 0.27), (0.27, 0.73), (0.73, 0.73)], 0.42
    order = rng.permutation(num)
    spread = []
    for rank, thing in enumerate(things):
        x, y = places[int(order[rank])]
        # The first thing is the largest: it is what the picture is of when the others are of another kind.
        extent = cell * (1.0 if rank == 0 else float(rng.uniform(0.72, 0.86)))
        spread.append(
            replace(
                thing,
                size="regular",
                x=x + float(rng.uniform(-0.02, 0.02)),
                y=y + float(rng.uniform(-0.02, 0.02)),
                extent=extent,
                angle=float(rng.uniform(-25, 25)),
                seed=_seed(rng),
            )
        )
    return tuple(spread)


def _background(rng: np.random.Generator, main: Thing) -> Rgb:
    """Mostly the near-white of a studio; at times tinted or dark; never the colour of the thing itself."""
    ground = _RGB[main.colour]
    for _ in range(20):
        kind = rng.random()
        level = (
            rng.uniform(0.86, 1.0) if kind < 0.6 else rng.uniform(0.55, 0.95) if kind < 0.85 else rng.uniform(0.1, 0.5)
        )
        tint = rng.uniform(-1, 1, 3) * (0.015 if kind < 0.6 else 0.08)
        red, green, blue = (float(v) for v in np.clip(level + tint, 0.0, 1.0))
        if _distance((red, green, blue), ground) > 0.22:
            break
    return red, green, blue


# --- drawing -----------------------------------------------------------------------------------------------


def extent_of(scene: Scene, size: int = 96) -> Extent:
    """Measure the bodies (parts left out) on a coarse raster; one percent is the finest the questions ask for."""
    total = np.zeros((size, size), np.float32)
    boxes = []
    for thing in scene.things:
        outline, matrix = _posed(thing, size)
        body, _ = rasterise(outline, matrix, (thing.x * size, thing.y * size), (size, size))
        np.maximum(total, body, out=total)
        boxes.append((np.count_nonzero(body.max(axis=0) > 0.5), np.count_nonzero(body.max(axis=1) > 0.5)))
    width, height = boxes[0]
    return Extent(round(100 * float(total.mean())), round(100 * width / size), round(100 * height / size))


@dataclass(frozen=True)
class Drawing:
    """A rendered scene and what every pixel of it belongs to."""

    picture: Image.Image
    things: NDArray[np.uint8]
    """[size, size]: number of the thing whose body or part covers the pixel, from 1; 0 is the ground."""
    parts: NDArray[np.uint8]
    """[size, size]: number of the thing whose part covers the pixel, from 1; 0 elsewhere."""


def render(scene: Scene, size: int = 160) -> Image.Image:
    """Draw the scene as an RGB picture of size x size pixels; the same scene always gives the same pixels."""
    return draw(scene, size).picture


def draw(scene: Scene, size: int = 160) -> Drawing:
    """Draw the scene and keep what covers what."""
    rng = np.random.default_rng(scene.seed)
    ramp = np.linspace(0.5, -0.5, size, dtype=np.float32)[:, None, None] * scene.floor
    canvas = np.clip(np.array(scene.background, np.float32) * (1 + np.broadcast_to(ramp, (size, size, 3))), 0, 1)
    layers = [_Layer(thing, size) for thing in scene.things]
    _cast_shadow(canvas, layers, scene)
    things, parts = np.zeros((size, size), np.uint8), np.zeros((size, size), np.uint8)
    for number, layer in enumerate(layers, 1):
        part = layer.put_on(canvas, scene.light_angle)
        is_body, is_part = layer.body > _COVERED, part > _COVERED
        things[layer.window][is_body | is_part] = number
        parts[layer.window][is_body] = 0
        parts[layer.window][is_part] = number
    canvas *= scene.light_gain
    canvas += rng.normal(0, 0.008, (size, size, 1)).astype(np.float32)
    return Drawing(Image.fromarray((np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8)), things, parts)


_COVERED = 0.5
"""Opacity from which a pixel belongs to what is drawn there."""


def _posed(thing: Thing, size: int) -> tuple[Outline, NDArray[np.float64]]:
    """The thing's outline and the matrix from the unit square to pixels: stretch, flip, turn, scale."""
    outline = silhouette(thing.shape, np.random.default_rng(thing.seed))
    c, s = cos(thing.angle * pi / 180), sin(thing.angle * pi / 180)
    widen = np.diag([(-1.0 if thing.is_flipped else 1.0) * thing.stretch, 1 / thing.stretch])
    matrix = np.array([[c, -s], [s, c]]) @ widen
    # After turning and stretching, the longer side of the box is again what `extent` says: size words stay true.
    body = np.concatenate([points for kind, points in outline.pieces if kind == "body"]) - 0.5
    span = float(np.ptp(body @ matrix.T, axis=0).max())
    return outline, matrix * (thing.extent * size / span)


class _Layer:
    """One thing, painted in a window of the canvas that is just large enough for it and its parts."""

    def __init__(self, thing: Thing, size: int) -> None:
        outline, matrix = _posed(thing, size)
        body = np.concatenate([points for kind, points in outline.pieces if kind == "body"]) - 0.5
        low, high = (body @ matrix.T).min(axis=0), (body @ matrix.T).max(axis=0)
        margin = 2 + (0.16 * thing.extent * size if thing.part else 0)  # room for a chain or a handle outside the body
        self.left, self.top = (
            max(0, int(c * size + near - margin)) for c, near in zip((thing.x, thing.y), low, strict=True)
        )
        right, bottom = (
            min(size, int(c * size + far + margin) + 1) for c, far in zip((thing.x, thing.y), high, strict=True)
        )
        self.thing, self.size = thing, size
        shift = (thing.x * size - self.left, thing.y * size - self.top)
        self.body, self.detail = rasterise(outline, matrix, shift, (bottom - self.top, right - self.left))

    @property
    def window(self) -> tuple[slice, slice]:
        height, width = self.body.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)

    def put_on(self, canvas: FloatArray, light_angle: float) -> FloatArray:
        """Paint the body and its part over the canvas, in place; opacity of the part, [H, W] of the window."""
        thing, rng = self.thing, np.random.default_rng([self.thing.seed, 1])
        surface = _surface(self.body, thing, rng)
        surface *= (1 + 0.9 * _relief(self.body, light_angle, 0.035 * thing.extent * self.size))[..., None]
        tone = 0.55 if sum(_RGB[thing.colour]) > 0.9 else 1.9  # details darken a light thing and lighten a dark one
        surface *= 1 + (tone - 1) * self.detail[..., None]
        under = canvas[self.window]
        under += self.body[..., None] * (surface - under)
        if not thing.part:
            return np.zeros_like(self.body)
        colour = METALS[thing.metal] if thing.metal else _RGB[thing.accent]
        ink, alpha = draw_part(thing.part, thing.num_parts, colour, self.body, thing.extent * self.size, rng)
        under += alpha[..., None] * (ink - under)
        return alpha


def _surface(body: FloatArray, thing: Thing, rng: np.random.Generator) -> FloatArray:
    """The painter's colours, computed in the body's bounding box only; zero around it."""
    rows, columns = np.flatnonzero(body.any(axis=1)), np.flatnonzero(body.any(axis=0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    surface = np.zeros((*body.shape, 3), np.float32)
    # The painter's own second colour: an accent in an even pattern such as a check would leave the colour's name open.
    surface[box] = paint(body[box], thing.pattern, thing.material, (COLOURS[thing.colour],), rng)
    return surface


def _relief(body: FloatArray, light_angle: float, radius: float) -> FloatArray:
    """Light and shade near the edges, as on a slightly cushioned body; [H, W], about -0.3..0.3."""
    soft = blurred(body, radius)
    relief = np.zeros_like(soft)
    relief[1:-1, 1:-1] = cos(light_angle) * (soft[1:-1, 2:] - soft[1:-1, :-2]) + sin(light_angle) * (
        soft[2:, 1:-1] - soft[:-2, 1:-1]
    )
    return relief * min(2.0, radius / 2)


def _cast_shadow(canvas: FloatArray, layers: list[_Layer], scene: Scene) -> None:
    """Darken the ground beside the things, away from the light, in place; drawn at half size, as it is soft anyway."""
    if scene.shadow < 0.05:
        return
    size = canvas.shape[0]
    ground = Image.new("L", (size, size))
    dx, dy = round(-0.025 * size * cos(scene.light_angle)), round(0.012 * size)
    for layer in layers:
        mask = Image.fromarray((layer.body * 255).astype(np.uint8))
        ground.paste(mask, (layer.left + dx, layer.top + dy), mask)
    soft = ground.reduce(2).filter(ImageFilter.BoxBlur(0.011 * size)).resize((size, size), Image.Resampling.BILINEAR)
    canvas *= 1 - (scene.shadow / 255) * np.asarray(soft, dtype=np.float32)[..., None]


_RGB: dict[str, Rgb] = {name: (r / 255, g / 255, b / 255) for name, (r, g, b) in COLOURS.items()}
_COLOUR_NAMES = tuple(_RGB)
MATERIAL_NAMES = tuple(MATERIALS)
_CLOTH_NAMES = tuple(name for name in MATERIALS if name not in PLATED)
PATTERN_NAMES = tuple(name for name in PATTERNS if name != PLAIN)

"""From a scene to a picture.

    panels ─▶ masks, shade, cloth coordinates ─▶ paint ─▶ strokes ─▶ studio ─▶ fittings ─▶ camera

Edges are drawn at twice the size and shrunk; colour and light are worked out once per final pixel. Labels and scenes
are the same on every machine; pixels are the same for one version of Pillow and numpy.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw

from appraiser.data.samples.fields import Plane, blur, window
from appraiser.data.samples.fittings import draw_fitting
from appraiser.data.samples.scenes import Scene
from appraiser.data.samples.shapes import Fitting, Panel, Points, Stroke
from appraiser.data.samples.silhouettes import STRETCH, silhouette
from appraiser.data.samples.textures import COLOURS, METALS, RGB, accents, bounding_box, paint

DEFAULT_SIZE = 336
_OVERSAMPLE = 2

_FIXED_COLOURS: dict[str, RGB] = {
    "dark": (28, 24, 24), "sole": (52, 42, 36), "rubber": (236, 233, 226), "wood": (134, 86, 48),
    "metal": METALS["silver-plated"],
}  # fmt: skip
_THREADS: dict[str, RGB] = {"lace": (246, 244, 238)}


class _Canvas:
    """The object while it is put together, in final pixels."""

    def __init__(self, size: int, scene: Scene) -> None:
        self.size = size
        self.scene = scene
        self.unit = 0.5 * size * scene.scale
        self.alpha = np.zeros((size, size), dtype=np.float32)
        self.cloth = np.zeros((size, size), dtype=np.float32)
        self.shade = np.ones((size, size), dtype=np.float32)
        self.fixed = np.zeros((3, size, size), dtype=np.float32)
        self._has_fixed = False
        angle = np.radians(scene.rotation)
        self._turn: Points = np.array(
            [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]], dtype=np.float32
        )
        self.across, self.down = self._coordinates(0.0, slice(0, size), slice(0, size))

    def place(self, points: Points) -> Points:
        """From the silhouette's coordinates to pixels of the oversampled picture."""
        scene, (wide, high) = self.scene, STRETCH[self.scene.size]
        stretch = np.array([-wide if scene.is_mirrored else wide, high], dtype=np.float32)
        centre = np.array([0.5 + scene.shift_x, 0.5 + scene.shift_y], dtype=np.float32) * np.float32(self.size)
        turned: Points = np.matmul(points * stretch, self._turn)
        return (turned * np.float32(self.unit) + centre) * np.float32(_OVERSAMPLE)

    def _coordinates(self, turn: float, rows: slice, columns: slice) -> tuple[Plane, Plane]:
        """Cloth coordinates in parts of the object's size, turned with the pose and the panel."""
        scene = self.scene
        angle = np.radians(scene.rotation + (-turn if scene.is_mirrored else turn))
        middle_x, middle_y = self.size * (0.5 + scene.shift_x), self.size * (0.5 + scene.shift_y)
        x = np.arange(columns.start, columns.stop, dtype=np.float32)[None, :] - np.float32(middle_x)
        y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - np.float32(middle_y)
        cos, sin = np.float32(np.cos(angle) / (2 * self.unit)), np.float32(np.sin(angle) / (2 * self.unit))
        return x * cos + y * sin, y * cos - x * sin

    def add(self, panel: Panel, colours: dict[str, RGB]) -> None:
        """Lay a panel on top: its edge darkens, it hides and shades what is below."""
        margin = round(0.09 * self.unit) + 2
        placed = self.place(panel.outline)
        box = _pixel_box(placed, margin, self.size)
        if box is None:
            return
        rows, columns = box
        mask = _fill(placed, rows, columns)
        soft = blur(mask, 0.045 * self.unit)
        shade, outside = self.shade[box], 1.0 - mask
        if panel.lift:
            drop = max(1, round(0.025 * self.unit))
            fallen = np.zeros_like(soft)
            fallen[drop:] = soft[:-drop]
            shade *= 1.0 - np.float32(min(0.62 * panel.lift, 0.8)) * fallen * outside
        own = np.float32(0.66) + np.float32(0.38) * np.minimum(soft * np.float32(1.25), 1.0)
        if panel.role in ("lining", "inside"):
            own = np.float32(0.42) + np.float32(0.25) * (1.0 - soft)
        shade *= outside
        shade += own * mask
        is_cloth = panel.role in ("fabric", "inside")
        self.alpha[box] = np.maximum(self.alpha[box], mask)
        self.cloth[box] = self.cloth[box] * outside + (mask if is_cloth else 0.0)
        fixed = self.fixed[:, rows, columns]
        if self._has_fixed:
            fixed *= outside
        if not is_cloth:
            self._has_fixed = True
            fixed += mask * (np.asarray(colours[panel.role], dtype=np.float32) / 255.0)[:, None, None]
        if is_cloth and panel.turn:
            across, down = self._coordinates(panel.turn, rows, columns)
            inside = mask > 0.5
            np.copyto(self.across[box], across, where=inside)
            np.copyto(self.down[box], down, where=inside)


def draw_scene(scene: Scene, size: int = DEFAULT_SIZE) -> Image.Image:
    """Draw a scene as an RGB picture of size x size pixels."""
    rng = np.random.default_rng(scene.texture_seed)
    shape = silhouette(scene.type, scene.variant, scene.hardware)
    main = COLOURS[scene.colour]
    canvas = _Canvas(size, scene)
    fixed = _fixed_colours(scene, main)
    for panel in shape.panels:
        canvas.add(panel, fixed)
    canvas.shade *= _stroke_shade(canvas, shape.strokes)
    alpha = _soften(canvas, scene.material, rng)
    picture = _studio(scene, alpha, shape.stands, size, rng)
    rows, columns = box = bounding_box(alpha) or (slice(0, size), slice(0, size))
    cloth, kept = _cover(canvas, alpha, box)
    surface = (canvas.across[box], canvas.down[box])
    # Planes first from here to the camera; see the note in `paint`.
    thing = paint(cloth, scene.pattern, scene.material, (main, *accents(main)), rng, surface=surface).transpose(2, 0, 1)
    thing *= cloth
    thing += canvas.fixed[:, rows, columns] * kept
    thing *= canvas.shade[box]
    below = picture[:, rows, columns]
    below *= 1.0 - alpha[box]
    below += thing
    _add_threads(picture, canvas, shape.strokes, main)
    _add_fittings(picture, canvas, shape.fittings)
    return _camera(picture, scene, rng)


def encode_jpeg(picture: Image.Image, quality: int) -> bytes:
    """The picture as a JPEG file without metadata."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _fixed_colours(scene: Scene, main: RGB) -> dict[str, RGB]:
    pale = tuple(round(0.35 * part + 0.65 * 236) for part in main)
    colours = dict(_FIXED_COLOURS)
    colours["lining"] = (round(main[0] * 0.7) + 14, round(main[1] * 0.7) + 14, round(main[2] * 0.7) + 14)
    colours["inner"] = (pale[0], pale[1], pale[2])
    colours["metal"] = METALS.get(scene.material, METALS["silver-plated"])
    return colours


def _pixel_box(placed: Points, margin: int, size: int) -> tuple[slice, slice] | None:
    low = np.floor(placed.min(axis=0) / _OVERSAMPLE).astype(int) - margin
    high = np.ceil(placed.max(axis=0) / _OVERSAMPLE).astype(int) + margin
    left, top = (max(0, int(value)) for value in low)
    right, bottom = (min(size, int(value)) for value in high)
    if right - left < 2 or bottom - top < 2:
        return None
    return slice(top, bottom), slice(left, right)


def _fill(placed: Points, rows: slice, columns: slice) -> Plane:
    """Coverage of an outline in a window of the picture, 0..1."""
    high, wide = rows.stop - rows.start, columns.stop - columns.start
    picture = Image.new("L", (wide * _OVERSAMPLE, high * _OVERSAMPLE))
    corner = np.array([columns.start * _OVERSAMPLE, rows.start * _OVERSAMPLE], dtype=np.float32)
    ImageDraw.Draw(picture).polygon((placed - corner).ravel().tolist(), fill=255)
    return np.asarray(picture.reduce(_OVERSAMPLE), dtype=np.float32) * np.float32(1 / 255)


def _stroke_shade(canvas: _Canvas, strokes: list[Stroke]) -> Plane | float:
    """Brightness of seams (dark, with a lit lower edge) and folds (a dark valley beside a lit ridge)."""
    fine = Image.new("L", (canvas.size * _OVERSAMPLE,) * 2)
    broad = Image.new("L", (canvas.size, canvas.size))
    fine_pen, broad_pen = ImageDraw.Draw(fine), ImageDraw.Draw(broad)
    is_fine = is_broad = False
    for stroke in strokes:
        if stroke.kind == "seam":
            width = max(2, round(stroke.width * canvas.unit * _OVERSAMPLE))
            fine_pen.line(canvas.place(stroke.points).ravel().tolist(), fill=255, width=width)
            is_fine = True
        elif stroke.kind == "fold":
            points = canvas.place(stroke.points) / _OVERSAMPLE
            broad_pen.line(points.ravel().tolist(), fill=255, width=max(1, round(stroke.width * canvas.unit)))
            is_broad = True
    shade: Plane | float = 1.0
    if is_fine:
        seams = np.asarray(fine.reduce(_OVERSAMPLE), dtype=np.float32) * np.float32(1 / 255)
        lit = np.zeros_like(seams)
        lit[2:, 1:] = seams[:-2, :-1]
        shade = 1.0 - np.float32(0.50) * seams + np.float32(0.12) * lit * (1.0 - seams)
    if is_broad:
        folds = blur(np.asarray(broad, dtype=np.float32) * np.float32(1 / 255), 0.028 * canvas.unit)
        reach = max(1, round(0.035 * canvas.unit))
        ridge = np.zeros_like(folds)
        ridge[:, reach:] = folds[:, :-reach]
        drape = 1.0 - np.float32(0.34) * folds + np.float32(0.20) * ridge
        shade = drape if isinstance(shade, float) else shade * drape
    return shade


def _soften(canvas: _Canvas, material: str, rng: np.random.Generator) -> Plane:
    """The outline; wool and cashmere have a fuzzy one."""
    if material not in ("cashmere", "wool"):
        return canvas.alpha
    size = canvas.size
    halo = blur(canvas.alpha, 0.014 * canvas.unit)
    fuzz = window("grain", size, size, 300 / canvas.unit, rng)
    return np.clip(np.maximum(canvas.alpha * 0.85, halo * 1.15) + (fuzz * 0.30) * halo * (1.0 - halo) * 2.0, 0.0, 1.0)


def _cover(canvas: _Canvas, alpha: Plane, box: tuple[slice, slice]) -> tuple[Plane, Plane]:
    """How much of each pixel is cloth once the outline is softened, and the share of the fixed colours that is left.

    Both colours come weighted by their panels' coverage: weighting them by the outline again would draw a dark line
    round everything.
    """
    hard, soft, cloth = canvas.alpha[box], alpha[box], canvas.cloth[box]
    if alpha is canvas.alpha:
        return cloth, np.ones_like(cloth)
    kept: Plane = np.divide(np.minimum(soft, hard), np.maximum(hard, 1e-3), dtype=np.float32)
    cover: Plane = cloth * kept + np.maximum(soft - hard, 0.0)
    return cover, kept


def _studio(scene: Scene, alpha: Plane, stands: bool, size: int, rng: np.random.Generator) -> Plane:
    """The empty studio with the object's shadow on it."""
    ramp = np.linspace(0.0, 1.0, size, dtype=np.float32)
    grey = scene.backdrop_top + (scene.backdrop_bottom - scene.backdrop_top) * ramp**2
    plane = np.repeat(grey[:, None], size, axis=1)
    plane += np.float32(0.004) * window("soft", size, size, 0.5, rng)
    near = _shifted(blur(alpha, 0.012 * size), 0.010 * size, scene.shadow_x * size * 0.4)
    wide = _shifted(blur(alpha, 0.045 * size), 0.035 * size, scene.shadow_x * size)
    if stands:
        wide = wide * np.float32(0.5)
        plane *= 1.0 - np.float32(scene.shadow) * _pool(alpha, size)
    plane *= 1.0 - np.float32(scene.shadow * 0.55) * near
    plane *= 1.0 - np.float32(scene.shadow * 0.50) * wide
    tint = np.array([1.0 + scene.backdrop_tint, 1.0, 1.0 - scene.backdrop_tint], dtype=np.float32)
    return plane * tint[:, None, None]


def _pool(alpha: Plane, size: int) -> Plane:
    """A soft dark pool where a standing object meets the floor."""
    rows = np.flatnonzero(alpha.any(axis=1))
    if not rows.size:
        return alpha
    bottom = int(rows[-1])
    reach = max(4, round(0.10 * size))
    foot = np.flatnonzero(alpha[max(0, bottom - reach) : bottom + 1].any(axis=0))
    middle, half = 0.5 * (foot[0] + foot[-1]), 0.56 * (foot[-1] - foot[0]) + 0.02 * size
    x = (np.arange(size, dtype=np.float32) - np.float32(middle)) / np.float32(half)
    y = (np.arange(size, dtype=np.float32) - np.float32(bottom - 0.010 * size)) / np.float32(0.045 * size)
    return np.exp(-(x[None, :] ** 4) - y[:, None] ** 2)


def _shifted(plane: Plane, down: float, right: float) -> Plane:
    rows, columns = max(1, round(down)), round(right)
    moved = np.zeros_like(plane)
    high, wide = plane.shape
    to = slice(max(columns, 0), wide + min(columns, 0))
    source = slice(max(-columns, 0), wide + min(-columns, 0))
    moved[rows:, to] = plane[: high - rows, source]
    return moved


def _add_threads(picture: Plane, canvas: _Canvas, strokes: list[Stroke], main: RGB) -> None:
    """Laces and fringes, drawn over the finished object."""
    threads = [stroke for stroke in strokes if stroke.kind in ("lace", "fringe")]
    if not threads:
        return
    layer = Image.new("RGBA", (canvas.size * _OVERSAMPLE,) * 2)
    pen = ImageDraw.Draw(layer)
    for stroke in threads:
        ink = _THREADS.get(stroke.kind, main)
        edge = tuple(round(part * 0.55) for part in ink)
        path = canvas.place(stroke.points).ravel().tolist()
        width = max(2, round(stroke.width * canvas.unit * _OVERSAMPLE))
        pen.line(path, fill=(*edge, 255), width=width + 2)
        pen.line(path, fill=(*ink, 255), width=max(1, width - 2))
    _lay_over(picture, layer, slice(0, canvas.size), slice(0, canvas.size))


def _add_fittings(picture: Plane, canvas: _Canvas, fittings: list[Fitting]) -> None:
    if not fittings:
        return
    placed = [canvas.place(fitting.points) for fitting in fittings]
    sizes = [fitting.size * canvas.unit * _OVERSAMPLE for fitting in fittings]
    box = _pixel_box(np.concatenate(placed), round(max(sizes)) + 3, canvas.size)
    if box is None:
        return
    rows, columns = box
    high, wide = rows.stop - rows.start, columns.stop - columns.start
    layer = Image.new("RGBA", (wide * _OVERSAMPLE, high * _OVERSAMPLE))
    corner = np.array([columns.start * _OVERSAMPLE, rows.start * _OVERSAMPLE], dtype=np.float32)
    for fitting, points, size in zip(fittings, placed, sizes, strict=True):
        draw_fitting(layer, fitting.kind, points - corner, size)
    _lay_over(picture, layer, rows, columns)


def _lay_over(picture: Plane, layer: Image.Image, rows: slice, columns: slice) -> None:
    """Put an oversampled layer on the picture, with a small shadow to its lower right."""
    values = np.asarray(layer.reduce(_OVERSAMPLE), dtype=np.float32).transpose(2, 0, 1) * np.float32(1 / 255)
    values = np.ascontiguousarray(values)
    cover = values[3]
    below = picture[:, rows, columns]
    below *= (1.0 - np.float32(0.38) * _shifted(cover, 2.0, 1.0)) * (1.0 - cover)
    below += values[:3]


def _camera(picture: Plane, scene: Scene, rng: np.random.Generator) -> Image.Image:
    """Fall-off of the light, colour temperature, noise."""
    size = picture.shape[-1]
    ramp = np.linspace(-1.0, 1.0, size, dtype=np.float32) * np.float32(255.0)
    light = (
        np.float32(255.0 * scene.exposure)
        + ramp * np.float32(scene.light_x)
        + ramp[:, None] * np.float32(scene.light_y)
    )
    picture *= light
    picture *= np.array([1.0 + scene.temperature, 1.0, 1.0 - scene.temperature], dtype=np.float32)[:, None, None]
    picture += np.float32(255.0 * scene.noise) * window("grain", size, size, 1.0, rng) + np.float32(0.5)
    planes = np.clip(picture, 0.0, 255.0, out=picture).astype(np.uint8)
    return Image.merge("RGB", [Image.fromarray(plane) for plane in planes])

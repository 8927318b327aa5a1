"""The only place that decodes a picture: bytes of a stranger -> an upright RGB picture on white, or a reason code.

What the processor of the model leaves to its caller happens here: transparency is laid on white, EXIF orientation is
applied, CMYK goes through its profile, 16-bit greys are scaled instead of clipped, animations give their first frame.
Limits hold before pixels are decoded.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from appraiser.data.reasons import PictureReason
from appraiser.errors import DataError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
MAX_BYTES = 32 * 1024 * 1024
MAX_PIXELS = 40_000_000
MAX_SIDE = 16_384
# Well below the 336 : 1 that one crop of the published 336 px can hold.
MAX_ASPECT = 100

# EXIF orientation -> what makes the picture upright.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class PictureError(DataError):
    """A picture that cannot be used; `reason` is one of `PictureReason`."""

    def __init__(self, reason: PictureReason, what: str) -> None:
        super().__init__(what, fix="replace the picture, or leave the row out")
        self.reason = reason


@dataclass(frozen=True)
class StoredPicture:
    """A picture as data sets keep it: JPEG or PNG bytes of an upright RGB picture, and the hash of these bytes."""

    data: bytes
    sha256: str
    width: int
    height: int


@dataclass(frozen=True)
class Pixels:
    """A decoded picture on its way between processes: height rows of width times R, G, B, one byte each."""

    width: int
    height: int
    data: bytes

    def image(self) -> Image.Image:
        """The picture again."""
        return Image.frombytes("RGB", (self.width, self.height), self.data)


def read_bytes(path: Path) -> bytes:
    """Bytes of a picture file, refused before reading when it is larger than any picture should be."""
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise PictureError("too_large", f"{path.name} has {size / 2**20:.0f} MiB, the limit is {MAX_BYTES >> 20} MiB")
    return path.read_bytes()


def decode(data: bytes) -> Image.Image:
    """Decode to an upright RGB picture on white.

    Raises:
        PictureError: with one of the reason codes.
    """
    return to_rgb(_open(data))


def decode_to_pixels(data: bytes) -> Pixels:
    """As `decode`, in a form that another process can be handed."""
    image = decode(data)
    return Pixels(image.width, image.height, image.tobytes())


def picture_size(data: bytes) -> tuple[int, int]:
    """(width, height) of a stored picture, which is upright, from its header."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        return image.size


def prepare(data: bytes) -> StoredPicture:
    """Decode, and choose what to store: the bytes themselves where they already are plain RGB JPEG or PNG."""
    image = _open(data)
    rgb = to_rgb(image)
    # `to_rgb` gives the picture itself back where there was nothing to do.
    if rgb is not image or image.format not in ("JPEG", "PNG"):
        data = encode(rgb, lossless=image.format == "PNG")
    return StoredPicture(data, hashlib.sha256(data).hexdigest(), rgb.width, rgb.height)


def encode(image: Image.Image, *, lossless: bool = False, quality: int = 92) -> bytes:
    """JPEG bytes, or PNG where nothing may be lost."""
    buffer = io.BytesIO()
    if lossless:
        image.save(buffer, "PNG")
    else:
        image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _open(data: bytes) -> Image.Image:
    if not data:
        raise PictureError("empty", "the picture has no bytes")
    if len(data) > MAX_BYTES:
        raise PictureError("too_large", f"the picture has {len(data) / 2**20:.0f} MiB, the limit is 32 MiB")
    # Pillow's own bomb warning starts at 89 megapixels; ours is the limit that counts.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.simplefilter("ignore", UserWarning)  # odd EXIF tags, once per tag
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        except UnidentifiedImageError:
            raise _unknown(data) from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise PictureError(
                "too_many_pixels", f"the picture has far more than {MAX_PIXELS // 10**6} megapixels"
            ) from None
        except Exception as error:  # decoders raise what they like on broken headers: OSError, ValueError, SyntaxError
            raise PictureError("truncated", f"the picture's header is damaged ({type(error).__name__})") from None
        width, height = image.size
        if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
            raise PictureError(
                "too_many_pixels",
                f"the picture has {width} x {height} pixels; at most {MAX_PIXELS // 10**6} megapixels and "
                f"{MAX_SIDE} pixels a side are read",
            )
        if max(width, height) > MAX_ASPECT * min(width, height):
            raise PictureError(
                "too_thin", f"the picture has {width} x {height} pixels; at most {MAX_ASPECT} : 1 is read"
            )
        try:
            image.load()
        except Exception as error:  # see above; a damaged body is one row lost, never a crash
            raise PictureError(
                "truncated", f"the picture's data is damaged or cut off ({type(error).__name__})"
            ) from None
    return image


def _unknown(data: bytes) -> PictureError:
    """Name what the bytes are when they are a picture of a format that is not read here."""
    head = data[:32].lstrip()
    known = {b"BM": "BMP", b"II*\x00": "TIFF", b"MM\x00*": "TIFF", b"%PDF": "PDF", b"%!PS": "EPS"}
    for magic, name in known.items():
        if head.startswith(magic):
            return PictureError("unsupported_format", f"{name} files are not read; convert it to JPEG or PNG")
    if head[4:8] == b"ftyp":
        return PictureError("unsupported_format", "HEIC and AVIF files are not read; convert it to JPEG or PNG")
    return PictureError("not_an_image", "these bytes are no JPEG, PNG, WebP or GIF picture")


def to_rgb(image: Image.Image) -> Image.Image:
    """Upright RGB on white from any mode that Pillow decodes; an upright RGB picture comes back as it is."""
    image = _upright(image)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        image = _scale_to_8_bit(image)
    if image.mode == "CMYK":
        return _cmyk_to_rgb(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        canvas = Image.new("RGB", rgba.size, (255, 255, 255))
        canvas.paste(rgba, mask=rgba.getchannel("A"))
        return canvas
    return image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; a picture whose EXIF is damaged stays as its pixels are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Pillow names every odd tag
        try:
            orientation = image.getexif().get(0x0112, 1)
        except Exception:  # a damaged block: SyntaxError, struct.error, TypeError and more
            return image
    # Not ImageOps.exif_transpose: it writes the whole EXIF block anew, which fails on tags that cameras get wrong.
    turn = TURNS.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _scale_to_8_bit(image: Image.Image) -> Image.Image:
    """16-bit grey by 257 and not by clipping, which would turn most of such a picture white."""
    values = np.asarray(image).astype(np.float64)
    top = 65535.0 if values.max() > 255 else 255.0
    return Image.fromarray((values / top * 255.0).round().clip(0, 255).astype(np.uint8))


def _cmyk_to_rgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):
            converted = None  # a damaged profile: the plain conversion is what every viewer falls back to
        if converted is not None:
            return converted
    return image.convert("RGB")


def thumbnail(image: Image.Image, side: int = 160, quality: int = 80) -> bytes:
    """Small JPEG for reports."""
    small = image.copy()
    small.thumbnail((side, side))
    return encode(small, quality=quality)


def difference_hash(image: Image.Image, side: int = 16) -> np.ndarray:
    """Perceptual hash: [side * side] bool, whether brightness falls from each cell to its right neighbour.

    A cell has to be darker by 3 of 255 levels, so that camera noise on an even background leaves no marks.
    """
    grey = np.asarray(image.convert("L").resize((side + 1, side), Image.Resampling.BOX), dtype=np.int16)
    return (grey[:, :-1] - grey[:, 1:] > 3).ravel()

"""Pictures inside a page."""

from __future__ import annotations

import base64

from PIL import Image

from appraiser.data.pictures import decode, thumbnail

THUMBNAIL_SIDE = 160
# 300 pictures of this size, as base64, stay under 4.1 MB; only very busy pictures need the lower qualities.
MAX_THUMBNAIL_BYTES = 10_000
THUMBNAIL_QUALITIES = (80, 60, 40, 20)


def picture_uri(data: bytes | Image.Image, side: int = THUMBNAIL_SIDE, max_bytes: int = MAX_THUMBNAIL_BYTES) -> str:
    """A thumbnail as a data URI, of the best quality that keeps it small."""
    image = decode(data) if isinstance(data, bytes) else data.copy()
    image.thumbnail((side, side))
    for quality in THUMBNAIL_QUALITIES:
        small = thumbnail(image, side, quality)
        if len(small) <= max_bytes:
            break
    return "data:image/jpeg;base64," + base64.b64encode(small).decode("ascii")

"""Damaged pictures, numbered: with the same Pillow, number n is the same bytes in every run."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from PIL import Image, ImageCms

PNG_HEAD = b"\x89PNG\r\n\x1a\n"
ADAM7_8X8 = (1, 1, 2, 2, 2, 4, 4, 4, 4, 4, 4, 8, 8, 8, 8)
"""Pixels per line of an interlaced picture of 8 x 8, over its seven passes."""


def mutated(number: int) -> tuple[str, bytes]:
    """Name of seed and damage, and the damaged picture."""
    names = list(seeds())
    name = names[number % len(names)]
    damage = DAMAGES[number // len(names) % len(DAMAGES)]
    rng = random.Random(number)
    return f"{name}, {damage.__name__}", damage(seeds()[name], rng)


@cache
def seeds() -> dict[str, bytes]:
    """Small pictures of all formats, modes and odd features that are read."""
    rgb = _drawn(64, 48)
    rgba = rgb.copy()
    rgba.putalpha(Image.linear_gradient("L").resize(rgb.size))
    frames = [rgb, rgb.rotate(90), rgb.rotate(180)]
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile[:24] + bytes(12) + profile[36:]  # when it was made
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x011A] = 6, "Maker", 72.0
    exif[0x8769] = {0x9003: "2020:01:01 00:00:00"}
    deep = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 21
    palette = rgb.quantize(17)
    return {
        "JPEG": _saved(rgb, "JPEG"),
        "JPEG progressive": _saved(rgb, "JPEG", progressive=True, quality=95, subsampling=0),
        "JPEG CMYK": _saved(rgb.convert("CMYK"), "JPEG"),
        "JPEG CMYK profile": _saved(rgb.convert("CMYK"), "JPEG", icc_profile=profile),
        "JPEG grey": _saved(rgb.convert("L"), "JPEG", restart_marker_blocks=4),
        "JPEG EXIF": _saved(rgb, "JPEG", exif=exif, icc_profile=profile, comment=b"comment"),
        "JPEG large": _saved(_drawn(700, 500), "JPEG", progressive=True),
        "PNG": _saved(rgb, "PNG"),
        "PNG RGBA": _saved(rgba, "PNG", icc_profile=profile),
        "PNG LA": _saved(rgba.convert("LA"), "PNG"),
        "PNG palette": _saved(palette, "PNG", transparency=bytes(range(0, 255, 15))),
        "PNG 1 bit": _saved(rgb.convert("1"), "PNG"),
        "PNG 16 bit": _saved(Image.fromarray(deep), "PNG"),
        "PNG 16 bit RGB": _png_of(64, 48, 16, 2, np.repeat(deep.astype(">u2"), 3, axis=1).tobytes(), [64 * 6] * 48),
        "PNG interlaced": _png_of(8, 8, 8, 0, bytes(range(64)), ADAM7_8X8),
        "PNG colour key": _saved(rgb, "PNG", transparency=(9, 9, 9)),
        "PNG EXIF": _saved(rgb, "PNG", exif=exif),
        "PNG animated": _saved(rgb, "PNG", save_all=True, append_images=frames[1:], duration=40),
        "WEBP": _saved(rgb, "WEBP"),
        "WEBP lossless": _saved(rgba, "WEBP", lossless=True),
        "WEBP alpha": _saved(rgba, "WEBP", exif=exif.tobytes()),
        "WEBP animated": _saved(rgb, "WEBP", save_all=True, append_images=frames[1:], duration=40),
        "GIF": _saved(palette, "GIF"),
        "GIF transparent": _saved(palette, "GIF", transparency=3),
        "GIF plain": _saved(palette, "GIF", interlace=0),
        "GIF animated": _saved(rgb, "GIF", save_all=True, append_images=frames[1:], duration=40, loop=0),
    }


def flipped(data: bytes, rng: random.Random) -> bytes:
    """Some bits turned over."""
    body = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
    return bytes(body)


def overwritten(data: bytes, rng: random.Random) -> bytes:
    """A run of bytes replaced by others."""
    start, length = rng.randrange(len(data)), rng.choice((1, 2, 4, 16, 64))
    run = rng.choice((b"\x00" * length, b"\xff" * length, rng.randbytes(length)))
    return data[:start] + run + data[start + length :]


def cut(data: bytes, rng: random.Random) -> bytes:
    """Cut at a multiple of 5 %, or one or two bytes before the end."""
    return data[: rng.choice([*(len(data) * share // 100 for share in range(0, 100, 5)), len(data) - 1, len(data) - 2])]


def shifted(data: bytes, rng: random.Random) -> bytes:
    """Bytes put in or taken out."""
    start, length = rng.randrange(len(data)), rng.choice((1, 2, 7, 100))
    return data[:start] + (rng.randbytes(length) + data[start:] if rng.random() < 0.5 else data[start + length :])


def shuffled(data: bytes, rng: random.Random) -> bytes:
    """Chunks in another order, some twice, some not at all; whole and with good checksums."""
    head, chunks = _chunks(data)
    for _ in range(rng.choice((1, 2, 4))):
        place = rng.randrange(len(chunks))
        match rng.randrange(4):
            case 0:
                chunks.insert(rng.randrange(len(chunks)), chunks[place])
            case 1 if len(chunks) > 1:
                del chunks[place]
            case 2:
                rng.shuffle(chunks)
            case _:
                other = rng.randrange(len(chunks))
                chunks[place], chunks[other] = chunks[other], chunks[place]
    return head + b"".join(chunks)


def resized(data: bytes, rng: random.Random) -> bytes:
    """Width, height, depth, colour type or number of components changed in the header, with good checksums."""
    value = rng.choice((0, 1, 7, 255, 4096, 6000, 16_000, 65_535))
    body = bytearray(data)
    if data.startswith(PNG_HEAD):
        if rng.random() < 0.5:
            struct.pack_into(">I", body, rng.choice((16, 20)), value * rng.choice((1, 1, 2**15)))
        else:
            body[rng.choice((24, 25, 26, 27, 28))] = rng.choice((0, 1, 2, 3, 4, 6, 8, 16, 255))
        struct.pack_into(">I", body, 29, zlib.crc32(body[12:29]))
    elif data.startswith(b"\xff\xd8"):
        frame = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
        if rng.random() < 0.7:
            struct.pack_into(">H", body, frame + rng.choice((5, 7)), value)
        else:
            body[frame + rng.choice((4, 9, 10, 11, 12, 13))] = rng.choice((0, 1, 2, 3, 4, 12, 0x11, 0x22, 0x41, 0xFF))
    elif data.startswith(b"GIF8"):
        frame = data.find(b",", 13)
        struct.pack_into("<H", body, rng.choice((6, 8, frame + 1, frame + 3, frame + 5, frame + 7)), value)
    else:
        struct.pack_into("<H", body, rng.choice((4, 16, 20, 24, 26, 27, 28, 30)), value)
    return bytes(body)


def joined(data: bytes, rng: random.Random) -> bytes:
    """With another picture, or with noise, before, behind or within."""
    other = rng.choice((seeds()[rng.choice(list(seeds()))], rng.randbytes(rng.choice((1, 16, 500))), data))
    place = rng.randrange(len(data))
    return rng.choice((data + other, other + data, data[:place] + other, data[:place] + other + data[place:]))


def relabelled(data: bytes, rng: random.Random) -> bytes:
    """Behind the first bytes of another format."""
    other = seeds()[rng.choice(list(seeds()))]
    length = rng.choice((2, 4, 8, 12, 16, 33))
    return other[:length] + data[length:]


DAMAGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    flipped, overwritten, cut, shifted, shuffled, resized, joined, relabelled,
)  # fmt: skip


def _drawn(width: int, height: int) -> Image.Image:
    y, x = np.mgrid[0:height, 0:width]
    channels = [x * 255 // width, y * 255 // height, (x * y) % 256]
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _png_of(width: int, height: int, depth: int, colour: int, pixels: bytes, lines: Sequence[int]) -> bytes:
    """A PNG that Pillow does not write; `lines` are the numbers of bytes between filter bytes."""
    body, place = b"", 0
    for length in lines:
        body += b"\0" + pixels[place : place + length]
        place += length
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, lines is ADAM7_8X8)
    return PNG_HEAD + _png_chunk(b"IHDR", head) + _png_chunk(b"IDAT", zlib.compress(body)) + _png_chunk(b"IEND", b"")


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _chunks(data: bytes) -> tuple[bytes, list[bytes]]:
    """The bytes before the first chunk, and the chunks: those of PNG, JPEG and WebP; of GIF, pieces of 40 bytes."""
    if data.startswith(PNG_HEAD):
        place, sized = 8, lambda at: 12 + struct.unpack_from(">I", data, at)[0]
    elif data.startswith(b"\xff\xd8"):
        place, sized = 2, _jpeg_segment_size(data)
    elif data.startswith(b"RIFF"):
        place, sized = 12, lambda at: 8 + (struct.unpack_from("<I", data, at + 4)[0] + 1) // 2 * 2
    else:
        place, sized = 13, lambda at: 40
    head, chunks = data[:place], []
    while place < len(data):
        size = sized(place)
        chunks.append(data[place : place + size])
        place += size
    return head, chunks


def _jpeg_segment_size(data: bytes) -> Callable[[int], int]:
    def size(at: int) -> int:
        if data[at + 1] == 0xD9:
            return 2
        end = at + 2 + struct.unpack_from(">H", data, at + 2)[0]
        if data[at + 1] != 0xDA:
            return end - at
        while not (data[end] == 0xFF and data[end + 1] not in (0, *range(0xD0, 0xD8))):  # the coded pixels of a scan
            end += 1
        return end - at

    return size

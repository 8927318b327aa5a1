"""One decoder for the bytes of strangers: golden values of every rule, and a reason code for all that is refused."""

import hashlib
import io
import random
import re
import resource
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageDraw

from appraiser.data import pictures
from appraiser.data.pictures import PictureError, decode, difference_hash, prepare, read_bytes, thumbnail

WHITE = (255, 255, 255)
ORIENTATION = 0x0112


def as_bytes(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def drawn(width: int = 60, height: int = 40) -> Image.Image:
    """A picture that differs under every rotation and reflection, soft enough that JPEG keeps it."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [x * 255 // width, y * 255 // height, np.full_like(x, 60)]
    image = Image.fromarray(np.stack(channels, -1).astype(np.uint8))
    ImageDraw.Draw(image).rectangle((3, 3, 14, 10), fill=(250, 250, 0))
    return image


def reason_of(data: bytes) -> str:
    with pytest.raises(PictureError) as caught:
        prepare(data)
    with pytest.raises(PictureError) as again:
        decode(data)
    assert caught.value.reason == again.value.reason
    assert_says_nothing_private(str(caught.value))
    return caught.value.reason


def assert_says_nothing_private(message: str) -> None:
    """No memory addresses, paths or tracebacks: Pillow's own messages hold them."""
    assert not re.search(r"0x[0-9a-f]{4,}|BytesIO|Traceback|site-packages|/tmp|/home|/work", message), message


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of_declared_size(width: int, height: int, colour: int = 2) -> bytes:
    """A PNG whose header names a size and whose body is a few bytes."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(b"\0" * 9)) + png_chunk(b"IEND", b"")


def transparent_palette_gif() -> bytes:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([255, 0, 0, 0, 0, 255] + [0] * 762)
    image.putpixel((1, 0), 1)
    return as_bytes(image, "GIF", transparency=0)


def transparent_palette_png() -> bytes:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    return as_bytes(image, "PNG", transparency=b"\x00\xff")


def half_transparent(kind: str) -> bytes:
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 255, 255))
    return as_bytes(image, kind, lossless=True) if kind == "WEBP" else as_bytes(image, kind)


@pytest.mark.parametrize(
    "data",
    [transparent_palette_gif(), transparent_palette_png(), half_transparent("PNG"), half_transparent("WEBP")],
    ids=["palette GIF", "palette PNG", "RGBA PNG", "RGBA WebP"],
)
def test_transparent_red_becomes_white_and_opaque_blue_stays(data):
    image = decode(data)
    assert image.mode == "RGB"
    assert image.getpixel((0, 0)) == WHITE
    assert image.getpixel((1, 0)) == (0, 0, 255)
    stored = Image.open(io.BytesIO(prepare(data).data))
    assert stored.mode == "RGB"
    assert min(stored.getpixel((3, 3))) > 250


def test_partly_transparent_colours_are_mixed_with_white():
    data = as_bytes(Image.new("RGBA", (2, 2), (200, 0, 100, 128)), "PNG")
    assert np.abs(np.array(decode(data).getpixel((0, 0))) - (227, 127, 177)).max() <= 1


def test_transparent_grey_becomes_white():
    image = Image.new("LA", (2, 1), (0, 0))
    image.putpixel((1, 0), (77, 255))
    assert list(decode(as_bytes(image, "PNG")).get_flattened_data()) == [WHITE, (77, 77, 77)]


@pytest.mark.parametrize(
    ("mode", "colour", "key"), [("RGB", (255, 0, 0), (255, 0, 0)), ("L", 9, 9), ("1", 0, 0)], ids=["RGB", "L", "1"]
)
def test_a_png_with_a_transparent_colour_key_is_laid_on_white(mode, colour, key):
    data = as_bytes(Image.new(mode, (3, 3), colour), "PNG", transparency=key)
    assert decode(data).getpixel((1, 1)) == WHITE
    assert Image.open(io.BytesIO(prepare(data).data)).convert("RGB").getpixel((1, 1)) == WHITE


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_gives_the_upright_picture(kind, orientation):
    upright = drawn()
    undo = {  # how a camera held that way would have stored the upright picture
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    held = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "PNG": {}, "WEBP": {"lossless": True}}[kind]
    data = as_bytes(held, kind, exif=exif.tobytes(), **options)
    stored = prepare(data)
    reread = Image.open(io.BytesIO(stored.data))
    for image in (decode(data), reread.convert("RGB")):
        assert image.size == upright.size == (stored.width, stored.height)
        off = np.abs(np.asarray(image).astype(int) - np.asarray(upright).astype(int))
        assert off.mean() < 4, (kind, orientation)  # a turned copy is stored as JPEG of quality 92
    assert reread.getexif().get(ORIENTATION, 1) == 1
    if orientation > 1:
        assert not dict(reread.getexif()), "a turned picture is stored without EXIF"


@pytest.mark.parametrize("orientation", [0, 9, 255])
def test_an_orientation_that_does_not_exist_changes_nothing(orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = as_bytes(drawn(), "JPEG", exif=exif.tobytes())
    assert decode(data).size == (60, 40)
    assert prepare(data).data == data


def test_damaged_exif_costs_neither_the_picture_nor_the_build():
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    exif[0x010F] = "Maker"
    exif[0x011A] = 72.0
    exif[0x8769] = {0x9003: "2020:01:01"}
    kinds = {"JPEG": 0, "PNG": 0, "WEBP": 0}
    rng = random.Random(1)
    for kind in kinds:
        good = as_bytes(drawn(), kind, exif=exif.tobytes())
        start = good.index(b"Maker") - 60
        for _ in range(150):
            data = bytearray(good)
            for _ in range(rng.choice((1, 2, 5))):
                data[start + rng.randrange(90)] = rng.randrange(256)
            try:
                prepare(bytes(data))
            except PictureError:
                continue  # checksums of PNG; broken segment lengths
            kinds[kind] += 1
    assert kinds["JPEG"] > 100
    assert kinds["WEBP"] > 100


def test_random_damage_only_ever_gives_reason_codes():
    rng = random.Random(2)
    bases = [
        as_bytes(drawn(), "JPEG"),
        as_bytes(drawn().convert("CMYK"), "JPEG"),
        as_bytes(drawn(), "PNG"),
        as_bytes(drawn(), "WEBP"),
        half_transparent("WEBP"),
        transparent_palette_gif(),
    ]
    for base in bases:
        for _ in range(120):
            data = bytearray(base)
            for _ in range(rng.choice((1, 3, 9))):
                data[rng.randrange(len(data))] = rng.randrange(256)
            try:
                assert prepare(bytes(data[: rng.choice((len(data), rng.randrange(len(data))))])).width > 0
            except PictureError as error:
                assert_says_nothing_private(str(error))


def test_cmyk_is_within_3_of_255_of_the_colour_it_was_made_from():
    original = drawn()
    data = as_bytes(original.convert("CMYK"), "JPEG", quality=100, subsampling=0)
    off = np.abs(np.asarray(decode(data)).astype(int) - np.asarray(original).astype(int))
    assert np.percentile(off, 95) <= 3
    flat = decode(as_bytes(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG", quality=100))
    assert np.abs(np.array(flat.getpixel((4, 4))) - (0, 255, 255)).max() <= 3


@pytest.mark.parametrize(
    "profile", [b"garbage" * 40, ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()]
)
def test_cmyk_with_a_damaged_or_wrong_profile_falls_back_to_the_plain_conversion(profile):
    cmyk = drawn().convert("CMYK")
    plain = decode(as_bytes(cmyk, "JPEG"))
    assert np.array_equal(np.asarray(decode(as_bytes(cmyk, "JPEG", icc_profile=profile))), np.asarray(plain))


def test_16_bit_grey_is_scaled_and_not_clipped():
    values = np.array([[0, 300, 65535], [257, 32768, 1000]], dtype=np.uint16)
    image = decode(as_bytes(Image.fromarray(values), "PNG"))
    assert np.asarray(image)[:, :, 0].tolist() == [[0, 1, 255], [1, 128, 4]]
    assert image.mode == "RGB"


def test_8_bit_modes_keep_their_values():
    grey = Image.new("L", (2, 2), 77)
    assert decode(as_bytes(grey, "PNG")).getpixel((0, 0)) == (77, 77, 77)
    assert decode(as_bytes(grey, "JPEG", quality=100)).getpixel((0, 0)) == (77, 77, 77)
    assert decode(as_bytes(Image.new("1", (2, 2), 1), "PNG")).getpixel((0, 0)) == WHITE
    palette = Image.new("P", (2, 2), 0)
    palette.putpalette([10, 20, 30])
    assert decode(as_bytes(palette, "PNG")).getpixel((1, 1)) == (10, 20, 30)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_gives_its_first_frame(kind):
    frames = [Image.new("RGB", (20, 12), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = as_bytes(frames[0], kind, save_all=True, append_images=frames[1:], duration=40, **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert decode(data).getpixel((5, 5)) == (255, 0, 0)
    stored = Image.open(io.BytesIO(prepare(data).data))
    assert getattr(stored, "n_frames", 1) == 1 or kind == "PNG"
    assert np.abs(np.array(stored.convert("RGB").getpixel((5, 5))) - (255, 0, 0)).max() < 3


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_a_file_cut_anywhere_is_truncated_and_never_greyed(kind):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    data = as_bytes(Image.fromarray(noise), kind)
    found = {}
    for share in range(5, 100, 5):
        try:
            decode(data[: len(data) * share // 100])
            found[share] = "decoded"
        except PictureError as error:
            found[share] = error.reason
            assert_says_nothing_private(str(error))
    assert set(found.values()) <= {"truncated", "not_an_image"}
    assert all(reason == "truncated" for share, reason in found.items() if share >= 25), found


def test_no_bytes_are_empty():
    assert reason_of(b"") == "empty"


def test_formats_that_are_not_read_are_named():
    heic = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00heicmif1" + b"\0" * 40
    avif = b"\x00\x00\x00\x1cftypavif\x00\x00\x00\x00avifmif1" + b"\0" * 40
    files = {
        "BMP": as_bytes(drawn(), "BMP"),
        "TIFF": as_bytes(drawn(), "TIFF"),
        "PDF": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n",
        "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "HEIC and AVIF": heic,
    }
    for name, data in files.items():
        assert reason_of(data) == "unsupported_format", name
        with pytest.raises(PictureError, match=f"{name} files are not read; convert it to JPEG or PNG"):
            decode(data)
    assert reason_of(avif) == "unsupported_format"


@pytest.mark.parametrize(
    "data",
    [
        b"<!DOCTYPE html><html><body>403 Forbidden</body></html>",
        b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        b'{"error": "not found"}',
        b"\0" * 500,
        b"x",
        as_bytes(Image.new("RGB", (8, 8)), "ICO"),
    ],
    ids=["HTML", "SVG", "JSON", "zeros", "one byte", "ICO"],
)
def test_what_is_no_picture_is_called_so(data):
    assert reason_of(data) == "not_an_image"


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ".txt", ""])
def test_only_bytes_decide_and_the_name_does_not(tmp_path, suffix):
    path = tmp_path / f"picture{suffix}"
    path.write_bytes(as_bytes(drawn(), "WEBP", lossless=True))
    assert np.array_equal(np.asarray(decode(read_bytes(path))), np.asarray(drawn()))


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ((100_000, 100_000), "too_many_pixels"),  # beyond what Pillow itself refuses
        ((11_000, 11_000), "too_many_pixels"),  # where Pillow would warn
        ((7_000, 6_000), "too_many_pixels"),  # where Pillow says nothing
        ((20_000, 900), "too_many_pixels"),  # few pixels, but a long side
        ((10_000, 99), "too_thin"),
        ((60, 6_061), "too_thin"),
    ],
)
def test_a_declared_size_beyond_the_limits_is_refused_from_the_header(size, reason):
    assert reason_of(png_of_declared_size(*size)) == reason
    assert reason_of(png_of_declared_size(*size, colour=6)) == reason


def test_a_header_that_declares_gigabytes_costs_no_memory():
    # In a process of its own with 300 MiB above what it starts with: a decoder that allocated first would die there.
    code = """
import resource, sys, struct, zlib
from appraiser.data.pictures import PictureError, prepare
data = sys.stdin.buffer.read()
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 300 * 2**20,) * 2)
try:
    prepare(data)
except PictureError as error:
    print(error.reason)
"""
    data = png_of_declared_size(13_000, 13_000, colour=6)  # 676 MB of pixels
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, timeout=60, check=False)
    assert done.stdout.decode().strip() == "too_many_pixels", done.stderr.decode()[-500:]


def test_a_picture_at_the_limit_is_read():
    image = Image.new("L", (1000, 10), 200)
    assert decode(as_bytes(image, "PNG")).size == (1000, 10)
    assert pictures.MAX_PIXELS >= 40_000_000
    assert pictures.MAX_ASPECT == 100


def test_more_bytes_than_a_picture_should_have_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_BYTES", 1000)
    data = as_bytes(Image.effect_noise((64, 64), 80), "PNG")
    assert len(data) > 1000
    assert reason_of(data) == "too_large"
    path = tmp_path / "large.png"
    path.write_bytes(data)
    with pytest.raises(PictureError, match="the limit is") as caught:
        read_bytes(path)
    assert caught.value.reason == "too_large"
    path.write_bytes(data[:1000])
    assert len(read_bytes(path)) == 1000


def test_a_large_file_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "sparse.jpg"
    with path.open("wb") as file:
        file.truncate(3 * 2**30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(PictureError, match="3072 MiB, the limit is 32 MiB"):
        read_bytes(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_plain_rgb_bytes_are_stored_unchanged(kind):
    data = as_bytes(drawn(), kind)
    stored = prepare(data)
    assert stored.data == data
    assert stored.sha256 == hashlib.sha256(data).hexdigest()
    assert (stored.width, stored.height) == (60, 40)


def test_everything_else_is_stored_as_jpeg_or_png_of_an_rgb_picture():
    exif = Image.Exif()
    exif[ORIENTATION] = 3
    cases = {
        "PNG": [half_transparent("PNG"), transparent_palette_png(), as_bytes(drawn(), "PNG", exif=exif.tobytes())],
        "JPEG": [half_transparent("WEBP"), transparent_palette_gif(), as_bytes(drawn().convert("CMYK"), "JPEG")],
    }
    for kind, files in cases.items():
        for data in files:
            stored = prepare(data)
            reread = Image.open(io.BytesIO(stored.data))
            assert (reread.format, reread.mode) == (kind, "RGB")
            assert prepare(stored.data).data == stored.data, "storing is done once"


def test_a_difference_hash_survives_encoding_and_resizing_but_not_another_picture():
    image = drawn(300, 200)
    look = difference_hash(image)
    assert look.shape == (256,)
    assert look.dtype == bool
    smaller = difference_hash(decode(as_bytes(image.resize((150, 100)), "JPEG", quality=70)))
    assert (look != smaller).sum() <= 6
    other = drawn(300, 200).transpose(Image.Transpose.ROTATE_180)
    assert (look != difference_hash(other)).sum() > 40
    assert not difference_hash(Image.new("RGB", (50, 50), (9, 9, 9))).any()


def test_thumbnails_are_small_jpegs_and_leave_the_picture_alone():
    image = drawn(600, 400)
    small = Image.open(io.BytesIO(thumbnail(image)))
    assert (small.format, small.size, image.size) == ("JPEG", (160, 107), (600, 400))

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from app.domain.errors import SpikeproofError, UnsupportedMedia
from app.inference.images import decode_image, read_pixels


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def test_every_pixel_is_its_value_over_255_channels_first() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    decoded = decode_image(png(pixels), (3, 5, 7))
    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(decoded, (pixels.astype(np.float32) / 255).transpose(2, 0, 1))


def test_another_size_is_resized_to_the_networks() -> None:
    assert decode_image(png(np.full((40, 20, 3), 51, np.uint8)), (3, 8, 8)) == pytest.approx(0.2)
    assert decode_image(png(np.zeros((1, 1), np.uint8)), (1, 8, 8)).shape == (1, 8, 8)


def test_colour_becomes_grey_and_grey_becomes_colour_as_the_network_needs() -> None:
    assert decode_image(png(np.full((8, 8, 3), 255, np.uint8)), (1, 8, 8)) == pytest.approx(1.0)
    assert decode_image(png(np.full((8, 8), 102, np.uint8)), (3, 8, 8)) == pytest.approx(0.4)


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def sixteen_bits(colour_type: int) -> bytes:
    """An opaque PNG of 16 bits a channel: 2 is colour, 4 grey with alpha, 6 colour with alpha. Pillow writes none."""
    channels = {2: 3, 4: 2, 6: 4}[colour_type]
    rows = (b"\0" + b"\xff" * (2 * channels * 8)) * 8

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", 8, 8, 16, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


GLASS = Image.new("RGBA", (8, 8), (255, 0, 0, 255))
GLASS.putpixel((3, 3), (255, 0, 0, 254))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (saved(Image.fromarray(np.full((8, 8), 40_000, np.uint16))), "more than 8 bits"),
        (sixteen_bits(2), "more than 8 bits a channel"),
        (sixteen_bits(4), "more than 8 bits a channel"),
        (sixteen_bits(6), "more than 8 bits a channel"),
        (saved(GLASS), "transparent"),
        (saved(Image.new("P", (8, 8)), transparency=0), "transparent"),
        (saved(Image.new("L", (8, 8)), transparency=0), "transparent"),
    ],
    ids=["16 bits of grey", "of colour", "of grey and alpha", "of colour and alpha", "one pixel that shines through",
         "a colour of the palette", "a shade of grey"],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_whose_pixels_nobody_sees_so_is_refused(content: bytes, reason: str, channels: int) -> None:
    with pytest.raises(UnsupportedMedia, match=f"the image has .*{reason}"):
        decode_image(content, (channels, 8, 8))


def test_an_opaque_image_may_say_that_it_is() -> None:
    opaque = saved(Image.new("RGBA", (8, 8), (51, 0, 0, 255)))
    assert decode_image(opaque, (3, 8, 8))[0] == pytest.approx(0.2)


def test_a_photograph_is_seen_the_way_up_that_it_was_taken() -> None:
    pixels = np.zeros((8, 8), np.uint8)
    pixels[:, :4] = 255  # stored on its side: what is left is above
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = decode_image(saved(Image.fromarray(pixels), "JPEG", exif=exif, quality=100), (1, 8, 8))[0]
    assert turned[:4].min() > 0.9
    assert turned[4:].max() < 0.1


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_file_with_wrong_bytes_is_decoded_or_refused_and_nothing_else(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["PNG", "JPEG"]))
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(out, kind)
    content = bytearray(out.getvalue())
    byte = st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255))
    for place, value in data.draw(st.lists(byte, max_size=4)):
        content[place] = value
    content = content[: data.draw(st.integers(0, len(content)))]
    try:
        decoded = decode_image(bytes(content), (3, 8, 8))
    except SpikeproofError:
        return
    assert decoded.shape == (3, 8, 8)
    assert 0 <= decoded.min() <= decoded.max() <= 1


def test_pixels_of_one_channel_may_leave_it_out() -> None:
    assert read_pixels([[0.5] * 8] * 8, (1, 8, 8), 0).shape == (1, 8, 8)
    assert read_pixels([[[0, 1] * 4] * 8], (1, 8, 8), 0).max() == 1


@pytest.mark.parametrize(
    "pixels", [[[0.5] * 8] * 7, [[0.5] * 7] * 8, [], [[]], 0.5, "x", None, [[1.1] * 8] * 8, [[-0.1] * 8] * 8,
               [[float("nan")] * 8] * 8, [[None] * 8] * 8, [["0.5"] * 8] * 8, [[0.5] * 8] * 7 + [[0.5] * 9],
               [[[[0.5] * 8] * 8]], {"a": 1}, [[10**400] * 8] * 8],
)  # fmt: skip
def test_pixels_that_do_not_fit_are_refused_with_their_place(pixels: object) -> None:
    with pytest.raises(SpikeproofError, match="/images/3"):
        read_pixels(pixels, (1, 8, 8), 3)

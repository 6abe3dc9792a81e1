from __future__ import annotations

import numpy as np
import pytest
from image_files import encode, random_image
from PIL import Image

from lddgan.data.images import BrokenImage, decode_image, read_header, square, to_channels


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_lossless_images_keep_their_mode_and_pixels(mode):
    image = random_image(mode)
    data = encode(image)
    decoded = decode_image(data)
    assert decoded.mode == mode
    np.testing.assert_array_equal(np.asarray(decoded), np.asarray(image))
    assert read_header(data) == (12, 10, len(mode) if mode != "L" else 1)


def test_one_bit_becomes_black_and_white():
    bits = np.array([[True, False], [False, True]])
    assert np.asarray(decode_image(encode(Image.fromarray(bits)))).tolist() == [[255, 0], [0, 255]]


def test_sixteen_bit_grey_is_scaled_not_clipped():
    values = np.array([[0, 257, 256 * 128, 65535]], dtype=np.uint16)
    decoded = decode_image(encode(Image.fromarray(values)))
    assert decoded.mode == "L"
    assert np.asarray(decoded).tolist() == [[0, 1, round(256 * 128 / 257), 255]]


def test_float_grey_in_zero_to_one_and_in_bytes():
    unit = encode(Image.fromarray(np.array([[0.0, 0.5, 1.0]], np.float32)), "TIFF")
    plain = encode(Image.fromarray(np.array([[-3.0, 100.4, 300.0]], np.float32)), "TIFF")
    assert np.asarray(decode_image(unit)).tolist() == [[0, 128, 255]]
    assert np.asarray(decode_image(plain)).tolist() == [[0, 100, 255]]


def test_grey_with_alpha_becomes_rgba():
    grey, alpha = (Image.fromarray(np.array([row], np.uint8)) for row in ([10, 30], [20, 255]))
    image = Image.merge("LA", (grey, alpha))
    data = encode(image)
    assert np.asarray(decode_image(data)).tolist() == [[[10, 10, 10, 20], [30, 30, 30, 255]]]
    assert read_header(data) == (2, 1, 4)


def test_palette_is_rgb_and_with_transparency_rgba():
    image = Image.new("P", (2, 1))
    image.putpixel((1, 0), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    plain, clear = encode(image), encode(image, transparency=1)
    assert np.asarray(decode_image(plain)).tolist() == [[[255, 0, 0], [0, 0, 255]]]
    assert np.asarray(decode_image(clear)).tolist() == [[[255, 0, 0, 255], [0, 0, 255, 0]]]
    assert (read_header(plain)[2], read_header(clear)[2]) == (3, 4)


def test_cmyk_becomes_rgb():
    image = Image.new("CMYK", (4, 4), (0, 0, 0, 255))
    decoded = decode_image(encode(image, "TIFF"))
    assert decoded.mode == "RGB"
    assert decoded.getpixel((0, 0)) == (0, 0, 0)


def test_exif_orientation_is_applied():
    image = random_image("L", (9, 6))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    data = encode(image, exif=exif)
    np.testing.assert_array_equal(np.asarray(decode_image(data)), np.rot90(np.asarray(image), -1))
    assert read_header(data) == (6, 9, 1)


@pytest.mark.parametrize("data", [b"", b"this is text", encode(random_image("RGB"))[:60]])
def test_no_image(data):
    with pytest.raises(BrokenImage):
        decode_image(data)


def test_truncated_jpeg_is_told():
    data = encode(random_image("RGB", (64, 64)), "JPEG")
    with pytest.raises(BrokenImage, match="truncated"):
        decode_image(data[: len(data) // 2])


@pytest.mark.parametrize("limit", [60, 100])  # PIL raises above twice its limit and only warns below that
def test_decompression_bomb_is_told(monkeypatch, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    for read in (decode_image, read_header):
        with pytest.raises(BrokenImage, match="decompression bomb"):
            read(encode(Image.new("L", (13, 10))))


def test_channels_are_converted_over_white():
    clear = Image.new("RGBA", (1, 1), (0, 0, 0, 0))
    half = Image.new("RGBA", (1, 1), (255, 0, 0, 51))
    assert to_channels(clear, 3).getpixel((0, 0)) == (255, 255, 255)
    assert to_channels(clear, 1).getpixel((0, 0)) == 255
    assert to_channels(half, 3).getpixel((0, 0)) == (255, 204, 204)
    assert to_channels(Image.new("L", (1, 1), 7), 3).getpixel((0, 0)) == (7, 7, 7)
    assert to_channels(Image.new("L", (1, 1), 7), 4).getpixel((0, 0)) == (7, 7, 7, 255)
    assert to_channels(Image.new("RGB", (1, 1), (9, 9, 9)), 1).getpixel((0, 0)) == 9
    assert to_channels(half, 4) is half


def test_square_crops_the_centre():
    pixels = np.arange(5 * 9, dtype=np.uint8).reshape(5, 9)
    np.testing.assert_array_equal(np.asarray(square(Image.fromarray(pixels), 5)), pixels[:, 2:7])
    np.testing.assert_array_equal(np.asarray(square(Image.fromarray(pixels.T), 5)), pixels.T[2:7])


def test_reducing_is_antialiased_and_keeps_the_mean():
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255  # point sampling would give all black or all white
    reduced = np.asarray(square(Image.fromarray(stripes), 8)).astype(int)
    assert np.abs(reduced - 127.5).max() < 8 and reduced.mean() == pytest.approx(127.5, abs=1)


def test_enlarging_keeps_a_constant_and_hidden_colour_does_not_bleed():
    assert set(np.asarray(square(Image.new("L", (8, 8), 77), 32)).ravel()) == {77}
    image = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 7, 16))
    reduced = np.asarray(square(image, 4)).astype(int)
    visible = reduced[reduced[..., 3] > 20]
    assert len(visible) and visible[:, 0].max() < 10

"""The one way a picture is opened: every format and mode comes out as RGB, and nothing damaged gets through."""

import os
import struct
import sys
import threading
import warnings
import zlib
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageOps

from relish.core.errors import ImageError
from relish.data import image as pictures
from relish.data.image import MAX_PIXELS, open_image, size_from_header

LOSSLESS = [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("WEBP", {"lossless": True})]
ANY = [
    *LOSSLESS,
    ("GIF", {}),
    ("JPEG", {}),
    ("JPEG", {"progressive": True}),
    ("WEBP", {}),
    ("TIFF", {"compression": "jpeg"}),
]
colours = arrays.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3)))
greys = arrays.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def noise(height=19, width=31, channels=3, seed=0):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(picture, kind="PNG", **options):
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(picture)
    file = BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def pixels(source, **options):
    return np.asarray(open_image(source, **options))


def reason(source):
    with pytest.raises(ImageError) as caught:
        open_image(source)
    return caught.value.reason


# ---- what comes out -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "options"), LOSSLESS)
@given(array=colours)
@settings(max_examples=20, deadline=None)
def test_a_lossless_file_gives_back_its_pixels(kind, options, array):
    np.testing.assert_array_equal(pixels(encoded(array, kind, **options)), array)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF"])
def test_a_lossy_file_comes_close_to_its_pixels(kind):
    smooth = np.linspace(0, 255, 64 * 64).reshape(64, 64).astype(np.uint8)
    assert np.abs(pixels(encoded(smooth, kind)).astype(int) - smooth[:, :, None]).mean() < 3


@given(array=greys)
@settings(max_examples=30, deadline=None)
def test_grey_comes_out_as_three_equal_channels(array):
    np.testing.assert_array_equal(pixels(encoded(array)), np.stack([array] * 3, axis=2))


def test_a_path_its_name_bytes_a_file_an_array_and_a_pillow_picture_are_one_picture(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(noise()))
    with path.open("rb") as file, Image.open(path) as lazy:
        for source in [path, str(path), path.read_bytes(), file, BytesIO(path.read_bytes()), lazy, noise()]:
            np.testing.assert_array_equal(pixels(source), noise())
        assert not file.closed


def test_the_first_bytes_decide_and_not_the_suffix(tmp_path):
    path = tmp_path / "really-a-png.jpg"
    path.write_bytes(encoded(noise()))
    np.testing.assert_array_equal(pixels(path), noise())


def test_what_comes_out_is_a_copy(tmp_path):
    given_picture = Image.fromarray(noise())
    open_image(given_picture).putpixel((0, 0), (1, 2, 3))
    np.testing.assert_array_equal(np.asarray(given_picture), noise())


@given(array=greys, data=st.data())
@settings(max_examples=30, deadline=None)
def test_transparency_is_laid_over_white(array, data):
    alpha = data.draw(arrays.arrays(np.uint8, array.shape))
    rgba = np.dstack([array, array, array, alpha])
    expected = array * (alpha / 255.0) + 255 * (1 - alpha / 255.0)
    for source in (encoded(rgba), encoded(Image.fromarray(rgba).convert("LA")), rgba):
        np.testing.assert_allclose(pixels(source)[:, :, 0], expected, atol=1.01)


def test_an_opaque_alpha_changes_nothing():
    np.testing.assert_array_equal(pixels(np.dstack([noise(), np.full((19, 31), 255, np.uint8)])), noise())


@pytest.mark.parametrize(("kind", "transparency"), [("PNG", 0), ("PNG", bytes([0, 255, 255])), ("GIF", 0)])
def test_the_transparent_colour_of_a_palette_is_white(kind, transparency):
    picture = Image.new("P", (3, 1))
    picture.putpalette([10, 20, 30, 200, 0, 0, 0, 0, 200])
    picture.putdata([0, 1, 2])
    got = pixels(encoded(picture, kind, transparency=transparency))
    np.testing.assert_array_equal(got[0], [[255, 255, 255], [200, 0, 0], [0, 0, 200]])


def test_the_transparent_colour_of_an_rgb_picture_is_white():
    array = noise()
    array[0, 0] = (1, 2, 3)
    got = pixels(encoded(array, transparency=(1, 2, 3)))
    assert got[0, 0].tolist() == [255, 255, 255]
    np.testing.assert_array_equal(got[1:], array[1:])


@given(array=arrays.arrays(np.uint16, st.tuples(st.integers(1, 9), st.integers(1, 9))))
@settings(max_examples=30, deadline=None)
def test_sixteen_bits_are_scaled_to_eight_and_not_cut_off(array):
    expected = np.rint(array / 257.0).astype(np.uint8)
    for kind in ("PNG", "TIFF"):
        np.testing.assert_array_equal(pixels(encoded(array, kind))[:, :, 1], expected)


def test_thirty_two_bit_grey_that_holds_sixteen_is_scaled_the_same():
    values = np.array([[0, 257, 65535]], dtype=np.int32)
    assert pixels(encoded(values, "TIFF"))[0, :, 0].tolist() == [0, 1, 255]


@pytest.mark.parametrize("white", [1.0, 255.0, 65535.0])
def test_floating_point_grey_runs_from_black_to_white(white):
    values = np.array([[0.0, 0.5, 1.0]], dtype=np.float32) * white
    assert pixels(encoded(values, "TIFF"))[0, :, 2].tolist() == [0, 128, 255]


@pytest.mark.parametrize("values", [[[-1.0, 1.0]], [[0.0, 1e9]], [[float("nan"), 1.0]]])
def test_grey_values_without_a_known_white_are_refused(values):
    assert "do not say which is white" in reason(Image.fromarray(np.array(values, dtype=np.float32)))


def test_one_bit_is_black_and_white():
    picture = Image.fromarray(noise(channels=1)).convert("1")
    assert set(np.unique(pixels(encoded(picture)))) == {0, 255}


def test_cmyk_comes_out_in_its_colours():
    red = Image.new("RGB", (16, 16), (250, 10, 10)).convert("CMYK")
    for kind in ("JPEG", "TIFF"):
        r, g, b = pixels(encoded(red, kind)).reshape(-1, 3).mean(axis=0)
        assert r > 220
        assert max(g, b) < 40


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"]
)
def test_every_mode_of_pillow_opens(mode):
    assert open_image(Image.new(mode, (4, 3))).mode == "RGB"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied_once(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    # Corners of 16 pixels survive JPEG, and tell the eight orientations apart.
    plain = np.kron(np.array([[0, 80, 160], [240, 40, 120]], dtype=np.uint8), np.ones((16, 16), np.uint8))
    content = encoded(plain, kind, exif=exif)
    tagged = Image.fromarray(plain)
    tagged.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(tagged))
    got = pixels(content)[:, :, 0]
    assert got.shape == expected.shape
    assert np.abs(got.astype(int) - expected).mean() < 6
    with Image.open(BytesIO(content)) as given_by_user:
        np.testing.assert_array_equal(pixels(given_by_user)[:, :, 0], got)


def test_damaged_metadata_does_not_spoil_a_good_picture():
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03\0\xff\xff\xff\x7f" * 3
    np.testing.assert_array_equal(pixels(encoded(noise(), exif=exif)), noise())


def test_pillow_keeps_quiet_about_metadata_even_where_warnings_are_errors():
    content = encoded(noise(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x1a\x01\x05\0\x01\0\0\0\xff\0\0\0\0\0\0\0")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        open_image(content)
    assert not caught


def test_a_damaged_picture_that_the_user_opened_is_refused_like_a_damaged_file(monkeypatch):
    """Pillow's decoders raise whatever a damaged byte leads to."""
    with Image.open(BytesIO(encoded(noise()))) as lazy:
        monkeypatch.setattr(lazy, "load", lambda: {}["a tag that is missing"])
        with pytest.raises(ImageError, match="damaged or cut short"):
            open_image(lazy)


def test_of_an_animation_the_first_frame_is_taken():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    for kind in ("GIF", "WEBP", "TIFF", "PNG"):
        content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
        assert pixels(content)[0, 0].tolist() == [255, 0, 0]


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "options"), ANY)
def test_a_file_cut_short_is_refused_or_is_whole(kind, options):
    """A cut may fall behind the last pixel; it never gives other pixels."""
    content = encoded(noise(), kind, **options)
    whole = pixels(content)
    for length in range(0, len(content), max(1, len(content) // 60)):
        with suppress(ImageError):
            np.testing.assert_array_equal(pixels(content[:length]), whole)
            assert length > 0.9 * len(content)


@given(st.integers(64, 700), st.integers(64, 700), st.integers(16, 400))
@settings(max_examples=40, deadline=None)
def test_a_large_jpeg_may_be_decoded_smaller_but_no_smaller_than_is_needed(width, height, least):
    file = BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(file, "JPEG", quality=95)
    whole, scaled = open_image(file.getvalue()), open_image(file.getvalue(), min_side=least)
    assert whole.size == (width, height)
    assert min(scaled.size) >= min(least, *whole.size)
    assert (scaled.size == whole.size) == (min(whole.size) < 2 * least)
    theirs = np.asarray(whole.resize(scaled.size, Image.Resampling.BOX), dtype=int)
    assert np.abs(np.asarray(scaled, dtype=int) - theirs).mean() < 6


def test_a_jpeg_that_is_decoded_smaller_is_still_turned_upright_and_still_has_a_limit(monkeypatch):
    file, exif = BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (800, 400), "red").save(file, "JPEG", exif=exif)
    assert open_image(file.getvalue(), min_side=100).size == (100, 200)
    monkeypatch.setattr(pictures, "MAX_PIXELS", 800 * 400 - 1)
    with pytest.raises(ImageError, match="800 x 400 pixels"):
        open_image(file.getvalue(), min_side=100)


def test_a_jpeg_cut_in_half_is_said_to_be_cut_short():
    content = encoded(noise(64, 64), "JPEG")
    assert reason(content[: len(content) // 2]) == "cut short: the end of the file is missing"


@given(
    place=st.integers(0, 10**6),
    byte=st.integers(0, 255),
    kind=st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"]),
)
@settings(max_examples=150, deadline=None)
def test_a_changed_byte_gives_a_picture_or_a_picture_error(place, byte, kind):
    content = bytearray(encoded(noise(), kind))
    content[place % len(content)] = byte
    with suppress(ImageError):
        assert open_image(bytes(content)).mode == "RGB"


def huge_png(width, height):
    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def test_a_decompression_bomb_is_refused_by_its_header():
    assert reason(huge_png(30_000, 30_000)) == f"30,000 x 30,000 pixels; the limit is {MAX_PIXELS // 10**6} million"


def test_pillows_own_limit_neither_warns_nor_stops_us(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    np.testing.assert_array_equal(pixels(encoded(noise())), noise())


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "not a picture: empty file"),
        (b"hello, I am a picture\n" * 90, "not a picture: text file"),
        ("größer, ".encode() * 200, "not a picture: text file"),
        ("hello".encode("utf-16"), "not a picture: text file"),
        (b"BMW and other cars", "not a picture: text file"),
        (b"  <!DOCTYPE html><html><body>404</body>", "not a picture: HTML page"),
        (
            b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>',
            "not a picture: SVG drawing; convert it to PNG",
        ),
        (b"%PDF-1.7 \x00\x01", "not a picture: PDF document"),
        (b"PK\x03\x04" + bytes(40), "not a picture: ZIP archive"),
        (b"\0\0\0\x18ftypisom" + bytes(16), "not a picture: video"),
        (bytes(5000), "not a picture: nothing but zero bytes"),
        (b"\x01\x02\x03\xfe\xfd", "not a picture: binary file of an unknown kind"),
    ],
)
def test_what_is_not_a_picture_is_called_by_its_kind(content, expected, tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    assert reason(path) == reason(content) == expected


def test_a_format_that_pillow_knows_and_relish_does_not_name_is_refused():
    for kind in ("TGA", "ICO", "PCX"):
        assert reason(encoded(noise(), kind)).startswith("not a picture")


def test_an_error_names_the_picture_and_why(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_text("hello")
    with pytest.raises(ImageError, match=r"a\.jpg: not a picture: text file"):
        open_image(path)
    with pytest.raises(ImageError, match=r"^upload 3: not a picture: text file"):
        open_image(b"hello", name="upload 3")


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path):
    assert reason(tmp_path / "no.jpg") == "there is no such file"
    assert reason(tmp_path) == "not a picture: it is a folder"


def test_a_file_one_may_not_read_says_so(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(noise()))

    def refuse(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # the tests may run as root, who may read everything
    assert reason(path) == "cannot be read (permission denied)"


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.zeros((4, 4, 3), np.float32), "float32; multiply values of 0 to 1 by 255"),
        (np.zeros((4, 4), np.int64), "int64; bring values to 0 to 255"),
        (np.zeros((3, 4, 5), np.uint8), "channels come last"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"\(2, 4, 4, 3\)"),
        (np.zeros((4, 0, 3), np.uint8), "no pixels"),
    ],
)
def test_an_array_of_another_kind_is_refused_with_the_way_out(array, expected):
    with pytest.raises(ImageError, match=expected):
        open_image(array)


@pytest.mark.parametrize("source", [None, 3, ["a.png"], {}])
def test_anything_else_is_refused_by_its_type(source):
    assert type(source).__name__ in reason(source)


def test_a_file_opened_as_text_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("hello")
    with (tmp_path / "a.txt").open() as file:
        assert "binary mode" in reason(file)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts open files through /proc")
def test_no_file_stays_open(tmp_path):
    for number, kind in enumerate(["PNG", "GIF", "TIFF", "JPEG", "WEBP", "BMP"]):
        (tmp_path / f"{number}.a").write_bytes(encoded(noise(), kind))
        (tmp_path / f"{number}.b").write_bytes(encoded(noise(), kind)[:200])
    for path in tmp_path.iterdir():
        with suppress(ImageError):
            open_image(path)
    assert [path for path in map(os.path.realpath, Path("/proc/self/fd").iterdir()) if str(tmp_path) in path] == []


def test_many_threads_open_pictures_at_once():
    contents = [encoded(noise(seed=seed)) for seed in range(8)]
    wrong = []

    def work(seed):
        wrong.extend(seed for _ in range(20) if not np.array_equal(pixels(contents[seed]), noise(seed=seed)))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_an_images_size_is_known_before_it_is_decoded(kind):
    file = BytesIO()
    Image.new("RGB", (37, 21), (200, 30, 30)).save(file, kind)
    assert size_from_header(file.getvalue()) == (37, 21) == open_image(file.getvalue()).size


@given(content=st.binary(max_size=300), start=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a"]))
def test_where_a_header_tells_no_size_the_image_cannot_be_opened_either(content, start):
    if size_from_header(start + content) is None:
        with pytest.raises(ImageError):
            open_image(start + content)

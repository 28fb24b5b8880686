"""What a file is, its first bytes say; what Pillow refuses for its metadata is read, and what is damaged is not."""

import re
import struct
import sys
import zlib
from contextlib import suppress
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin

from relish.core.errors import ImageError
from relish.data import image_files
from relish.data.image import has_more_frames, mode_and_depth, open_image, size_from_header
from relish.data.image_files import kind_of, kind_of_file
from tests.data.test_image import encoded, noise, pixels, reason

MEBIBYTE = 2**20


def smooth(height=48, width=64):
    """An image of large areas, as photographs have them."""
    return np.asarray(Image.fromarray(noise(6, 8)).resize((width, height)))


def chunk(name, content, *, right=True):
    checksum = zlib.crc32(name + content) ^ (not right)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def with_chunks(*chunks, before=b"IDAT", content=None):
    """A PNG with further chunks before the first one of that name."""
    content = encoded(noise()) if content is None else content
    place = content.index(before) - 4
    return content[:place] + b"".join(chunks) + content[place:]


def with_segments(*segments):
    """A JPEG with further segments, each a marker and its content, right after its start."""
    content = encoded(smooth(), "JPEG")
    added = b"".join(b"\xff" + bytes([m]) + struct.pack(">H", len(c) + 2) + c for m, c in segments)
    return content[:2] + added + content[2:]


# ---- formats --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PPM", "JPEG2000"])
def test_further_formats_give_back_their_pixels(kind, tmp_path):
    (tmp_path / "a").write_bytes(encoded(noise(), kind))
    np.testing.assert_array_equal(pixels(tmp_path / "a"), noise())
    assert size_from_header(tmp_path / "a") == (31, 19)


def test_avif_comes_close_to_its_pixels_and_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(smooth(), "AVIF", quality=95, exif=exif)
    expected = np.rot90(smooth(), -1).astype(int)
    assert np.abs(pixels(content) - expected).mean() < 4


@pytest.mark.parametrize(
    "text",
    [
        "P1\n# two by two\n2 2\n1 0\n0 1\n",
        "P2 2 2 255 0 255 255 0",
        "P3\n2 2\n15\n0 0 0 15 15 15\n15 15 15 0 0 0\n",
        "P4 2 2\n\x80\x40",
        "P5\n# made by hand\n# twice\n2 2\n255\n\x00\xff\xff\x00",
    ],
)
def test_every_netpbm_form_is_read_from_its_first_bytes(text):
    assert pixels(text.encode("latin-1"))[:, :, 1].tolist() == [[0, 255], [255, 0]]


@pytest.mark.parametrize("text", ["P1 was the first car", "P6 2 more to go", "P5", "P3 12"])
def test_a_text_that_begins_like_a_netpbm_file_is_a_text(text):
    assert reason(text.encode()) == "not a picture: text file"


@pytest.mark.parametrize("kind", ["PPM", "JPEG2000", "AVIF"])
def test_what_is_cut_short_is_refused(kind):
    content = encoded(noise(), kind)
    for length in range(0, len(content) - 1, max(1, len(content) // 40)):
        with pytest.raises(ImageError):
            open_image(content[:length])


@pytest.mark.parametrize("kind", ["PPM", "JPEG2000", "AVIF"])
def test_a_bomb_is_refused_by_its_header_in_every_format(kind, monkeypatch):
    monkeypatch.setattr("relish.data.image.MAX_PIXELS", 100)
    assert reason(encoded(noise(), kind)) == "31 x 19 pixels; the limit is 0 million"


def test_a_jpeg_2000_that_lies_about_its_size_is_no_bomb():
    content = bytearray(encoded(noise(), "JPEG2000"))
    place = content.index(b"\xff\x4f\xff\x51") + 8
    content[place : place + 8] = struct.pack(">II", 60_000, 60_000)
    with pytest.raises(ImageError):
        open_image(bytes(content))


def test_heic_is_read_where_its_extra_is_installed():
    heif = pytest.importorskip("pillow_heif", reason="the extra heif is not installed")
    file, registered = BytesIO(), set(Image.OPEN)
    heif.from_pillow(Image.fromarray(smooth())).save(file, quality=95)
    assert np.abs(pixels(file.getvalue()).astype(int) - smooth()).mean() < 9
    assert size_from_header(file.getvalue()) == (64, 48)
    assert mode_and_depth(file.getvalue())[0] == "RGB"
    assert "HEIF" not in set(Image.OPEN) - registered, "the user's Pillow has learned no format"
    for length in range(24, len(file.getvalue()), 40):
        with suppress(ImageError):
            open_image(file.getvalue()[:length])


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"hevc", b"mif1"])
def test_heic_without_its_extra_says_what_to_install(brand, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    image_files._heif.cache_clear()
    words = reason(b"\0\0\0\x18ftyp" + brand + bytes(16))
    image_files._heif.cache_clear()
    assert words.startswith(
        'a picture that is not read: HEIC file; reading it takes  pip install "relish-vision[heif]"'
    )


def test_a_container_of_several_brands_goes_by_all_of_them():
    avif = encoded(smooth(), "AVIF")
    size = int.from_bytes(avif[:4], "big")
    assert b"avif" in avif[16:size]
    np.testing.assert_array_equal(pixels(avif[:8] + b"mif1" + avif[12:]), pixels(avif))


# ---- metadata that Pillow refuses -----------------------------------------------------------------------------------

LONG = zlib.compress(b"a" * (2 * MEBIBYTE))
UNUSUAL = [
    chunk(b"zTXt", b"workflow\0\0" + LONG),
    chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + LONG),
    chunk(b"iCCP", b"icc\0\0" + LONG),
    chunk(b"iCCP", b"icc\0\7nothing"),
    chunk(b"iCCP", b""),
    chunk(b"tEXt", b"Title\0picture", right=False),
    chunk(b"pHYs", b"\0\1", right=False),
    chunk(b"pHYs", b"\0\1"),
    chunk(b"gAMA", b"\1"),
    chunk(b"sRGB", b""),
    chunk(b"eXIf", b"II*\0", right=False),
    chunk(b"acTL", b"\0"),
]


@pytest.mark.parametrize("unusual", UNUSUAL, ids=lambda c: f"{c[4:8].decode()}-{len(c)}")
def test_metadata_of_a_png_never_costs_its_pixels(unusual):
    for content in (with_chunks(unusual), with_chunks(unusual, before=b"IEND")):
        np.testing.assert_array_equal(pixels(content), noise())
        assert size_from_header(content) == (31, 19)
        assert mode_and_depth(content)[0] == "RGB"


def test_many_long_texts_of_a_png_are_passed_over():
    text = chunk(b"zTXt", b"t\0\0" + zlib.compress(b"a" * (MEBIBYTE - 1)))
    np.testing.assert_array_equal(pixels(with_chunks(*[text] * 66)), noise())


def test_what_decides_pixels_outlives_metadata_that_is_passed_over():
    """Transparency and orientation are metadata to PNG, and not to who looks at the image."""
    grey = Image.new("L", (3, 2), 7)
    grey.putpixel((0, 0), 200)
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = encoded(grey, transparency=7, exif=exif)
    np.testing.assert_array_equal(pixels(with_chunks(UNUSUAL[0], content=plain)), pixels(plain))
    assert pixels(plain).shape == (3, 2, 3)


def test_limits_of_pillow_are_not_changed_for_the_process():
    before = (PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY, ImageFile.LOAD_TRUNCATED_IMAGES)
    open_image(with_chunks(UNUSUAL[0]))
    assert before == (PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY, ImageFile.LOAD_TRUNCATED_IMAGES)


def test_a_bomb_behind_metadata_that_pillow_refuses_is_still_a_bomb(monkeypatch):
    monkeypatch.setattr("relish.data.image.MAX_PIXELS", 100)
    assert "31 x 19 pixels" in reason(with_chunks(UNUSUAL[0]))


@pytest.mark.parametrize("name", [b"IDAT", b"IHDR", b"tRNS"])
def test_a_wrong_checksum_of_what_decides_pixels_is_damage(name):
    content = bytearray(encoded(Image.new("L", (9, 9), 7), transparency=7))
    start = content.index(name)
    length = int.from_bytes(content[start - 4 : start], "big")
    content[start + 4 + length] ^= 1
    assert reason(bytes(content)).startswith("damaged")


@pytest.mark.parametrize(
    "segment",
    [
        (0xE0, b"JFIF\0"),
        (0xED, b"Photoshop 3.0\0" + b"8BIM\4\4"),
        (0xED, b"Photoshop 3.0\0" + b"8BIM\3\xed\0\0\0\0\0\4ab"),
        (0xEE, b"Adobe"),
        (0xE2, b"ICC_PROFILE\0"),
        (0xE1, b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03\0\xff\xff\xff\x7f" * 3),
        (0xE1, b"Exif\0\0MM\0*\0\0\0\x08\0\1\x01\x1a\0\5\0\0\0\0\0\0\0\0\0\0\0\0"),
        (0xE1, b"Exif\0\0nothing"),
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation='"),
        (0xFE, b"a comment \xff\xda \xff\xd9"),
    ],
    ids=lambda s: f"{s[0]:x}-{len(s[1])}",
)
def test_metadata_of_a_jpeg_never_costs_its_pixels(segment):
    content = with_segments(segment)
    np.testing.assert_array_equal(pixels(content), pixels(encoded(smooth(), "JPEG")))
    assert size_from_header(content) == (64, 48)
    assert mode_and_depth(content)[0] == "RGB"


def test_a_malformed_segment_leaves_a_jpeg_upright_and_in_its_colours():
    exif = Image.Exif()
    exif[0x0112] = 6
    red = Image.new("RGB", (32, 16), (250, 10, 10)).convert("CMYK")
    content = encoded(red, "JPEG", exif=exif)
    added = b"\xff\xe2" + struct.pack(">H", 14) + b"ICC_PROFILE\0"
    got = pixels(content[:2] + added + content[2:])
    np.testing.assert_array_equal(got, pixels(content))
    assert got.shape == (32, 16, 3)
    assert got[0, 0, 0] > 220


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "TIFF", "PNG", "AVIF"])
def test_a_huge_colour_profile_costs_nothing_but_its_bytes(kind):
    profile = np.random.default_rng(0).integers(0, 256, 3 * MEBIBYTE, dtype=np.uint8).tobytes()
    np.testing.assert_array_equal(pixels(encoded(smooth(), kind, icc_profile=profile)), pixels(encoded(smooth(), kind)))


@pytest.mark.parametrize("options", [{}, {"quality": 95, "subsampling": 0}, {"quality": 30, "optimize": True}])
def test_a_jpeg_without_its_end_marker_is_whole_and_one_without_pixels_is_not(options):
    content = encoded(smooth(), "JPEG", **options)
    for missing in (1, 2):
        np.testing.assert_array_equal(pixels(content[:-missing]), pixels(content))
    for missing in (*range(3, 24), 100, len(content) // 2):
        assert reason(content[:-missing]) == "cut short: the end of the file is missing"


def one_scan_a_component():
    """A JPEG of three scans, one after the other, made of three grey ones; the places where a scan begins."""
    grey = [encoded(smooth(48, 64)[:, :, c], "JPEG") for c in range(3)]
    frame, scan = grey[0].index(b"\xff\xc0"), grey[0].index(b"\xff\xda")
    components = b"".join(bytes([c, 0x11, 0]) for c in (1, 2, 3))
    header = grey[0][:frame] + b"\xff\xc0\0\x11" + grey[0][frame + 4 : frame + 9] + b"\3" + components
    parts = [header + grey[0][frame + 13 : scan]]
    parts += [b"\xff\xda\0\x08\1" + bytes([c, 0, 0, 63, 0]) + g[scan + 10 : -2] for c, g in enumerate(grey, 1)]
    return b"".join(parts) + b"\xff\xd9", [sum(map(len, parts[:n])) for n in (2, 3)]


RESTARTS = {"restart_marker_blocks": 3}


@pytest.mark.parametrize("options", [{"progressive": True}, RESTARTS, {"progressive": True, **RESTARTS}])
def test_no_scan_and_no_interval_that_lacks_is_taken_for_a_missing_end_marker(options):
    content = encoded(smooth(), "JPEG", **options)
    for missing in (1, 2):
        np.testing.assert_array_equal(pixels(content[:-missing]), pixels(content))
    marks = re.compile(rb"\xff[\xc4\xd0-\xd7\xda]").finditer(content, content.index(b"\xff\xda") + 1)
    for place in [place for mark in marks for place in mark.span()]:
        assert reason(content[:place]) == "cut short: the end of the file is missing"
    for missing in range(3, 200):
        with suppress(ImageError):
            np.testing.assert_array_equal(pixels(content[:-missing]), pixels(content))


def test_a_missing_byte_is_noticed_where_most_bits_in_its_place_would_change_nothing():
    """Of such images, of which half is of one grey, two in twenty came out wrong."""
    for seed in range(20):
        picture = np.full((41, 9), 200, dtype=np.uint8)
        picture[:20] = noise(20, 9, 1, seed)
        content = encoded(picture, "JPEG", quality=5)
        with suppress(ImageError):
            np.testing.assert_array_equal(pixels(content[:-3]), pixels(content))


def test_a_jpeg_lacks_no_component_s_scan():
    content, places = one_scan_a_component()
    for missing in (1, 2):
        np.testing.assert_array_equal(pixels(content[:-missing]), pixels(content))
    for place in (*places, *(place + 10 for place in places)):
        assert reason(content[:place]) == "cut short: the end of the file is missing"


def test_a_second_picture_or_anything_else_behind_a_jpeg_is_passed_over():
    content = encoded(smooth(), "JPEG")
    mpo = encoded(smooth(), "MPO", save_all=True, append_images=[Image.new("RGB", (64, 48))])
    for more in (content + bytes(999), content + b"trailing text", mpo):
        np.testing.assert_array_equal(pixels(more), pixels(content))
        assert not has_more_frames(more), "a telephone's depth map or preview is no page"


# ---- camera files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tags", [{254: 1, 330: 8}, {50706: b"\1\4\0\0"}])
def test_the_preview_in_a_cameras_raw_file_is_not_taken_for_the_picture(tags):
    words = "a picture that is not read: camera raw file; develop it to JPEG or TIFF"
    assert reason(encoded(noise(), "TIFF", tiffinfo=tags)) == words
    assert reason(encoded(noise(), "TIFF")[:8] + b"CR\2\0" + bytes(40)) == words
    assert reason(b"\0\0\0\x18ftypcrx " + bytes(16)) == words
    np.testing.assert_array_equal(pixels(encoded(noise(), "TIFF", tiffinfo={254: 0})), noise())


# ---- kinds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"8BPS\0\1", "Photoshop file; save it as PNG or JPEG"),
        (b"\xff\x0a\xfa\x1f", "JPEG XL file; convert it to PNG or JPEG"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL file; convert it to PNG or JPEG"),
        (b"FUJIFILMCCD-RAW 0201", "camera raw file; develop it to JPEG or TIFF"),
        (bytes(128) + b"DICM\2\0", "DICOM file; convert it to PNG"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\4CgBI", "PNG as it is packed into an iPhone's app; take the one it was made from"),
        (b"RIFF\0\0\0\0AVI LIST", "video"),
        (b"<!-- saved -->\n<HTML><body>", "HTML page"),
        (b'<?xml version="1.0"?>\n<!DOCTYPE html><html>', "HTML page"),
        (b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code>', "XML file"),
        (b'{"error": "not found"}', "JSON file"),
        (b"data:image/png;base64,iVBORw0KGgo", "picture in base64; decode it into a file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
         "Git LFS pointer; `git lfs pull` brings the file itself"),
    ],
)  # fmt: skip
def test_a_file_is_called_by_its_kind(head, kind):
    assert kind_of(head) == kind
    assert reason(head).endswith(f": {kind}")


def test_a_files_kind_is_empty_for_images_those_included_that_are_not_read(tmp_path):
    for content in (encoded(noise()), b"8BPS", b"\0\0\0\x18ftypheic" + bytes(16), b"P5 1 1 255 \0"):
        (tmp_path / "a").write_bytes(content)
        assert kind_of_file(tmp_path / "a") == ""
    (tmp_path / "a").write_text("<html>")
    assert kind_of_file(tmp_path / "a") == "HTML page"
    assert kind_of_file(tmp_path / "b").startswith("cannot be read")


# ---- more than one page ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "WEBP", "PNG", "AVIF"])
def test_a_file_with_more_than_the_first_page_is_told_from_one_without(kind):
    pages = [Image.new("RGB", (9, 9), colour) for colour in ("red", "blue", "lime")]
    assert has_more_frames(encoded(pages[0], kind, save_all=True, append_images=pages[1:]))
    assert not has_more_frames(encoded(pages[0], kind))

"""Images deeper than 8 bits: one scale for a dataset, and the same pixels whatever depth they were saved at."""

import tarfile
from contextlib import suppress
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from relish.core.errors import DataError, ImageError
from relish.data import survey as survey_module
from relish.data.depth import Used, ValueRange, disagreement, found_range, range_sentence, value_range_of
from relish.data.folder import index_folder
from relish.data.image import mode_and_depth, open_image, used_values
from relish.data.survey import survey
from tests.deep_files import WHITE_IS_ZERO, png, tiff


def shades(channels=1, seed=0):
    """(24, 20) or (24, 20, C) from 0 to 255, both ends among them."""
    values = np.random.default_rng(seed).integers(0, 256, (24, 20, channels) if channels > 1 else (24, 20))
    values[0, 0], values[0, 1] = 0, 255
    return values


def deep(values, bits):
    """The same shades in so many bits."""
    return np.rint(values * ((2**bits - 1) / 255))


def opened(content, value_range=None):
    return np.asarray(open_image(content, value_range=value_range)).astype(int)


def assert_shades(content, expected, value_range):
    expected = expected if expected.ndim == 3 else np.stack([expected] * 3, axis=2)
    assert np.abs(opened(content, value_range) - expected).max() <= 1


# ---- what a file stores ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_png_of_any_depth_and_colour_gives_the_shades_it_was_saved_from(bits, channels):
    """Of 16-bit colours Pillow decodes the high byte alone: of 12 bits, nearly black."""
    expected = shades({1: 1, 2: 1, 3: 3, 4: 3}[channels])
    values = deep(expected, bits)
    if channels in (2, 4):
        values = np.dstack([values, np.full(values.shape[:2], 65535)])
    assert mode_and_depth(png(values))[1]
    assert_shades(png(values), expected, ValueRange(0, 2**bits - 1))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["u2", "i2", "u4", "i4", "f4", "f8"])
def test_a_grey_tiff_of_any_kind_of_number_gives_the_shades_it_was_saved_from(kind, order):
    content = tiff(deep(shades(), 12), kind, order=order)
    assert used_values(content, name="a") == Used(0, 4095, kind[0] == "f")
    assert_shades(content, shades(), ValueRange(0, 4095))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["u2", "u4", "f4"])
def test_where_zero_is_white_a_tiff_does_not_come_out_as_a_negative(kind, order):
    content = tiff(4095 - deep(shades(), 12), kind, order=order, photometric=WHITE_IS_ZERO)
    assert_shades(content, shades(), ValueRange(0, 4095))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("channels", [3, 4])
def test_a_tiff_in_colour_keeps_all_its_bits(channels, order):
    values = deep(shades(3), 12)
    if channels == 4:
        values = np.dstack([values, np.full(values.shape[:2], 65535)])
    assert_shades(tiff(values, order=order), shades(3), ValueRange(0, 4095))


def test_values_of_32_bits_have_no_sign_where_the_file_says_so():
    content = tiff(shades() / 255 * (2**32 - 1), "u4")
    assert used_values(content, name="a").high == 2**32 - 1
    assert_shades(content, shades(), ValueRange(0, 2**32 - 1))


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate"])
def test_a_compressed_tiff_is_read_alike(compression):
    file = BytesIO()
    Image.fromarray(deep(shades(), 10).astype(np.uint16)).save(file, "TIFF", compression=compression)
    assert_shades(file.getvalue(), shades(), ValueRange(0, 1023))


def test_what_is_transparent_is_white_at_any_depth():
    values = deep(shades(), 12).astype(int)
    values[0, 1] = 77
    assert opened(png(values, (b"tRNS", b"\0\x4d")), ValueRange(0, 4095))[0, 1].tolist() == [255] * 3
    alpha = np.full(values.shape, 65535)
    alpha[0, 1] = 0
    assert opened(png(np.dstack([values, alpha])), ValueRange(0, 4095))[0, 1].tolist() == [255] * 3


@pytest.mark.parametrize("channels", [1, 3])
def test_a_deep_image_is_turned_upright_once(channels):
    exif = Image.Exif()
    exif[0x0112] = 6
    values = deep(shades(channels), 12)
    upright = np.rot90(shades(channels), -1)
    assert_shades(png(values, (b"eXIf", exif.tobytes()[6:])), upright, ValueRange(0, 4095))
    if channels == 1:
        file = BytesIO()
        Image.fromarray(values.astype(np.uint16)).save(file, "TIFF", exif=exif)
        assert_shades(file.getvalue(), upright, ValueRange(0, 4095))


@given(st.integers(0, 10**6), st.integers(0, 255), st.sampled_from(["png", "colours", "tiff", "floats"]))
def test_a_changed_byte_gives_a_picture_or_an_error_in_words(place, byte, kind):
    values = deep(shades(3), 12)
    content = bytearray(
        {
            "png": png(values[..., 0]),
            "colours": png(values),
            "tiff": tiff(values),
            "floats": tiff(values[..., 0], "f4"),
        }[kind]
    )
    content[place % len(content)] = byte
    with suppress(ImageError):
        assert open_image(bytes(content), value_range=ValueRange(0, 4095)).mode == "RGB"
    with suppress(ImageError):
        if mode_and_depth(bytes(content))[1]:
            used_values(bytes(content), name="a")


def test_an_image_that_pillow_has_opened_and_not_decoded_keeps_all_its_bits():
    with Image.open(BytesIO(png(deep(shades(3), 12)))) as image:
        assert_shades(image, shades(3), ValueRange(0, 4095))
        assert image.mode == "RGB"  # and is left as it was
    with Image.open(BytesIO(png(deep(shades(), 12)))) as image:
        assert_shades(image, shades(), ValueRange(0, 4095))


@given(st.integers(0, 2**16 - 2), st.data())
def test_values_are_cut_off_at_black_and_white_and_never_wrap(low, data):
    high = data.draw(st.integers(low + 1, 2**16 - 1))
    values = np.array([[0, low, (low + high) // 2, high, 65535]])
    found = opened(png(values), ValueRange(low, high, given=True))[0, :, 0]
    assert found.tolist() == sorted(found.tolist())
    assert (found[1], found[3], found[4]) == (0, 255, 255)


def test_eight_bits_are_not_touched_by_a_range():
    file = BytesIO()
    Image.fromarray(shades(3).astype(np.uint8)).save(file, "PNG")
    assert mode_and_depth(file.getvalue()) == ("RGB", False)
    np.testing.assert_array_equal(opened(file.getvalue(), ValueRange(0, 4095)), shades(3))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (tiff(shades(3) / 255, "f4"), "a kind of TIFF that is not read; save it with 8 or 16 bits a channel"),
        (tiff(deep(shades(3), 16), planar=2), "planar"),
        (tiff(np.array([[0, np.inf]]), "f4"), "no finite numbers"),
    ],
)
def test_what_cannot_be_read_is_refused_in_words(content, words):
    with pytest.raises(ImageError, match=words):
        open_image(content)


# ---- one scale for a dataset ----------------------------------------------------------------------------------------


def ints(*pairs):
    return [Used(low, high, floating=False) for low, high in pairs]


def floats(*pairs):
    return [Used(low, high, floating=True) for low, high in pairs]


@pytest.mark.parametrize(
    ("used", "expected"),
    [
        (ints((0, 255)), (0, 255)),
        (ints((3, 900), (0, 1023)), (0, 1023)),
        (ints((0, 3900)), (0, 4095)),
        (ints((0, 4096)), (0, 16383)),
        (ints((0, 16383)), (0, 16383)),
        (ints((0, 20000)), (0, 65535)),
        (ints((-1024, 3071)), (-1024, 3071)),  # a tomograph's units, in 16 bits with a sign
        (ints((31744, 35839)), (31744, 35839)),  # the same with 32,768 added
        (ints((0, 100_000)), (0, 100_000)),
        (ints((0, 2**31 - 1)), (0, 2**31 - 1)),
        (ints((7, 7)), (0, 255)),
        (floats((0, 1.0)), (0, 1)),
        (floats((0, 1.0), (0, 1.05)), (0, 1)),  # resampling leaves a little beyond white
        (floats((-0.03, 0.9)), (0, 1)),
        (floats((0, 255.0)), (0, 255)),
        (floats((0, 65000.0)), (0, 65535)),
        (floats((-2.1, 2.6)), (-2.1, 2.6)),
        (floats((0.0, 3.7)), (0, 3.7)),
    ],
)
def test_the_range_is_the_smallest_usual_one_that_holds_all_or_what_they_use(used, expected):
    found = found_range(used)
    assert (found.low, found.high) == expected


@given(st.lists(st.tuples(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9)), min_size=1, max_size=9), st.booleans())
def test_there_is_a_range_for_any_values_and_it_holds_them(pairs, floating):
    used = [Used(min(pair), max(pair), floating) for pair in pairs]
    found = found_range(used)
    assert found.low < found.high
    spare = 0.1 * (found.high - found.low) if floating else 0
    assert min(one.low for one in used) >= found.low - spare - 1e-9
    assert max(one.high for one in used) <= found.high + spare + 1e-9


def named(*groups):
    return {f"{i}-{k}.tif": one for i, group in enumerate(groups) for k, one in enumerate(group)}


@pytest.mark.parametrize(
    ("some", "others"),
    [
        (floats((0, 1.0)), floats((0, 255.0))),
        (floats((0, 1.0)), ints((0, 65535))),
        (ints((0, 1023)), ints((0, 65535))),
        (ints((0, 990)), ints((0, 60000))),
        (ints((0, 1023)), ints((0, 4095))),
        (ints((0, 4095)), ints((0, 16383))),
        (ints((0, 255)), ints((0, 1023))),
    ],
)
def test_images_on_two_scales_are_refused_with_an_example_of_each(some, others):
    error = disagreement(named(some * 5, others * 20))
    assert error is not None
    assert "5 of them use 0 to" in error.message
    assert "20 of them use 0 to" in error.message
    assert "0-0.tif" in error.message
    assert "1-0.tif" in error.message
    assert "--value-range 0.." in error.hint
    assert str(error).count("\n") == 1


def test_a_single_image_that_reaches_far_beyond_the_others_is_named():
    error = disagreement(named(ints(*[(0, 4000)] * 30), ints((0, 65535))))
    assert "1 of them uses 0 to 65,535, such as 1-0.tif" in error.message


@pytest.mark.parametrize(
    "used",
    [
        [],
        ints((0, 65535), *[(0, high) for high in (9000, 20000, 61000)] * 9, (0, 700)),  # one dark photograph
        ints(*[(0, high) for high in (700, 900, 1023, 2000, 3000, 4095)] * 2, *[(0, 3500)] * 190),
        ints((0, 0), (500, 500), (0, 65535)),  # a plain image has no say
        floats(*[(-2.0, 2.5), (-1.0, 0.9)] * 9),
        floats(*[(0, 1.0), (0, 1.05)] * 9),
        [*floats((0, 65535.0)), *ints((0, 65000))],
    ],
)
def test_images_that_differ_as_photographs_do_agree(used):
    assert disagreement(named(used)) is None


def test_an_image_far_beyond_a_range_that_was_found_is_refused_and_one_that_was_given_cuts_it_off():
    content = png(deep(shades(), 16))
    with pytest.raises(ImageError, match="0 to 65,535, are on another scale than 0 to 1,023"):
        open_image(content, value_range=ValueRange(0, 1023))
    assert opened(content, ValueRange(0, 1023, given=True)).max() == 255
    with pytest.raises(ImageError, match="0 to 1, are on another scale than 0 to 65,535"):
        open_image(tiff(shades() / 255, "f4"), value_range=ValueRange(0, 65535))


# ---- what a user writes and reads -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_range", "expected", "option"),
    [
        ("0..4095", (0, 4095), "0..4095"),
        (" -1024..3071 ", (-1024, 3071), "-1024..3071"),
        ("0.5..1", (0.5, 1), "0.5..1"),
        ("-.5...5", (-0.5, 0.5), "-0.5..0.5"),
        ((0, 1023), (0, 1023), "0..1023"),
        ([0, 4294967295], (0, 2**32 - 1), "0..4294967295"),
    ],
)
def test_a_range_is_read_as_it_is_written(given_range, expected, option):
    found = value_range_of(given_range)
    assert (found.low, found.high, found.given, found.option) == (*expected, True, option)
    assert value_range_of(found.option) == found


@pytest.mark.parametrize(
    "words", ["", "5", "0-4095", "a..b", "5..5", "9..1", "0..inf", "nan..1", "0..1..2", (1,), (1, 2, 3)]
)
def test_what_is_no_range_is_refused_with_an_example(words):
    with pytest.raises(DataError, match=r"--value-range(.|\n)*Such as 0\.\.4095"):
        value_range_of(words)


def test_the_sentence_says_what_is_black_and_white_and_by_whose_choice():
    used = ints((0, 3900), (12, 100))
    assert range_sentence(found_range(used), used, 30) == (
        "0 to 4,095 is black to white (12 bits) in 2 of 30 pictures, which are deeper than 8 bits and use 0 to 3,900"
    )
    assert "(as you asked)" in range_sentence(value_range_of("0..1023"), used, 2)
    assert range_sentence(value_range_of("0..1023"), used, 2).endswith("; what lies beyond is cut off")
    assert "-2.1 to 2.6 is black to white (what they use)" in range_sentence(
        ValueRange(-2.1, 2.6), floats((-2.1, 2.6)), 1
    )


# ---- in a dataset ---------------------------------------------------------------------------------------------------


PICTURES = {f"{name}/{number}": number + 10 * place for place, name in enumerate("ab") for number in range(4)}
"""Name and seed of each drawn picture."""


def photograph(seed):
    """(48, 40) greys of a soft scene, some of them dark and without white."""
    soft = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 5), dtype=np.uint8))
    values = np.asarray(soft.resize((40, 48), Image.Resampling.BICUBIC)).astype(int)
    return values * (200 if seed % 3 else 90) // 255 if seed else np.clip(values * 2 - 100, 0, 255)


def saved(root, encode, ending):
    """The dataset of the drawn pictures, in files of another kind."""
    for name, seed in PICTURES.items():
        path = root / f"{name}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(photograph(seed)))
    return index_folder(root, name="drawn", source=str(root))


def png_of_8_bits(values):
    file = BytesIO()
    Image.fromarray(values.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


KINDS = {
    "16 bits": (lambda v: png(deep(v, 16)), "png"),
    "14 bits": (lambda v: png(deep(v, 14)), "png"),
    "12 bits": (lambda v: png(deep(v, 12)), "png"),
    "10 bits": (lambda v: tiff(deep(v, 10)), "tif"),
    "12 bits in colour": (lambda v: png(deep(np.dstack([v, v, v]), 12)), "png"),
    "16 bits, zero is white": (lambda v: tiff(65535 - deep(v, 16), photometric=WHITE_IS_ZERO), "tif"),
    "12 bits, zero is white": (lambda v: tiff(4095 - deep(v, 12), photometric=WHITE_IS_ZERO), "tif"),
    "int32": (lambda v: tiff(deep(v, 12), "i4"), "tif"),
    "uint32": (lambda v: tiff(deep(v, 16), "u4"), "tif"),
    "floats to 1": (lambda v: tiff(v / 255, "f4"), "tif"),
    "floats to 255": (lambda v: tiff(v, "f4"), "tif"),
    "floats to 65,535": (lambda v: tiff(v * 257, "f8"), "tif"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_pictures_are_the_same_pixels_at_any_depth(kind, tmp_path):
    """On one scale: guessed one by one, the dark ones would be as bright as the others."""
    found = survey(saved(tmp_path, *KINDS[kind]))
    assert len(found.used) == len(PICTURES)
    for path in found.used:
        expected = photograph(PICTURES[f"{path.parent.name}/{path.stem}"])
        assert np.abs(opened(path, found.value_range) - expected[:, :, None]).max() <= 1, path


def test_the_facts_of_deep_pictures_are_those_of_the_same_pictures_in_8_bits(tmp_path):
    plain = survey(saved(tmp_path / "plain", png_of_8_bits, "png"))
    twelve = survey(saved(tmp_path / "twelve", *KINDS["12 bits"]))
    assert plain.depth == ""
    assert twelve.depth.startswith("0 to 4,095 is black to white (12 bits) in 8 of 8 pictures")
    assert plain.value_range is None
    rows = [s.facts_of(sorted(s.facts)) for s in (plain, twelve)]
    for field in ("pixels", "phash", "brightness"):
        assert rows[0][field].tolist() == rows[1][field].tolist(), field


def test_pictures_of_8_bits_are_read_once_and_their_values_never_looked_for(tmp_path, monkeypatch):
    dataset = saved(tmp_path, png_of_8_bits, "png")
    monkeypatch.setattr(survey_module, "used_values", None)
    read, real = [], survey_module.open_image
    monkeypatch.setattr(survey_module, "open_image", lambda *args, **more: read.append(more) or real(*args, **more))
    found = survey(dataset)
    assert [one["value_range"] for one in read] == [None] * len(PICTURES)
    assert (found.used, found.value_range) == ({}, None)


def test_8_bits_beside_16_are_one_dataset_where_each_uses_all_it_has(tmp_path):
    saved(tmp_path, *KINDS["16 bits"])
    for path in (tmp_path / "a").iterdir():
        path.write_bytes(png_of_8_bits(photograph(PICTURES[f"a/{path.stem}"])))
    found = survey(index_folder(tmp_path, name="drawn", source=str(tmp_path)))
    assert "(16 bits) in 4 of 8 pictures" in found.depth
    for path in found.sha256:
        expected = photograph(PICTURES[f"{path.parent.name}/{path.stem}"])
        assert np.abs(opened(path, found.value_range) - expected[:, :, None]).max() <= 1


def test_pictures_that_are_not_on_one_scale_are_refused_or_looked_at_and_reported(tmp_path):
    saved(tmp_path, *KINDS["floats to 1"])
    for path in (tmp_path / "b").iterdir():
        path.write_bytes(tiff(photograph(PICTURES[f"b/{path.stem}"]), "f4"))
    dataset = index_folder(tmp_path, name="drawn", source=str(tmp_path))
    with pytest.raises(DataError, match="drawn: the pictures deeper than 8 bits are not on one scale"):
        survey(dataset)
    assert "not on one scale" in survey(dataset, learnable=False).dataset.problem.message
    assert survey(dataset, value_range=value_range_of("0..255")).dataset.problem is None


def test_what_was_measured_once_is_remembered_for_its_range(tmp_path, monkeypatch):
    monkeypatch.setattr(survey_module, "_SETTLED_NS", 0)
    dataset = saved(tmp_path, *KINDS["12 bits"])
    first = survey(dataset)
    with monkeypatch.context() as patch:
        for name in ("used_values", "open_image"):
            patch.setattr(survey_module, name, None)  # whoever decodes again fails
        again = survey(dataset)
    assert (again.facts, again.used, again.value_range) == (first.facts, first.used, first.value_range)
    other = survey(dataset, value_range=value_range_of("0..16383"))
    assert other.fingerprint == first.fingerprint
    paths = sorted(first.facts)
    assert (4 * other.facts_of(paths)["brightness"]).tolist() == pytest.approx(
        first.facts_of(paths)["brightness"].tolist(), abs=3
    )


def test_a_damaged_deep_picture_is_left_out_and_has_no_say(tmp_path):
    dataset = saved(tmp_path, *KINDS["12 bits"])
    path = tmp_path / "a" / "1.png"
    path.write_bytes(png(deep(photograph(1), 16))[:-400])
    found = survey(dataset)
    assert [name for name, _ in found.unreadable] == ["a/1.png"]
    assert found.value_range == ValueRange(0, 4095)


def test_for_a_model_that_learned_from_8_bits_each_file_is_read_at_what_it_can_hold(tmp_path):
    found = survey(saved(tmp_path, *KINDS["12 bits"]), value_range=None)
    assert found.value_range is None
    assert found.dataset.warnings[-1].startswith("8 pictures deeper than 8 bits, and the model learned from none such")
    assert found.facts_of(list(found.facts))["brightness"].max() < 20


def test_a_file_of_the_wild_with_floats_a_little_over_one_is_no_black_class(shared, tmp_path):
    with tarfile.open(shared / "cases" / "11-float-over-one.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    root = tmp_path / "11-float-over-one" / "data"
    found = survey(index_folder(root, name="floats", source=str(root)))
    assert found.value_range == ValueRange(0, 1)
    brightness = {path.parent.name: [] for path in found.facts}
    for path in found.facts:
        brightness[path.parent.name].append(float(found.facts_of([path])["brightness"][0]))
    assert all(np.mean(values) > 50 for values in brightness.values()), brightness

"""The format of Gluon files: every version of it is read, and every kind of damage is met with one clear error."""

import math
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from relish.core.errors import ModelError
from relish.models.gluon.loading import recognise
from relish.models.gluon.params import LIST_MAGIC, V2, V3, is_params, parse_params, read_params
from relish.models.source import load_source
from tests.gluon_files import array_bytes, list_bytes, params_bytes

FIXTURES = Path(__file__).parents[2] / "fixtures" / "gluon"
SMALLEST = FIXTURES / "v2_bottleneck.params"
ONE = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
@pytest.mark.parametrize("version", [0, 1, 2, 3])
def test_fractions_of_any_width_become_float32(version, dtype):
    found = parse_params(params_bytes({"a": ONE.astype(dtype), "møøse": np.ones((1, 2, 1, 1), dtype)}, version), "x")
    assert list(found) == ["a", "møøse"]
    assert found["a"].dtype == torch.float32
    assert found["a"].tolist() == ONE.tolist()
    assert found["møøse"].shape == (1, 2, 1, 1)


def test_numpys_shapes_may_have_no_dimension():
    assert parse_params(params_bytes({"a": np.array(2.5, np.float32)}, 3), "x")["a"].item() == 2.5


def test_a_tensor_does_not_keep_its_file_in_memory():
    found = parse_params(params_bytes({"a": ONE, "b": ONE}), "x")
    assert found["a"].untyped_storage().nbytes() == ONE.nbytes
    found["a"].zero_()  # and may be written to


def test_values_are_taken_as_they_are():
    """As from every other file of weights: a network of NaN answers NaN, which nobody can miss."""
    found = parse_params(params_bytes({"a": np.array([math.nan, math.inf, 1e300])}), "x")["a"]
    assert found.isnan().tolist() == [True, False, False]
    assert found.isinf().tolist() == [False, True, True]


def head(magic, *shape, dimensions=None, storage=0, letter="q"):
    """The start of an array of version 2 or 3, up to its device."""
    count = len(shape) if dimensions is None else dimensions
    return struct.pack(f"<Iii{len(shape)}{letter}", magic, storage, count, *shape)


CPU_FLOAT = struct.pack("<iii", 1, 0, 0)

HOSTILE = {
    "nothing": (b"", "is not a Gluon .params file"),
    "a word": (b"hello", "is not a Gluon .params file"),
    "text": (b"Dear reader, these are my weights.", "is not a Gluon .params file"),
    "a zip archive": (b"PK\x03\x04" + bytes(60), "zip archive, as MXNet 2 saves"),
    "the magic alone": (struct.pack("<Q", LIST_MAGIC), "too early"),
    "no arrays": (list_bytes([], []), "holds no arrays"),
    "2^64 - 1 arrays": (struct.pack("<QQQ", LIST_MAGIC, 0, 2**64 - 1) + bytes(99), "too many for its size"),
    "2^40 arrays": (struct.pack("<QQQ", LIST_MAGIC, 0, 2**40) + bytes(99), "too many for its size"),
    "2^60 names": (list_bytes([array_bytes(ONE, 2)], [])[:-8] + struct.pack("<Q", 2**60), "too many for its size"),
    "a name of 2^63 bytes": (
        list_bytes([array_bytes(ONE, 2)], [])[:-8] + struct.pack("<QQ", 1, 2**63) + b"abc", "too early",
    ),
    "a name that is not UTF-8": (list_bytes([array_bytes(ONE, 2)], [b"\xff\xfe"]), "not UTF-8"),
    "arrays without names": (list_bytes([array_bytes(ONE, 2)], []), "1 arrays and 0 names"),
    "one name twice": (list_bytes([array_bytes(ONE, 2)] * 2, [b"a", b"a"]), "holds 'a' 2 times"),
    "bytes at the end": (params_bytes({"a": ONE}) + b"\0", "1 bytes follow the last name"),
    "a sparse array": (list_bytes([head(V2, 2, 3, storage=2) + bytes(60)], [b"a"]), "not dense"),
    "an undefined storage": (list_bytes([head(V2, 2, 3, storage=-1) + bytes(60)], [b"a"]), "not dense"),
    "whole numbers": (params_bytes({"a": ONE.astype(np.int64)}), "of type int64"),
    "bytes for numbers": (params_bytes({"a": ONE.astype(np.uint8)}), "of type uint8"),
    "an unknown type": (
        list_bytes([head(V2, 1) + struct.pack("<iii", 1, 0, 77) + bytes(9)], [b"a"]), "type 77, which there is not",
    ),
    "an unknown device": (
        list_bytes([head(V2, 1) + struct.pack("<iii", 9, 0, 0) + bytes(9)], [b"a"]), "device 9, which there is not",
    ),
    "a negative length": (list_bytes([head(V2, -2, 3) + CPU_FLOAT + bytes(60)], [b"a"]), "of the shape -2×3"),
    "two negative lengths": (list_bytes([head(V2, -2, -3) + CPU_FLOAT + bytes(60)], [b"a"]), "of the shape -2×-3"),
    "a length of nothing": (list_bytes([head(V3, 0, 3) + CPU_FLOAT], [b"a"]), "of the shape 0×3"),
    "no dimension before numpy's": (list_bytes([head(V2) + bytes(60)], [b"a"]), "0 dimensions"),
    "fewer than no dimensions": (list_bytes([head(V3, dimensions=-1) + bytes(60)], [b"a"]), "-1 dimensions"),
    "2^31 - 1 dimensions": (list_bytes([head(V2, dimensions=2**31 - 1) + bytes(60)], [b"a"]), "dimensions"),
    "a shape whose size wraps around to 0": (
        list_bytes([head(V2, 2**32, 2**32) + CPU_FLOAT + bytes(60)], [b"a"]), "too early",
    ),
    "a shape whose size wraps around to 4": (
        list_bytes([head(V2, 2**62 + 1, 2, 2) + CPU_FLOAT + bytes(60)], [b"a"]), "too early",
    ),
    "a terabyte": (list_bytes([head(V2, 2**38) + CPU_FLOAT + bytes(60)], [b"a"]), "too early"),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_is_one_clear_error_and_takes_no_memory(what, tmp_path):
    content, words = HOSTILE[what]
    path = tmp_path / "x.params"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match=words) as caught:
            load_source(weights=path)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert str(path) in str(caught.value)


def loads_or_is_refused(content):
    """What is read is a dictionary of tensors; nothing but a ModelError comes instead."""
    try:
        tensors = parse_params(content, "x")
    except ModelError:
        return None
    assert tensors
    assert all(isinstance(name, str) and tensor.dtype == torch.float32 for name, tensor in tensors.items())
    return tensors


FORMS = {
    f"{form}, version {version}": params_bytes(
        {"conv0_weight": ONE.astype(form), "arg:b": np.ones((2, 1, 1, 2), form)}, version
    )
    for form in ("float32", "float16")
    for version in range(4)
}


@pytest.mark.parametrize("form", FORMS)
def test_a_file_cut_short_anywhere_is_refused(form):
    content = FORMS[form]
    assert loads_or_is_refused(content)
    assert [end for end in range(len(content)) if loads_or_is_refused(content[:end])] == []


@given(st.integers(0, SMALLEST.stat().st_size - 1))
@settings(max_examples=200)
def test_a_real_file_cut_short_is_refused(end):
    assert loads_or_is_refused(SMALLEST.read_bytes()[:end]) is None


@pytest.mark.parametrize("form", FORMS)
def test_any_flipped_bit_is_refused_or_gives_tensors(form):
    """Every bit of a small file; a bit in a value or a name cannot be told from another value or name."""
    for place in range(8 * len(FORMS[form])):
        content = bytearray(FORMS[form])
        content[place // 8] ^= 1 << place % 8
        loads_or_is_refused(bytes(content))


@given(st.lists(st.tuples(st.integers(0, SMALLEST.stat().st_size - 1), st.integers(1, 255)), min_size=1, max_size=8))
@settings(max_examples=200, deadline=None)
def test_a_real_file_with_flipped_bits_is_refused_or_gives_tensors(flips):
    """And what the tensors are taken for is a network, or a refusal too."""
    content = bytearray(SMALLEST.read_bytes())
    for place, bits in flips:
        content[place] ^= bits
    tensors = loads_or_is_refused(bytes(content))
    if tensors is not None:
        try:
            recognise(tensors, "x")
        except ModelError:
            return


@given(st.binary(max_size=200))
def test_anything_after_the_magic_is_refused_or_gives_tensors(rest):
    loads_or_is_refused(struct.pack("<QQ", LIST_MAGIC, 0) + rest)


def test_a_gluon_file_is_known_by_its_first_bytes_or_by_its_name(tmp_path):
    (tmp_path / "weights.bin").write_bytes(SMALLEST.read_bytes())
    assert is_params(tmp_path / "weights.bin")
    assert load_source(weights=tmp_path / "weights.bin").description.architecture == "resnet50_v2"
    with pytest.raises(ModelError, match="cannot read the weights"):
        read_params(tmp_path)

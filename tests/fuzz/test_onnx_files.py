"""Exported files with other metadata, other graphs and damaged bytes: usable without torch, or refused."""

import json
from functools import cache

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper

from relish.exporting.onnx_classifier import OnnxClassifier
from tests.fuzz.harness import folder, fuzz, kept_in
from tests.fuzz.mutation import WORDS, changed, mutated
from tests.serving import onnx_tones

PICTURE = np.zeros((20, 30, 3), dtype=np.uint8)
VALUES = (
    *("0", "1", "2", "-1", "9" * 5000, "²", "null", "NaN", "[]", "{}", '["blue"]', '["blue","blue"]', '["a","b","c"]'),
    *('["blue","\\ud800"]', '["\\u001b[2J","b"]', "[1,2]", "f32", "int8", "0" * 64, "[" * 100_000, '{"value_range":1}'),
    *('{"value_range":{"low":5,"high":1}}', '{"value_range":{"low":0,"high":1e400}}', '{"value_range":{"low":"x"}}'),
    *(
        '{"positive":"blue","threshold":2}',
        '{"positive":"green","threshold":0.5}',
        '{"positive":"blue","threshold":0.5}',
    ),
    *('{"temperature":0}', '{"unsure_below":NaN}', '{"unsure_below":0.5}', '{"fitted_on":-1}', '{"x":1}'),
)
values = st.one_of(st.sampled_from(VALUES), st.sampled_from(VALUES), st.sampled_from(WORDS))
SIDES = (1, 1, 1, 0, -1, 2, 2**31, "n", None)


@cache
def seed() -> bytes:
    with folder() as here:
        return onnx_tones(here / "tones.onnx").read_bytes()


@cache
def metadata() -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load_from_string(seed()).metadata_props}


def _model() -> onnx.ModelProto:
    return onnx.load_from_string(seed())


def storable(word: str) -> str:
    return word.encode(errors="replace").decode()


@st.composite
def retold(draw) -> bytes:
    """The same graph, which says something else of itself."""
    model = _model()
    del model.metadata_props[:]
    helper.set_model_props(
        model, {storable(key): storable(value) for key, value in draw(changed(metadata(), values)).items()}
    )
    return model.SerializeToString()


@st.composite
def regraphed(draw) -> bytes:
    """Other inputs, outputs and shapes than were said."""
    model = _model()
    kind = draw(st.sampled_from([TensorProto.UINT8, TensorProto.UINT8, TensorProto.FLOAT, TensorProto.STRING]))
    shape = draw(
        st.sampled_from([[], [1], [1, "h", "w", 3], [1, 3, "h", "w"], [draw(st.sampled_from(SIDES)), "h", "w", 3]])
    )
    match draw(st.integers(0, 4)):
        case 0:
            model.graph.input[0].CopyFrom(helper.make_tensor_value_info("image", kind, shape))
        case 1:
            del model.graph.input[:]
        case 2:
            del model.graph.output[draw(st.integers(0, 1)) :]
        case 3:
            sides = [draw(st.sampled_from(SIDES)), draw(st.sampled_from((1, 2, 3, "n")))]
            for number, name in enumerate(["probabilities", "logits"]):
                model.graph.output[number].CopyFrom(helper.make_tensor_value_info(name, TensorProto.FLOAT, sides))
        case 4:
            model.graph.input.append(helper.make_tensor_value_info("more", kind, shape))
    return model.SerializeToString()


files = st.one_of(retold(), retold(), regraphed(), st.deferred(lambda: mutated([seed()], most=3)))


@fuzz(files, examples=200)
def test_an_exported_file_is_usable_or_refused(content):
    with folder() as here:
        path = here / "model.onnx"
        path.write_bytes(content)
        with kept_in(here):
            model = OnnxClassifier(path, threads=1)
            for words in (repr(model), json.dumps(model.about.words())):
                assert words.encode()
            (row,) = model.predict(PICTURE)
            assert row.class_name in model.classes
            assert json.dumps(row.as_json(), allow_nan=False)

"""Exported files that were tampered with or damaged: refused in a line, with nothing printed."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from relish.core.errors import Failed, ModelError
from relish.exporting.onnx_classifier import OnnxClassifier
from tests.serving import onnx_tones

PICTURE = np.zeros((20, 30, 3), dtype=np.uint8)


def tampered(path, change) -> OnnxClassifier:
    """A file, after a change of its model."""
    model = onnx.load(str(onnx_tones(path)))
    change(model)
    onnx.save(model, str(path))
    return OnnxClassifier(path, threads=1)


def test_a_file_as_it_was_made_is_read(tmp_path):
    (row,) = tampered(tmp_path / "m.onnx", lambda model: None).predict(PICTURE)
    assert row.class_name in ("blue", "red")


@pytest.mark.parametrize(
    "said",
    [
        *(
            {"relish_format": "9" * 5000},
            {"relish_format": "²"},
            {"classes": '["a", "b", "c"]'},
            {"classes": r'["a", "\ud800"]'},
            {"classes": "[" * 100_000},
        ),
        *(
            {"preprocessing": '{"value_range": {"low": 5, "high": 1}}'},
            {"decision": '{"temperature": 0}'},
            {"speed": "[NaN]"},
            {"recipe": '{"epochs": 1e400}'},
        ),
    ],
)
def test_a_file_that_says_what_cannot_be_is_refused(tmp_path, said):
    with pytest.raises(ModelError, match=r"m\.onnx"):
        tampered(tmp_path / "m.onnx", lambda model: helper.set_model_props(model, about(model) | said))


def about(model: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


@pytest.mark.parametrize(
    "sides", [[0, "h", "w", 3], [-1, "h", "w", 3], [1, 224, 224, 3], [1, "h", "w", 4], [1, 3, "h", "w"], [1], []]
)
def test_a_graph_of_another_input_than_relish_writes_is_refused(tmp_path, sides):
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, sides)
    with pytest.raises(ModelError, match=r"m\.onnx"):
        tampered(tmp_path / "m.onnx", lambda model: model.graph.input[0].CopyFrom(image))


def test_a_graph_without_an_input_is_refused(tmp_path):
    def constant(model):
        del model.graph.node[:], model.graph.input[:], model.graph.output[:]
        value = helper.make_tensor("value", TensorProto.FLOAT, [1, 2], [0.5, 0.5])
        for name in ("probabilities", "logits"):
            model.graph.node.append(helper.make_node("Constant", [], [name], value=value))
            model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]))

    with pytest.raises(ModelError, match="something else than it says"):
        tampered(tmp_path / "m.onnx", constant)


@pytest.mark.parametrize("word", [b"relish_version", b"height", b"image", b"logits"])
def test_metadata_that_is_no_text_is_refused_and_nothing_is_printed(tmp_path, capfd, word):
    """Neither a key nor the name of a side, of an input or of an output."""
    path = onnx_tones(tmp_path / "m.onnx")
    path.write_bytes(path.read_bytes().replace(word, b"\xff" + word[1:]))
    with pytest.raises(ModelError, match="cannot be"):
        OnnxClassifier(path)
    assert capfd.readouterr().out == ""


def test_a_graph_that_fails_at_an_image_is_one_line(tmp_path):
    def narrow(model):  # a reshape that no image of this size goes through
        model.graph.initializer.append(helper.make_tensor("shape", TensorProto.INT64, [4], [1, 5, 5, 3]))
        model.graph.node.insert(0, helper.make_node("Reshape", ["image", "shape"], ["small"]))
        model.graph.node[1].input[0] = "small"

    with pytest.raises(Failed, match="1 × 30 × 20 pixels") as failed:
        tampered(tmp_path / "m.onnx", narrow).predict(PICTURE)
    assert len(str(failed.value).splitlines()) == 1


def test_what_a_file_says_is_json_again(tmp_path):
    assert json.loads(tampered(tmp_path / "m.onnx", lambda model: None).about.words()["classes"]) == ["blue", "red"]

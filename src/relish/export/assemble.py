"""One ONNX model: preparing, network, temperature and softmax.

In:   the network's graph (`network.py`), the preprocessing, the decision.
Out:  a `ModelProto` from `image` (N, H, W, 3) uint8 RGB, N fixed and any H and W, to `probabilities` (N, K) float32
      and `logits` (N, K) float32, which are before the temperature.
Not here: what the file says of itself (`metadata.py`).
"""

from collections.abc import Mapping

import onnx
from onnx import TensorProto, helper

from relish.data.transforms import Preprocessing
from relish.evaluation.decision import Decision
from relish.export.graph import Graph
from relish.export.metadata import IMAGE, LOGITS, PROBABILITIES
from relish.export.network import IR_VERSION, NORMALISED, OPSET
from relish.export.pipeline import normalised, pixels

PIXELS = "pixels"
"""What the network sees before it is normalised, (N, 3, S, S) float32 whole numbers; `with_outputs` shows it."""


def assemble(
    network: onnx.ModelProto, how: Preprocessing, decision: Decision, *, classes: int, count: int
) -> onnx.ModelProto:
    """Put the parts together.

    Args:
        network: from `network.network_model`, for `count` pictures of `how.image_size`.
        classes: K.
        count: N.
    """
    before, after = Graph("prepare"), Graph("answer")
    prepared = before.op("Identity", pixels(before, IMAGE, how, count), named=PIXELS)
    before.op("Identity", normalised(before, prepared, how), named=NORMALISED)
    after.op("Softmax", after.op("Div", LOGITS, after.single(decision.temperature)), named=PROBABILITIES, axis=1)
    image = helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, [count, "height", "width", 3])
    answers = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [count, classes]) for name in (PROBABILITIES, LOGITS)
    ]
    graph = helper.make_graph(
        [*before.nodes, *network.graph.node, *after.nodes],
        "relish",
        [image],
        answers,
        [*before.initialisers, *network.graph.initializer, *after.initialisers],
    )
    opsets = network.opset_import or [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, producer_name="relish")
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model)
    return model


def with_metadata(model: onnx.ModelProto, words: Mapping[str, str]) -> onnx.ModelProto:
    """A copy that says this of itself, in sorted order."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    helper.set_model_props(result, dict(sorted(words.items())))
    return result


def with_outputs(model: onnx.ModelProto, *names: str) -> onnx.ModelProto:
    """A copy that also gives out these inner results, (N, 3, S, S) float32."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    result.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    return result

"""Build the ONNX model: the network by torch's exporter, optionally in int8, between preprocessing and softmax.

`network_model` gives the network alone, `quantised` its int8 form, `assemble` the whole model: from `image`
(N, H, W, 3) uint8 RGB, N fixed and any H and W, to `probabilities` (N, K) float32, `logits` (N, K) float32, which are
before the temperature, and `unfamiliarity` (N,) float32, where the model can say. Preprocessing, softmax and
unfamiliarity stay in floating point.

The exporter notes where in the source code each node came from. That tells much about the machine it ran on, so it is
removed, and equal networks give equal bytes.

Source of the int8 form: Jacob et al. 2018, arXiv:1712.05877; ONNX Runtime's guide to quantisation (`quantize_static`).
"""

import copy
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper
from torch import nn

from relish.core.errors import Failed
from relish.core.runtime import raise_if_no_memory
from relish.data.transforms import Preprocessing
from relish.evaluation.onnx_network import silent_export
from relish.evaluation.prediction import Decision
from relish.evaluation.unfamiliarity import SHORTEST, Unfamiliarity, WithFeatures
from relish.exporting.onnx_classifier import IMAGE, LOGITS, PROBABILITIES, UNFAMILIARITY
from relish.exporting.onnx_graph import FLOAT, Graph, normalised, pixels

OPSET, IR_VERSION = 18, 10
"""The oldest operator set that torch's exporter writes by itself, in the form that ONNX Runtime reads from 1.18 on.
Tried with ONNX Runtime 1.32, its 1.30 for JavaScript, and OpenVINO 2026.4."""
NORMALISED = "normalised"
"""The exported network's input."""
FEATURES = "features"
"""The exported network's second output where it has one: the input of its output layer, (N, D) float32."""
MAX_BYTES = 2**31 - 2**20
"""Of weights: what one protobuf message can hold, less a megabyte for the rest of the graph."""
CALIBRATION_IMAGES = 128
"""Training images that the ranges of activations are measured on."""
INT8_LOSS_MAX = 0.01
"""The accuracy that int8 may lose against float32, 0 to 1."""
PIXELS = "pixels"
"""The preprocessed image before normalisation, (N, 3, S, S) float32 whole numbers; `with_outputs` exposes it."""


def network_model(network: nn.Module, image_size: int, count: int, head: str | None = None) -> onnx.ModelProto:
    """Export a network as an ONNX graph of its own, from `normalised` (N, 3, S, S) float32 to `logits` (N, K) float32.

    Args:
        network: takes (N, 3, S, S) float32, gives (N, K) logits; it is not changed.
        image_size: S.
        count: N, fixed in the graph.
        head: the name of its output layer; where given, the graph gives the `features` that it is fed too.

    Raises:
        Failed: torch cannot export this network, or it is larger than one ONNX file can be.
    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    if size > MAX_BYTES:
        raise Failed(
            f"the network has {size / 2**30:.1f} GiB of weights; one ONNX file holds 2.", hint="Fit a smaller one."
        )
    plain = copy.deepcopy(network).cpu().float().eval()
    if head is not None:
        plain = WithFeatures(plain, head).eval()
    example = torch.zeros(count, 3, image_size, image_size)
    try:
        with silent_export(), torch.inference_mode():
            program = torch.onnx.export(
                plain,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[NORMALISED],
                output_names=[LOGITS] if head is None else [LOGITS, FEATURES],
                verbose=False,
            )
    except Exception as error:  # the exporter raises whatever an architecture's code makes it raise
        raise_if_no_memory(error, "to export this network")
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise Failed(
            f"torch cannot export this network to ONNX ({reason[:200]}).", hint="Take another --source."
        ) from error
    if program is None:
        raise Failed("torch did not export this network to ONNX.", hint="Take another --source.")
    return _plain_onnx(program.model_proto, "torch exported", "Take another --source.")


def _plain_onnx(model: onnx.ModelProto, done: str, hint: str) -> onnx.ModelProto:
    """Check that the operators are ONNX's own, remove source locations and doc strings, and set the versions.

    Errors begin with `done`, such as `torch exported`.
    """
    graph, own = model.graph, ("", "ai.onnx")
    versions = {one.version for one in model.opset_import if one.domain in own}
    if versions != {OPSET} or model.functions or any(node.domain not in own for node in graph.node):
        raise Failed(f"{done} this network with operators of its own.", hint=hint)
    for node in graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del graph.value_info[:], graph.metadata_props[:], model.metadata_props[:], model.opset_import[:]
    graph.doc_string = ""
    model.opset_import.append(helper.make_opsetid("", OPSET))
    model.ir_version = IR_VERSION
    return model


def quantised(network: onnx.ModelProto, inputs: Iterable[npt.NDArray[np.float32]]) -> onnx.ModelProto:
    """The network's graph in QDQ form: 8-bit weights and activations, one scale for each channel of a weight.

    Args:
        network: from `network_model`.
        inputs: (N, 3, S, S) float32 each, normalised training images.

    Raises:
        Failed: ONNX Runtime cannot quantise it.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = Path(folder) / "int8.onnx"
        prepared = onnx.shape_inference.infer_shapes(network)
        # Without this it logs advice to fold constants, which torch's exporter has done.
        onnx.helper.set_model_props(prepared, {"onnx.quant.pre_process": "onnxruntime.quant"})
        try:
            quantize_static(
                prepared,
                out,
                _CalibrationReader(inputs),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
            )
            model = onnx.load(out)
        except Exception as error:  # its own exceptions are many and undocumented
            raise_if_no_memory(error, "to quantise this network")
            raise Failed(
                f"ONNX Runtime cannot quantise this network ({error}).", hint="Export it without --int8."
            ) from error
    return _plain_onnx(model, "ONNX Runtime quantised", "Export it without --int8.")


class _CalibrationReader:
    def __init__(self, inputs: Iterable[npt.NDArray[np.float32]]) -> None:
        self._inputs: Iterator[npt.NDArray[np.float32]] = iter(inputs)

    def get_next(self) -> dict[str, Any] | None:
        """The next input by name; None after the last."""
        return next(({NORMALISED: one} for one in self._inputs), None)


def assemble(
    network: onnx.ModelProto,
    preprocessing: Preprocessing,
    decision: Decision,
    unfamiliarity: Unfamiliarity | None = None,
    *,
    classes: int,
    count: int,
) -> onnx.ModelProto:
    """The whole model: preprocessing, network, temperature and softmax, unfamiliarity.

    Args:
        network: from `network_model` or `quantised`, for `count` images of `preprocessing.image_size`.
        unfamiliarity: where there is one, the network gives its features.
        classes: K.
        count: N.
    """
    before, after = Graph("prepare"), Graph("answer")
    prepared = before.op("Identity", pixels(before, IMAGE, preprocessing, count), named=PIXELS)
    before.op("Identity", normalised(before, prepared, preprocessing), named=NORMALISED)
    after.op("Softmax", after.op("Div", LOGITS, after.single(decision.temperature)), named=PROBABILITIES, axis=1)
    image = helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, [count, "height", "width", 3])
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [count, classes]) for name in (PROBABILITIES, LOGITS)
    ]
    if unfamiliarity is not None:
        _add_unfamiliarity(after, unfamiliarity)
        outputs.append(helper.make_tensor_value_info(UNFAMILIARITY, TensorProto.FLOAT, [count]))
    graph = helper.make_graph(
        [*before.nodes, *network.graph.node, *after.nodes],
        "relish",
        [image],
        outputs,
        [*before.initialisers, *network.graph.initializer, *after.initialisers],
    )
    opsets = network.opset_import or [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, producer_name="relish")
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model)
    return model


def _add_unfamiliarity(graph: Graph, unfamiliarity: Unfamiliarity) -> None:
    """From `features` to `unfamiliarity`, as `Unfamiliarity` computes it; the bank stays in float16 in the file."""
    length = graph.op("Max", graph.op("ReduceL2", FEATURES, graph.whole(1), keepdims=1), graph.single(SHORTEST))
    bank = graph.cast(graph.constant(unfamiliarity.bank.T, np.float16), FLOAT)
    similarity = graph.op("MatMul", graph.op("Div", FEATURES, length), bank)  # (N, M)
    nearest = graph.op("TopK", similarity, graph.whole(unfamiliarity.neighbours), outputs=2, axis=1)  # (N, k)
    last = graph.op("Gather", nearest, graph.constant(unfamiliarity.neighbours - 1, np.int64), axis=1)  # (N,)
    graph.op("Relu", graph.op("Sub", graph.single(1.0), last), named=UNFAMILIARITY)


def with_metadata(model: onnx.ModelProto, metadata: Mapping[str, str]) -> onnx.ModelProto:
    """A copy with these words as its metadata, in sorted order."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    helper.set_model_props(result, dict(sorted(metadata.items())))
    return result


def with_outputs(model: onnx.ModelProto, *names: str) -> onnx.ModelProto:
    """A copy that also returns these intermediate results, (N, 3, S, S) float32."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    result.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    return result

"""Build the ONNX model: the network by torch's exporter, optionally in int8, between preprocessing and softmax.

`network_model` gives the network alone, `quantised` its int8 form, `assemble` the whole model: from `image`
(N, H, W, 3) uint8 RGB, N fixed and any H and W, to `probabilities` (N, K) float32 and `logits` (N, K) float32, which
are before the temperature. Preprocessing and softmax stay in floating point.

The exporter notes where in the source code each node came from. That tells much about the machine it ran on, so it is
removed, and equal networks give equal bytes.

Source of the int8 form: Jacob et al. 2018, arXiv:1712.05877; ONNX Runtime's guide to quantisation (`quantize_static`).
"""

import copy
import logging
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper
from torch import nn

from relish.core.errors import Failed
from relish.data.transforms import Preprocessing
from relish.evaluation.prediction import Decision
from relish.exporting.onnx_classifier import IMAGE, LOGITS, PROBABILITIES
from relish.exporting.onnx_graph import Graph, normalised, pixels

OPSET, IR_VERSION = 18, 10
"""The oldest operator set that torch's exporter writes by itself, in the form that ONNX Runtime reads from 1.18 on.
Tried with ONNX Runtime 1.32, its 1.30 for JavaScript, and OpenVINO 2026.4."""
NORMALISED = "normalised"
"""The exported network's input."""
MOST_BYTES = 2**31 - 2**20
"""What one protobuf message can hold, less some room."""


def network_model(network: nn.Module, image_size: int, count: int) -> onnx.ModelProto:
    """Export a network.

    Args:
        network: takes (N, 3, S, S) float32, gives (N, K) logits; left as it is.
        image_size: S.
        count: N, fixed in the graph.

    Raises:
        Failed: torch cannot export this network, or it is larger than one ONNX file can be.
    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    if size > MOST_BYTES:
        raise Failed(
            f"the network has {size / 2**30:.1f} GiB of weights; one ONNX file holds 2.", hint="Fit a smaller one."
        )
    plain = copy.deepcopy(network).cpu().float().eval()
    example = torch.zeros(count, 3, image_size, image_size)
    try:
        with _quiet(), torch.inference_mode():
            program = torch.onnx.export(
                plain,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[NORMALISED],
                output_names=[LOGITS],
                verbose=False,
            )
    except Exception as error:  # whatever an architecture's code leads the exporter to
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise Failed(
            f"torch cannot export this network to ONNX ({reason[:200]}).", hint="Take another --source."
        ) from error
    if program is None:
        raise Failed("torch did not export this network to ONNX.", hint="Take another --source.")
    return _bare(program.model_proto)


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells of its own deprecations and steps, which are nothing a user can act on."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


def _bare(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without words that only a maker of exporters needs."""
    if [one.domain for one in model.opset_import] != [""] or model.functions:
        raise Failed("torch exported this network with operators of its own.", hint="Take another --source.")
    graph = model.graph
    for node in graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del graph.value_info[:], graph.metadata_props[:], model.metadata_props[:]
    graph.doc_string = ""
    model.ir_version = IR_VERSION
    return model


CALIBRATION_IMAGES = 128
"""Training pictures that the ranges of activations are read from."""
INT8_LOSS_MAX = 0.01
"""Share of the pictures by which int8 may be less accurate than float32."""


def quantised(network: onnx.ModelProto, inputs: Iterable[npt.NDArray[np.float32]]) -> onnx.ModelProto:
    """Quantise the network's graph.

    Args:
        network: from `network.network_model`.
        inputs: (N, 3, S, S) float32 each, normalised, of training pictures.

    Raises:
        Failed: ONNX Runtime cannot quantise it.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = Path(folder) / "int8.onnx"
        prepared = onnx.shape_inference.infer_shapes(network)
        # Otherwise it advises, by the root logger, to fold what torch's exporter has folded already.
        onnx.helper.set_model_props(prepared, {"onnx.quant.pre_process": "onnxruntime.quant"})
        try:
            quantize_static(
                prepared,
                out,
                _Reader(inputs),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
            )
            model = onnx.load(out)
        except Exception as error:  # its own exceptions are many and undocumented
            raise Failed(
                f"ONNX Runtime cannot quantise this network ({error}).", hint="Export it without --int8."
            ) from error
    return _checked(model)


class _Reader:
    """What `quantize_static` asks for its pictures."""

    def __init__(self, inputs: Iterable[npt.NDArray[np.float32]]) -> None:
        self._inputs: Iterator[npt.NDArray[np.float32]] = iter(inputs)

    def get_next(self) -> dict[str, Any] | None:
        """The next input by name, or None after the last."""
        return next(({NORMALISED: one} for one in self._inputs), None)


def _checked(model: onnx.ModelProto) -> onnx.ModelProto:
    versions = {one.domain: one.version for one in model.opset_import if one.domain in ("", "ai.onnx")}
    if versions.get("", OPSET) != OPSET or any(node.domain not in ("", "ai.onnx") for node in model.graph.node):
        raise Failed("ONNX Runtime quantised this network with operators of its own.", hint="Export it without --int8.")
    del model.metadata_props[:], model.graph.value_info[:]
    model.ir_version = IR_VERSION
    del model.opset_import[:]
    model.opset_import.append(onnx.helper.make_opsetid("", OPSET))
    return model


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

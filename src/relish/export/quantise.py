"""A network in 8-bit whole numbers, by ONNX Runtime's static quantisation.

In:   the network's own graph, and what training pictures look like to it.
Out:  the same graph in QDQ form: weights and activations 8 bits, a scale for every channel of a weight.
Not here: preparing and softmax, which stay in floating point since they are not in this graph.

Source: Jacob et al. 2018, arXiv:1712.05877; ONNX Runtime's guide to quantisation (QDQ, `quantize_static`).
"""

import tempfile
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from relish.core.errors import Failed
from relish.export.network import IR_VERSION, NORMALISED, OPSET

CALIBRATION_PICTURES = 128
"""Training pictures that the ranges of activations are read from."""
MOST_LOST = 0.01
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

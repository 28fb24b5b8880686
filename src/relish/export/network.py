"""A network as an ONNX graph of its own, by torch's exporter.

In:   an `nn.Module` in eval mode, the side of its square and how many pictures it takes at once.
Out:  a `ModelProto` from `normalised` (N, 3, S, S) float32 to `logits` (N, K) float32.
Not here: what comes before and after the network (`assemble.py`).

The exporter notes where in the source code each node came from. That says nothing to a reader of the file but much of
the machine it was made on, so it is taken out, and equal networks give equal bytes.
"""

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import torch
from torch import nn

from relish.core.errors import Failed
from relish.export.metadata import LOGITS

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

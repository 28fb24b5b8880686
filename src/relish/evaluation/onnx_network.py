"""A network through ONNX Runtime, where a trial finds that faster: on one processor, in f32, for enough images to pay.

A network is exported up to its output layer and without its weights, which are put in when it is used. So one graph
serves each head and all weights of an architecture: a probe, its source, a model being fine-tuned, a saved one. The
graph is cached, and so is the outcome of the trial. With each set of weights its answers are first held against
PyTorch's for a few images.
"""

import copy
import io
import logging
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, cached_property
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from relish.core.cache import Cache
from relish.core.context import Context, RunContext
from relish.core.io import fingerprint, write_json
from relish.core.progress import Progress
from relish.core.run_folder import RunFolder, read_mapping
from relish.core.runtime import free_memory, is_out_of_memory, processor_name
from relish.models.head import output_layer

LIBRARIES = ("timm", "torchvision", "relish")
"""The packages whose networks compute what their layers and tensors tell; no others are exported here."""
FEWEST = 320
"""Images from which anything but PyTorch is thought of."""
SAVING, EXPORT_SECONDS, TRIAL_IMAGES = 0.35, 1.2, 64
"""Of a pass's time, what ONNX Runtime is expected to save; what an export takes; and the images that PyTorch computes
in the time of a trial: `benchmarks/engines.py`."""
GAIN = 1.05
"""It has to be so many times as fast to be used."""
DIFFERENCE = 1e-5
"""Of a feature or logit, at most; relative to the largest one where that is above 1."""
IMAGES, FEW = 8, 2
"""Of a trial, and of other short passes."""
LARGEST, COPIES, WORKSPACE = 2**29, 8, 2**30
"""Bytes of a network that is exported (a graph with its weights must be below 2 GB); how many times its bytes have to
be free to copy and pack it; and bytes for passes."""

_KIND, _INPUT, _OPSET, _ROUNDS, _RULES = "exported graph", "images", 18, 2, 2
_UNFIT = b""
"""In place of a graph: PyTorch is faster, or the export fails or answers otherwise."""


class OnnxNetwork(nn.Module):
    """A network's layers up to its output layer in ONNX Runtime, and its own output layer behind them.

    Args:
        network: its weights are copied as they are now.
        head: the name of its output layer.
        graph: as `_exported` makes it.
    """

    def __init__(self, network: nn.Module, head: str, graph: bytes) -> None:
        super().__init__()
        self.output, self._head, self._file = output_layer(network, head), head, _with_weights(graph, network)

    def get_submodule(self, target: str) -> nn.Module:
        """The output layer goes by the name that it has in the network."""
        return self.output if target == self._head else super().get_submodule(target)

    @cached_property
    def _session(self) -> Any:
        import onnxruntime  # late: a third of a second, and an extra

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        options.enable_cpu_mem_arena = False  # it would keep the largest pass's memory, for each batch size anew
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # reading needs the cores in between
        return onnxruntime.InferenceSession(self._file, options, providers=["CPUExecutionProvider"])

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) float32, normalised, to (B, K) logits."""
        (features,) = self._session.run(None, {_INPUT: images.contiguous().numpy()})
        inputs = torch.from_numpy(features).flatten(1)  # (B, D)
        logits: Tensor = self.output(inputs if self.output.weight.dim() == 2 else inputs[:, :, None, None])
        return logits.flatten(1)


def faster(network: nn.Module, head: str, side: int, images: int, context: Context) -> OnnxNetwork | None:
    """The network through ONNX Runtime, where so many images are answered sooner so; else None.

    What a run began with is written into its `engine.json`, and decides when it is resumed.

    Args:
        network: in eval mode.
        head: the name of its output layer.
        side: of the images, in pixels.
    """
    if not _asked_for(images, context):
        return None
    folder = (context.within or context.folder) if isinstance(context, RunContext) else None
    name = f"{_architecture(network, head)[:32]}-{side}"
    began = _engines(folder).get(name)
    if began == "torch":
        return None
    found: OnnxNetwork | None = None
    if _possible(network, context.progress):
        try:
            graph = _graph(network, head, name, side, images, context.progress, began is not None)
            found = OnnxNetwork(network, head, graph) if graph else None
            if found and not _alike(network, found, _noise(side, FEW)):
                return None
        except Exception as error:
            if is_out_of_memory(error):
                return None
            raise
    if folder and began is None:
        write_json(folder.engine, {**_engines(folder), name: "onnx" if found else "torch"})
    return found


def library_of(network: nn.Module) -> str:
    """The package that the network's class is of."""
    return type(network).__module__.partition(".")[0]


def _asked_for(images: int, context: Context) -> bool:
    return images >= FEWEST and context.device.type == "cpu" and context.processes == 1


def _possible(network: nn.Module, progress: Progress) -> bool:
    """Whether ONNX Runtime can be thought of; where only it is missing, that is said once."""
    tensors = [tensor for tensor in network.state_dict().values() if tensor.is_floating_point()]
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    fit = (
        size <= LARGEST
        and all(tensor.dtype == torch.float32 for tensor in tensors)
        and library_of(network) in LIBRARIES
        and free_memory() > COPIES * size + WORKSPACE
    )
    if fit and not all(map(find_spec, ("onnx", "onnxruntime"))):
        _say_missing(progress)
        return False
    return fit


@cache
def _say_missing(progress: Progress) -> None:
    progress.say('engine  torch; ONNX Runtime may be faster here: pip install "relish-vision[export]"')


def _engines(folder: RunFolder | None) -> dict[str, Any]:
    """By backbone and size of the images, what the run computes with: `onnx` or `torch`."""
    if folder is None or not folder.engine.is_file():
        return {}
    return read_mapping(folder.engine, hint="Delete it, and it is measured again.")


def _architecture(network: nn.Module, head: str) -> str:
    """SHA-256 of the layers but the output layer, of the names and shapes of their tensors, and of the library."""
    tensors = network.state_dict().items()
    shapes = [(name, list(tensor.shape)) for name, tensor in tensors if not name.startswith(f"{head}.")]
    version_of_library = getattr(sys.modules.get(library_of(network)), "__version__", "")
    layers = str(network).replace(str(output_layer(network, head)), "")
    return fingerprint([version_of_library, layers, shapes])


def _graph(network: nn.Module, head: str, name: str, side: int, images: int, progress: Progress, wanted: bool) -> bytes:
    """The exported graph, from the cache or made now; `_UNFIT` where it is not worth it, or not as it should be.

    Args:
        name: of the architecture and the images' size.
        side: of the images, in pixels.
        wanted: whatever is faster here.
    """
    depends = [_RULES, torch.__version__, version("onnxruntime"), torch.get_num_threads(), processor_name(), name]
    key, store = bytes.fromhex(fingerprint(depends)), Cache(progress)
    graph = next((graph for _, graph in store.recall(_KIND, [key])), None)
    if graph is None or (wanted and not graph):
        some = _noise(side, IMAGES)
        if not wanted and _seconds(network, some[:FEW]) * (SAVING * images - TRIAL_IMAGES) <= EXPORT_SECONDS:
            return _UNFIT
        graph = _exported(network, head, some[:FEW])
        if graph and not _fit(network, OnnxNetwork(network, head, graph), some, wanted):
            graph = _UNFIT
        store.remember(_KIND, {key: graph})
    return graph


def _noise(side: int, count: int) -> Tensor:
    """(B, 3, S, S) float32: neither the time nor the exactness of a pass depends on what images show."""
    return torch.from_numpy(np.random.default_rng(0).normal(size=(count, 3, side, side)).astype(np.float32))


@torch.inference_mode()
def _seconds(network: nn.Module, images: Tensor) -> float:
    """Of an image, in the second of two passes: the first one chooses kernels, too."""
    network(images)
    began = time.perf_counter()
    network(images)
    return (time.perf_counter() - began) / len(images)


def _fit(network: nn.Module, found: OnnxNetwork, images: Tensor, wanted: bool) -> bool:
    """Whether answers are PyTorch's, and passes are faster."""
    if not _alike(network, found, images):
        return False
    rounds = [(_seconds(network, images), _seconds(found, images)) for _ in range(0 if wanted else _ROUNDS)]
    return wanted or min(one for one, _ in rounds) >= GAIN * min(other for _, other in rounds)


@torch.inference_mode()
def _alike(network: nn.Module, found: OnnxNetwork, images: Tensor) -> bool:
    """Whether features and logits are PyTorch's; they are not where a network computes more behind its output layer."""
    taken: list[Tensor] = []
    hook = found.output.register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0].flatten(1)))
    try:
        logits = [one(images) for one in (network, found)]
    except Exception as error:  # of ONNX Runtime's many types
        if is_out_of_memory(error):
            raise
        return False
    finally:
        hook.remove()
    return len(taken) == 2 and all(a.shape == b.shape and _near(a, b) for a, b in (taken, logits))


def _near(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() <= DIFFERENCE * max(1.0, float(a.abs().max())))


def _exported(network: nn.Module, head: str, images: Tensor) -> bytes:
    """The network without its output layer as an ONNX graph without weights; `_UNFIT` where torch cannot write one."""
    import onnx  # late: an extra

    plain, out = copy.deepcopy(network), io.BytesIO()
    plain.set_submodule(head, nn.Identity())
    try:
        with silent_export(), torch.no_grad():
            # Not by torch.export, whose own time, with that of its imports, is several times the saving of a probe.
            # Weights stay what they are in the network: nothing is folded into them, as ONNX Runtime does later.
            torch.onnx.export(
                plain, (images,), out, dynamo=False, opset_version=_OPSET,  # type: ignore[arg-type]
                input_names=[_INPUT], output_names=["features"], dynamic_axes={_INPUT: {0: "images"}},
                training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False,
            )  # fmt: skip
    except Exception as error:  # the exporter raises whatever an architecture's code makes it raise
        if is_out_of_memory(error):
            raise
        return _UNFIT
    model, weights = onnx.load_model_from_string(out.getvalue()), plain.state_dict()
    if not all(tensor.name in weights for tensor in model.graph.initializer):
        return _UNFIT
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")
    return bytes(model.SerializeToString())


def _with_weights(graph: bytes, network: nn.Module) -> bytes:
    import onnx  # late: an extra

    model, weights = onnx.load_model_from_string(graph), network.state_dict()
    for tensor in model.graph.initializer:
        tensor.raw_data = weights[tensor.name].contiguous().numpy().tobytes()
    return bytes(model.SerializeToString())


@contextmanager
def silent_export() -> Iterator[None]:
    """Silence the exporter's own deprecations and progress, which a user cannot act on."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)

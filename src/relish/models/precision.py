"""In which precision, `f32` or `bf16`, and memory layout a network is fastest on this machine: measured, never guessed.

bf16 halves the bytes and, where the processor multiplies it, the time; where a network's layers have no fast bf16
kernel it is several times slower on the same processor. So both are timed on the network itself. Times are cached by
processor, threads, PyTorch, network and shape; the difference of the probabilities depends on the weights and is
measured every time.

On a GPU depthwise convolutions are fastest in channels-last layout, once cuDNN has compiled kernels for the shape of a
batch (`runtime.to_device`). A trial finds that out at the same price, so it is made for a long training alone.
"""

import copy
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from relish.core.cache import Cache
from relish.core.errors import BadInput
from relish.core.io import fingerprint
from relish.core.runtime import is_out_of_memory, processor_name
from relish.models.captured import on_cuda

Precision = Literal["f32", "bf16"]
AskedPrecision = Literal["f32", "auto"]
"""What a recipe or a caller asks for; `auto` is whichever a trial chooses."""
MEASURED_ON = ("cpu", "cuda")
"""Kinds of device that a trial is made on; others stay in f32."""
BOTH: tuple[Precision, ...] = ("f32", "bf16")
LONG = 60.0
"""Seconds of a training on a GPU in which kernels for depthwise convolutions are worth compiling: a batch's shape, the
last batch's and an evaluation's took 15 to 35 s in all, for EfficientNet-Lite0 on an H200."""

SECONDS = 10.0
"""A trial takes no longer, short of one pass that is longer by itself."""
IMAGES = 16
"""Of a trial on a processor, at most; there the ratio of the two times hardly depends on the batch."""
GAIN = 1.05
"""bf16 has to be so many times as fast to be used."""
HOPELESS = 3.0
"""bf16 that takes so many times as long on two images is not tried on more: a processor without instructions for it."""
DIFFERENCE = 0.05
"""Largest difference of any probability; classes that are twice that apart keep their order."""

_FIRST, _ROUNDS = 2, 3
_FEWEST = 4
_REPEATED = 5
"""Passes of a round on a GPU, whose clock is read when it has finished all of them."""
_VERSION = 3
"""Raise it when a trial measures something else than before."""


class Computing(NamedTuple):
    """How a network computes in a training."""

    precision: Precision = "f32"
    compiled: bool = False
    """Whether depthwise convolutions are channels last on a GPU, where their kernels are compiled for each shape."""


PLAINLY = Computing()
"""Without a trial."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What came of a trial."""

    f32_seconds: float
    """Median pass in f32; a pass is forward and backward where the network is to be trained."""
    bf16_seconds: float
    """Median pass in bf16; infinite where it was not asked for."""
    difference: float | None
    """Largest difference between the probabilities of both, 0 (best) to 1; None where bf16 is too slow anyway."""
    compiled: bool = False
    """Whether these are times with compiled kernels, see `Computing`: faster by `GAIN` than those without."""

    @property
    def precision(self) -> Precision:
        """bf16 where it is faster by `GAIN` and differs by at most `DIFFERENCE`; f32 otherwise."""
        return "bf16" if self.difference is not None and self.difference <= DIFFERENCE else "f32"

    @property
    def computing(self) -> Computing:
        """The choice."""
        return Computing(self.precision, self.compiled)

    def sentence(self) -> str:
        """The choice and its reason, in a line."""
        differ = "" if self.difference is None else f", its probabilities differ by {self.difference:.4f} at most"
        times = f"bf16 is {self.f32_seconds / self.bf16_seconds:.2f} times as fast as f32 here{differ}"
        words = f"{self.precision}: {times}" if self.bf16_seconds < math.inf else self.precision
        return f"{words}; kernels are compiled, since the training is long" if self.compiled else words

    def as_json(self) -> dict[str, Any]:
        """Plain values, the choice among them."""
        seconds = self.bf16_seconds if self.bf16_seconds < math.inf else None
        return {"precision": self.precision, **asdict(self), "bf16_seconds": seconds}


def checked_precision(asked: str) -> AskedPrecision:
    """The same, if it is one.

    Raises:
        BadInput: it is something else.
    """
    if asked not in ("f32", "auto"):
        raise BadInput(f'--precision: there is no "{asked}".', hint="One of: f32, auto.")
    return asked  # type: ignore[return-value]


@contextmanager
def computing_in(precision: Precision, device: torch.device) -> Iterator[None]:
    """Let forward passes compute in this precision; the parameters stay f32. In f32 nothing is changed at all."""
    if precision == "f32":
        yield
        return
    apart = _GroupedInF32() if device.type == "cpu" and torch.is_grad_enabled() else nullcontext()
    with torch.autocast(device.type, torch.bfloat16), apart:
        yield


class _GroupedInF32(TorchFunctionMode):
    """Computes grouped convolutions in f32 amid bf16: oneDNN has no fast bf16 gradient for them."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not torch.conv2d or (args[6] if len(args) > 6 else kwargs.get("groups", 1)) == 1:
            return func(*args, **kwargs)
        with torch.autocast("cpu", enabled=False):
            return func(args[0].float(), *args[1:], **kwargs).to(torch.bfloat16)


def fastest(network: nn.Module, images: Tensor) -> Precision:
    """The fastest precision for prediction; `images` as in `trial`; with fewer than four, or memory for fewer, f32."""
    if images.device.type not in MEASURED_ON or len(images) < _FEWEST:
        return "f32"
    try:
        return trial(network, images).precision
    except Exception as error:
        if is_out_of_memory(error):
            return "f32"
        raise


def trial(
    network: nn.Module,
    images: Tensor,
    *,
    trained: int = 0,
    precisions: Sequence[Precision] = BOTH,
    layouts: bool = False,
) -> Trial:
    """Measure precisions on this network, and layouts in a long training; or recall what was measured before.

    Args:
        network: on the device of the images, its modules in the modes that they will train in; left as it is.
        images: (B, 3, S, S) float32, normalised; on a processor the first `IMAGES` are used, on a GPU all: the batch
            that will be computed, since with a few images a GPU only waits to be told what to do.
        trained: how many images it will be trained on, each as often as it is; 0: a pass does not go backward.
        precisions: to choose from, f32 among them.
        layouts: whether to compile kernels is to be chosen too, see `Computing`; it is not where training is short.
    """
    twin, images = copy.deepcopy(network), images if images.device.type == "cuda" else images[:IMAGES]
    compiled = False
    with torch.random.fork_rng():
        f32, bf16 = _recalled(twin, images, trained > 0, precisions, compiled=False)
        if layouts and trained / len(images) * min(f32, bf16) > LONG:
            twin.to(memory_format=torch.channels_last)
            found = _recalled(twin, images, True, precisions, compiled=True)
            if compiled := min(f32, bf16) >= GAIN * min(found):
                f32, bf16 = found
        difference = _difference(twin, images) if f32 >= GAIN * bf16 else None
    return Trial(f32_seconds=f32, bf16_seconds=bf16, difference=difference, compiled=compiled)


def _recalled(
    network: nn.Module, images: Tensor, training: bool, precisions: Sequence[Precision], *, compiled: bool
) -> tuple[float, float]:
    """Median pass in f32 and in bf16, infinite where that is not asked for; measured where it never was."""
    cache, key = Cache(), _cache_key(network, images, training, precisions, compiled)
    kept = [json.loads(entry) for _, entry in cache.recall("trial", [key])]
    seconds: dict[Precision, float] = kept[0] if kept else _timed(network, images, training, precisions)
    cache.remember("trial", {key: json.dumps(seconds).encode()})
    return seconds["f32"], seconds.get("bf16", math.inf)


def _cache_key(
    network: nn.Module, images: Tensor, training: bool, precisions: Sequence[Precision], compiled: bool
) -> bytes:
    learning = [name for name, parameter in network.named_parameters() if parameter.requires_grad] if training else []
    about = [
        _VERSION,
        processor_name(),
        torch.cuda.get_device_name(images.device) if images.device.type == "cuda" else images.device.type,
        torch.get_num_threads(),
        torch.__version__,
        str(network),
        learning,
        list(images.shape),
        training,
        *precisions,
        compiled,
    ]
    return bytes.fromhex(fingerprint(about))


def _timed(
    network: nn.Module, images: Tensor, training: bool, precisions: Sequence[Precision]
) -> dict[Precision, float]:
    """Median pass in each precision, in turn; on a processor in both, over as many of the images as the time allows."""
    if images.device.type == "cuda":
        return _timed_on_cuda(network, images, training, precisions)
    began = time.perf_counter()
    few = images[:_FIRST]
    for precision in BOTH:  # the first pass of each shape also chooses kernels
        _pass(network, few, precision, training)
    # Half of the time for the rounds; the other half for the first, slow pass of the larger shape.
    f32, bf16 = (_pass(network, few, precision, training) for precision in BOTH)
    if bf16 > HOPELESS * f32:
        return {"f32": f32, "bf16": bf16}
    images = images[: max(_FIRST, int(SECONDS / 4 / _ROUNDS / (max(f32, bf16) / len(few))))]
    rounds: list[tuple[float, float]] = []
    while len(rounds) <= _ROUNDS and (not rounds or time.perf_counter() - began <= SECONDS / 2):
        rounds.append((_pass(network, images, "f32", training), _pass(network, images, "bf16", training)))
    f32s, bf16s = zip(*(rounds[1:] or rounds), strict=True)  # the first of the larger shape, where it is not alone
    return {"f32": median(f32s), "bf16": median(bf16s)}


def _timed_on_cuda(
    network: nn.Module, images: Tensor, training: bool, precisions: Sequence[Precision]
) -> dict[Precision, float]:
    """The same on a GPU, which is waited for: of all the images, warmed up, and captured where a training would be."""

    def ready(precision: Precision) -> Callable[[], Any]:
        work = partial(_computed, network, images, precision, training)
        work()
        if training:
            with suppress(RuntimeError):  # the training is launched kernel by kernel then too
                return on_cuda(work)[1]
        return work

    works = {precision: ready(precision) for precision in precisions}
    rounds: dict[Precision, list[float]] = {precision: [] for precision in works}
    for _ in range(_ROUNDS):
        for precision, work in works.items():
            began = _now(images.device)
            for _ in range(_REPEATED):
                work()
            rounds[precision].append((_now(images.device) - began) / _REPEATED)
    return {precision: median(found) for precision, found in rounds.items()}


def _pass(network: nn.Module, images: Tensor, precision: Precision, training: bool) -> float:
    began = time.perf_counter()
    _computed(network, images, precision, training)
    return time.perf_counter() - began


def _computed(network: nn.Module, images: Tensor, precision: Precision, training: bool) -> None:
    network.zero_grad()
    with torch.set_grad_enabled(training), computing_in(precision, images.device):
        outputs: Tensor = network(images)
    if training and outputs.requires_grad:
        outputs.float().square().sum().backward()  # type: ignore[no-untyped-call]


def _now(device: torch.device) -> float:
    torch.cuda.synchronize(device)
    return time.perf_counter()


@torch.no_grad()
def _difference(network: nn.Module, images: Tensor) -> float:
    network.eval()
    plain = network(images).softmax(1)
    with computing_in("bf16", images.device):
        short: Tensor = network(images)
    found = short.float().softmax(1)
    difference = float((found - plain).abs().max())
    return difference if difference <= 1 else 1.0  # NaN is the largest difference there is

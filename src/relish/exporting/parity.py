"""Whether an exported model computes what the model in PyTorch computes, measured on real images one by one.

`certify` compares sessions of exported forms with the network and gives a `Certificate` each: worst difference,
agreement, accuracy, speed; `explain` says where the two differ, `Exported` reports the export as a whole.
Both sides get the image that one function opens: Pillow and torch on one side, the file alone on the other.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from PIL import Image
from torch import nn

from relish.core.progress import Progress
from relish.core.runtime import one_thread, processor_name
from relish.data.dataset import Split
from relish.data.depth import ValueRange
from relish.data.image import open_image
from relish.data.transforms import Preprocessing, evaluation_transform, normalise, stacked
from relish.evaluation.metrics import Proportion
from relish.evaluation.prediction import Decision, probability_of, softmax
from relish.evaluation.unfamiliarity import parted
from relish.exporting.build import NORMALISED, PIXELS, with_outputs
from relish.exporting.onnx_classifier import IMAGE, LOGITS, run, session

TOLERANCE = 1e-3
"""The largest difference in a probability that an export may have."""
TIE = 1e-6
"""Two classes whose probabilities in PyTorch differ by less are tied: rounding decides which comes first."""
CLOSE = 1e-3
"""Logits and inputs that differ by less differ by rounding only."""
INT8_SPEEDUP_MIN = 1.5
"""How many times as fast int8 should be, at least, where the processor has instructions for it."""
INSTRUCTIONS = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
"""Flags in /proc/cpuinfo of instructions that multiply and add 8-bit integers."""

ProbabilitiesOf = Callable[[Image.Image], npt.NDArray[np.floating[Any]]]
"""(K,) probabilities of one opened image; (K + 1,) where the model has an unfamiliarity, which comes last."""
_Measured = list[tuple[npt.NDArray[np.floating[Any]], float]]
"""The rows of one model, image by image, and how many seconds each took."""


@dataclass(frozen=True)
class Comparison:
    """One figure of an exported graph compared with PyTorch's, on the same images."""

    pictures: int
    worst_difference: float
    """The largest difference in a probability, 0 to 1, or in an unfamiliarity, 0 to 2."""
    worst_picture: str
    disagreements: tuple[str, ...]
    """Images for which another class is predicted, without ties; or that one calls unknown and the other does not,
    though `TIE` or more from the limit in PyTorch."""

    @property
    def agreed(self) -> Proportion:
        """The other images."""
        return Proportion(self.pictures - len(self.disagreements), self.pictures)


@dataclass(frozen=True)
class UnknownProof(Comparison):
    """What an exported graph finds unfamiliar compared with what PyTorch does."""

    def as_json(self) -> dict[str, Any]:
        """What is the same at each export, with at most ten of the disagreements."""
        return {
            "tolerance": TOLERANCE,
            "worst_difference": self.worst_difference,
            "worst_picture": self.worst_picture,
            "agreed": self.agreed.as_json(),
            "disagreements": list(self.disagreements[:10]),
        }

    def words(self) -> str:
        """For the screen."""
        agreed = f"same for {self.agreed.correct} of {self.agreed.count}"
        return f"unfamiliarity up to {self.worst_difference:.2g} apart, unknown {agreed}"


@dataclass(frozen=True)
class Certificate(Comparison):
    """The probabilities of one exported graph compared with PyTorch's, and what stands beside them."""

    ties: int
    """Images whose predicted classes differ but are tied."""
    torch_accuracy: Proportion
    accuracy: Proportion
    torch_milliseconds: float
    """Median of an image from uint8 pixels to probabilities, on one thread."""
    milliseconds: float
    unknown: UnknownProof | None = None
    """None where the model cannot tell what is unknown."""

    @property
    def exact(self) -> bool:
        """Whether every probability is within `TOLERANCE` and every predicted class the same."""
        return self.worst_difference <= TOLERANCE and not self.disagreements

    def as_json(self) -> dict[str, Any]:
        """What is the same at each export, with at most ten of the disagreements."""
        return {
            "pictures": self.pictures,
            "tolerance": TOLERANCE,
            "worst_difference": self.worst_difference,
            "worst_picture": self.worst_picture,
            "agreed": self.agreed.as_json(),
            "ties": self.ties,
            "disagreements": list(self.disagreements[:10]),
            "torch_accuracy": self.torch_accuracy.as_json(),
            "accuracy": self.accuracy.as_json(),
            "unknown": self.unknown and self.unknown.as_json(),
        }


def certify(
    torch_probabilities: ProbabilitiesOf,
    exported: Mapping[str, ProbabilitiesOf],
    split: Split,
    names: Sequence[str],
    decision: Decision,
    classes: Sequence[str],
    *,
    value_range: ValueRange | None = None,
    progress: Progress | None = None,
) -> dict[str, Certificate]:
    """Compare exported graphs with PyTorch on every image, in turns, so that both are timed under the same load.

    Args:
        torch_probabilities: from `torch_model`.
        exported: graphs by name, from `exported_model`.
        split: at least one image, labels in the order of the model's classes.
        names: of the images, for the certificate.
        decision: how all of them predict a class from probabilities.
        classes: the K class names.
        value_range: of the model, for `open_image`.

    Returns:
        A certificate for each graph.

    Raises:
        ImageError: an image cannot be opened any more.
    """
    models = {"": torch_probabilities, **exported}
    measured: dict[str, _Measured] = {name: [] for name in models}
    with one_thread(), (progress or Progress()).bar("comparing", len(split)) as bar:
        for path in split.paths:
            image = open_image(path, value_range=value_range)
            for name, probabilities_of in models.items():
                began = time.perf_counter()
                row = probabilities_of(image)
                measured[name].append((row, time.perf_counter() - began))
            bar.advance()
    reference = measured.pop("")
    compare = partial(_certificate, reference, labels=split.labels, names=names, decision=decision, classes=classes)
    return {name: compare(one) for name, one in measured.items()}


def torch_model(
    network: nn.Module, preprocessing: Preprocessing, decision: Decision, *, scored: bool = False
) -> ProbabilitiesOf:
    """PyTorch's probabilities, in float32.

    Args:
        scored: whether the network is `Scored`: its last column is the unfamiliarity.
    """

    def probabilities_of(image: Image.Image) -> npt.NDArray[np.floating[Any]]:
        with torch.inference_mode():
            rows = network(normalise(stacked([evaluation_transform(image, preprocessing)]), preprocessing)).numpy()
        logits, unfamiliarity = parted(rows, rows.shape[1] - scored)
        probabilities = softmax(logits, decision.temperature)[0]
        return probabilities if unfamiliarity is None else np.append(probabilities, unfamiliarity)

    return probabilities_of


def exported_model(loaded: Any, count: int) -> ProbabilitiesOf:
    """The probabilities of an ONNX Runtime session for `count` images, which is given one image so many times."""

    def probabilities_of(image: Image.Image) -> npt.NDArray[np.floating[Any]]:
        pixels = np.asarray(image)
        found = run(loaded, np.broadcast_to(pixels, (count, *pixels.shape)))
        row = found.probabilities[0]
        return row if found.unfamiliarity is None else np.append(row, found.unfamiliarity[0])

    return probabilities_of


def _certificate(
    reference: _Measured,
    exported: _Measured,
    *,
    labels: npt.NDArray[np.int64],
    names: Sequence[str],
    decision: Decision,
    classes: Sequence[str],
) -> Certificate:
    rows = [np.stack([row for row, _ in measured]) for measured in (reference, exported)]
    (wanted, strange), (found, strange_there) = (parted(one, len(classes)) for one in rows)  # (N, K), (N,) or none
    # NaN counts as the largest difference there is; of a row of NaN, the first class is predicted.
    differences = np.nan_to_num(np.abs(wanted - found), nan=1.0).max(axis=1)
    in_torch, in_export = (decision.decide(np.nan_to_num(rows), classes)[0] for rows in (wanted, found))
    if decision.threshold is not None and decision.positive is not None:
        margin = np.abs(wanted[:, list(classes).index(decision.positive)] - decision.threshold)
    else:
        margin = probability_of(wanted, in_torch) - probability_of(wanted, in_export)
    tied = (in_torch != in_export) & (margin <= TIE)
    differs = (in_torch != in_export) & ~tied
    worst = int(differences.argmax())
    return Certificate(
        pictures=len(labels),
        worst_difference=float(differences[worst]),
        worst_picture=names[worst],
        disagreements=tuple(name for name, apart in zip(names, differs, strict=True) if apart),
        ties=int(tied.sum()),
        torch_accuracy=Proportion(int((in_torch == labels).sum()), len(labels)),
        accuracy=Proportion(int((in_export == labels).sum()), len(labels)),
        torch_milliseconds=1000 * median(seconds for _, seconds in reference),
        milliseconds=1000 * median(seconds for _, seconds in exported),
        unknown=None
        if strange is None or strange_there is None
        else _unknown_proof(strange, strange_there, names, decision),
    )


def _unknown_proof(
    wanted: npt.NDArray[np.floating[Any]],
    found: npt.NDArray[np.floating[Any]],
    names: Sequence[str],
    decision: Decision,
) -> UnknownProof:
    differences = np.nan_to_num(np.abs(wanted - found), nan=2.0)
    differs = decision.unknown(wanted) != decision.unknown(found)
    if decision.unknown_above is not None:
        differs &= np.abs(wanted - decision.unknown_above) >= TIE
    worst = int(differences.argmax())
    apart = tuple(name for name, other in zip(names, differs, strict=True) if other)
    return UnknownProof(len(names), float(differences[worst]), names[worst], apart)


def explain(
    model: onnx.ModelProto, network: nn.Module, preprocessing: Preprocessing, image: Image.Image, count: int
) -> str:
    """Where an exported model and PyTorch differ: in the pixels that reach the network, or in the network itself.

    Args:
        model: from `assemble`, for `count` images.
        network: in float32 on the processor.
        image: RGB.
    """
    loaded = session(with_outputs(model, PIXELS, NORMALISED).SerializeToString(), threads=1)
    images = np.broadcast_to(np.asarray(image), (count, *np.asarray(image).shape))
    pixels, given, logits = (row[0] for row in loaded.run([PIXELS, NORMALISED, LOGITS], {IMAGE: images}))
    wanted = evaluation_transform(image, preprocessing)
    with torch.inference_mode():
        same_input = network(torch.from_numpy(given)[None]).numpy()[0]
    levels = np.abs(pixels - wanted.numpy())  # (3, S, S), of 255
    scaled = float(np.abs(normalise(stacked([wanted]), preprocessing).numpy()[0] - given).max())
    apart = float(np.abs(logits - same_input).max())
    words = []
    if levels.max() > 0 or scaled > CLOSE:
        words.append(
            f"its input differs: {int((levels > 0).sum())} of {levels.size} values, by up to {levels.max():g} of 255"
        )
    if not apart <= CLOSE:
        words.append(f"the graph differs: of the same input, its logits are up to {apart:.2g} away from PyTorch's")
    return "; ".join(words) or f"neither its input nor its logits (up to {apart:.2g}) differ: the temperature does"


@dataclass(frozen=True)
class Exported:
    """An exported file and its certificate."""

    path: Path
    precision: str
    """`f32` or `int8`."""
    split: str
    """What the images are called that it was verified on."""
    certificate: Certificate
    """Of the file."""
    f32: Certificate
    """Of the float32 graph; the same certificate unless the file is int8."""
    mismatch: tuple[str, ...]
    """Why it should not be trusted; empty unless it was written with `allow_mismatch`."""

    def as_json(self) -> dict[str, Any]:
        """The document that `relish export --json` prints."""
        return {"path": str(self.path), "precision": self.precision, "certificate": self.proof(), "speed": self.speed()}

    def proof(self) -> dict[str, Any]:
        """The certificate as the file's metadata holds it; the same at each export."""
        words = {"split": self.split, **self.certificate.as_json(), "mismatch": list(self.mismatch)}
        return words if self.precision == "f32" else {**words, "f32": self.f32.as_json()}

    def speed(self) -> dict[str, Any]:
        """Milliseconds for one image on one thread, from pixels to probabilities."""
        words = {
            "processor": processor_name(),
            "torch_milliseconds": self.certificate.torch_milliseconds,
            "milliseconds": self.certificate.milliseconds,
        }
        return words if self.precision == "f32" else {**words, "f32_milliseconds": self.f32.milliseconds}

    def summary(self) -> list[str]:
        """The certificate as lines for the screen."""
        proof, f32 = self.certificate, self.f32
        ratio = proof.torch_milliseconds / proof.milliseconds
        lines = [
            f"proved  on {proof.pictures} pictures ({self.split}): {_agreement(f32)}",
            f"right   PyTorch {proof.torch_accuracy.sentence()}",
            f"        f32     {f32.accuracy.sentence()}",
        ]
        if self.precision == "int8":
            lines += [f"        int8    {proof.accuracy.sentence()}", f"int8    {_agreement(proof)}"]
        if f32.unknown is not None:
            lines.append(f"unknown {f32.unknown.words()}")
        if proof.unknown is not None and proof is not f32:
            lines.append(f"        int8: {proof.unknown.words()}")
        lines.append(
            f"speed   {proof.milliseconds:.1f} ms a picture, PyTorch {proof.torch_milliseconds:.1f} ms: "
            f"{ratio:.2f} times as fast (one thread, {processor_name()})"
        )
        if self.precision == "int8":
            lines.append(_int8_speed(f32.milliseconds / proof.milliseconds, f32.milliseconds))
        return lines


def _agreement(proof: Certificate) -> str:
    return (
        f"worst probability difference {proof.worst_difference:.2g}, "
        f"same class for {proof.agreed.correct} of {proof.agreed.count}"
        + (f", {proof.ties} ties left aside" if proof.ties else "")
    )


def _int8_speed(ratio: float, f32: float) -> str:
    words = f"        float32 in ONNX {f32:.1f} ms: int8 is {ratio:.2f} times as fast"
    if ratio >= INT8_SPEEDUP_MIN:
        return words
    known = has_instructions()
    if known:
        return f"{words}; where a network is small, preparing pictures and small layers take the rest"
    return words + ("; this processor has no instructions for it (VNNI, AMX)" if known is False else "")


def has_instructions() -> bool | None:
    """Whether this processor has instructions for 8-bit products; None where that is not known."""
    try:
        words = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return None
    return not words.isdisjoint(INSTRUCTIONS)

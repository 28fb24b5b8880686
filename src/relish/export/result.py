"""What came of an export: where the file is, how it was proved, and how fast it is.

In:   certificates.
Out:  words for the screen, for `--json` and for the file's metadata.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relish.core.runtime import processor_name
from relish.export.certificate import Certificate

LEAST_SPEED = 1.5
"""How many times as fast int8 is expected to be where the processor has instructions for it."""
INSTRUCTIONS = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
"""Names in /proc/cpuinfo of instructions that multiply and add 8-bit numbers."""


@dataclass(frozen=True)
class Exported:
    """A file that was written, and what is known of it."""

    path: Path
    precision: str
    """`f32` or `int8`."""
    split: str
    """What it was proved on."""
    certificate: Certificate
    """Of the file."""
    f32: Certificate
    """Of the float32 graph; the same one unless the file is int8."""
    mismatch: tuple[str, ...]
    """Why it should not be trusted; empty unless `allow_mismatch` let it through."""

    def as_json(self) -> dict[str, Any]:
        """The document that `relish export --json` prints."""
        return {
            "path": str(self.path),
            "precision": self.precision,
            "certificate": self.proof(),
            "speed": self.speed(),
        }

    def proof(self) -> dict[str, Any]:
        """What the file says of its proof; the same at each export."""
        words = {"split": self.split, **self.certificate.as_json(), "mismatch": list(self.mismatch)}
        return words if self.precision == "f32" else {**words, "f32": self.f32.as_json()}

    def speed(self) -> dict[str, Any]:
        """Milliseconds a picture on one thread, from pixels to probabilities."""
        words = {
            "processor": processor_name(),
            "torch_milliseconds": self.certificate.torch_milliseconds,
            "milliseconds": self.certificate.milliseconds,
        }
        return words if self.precision == "f32" else {**words, "f32_milliseconds": self.f32.milliseconds}


def summary(done: Exported) -> list[str]:
    """The certificate on the screen."""
    proof, f32 = done.certificate, done.f32
    ratio = proof.torch_milliseconds / proof.milliseconds
    lines = [
        f"proved  on {proof.pictures} pictures ({done.split}): {_agreement(f32)}",
        f"right   PyTorch {proof.torch_accuracy.sentence()}",
        f"        f32     {f32.accuracy.sentence()}",
    ]
    if done.precision == "int8":
        lines += [f"        int8    {proof.accuracy.sentence()}", f"int8    {_agreement(proof)}"]
    lines.append(
        f"speed   {proof.milliseconds:.1f} ms a picture, PyTorch {proof.torch_milliseconds:.1f} ms: "
        f"{ratio:.2f} times as fast (one thread, {processor_name()})"
    )
    if done.precision == "int8":
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
    if ratio >= LEAST_SPEED:
        return words
    known = has_instructions()
    if known:
        return f"{words}; where a network is small, preparing pictures and small layers take the rest"
    return words + ("; this processor has no instructions for it (VNNI, AMX)" if known is False else "")


def has_instructions() -> bool | None:
    """Whether this processor multiplies 8-bit numbers by instructions of their own; None where it cannot be known."""
    try:
        words = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return None
    return not words.isdisjoint(INSTRUCTIONS)

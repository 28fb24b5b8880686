"""A small model to serve, and a real server around it on a port of its own."""

import io
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from relish.evaluation.prediction import Decision, Prediction, predictions
from relish.server.app import create_app
from relish.server.limits import Limits
from relish.server.server import listening_socket, uvicorn_server

CLASSES = ("blue", "red")
HANG = 120.0
"""Seconds after which whatever is waited for does not come any more."""


class Tones:
    """Tells red pictures from blue ones by their mean colour; unsure of what is neither.

    Where its decision calls any picture unknown, light ones are the strangest. While `may_answer` is clear, it waits.
    """

    name = "tones"
    classes = CLASSES
    value_range = None
    explains = False

    def __init__(self, decision: Decision | None = None) -> None:
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.decision = decision or Decision(unsure_below=0.7)
        self.batches: list[int] = []
        self.fails = False

    def prepare(self, image: Image.Image) -> np.ndarray:
        return np.asarray(image, dtype=np.float64).mean(axis=(0, 1))

    def predict(self, prepared: Sequence[np.ndarray]) -> list[Prediction]:
        self.batches.append(len(prepared))
        assert self.may_answer.wait(HANG)
        if self.fails:
            raise RuntimeError("the secret inside")
        redness = np.array([(colour[0] - colour[2]) / 40 for colour in prepared])
        red = 1 / (1 + np.exp(-redness))
        strange = None if self.decision.unknown_above is None else np.array([c.mean() / 255 for c in prepared])
        return predictions([""] * len(red), np.stack([1 - red, red], axis=1), CLASSES, self.decision, strange)

    def explain(self, image: Image.Image, class_name: str) -> Image.Image:
        return image.convert("L").convert("RGB").resize((32, 32))


class Explaining(Tones):
    explains = True


def png(colour: tuple[int, int, int] = (190, 60, 60), size: tuple[int, int] = (40, 30)) -> bytes:
    """A plain picture's bytes."""
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


RED, BLUE, GREY = png(), png((60, 60, 190)), png((120, 120, 120))


@contextmanager
def serving(
    model: object, limits: Limits | None = None, token: str | None = None, root_path: str = ""
) -> Iterator[httpx.Client]:
    """A client of a real server; both end with the block."""
    bounds = limits or Limits()
    taken = listening_socket("127.0.0.1", 0)
    running = uvicorn_server(create_app(model, bounds, token, root_path), bounds)  # type: ignore[arg-type]
    thread = threading.Thread(target=running.run, kwargs={"sockets": [taken]}, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{taken.getsockname()[1]}"
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with httpx.Client(base_url=address, headers=headers, timeout=HANG, trust_env=False) as client:
            yield client
    finally:
        running.should_exit = True
        thread.join(HANG)
        taken.close()
        assert not thread.is_alive()


def onnx_tones(path: Path) -> Path:
    """An exported file that answers as `Tones` does, written without torch."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from relish.exporting.onnx_classifier import FORMAT_VERSION, About

    weights = np.array([[0, 1 / 40], [0, 0], [0, -1 / 40]], dtype=np.float32)
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "sides"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in ("probabilities", "logits")]
    graph = helper.make_graph(
        nodes,
        "tones",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, "height", "width", 3])],
        outputs,
        [numpy_helper.from_array(np.array([1, 2]), "sides"), numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    about = About(
        relish_format=FORMAT_VERSION,
        classes=CLASSES,
        decision=Decision(unsure_below=0.7),
        precision="f32",
        preprocessing={},
        model_sha256="0" * 64,
        relish_version="0",
        certificate={},
    )
    helper.set_model_props(model, about.words())
    onnx.save(model, str(path))
    return path

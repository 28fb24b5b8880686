"""What the tests of exported files share: odd pictures, and runs of a graph's first part alone."""

import runpy
from functools import cache
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper
from PIL import Image

from relish.data.transforms import Preprocessing
from relish.exporting.build import IR_VERSION, OPSET
from relish.exporting.onnx_classifier import session
from relish.exporting.onnx_graph import Graph, pixels

ROOT = Path(__file__).resolve().parents[1]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
make_odd_pictures = runpy.run_path(str(ROOT / "benchmarks" / "odd_pictures.py"))["make_odd_pictures"]


@cache
def preparing(how: Preprocessing):
    """A session of the preparing alone: one picture in, (3, S, S) whole numbers out."""
    graph = Graph("prepare")
    graph.op("Identity", pixels(graph, "image", how, 1), named="pixels")
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, "height", "width", 3])
    out = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [1, 3, how.image_size, how.image_size])
    whole = helper.make_graph(graph.nodes, "g", [image], [out], graph.initialisers)
    model = helper.make_model(whole, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return session(model.SerializeToString(), threads=1)


def prepared(picture: Image.Image, how: Preprocessing) -> np.ndarray:
    """What the graph makes of a picture, (3, S, S)."""
    return preparing(how).run(None, {"image": np.asarray(picture)[None]})[0][0]

"""Where an exported model and PyTorch part ways: before the network, or in it.

In:   the exported model, the network, and the picture they differ most about.
Out:  a sentence.
"""

import numpy as np
import onnx
import torch
from PIL import Image
from torch import nn

from relish.data.transforms import Preprocessing, evaluation_transform, normalise, stacked
from relish.export.assemble import PIXELS, with_outputs
from relish.export.metadata import IMAGE, LOGITS
from relish.export.network import NORMALISED
from relish.export.reader import session

CLOSE = 1e-3
"""Logits that differ by less differ by rounding alone."""


def explain(model: onnx.ModelProto, network: nn.Module, how: Preprocessing, picture: Image.Image, count: int) -> str:
    """Compare the pixels that reach the network, then what the network makes of the same input.

    Args:
        model: as `assemble` made it, for `count` pictures.
        network: in float32 on the processor.
        picture: RGB.
    """
    loaded = session(with_outputs(model, PIXELS, NORMALISED).SerializeToString(), threads=1)
    images = np.broadcast_to(np.asarray(picture), (count, *np.asarray(picture).shape))
    pixels, given, logits = (row[0] for row in loaded.run([PIXELS, NORMALISED, LOGITS], {IMAGE: images}))
    wanted = evaluation_transform(picture, how)
    with torch.inference_mode():
        same_input = network(torch.from_numpy(given)[None]).numpy()[0]
    levels = np.abs(pixels - wanted.numpy())  # (3, S, S), of 255
    scaled = float(np.abs(normalise(stacked([wanted]), how).numpy()[0] - given).max())
    apart = float(np.abs(logits - same_input).max())
    words = []
    if levels.max() > 0 or scaled > CLOSE:
        words.append(
            f"its input differs: {int((levels > 0).sum())} of {levels.size} values, by up to {levels.max():g} of 255"
        )
    if not apart <= CLOSE:
        words.append(f"the graph differs: of the same input, its logits are up to {apart:.2g} away from PyTorch's")
    return "; ".join(words) or f"neither its input nor its logits (up to {apart:.2g}) differ: the temperature does"

"""Does an exported file say what PyTorch says, in Python and in JavaScript: 800 real pictures and 200 odd ones.

    python benchmarks/export_parity.py RUN PICTURES [--int8] [--limit N]

In:   a run folder (or a model.safetensors), and labelled pictures, of which the test split is taken.
Out:  a table: worst probability difference to PyTorch in float32, how often the same class is likeliest, accuracy,
      milliseconds a picture on one thread; `results/export_parity.json`.

All three get the same RGB bytes. JavaScript is onnxruntime-web under Node.js, with the packages of
tests/javascript/package.json; without them its row says that it was not measured. What another decoder changes (sharp,
in JavaScript) is in a row of its own, over every fourth real picture.
"""

import argparse
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from measuring import finish
from odd_pictures import make_odd_pictures
from relish.core.progress import Screen
from relish.data.image import open_image
from relish.data.split import evenly_spaced
from relish.evaluation.prediction import decision_from
from relish.exporting.onnx_classifier import OnnxClassifier
from relish.exporting.parity import torch_model
from relish.models.saved_model import read_header
from relish.tasks.classifier import Classifier, labelled_images
from relish.tasks.export import export

JAVASCRIPT = Path(__file__).resolve().parents[1] / "tests" / "javascript"
ODD = 200
DECODED = 4
"""JavaScript's own decoder is asked of every fourth real picture."""
Rows = tuple[np.ndarray, list[float]]
"""(N, K) probabilities, and the milliseconds of each picture."""


def asked(answer: Any, paths: list[Path]) -> Rows:
    """Someone's answer to every picture, opening left out of the time."""
    rows, took = [], []
    for path in paths:
        picture = open_image(path)
        began = time.perf_counter()
        rows.append(answer(picture))
        took.append(1000 * (time.perf_counter() - began))
    return np.stack(rows), took


def of_file(file: OnnxClassifier) -> Any:
    return lambda picture: file.probabilities(np.asarray(picture)[None])[0][0]


def of_javascript(model: Path, paths: list[Path], folder: Path, script: str) -> Rows | None:
    """The same bytes by `answers.mjs`, or the files themselves by `decodes.mjs`."""
    if shutil.which("node") is None or not (JAVASCRIPT / "node_modules").is_dir():
        return None
    listed = []
    for number, path in enumerate(paths):
        entry: dict[str, Any] = {"file": str(path)}
        if script == "answers.mjs":
            pixels = np.asarray(open_image(path))
            raw = folder / f"{number}.rgb"
            raw.write_bytes(pixels.tobytes())
            entry = {"file": str(raw), "width": pixels.shape[1], "height": pixels.shape[0]}
        listed.append(entry)
    (folder / "pictures.json").write_text(json.dumps(listed))
    command = ["node", str(JAVASCRIPT / script), str(model), str(folder / "pictures.json")]
    told = json.loads(subprocess.run(command, cwd=JAVASCRIPT, check=True, capture_output=True, text=True).stdout)
    return np.array([one["probabilities"] for one in told]), [one["milliseconds"] for one in told]


def compared(wanted: np.ndarray, rows: Rows | None, labels: np.ndarray | None) -> dict[str, Any] | None:
    """Someone's answers beside PyTorch's."""
    if rows is None:
        return None
    found, took = rows
    return {
        "pictures": len(found),
        "worst_difference": float(np.abs(found - wanted).max()),
        "same_class": int((found.argmax(1) == wanted.argmax(1)).sum()),
        "right": None if labels is None else int((found.argmax(1) == labels).sum()),
        "milliseconds": median(took),
    }


def table_row(name: str, part: str, figures: dict[str, Any] | None) -> list[str]:
    if figures is None:
        return [name, part, "not measured", "", "", ""]
    right = "" if figures["right"] is None else f"{figures['right']} of {figures['pictures']}"
    same = f"{figures['same_class']} of {figures['pictures']}"
    return [name, part, f"{figures['worst_difference']:.2g}", same, right, f"{figures['milliseconds']:.1f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run")
    parser.add_argument("pictures")
    parser.add_argument("--int8", action="store_true")
    parser.add_argument("--limit", type=int, help="real pictures, spread evenly")
    asked_for = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = Classifier.load(asked_for.run, device="cpu")
        path = Path(asked_for.run)
        header = read_header(path if path.is_file() else path / "model.safetensors")
        split, _ = labelled_images(asked_for.pictures, model.classes, None, Screen())
        if asked_for.limit:
            split = split.take(evenly_spaced(len(split), asked_for.limit))
        files = {"ONNX f32": export(asked_for.run, folder / "f32.onnx", data=asked_for.pictures, limit=10).path}
        if asked_for.int8:
            options = {"int8": True, "allow_mismatch": True, "limit": 10}
            data = None if path.is_dir() else asked_for.pictures
            files["ONNX int8"] = export(asked_for.run, folder / "int8.onnx", data=data, **options).path
        for part, paths, labels in (
            ("real", list(split.paths), split.labels),
            ("odd", make_odd_pictures(folder / "odd", ODD), None),
        ):
            torch_rows = asked(torch_model(model.network, model.preprocessing, decision_from(header)), paths)
            found[f"PyTorch f32, {part}"] = compared(torch_rows[0], torch_rows, labels)
            for name, file in files.items():
                rows = asked(of_file(OnnxClassifier(file, threads=1)), paths)
                found[f"{name}, {part}"] = compared(torch_rows[0], rows, labels)
            raw = folder / f"raw-{part}"
            raw.mkdir()
            rows = of_javascript(files["ONNX f32"], paths, raw, "answers.mjs")
            found[f"JavaScript f32, {part}"] = compared(torch_rows[0], rows, labels)
            if part == "real":
                rows = of_javascript(files["ONNX f32"], paths[::DECODED], raw, "decodes.mjs")
                wanted, known = torch_rows[0][::DECODED], split.labels[::DECODED]
                found["JavaScript f32 with its own decoder, real"] = compared(wanted, rows, known)
    table = [["who", "pictures", "worst difference", "same class", "right", "ms a picture"]]
    table += [table_row(*name.rsplit(", ", 1), figures) for name, figures in found.items()]
    command = "python benchmarks/export_parity.py RUN PICTURES" + (" --int8" if asked_for.int8 else "")
    finish("export_parity", command, [found], table, source=model.source, preprocessing=model.preprocessing.as_dict())


if __name__ == "__main__":
    main()

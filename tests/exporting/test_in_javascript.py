"""An exported file gives JavaScript the probabilities it gives Python, and the example of the page on exporting runs.

Needs Node.js and the packages of tests/javascript/package.json (npm install, once); without them these tests skip.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from relish.data.image import open_image
from relish.evaluation.unfamiliarity import HEADER_KEY, Unfamiliarity
from relish.exporting.onnx_classifier import OnnxClassifier
from relish.models.saved_model import save_model
from relish.models.source import load_source
from relish.models.target import make_target
from relish.tasks.export import export
from tests.conftest import draw_dataset
from tests.exported import ROOT, make_odd_pictures

JAVASCRIPT = ROOT / "tests" / "javascript"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js"),
    pytest.mark.skipif(
        not (JAVASCRIPT / "node_modules").is_dir(),
        reason="needs its packages: npm install --ignore-scripts --no-package-lock in tests/javascript",
    ),
]


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """The embedded network with a head of two classes that tells hot dogs, as ImageNet knows them, from the rest."""
    folder = tmp_path_factory.mktemp("javascript")
    source = load_source("embedded")
    target = make_target(source, ("blue", "red"), head_init="source", mapping={"blue": 934, "red": 950}, seed=0)
    wanted = target.description()
    bank = np.random.default_rng(0).uniform(0, 0.05, (20, 1280)).astype(np.float16)
    save_model(folder / "model.safetensors", target.network, wanted, {HEADER_KEY: Unfamiliarity(bank, 3).as_header()})
    draw_dataset(folder / "colours", 1, 2)
    return export(folder / "model.safetensors", folder / "photos.onnx", data=folder / "colours").path


def node(*words: object, cwd: Path) -> str:
    ended = subprocess.run(["node", *map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout


def test_the_same_rgb_bytes_get_the_same_probabilities(exported, tmp_path):
    listed, wanted, strange = [], [], []
    for path in make_odd_pictures(tmp_path / "odd", 40):
        pixels = np.asarray(open_image(path))
        raw = tmp_path / f"{path.stem}.rgb"
        raw.write_bytes(pixels.tobytes())
        listed.append({"file": str(raw), "width": pixels.shape[1], "height": pixels.shape[0]})
        answer = OnnxClassifier(exported, threads=1).probabilities(pixels[None])
        wanted.append(answer.probabilities[0])
        strange.append(answer.unfamiliarity[0])
    (tmp_path / "pictures.json").write_text(json.dumps(listed))
    told = json.loads(node(JAVASCRIPT / "answers.mjs", exported, tmp_path / "pictures.json", cwd=JAVASCRIPT))
    found = np.array([one["probabilities"] for one in told])
    np.testing.assert_allclose(found, np.stack(wanted), rtol=0, atol=1e-4)
    assert (found.argmax(1) == np.stack(wanted).argmax(1)).all()
    assert np.std(wanted, axis=0).max() > 0.01
    np.testing.assert_allclose([one["unfamiliarity"] for one in told], strange, rtol=0, atol=1e-5)


def test_the_example_of_the_page_answers_as_relish_does(exported, tmp_path):
    """Its picture is a PNG under a JPEG's name, so that no decoder's rounding comes between."""
    (block,) = re.findall(r"```javascript\n(.*?)```", (ROOT / "docs" / "exporting.md").read_text("utf-8"), re.DOTALL)
    assert len([line for line in block.splitlines() if line]) <= 15
    shutil.copy(exported, tmp_path / "photos.onnx")
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise).save(tmp_path / "new.jpg", "PNG", exif=exif)
    (tmp_path / "node_modules").symlink_to(JAVASCRIPT / "node_modules")
    (tmp_path / "example.mjs").write_text(block)
    said = node("example.mjs", cwd=tmp_path).splitlines()
    (answer,) = OnnxClassifier(exported).predict(tmp_path / "new.jpg")
    assert [line.split()[0] for line in said] == ["hotdog", "not-hotdog"]
    np.testing.assert_allclose(
        [float(line.split()[1]) for line in said], list(answer.probabilities.values()), atol=2e-4
    )

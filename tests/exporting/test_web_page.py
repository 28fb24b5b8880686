"""The page that holds an exported model, opened from the disk in a real Chromium.

Needs onnxruntime-web, of tests/javascript/package.json (npm install, once); without it this skips.
"""

import pytest

from relish.core.errors import Failed
from relish.exporting.onnx_classifier import OnnxClassifier
from relish.exporting.web_page import has_web_runtime, write_web_page
from tests.browser import watched_page
from tests.exported import ROOT
from tests.serving import BLUE, GREY, RED, onnx_tones

RUNTIME = ROOT / "tests" / "javascript" / "node_modules" / "onnxruntime-web" / "dist"


def test_without_the_runtime_the_refusal_says_what_to_take_instead(tmp_path):
    with pytest.raises(Failed, match="without onnxruntime-web") as refused:
        write_web_page(onnx_tones(tmp_path / "tones.onnx"), tmp_path / "tones.html", tmp_path)
    assert "Take the ONNX file" in refused.value.hint
    assert not (tmp_path / "tones.html").exists()


@pytest.mark.slow
@pytest.mark.skipif(not has_web_runtime(RUNTIME), reason="needs onnxruntime-web: npm install in tests/javascript")
def test_the_page_alone_gives_the_class_that_python_gives_and_asks_nobody(tmp_path):
    onnx = onnx_tones(tmp_path / "tones.onnx")
    write_web_page(onnx, tmp_path / "tones.html", RUNTIME)
    classifier = OnnxClassifier(onnx)
    with watched_page((tmp_path / "tones.html").as_uri(), locale="en-US") as seen:
        page = seen.page
        page.locator("#said").filter(has_text="stays on this computer").wait_for()
        for name, content in {"red.png": RED, "blue.png": BLUE, "grey.png": GREY}.items():
            (tmp_path / name).write_bytes(content)
            wanted = classifier.predict([tmp_path / name])[0]
            page.locator("#file").set_input_files(tmp_path / name)
            page.locator("#said").filter(has_text=f"{name}: {wanted.class_name}").wait_for()
            shown = page.locator("#answers > li").first
            assert f"{100 * max(wanted.probabilities.values()):.1f}%" in shown.inner_text()
            assert ("Unsure" in shown.inner_text()) == wanted.unsure
        assert seen.complaints == []
        assert {one.partition(":")[0] for one in seen.asked} <= {"file", "blob", "data"}

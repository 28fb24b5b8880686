"""One HTML file that holds an exported model and runs it in any browser: opened by a double click, without a network.

In:   a file of `relish export`, and onnxruntime-web, which is put into `web/` before a wheel is built
      (`python tools/web_runtime.py`); it has its licence beside it.
Out:  the page. Everything is inside it, compressed; its content security policy lets it ask nobody for anything.
"""

import base64
import gzip
import json
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from jinja2 import Environment
from markupsafe import Markup

from relish.core.errors import Failed
from relish.core.io import atomic_path
from relish.exporting.onnx_classifier import OnnxClassifier

WEB: Traversable = files("relish.exporting") / "web"
RUNTIME, WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
"""The two files of onnxruntime-web that a page holds."""


def has_web_runtime(folder: Traversable = WEB) -> bool:
    """Whether this installation came with onnxruntime-web."""
    return all((folder / name).is_file() for name in (RUNTIME, WASM))


def write_web_page(onnx: Path, target: Path, runtime: Traversable = WEB) -> None:
    """Write the page of an exported file.

    Args:
        onnx: a file of `relish export`.
        target: the page, such as `pets.html`; replaced in one step.
        runtime: a folder with the files of onnxruntime-web.

    Raises:
        Failed: onnxruntime-web is not installed.
        ModelError: the file is no export of relish.
    """
    if not has_web_runtime(runtime):
        raise Failed(
            "this installation of relish came without onnxruntime-web.",
            hint="Take the ONNX file, or install a wheel; in a checkout: python tools/web_runtime.py.",
        )
    about = OnnxClassifier(onnx, threads=1).about
    told = {
        "name": onnx.stem,
        "classes": about.classes,
        "positive": about.decision.positive,
        "threshold": about.decision.threshold,
        "unsureBelow": about.decision.unsure_below,
        "unknownAbove": about.decision.unknown_above,
    }
    template = Environment(autoescape=True).from_string((WEB / "page.html").read_text(encoding="utf-8"))
    page = template.render(
        name=onnx.stem,
        # The only sign that could end a script element early.
        about=Markup(json.dumps(told).replace("<", "\\u003c")),  # noqa: S704
        licence=(WEB / "onnxruntime-web.LICENSE").read_text(encoding="utf-8"),
        runtime=_packed((runtime / RUNTIME).read_bytes()),
        wasm=_packed((runtime / WASM).read_bytes()),
        model=_packed(onnx.read_bytes()),
    )
    with atomic_path(target) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _packed(content: bytes) -> Markup:
    """Base64 of gzip, the same at each writing; its letters mean nothing in HTML."""
    return Markup(base64.b64encode(gzip.compress(content, 6, mtime=0)).decode())  # noqa: S704

"""Put onnxruntime-web beside relish's code, for the web page that `relish teach` exports; before a wheel is built.

    npm install --ignore-scripts --no-package-lock --prefix tests/javascript
    python tools/web_runtime.py [NODE_MODULES]

NODE_MODULES is where npm put it, tests/javascript/node_modules by default. The two files (15 MB)
are not in the repository.
"""

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WEB = ROOT / "src" / "relish" / "exporting" / "web"
FILES = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")


def main(modules: Path) -> None:
    """Copy them."""
    for name in FILES:
        shutil.copyfile(modules / "onnxruntime-web" / "dist" / name, WEB / name)
        print(WEB / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "tests" / "javascript" / "node_modules")

"""Look over what `make dist` built: every file of the package, licences, nothing else; and tell the sizes.

    python tools/release.py [DIST]

DIST is the folder with the wheel and the source distribution, `dist` by default. Exit code 1 where something is wrong.
"""

import re
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]
LICENCES = ("LICENSE", "src/relish/exporting/web/onnxruntime-web.LICENSE")
"""Relish's own, and that of what the exported web page holds."""
RUNTIME = "relish/exporting/web/ort-wasm-simd-threaded.wasm"
"""Where this file is, the wheel can export a web page."""


def wheel_files(wheel: Path) -> set[str]:
    """The paths in a wheel."""
    with zipfile.ZipFile(wheel) as opened:
        return {name for name in opened.namelist() if not name.endswith("/")}


def source_files(archive: Path) -> set[str]:
    """The paths in a source distribution, without the folder that all of them are in."""
    with tarfile.open(archive) as opened:
        return {str(PurePosixPath(*PurePosixPath(one.name).parts[1:])) for one in opened if one.isfile()}


def package_files(root: Path) -> set[str]:
    """What a wheel has to hold: each file of `src/relish`, by its path in the wheel."""
    found = (path for path in (root / "src" / "relish").rglob("*") if path.is_file())
    return {str(path.relative_to(root / "src").as_posix()) for path in found if "__pycache__" not in path.parts}


def faults(dist: Path, root: Path = ROOT) -> list[str]:
    """What is wrong with the two files, a sentence each; none where they may be released.

    Args:
        dist: a folder with one wheel and one source distribution.
        root: the checkout that they were built from.
    """
    version = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    wheel = dist / f"relish_vision-{version}-py3-none-any.whl"
    archive = dist / f"relish_vision-{version}.tar.gz"
    missing = [f"{path} is not there" for path in (wheel, archive) if not path.is_file()]
    if missing:
        return missing
    in_wheel, in_archive, package = wheel_files(wheel), source_files(archive), package_files(root)
    about = f"relish_vision-{version}.dist-info"
    found = [f"{name} is not in the wheel" for name in sorted(package - in_wheel)]
    found += [
        f"{name} is not in the source distribution" for name in sorted(package) if f"src/{name}" not in in_archive
    ]
    found += [
        f"{name} does not belong into the wheel"
        for name in sorted(in_wheel - package)
        if not name.startswith(f"{about}/")
    ]
    found += [
        f"the licence {name} is not in the wheel" for name in LICENCES if f"{about}/licenses/{name}" not in in_wheel
    ]
    found += [f"{name} does not belong into the source distribution" for name in sorted(in_archive) if _foreign(name)]
    changes = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    first = re.search(r"^## \[(.+?)\]", changes, re.MULTILINE)
    if first is None or first[1] != version:
        found.append(f"CHANGELOG.md does not begin with {version}")
    return found


def _foreign(name: str) -> bool:
    return name.split("/")[0] not in {
        "src", "CHANGELOG.md", "LICENSE", "MANIFEST.in", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg"
    }  # fmt: skip


def main(dist: Path) -> int:
    """Print sizes and faults; the exit code."""
    found = faults(dist)
    for path in sorted([*dist.glob("*.whl"), *dist.glob("*.tar.gz")]):
        print(f"{path}: {path.stat().st_size:,} bytes")
        if path.suffix == ".whl" and RUNTIME not in wheel_files(path):
            print("  without onnxruntime-web: `relish teach` exports no web page. See tools/web_runtime.py.")
    for fault in found:
        print(f"wrong: {fault}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "dist"))

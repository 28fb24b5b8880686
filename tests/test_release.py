"""The release: what is in wheel and source distribution, and that the wheel works where nothing else is installed."""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

import licences
import release

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md", "src")
HOSTS_OF_NOBODY = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
"""Whatever asks another host for something is refused at once: nothing listens there."""
SERVE_ALONE = ("fastapi", "uvicorn", "multipart", "prometheus_client", "onnxruntime")
"""Modules of the extra `serve`."""

UNCLEAR = [{"license": {"name": "declared license of 'x'", "text": {"content": "UNKNOWN"}}}]
SAID = [{"license": {"name": "License :: OSI Approved :: BSD License"}}, {"license": {"id": "BSD-3-Clause"}}]
GNU = [{"license": {"name": "declared license file: COPYING", "text": {"content": "GNU GENERAL PUBLIC LICENSE V3"}}}]
ENCODED = [
    {"license": {"name": "declared license file: L", "text": {"content": "TUlUIExpY2Vuc2U=", "encoding": "base64"}}}
]

SMALL_DEMO = """
import sys
from relish.cli.main import program
from relish.tasks import demo

demo.TRAIN_PICTURES, demo.TEST_PICTURES = 4, 2
demo.NUMBERS = {"image_size": 64, "batch_size": 16, "epochs": 1}
sys.argv = ["relish", "demo"]
program()
"""


def uv(*words: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run uv without a network."""
    beside = Path(sys.executable).with_name("uv")
    program = str(beside) if beside.exists() else shutil.which("uv")
    if program is None:
        pytest.skip("needs uv")
    command = [program, *map(str, words), "--offline", "--quiet"]
    return subprocess.run(command, check=check, capture_output=True, text=True)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of what a release is built from: building writes beside the sources."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(ROOT / name, copy / name)
    # What an interrupted build, a test or an editor leaves behind has no place in a release.
    (copy / "build" / "lib" / "relish").mkdir(parents=True)
    (copy / "build" / "lib" / "relish" / "gone.py").write_text("")
    (copy / "tests").mkdir()
    (copy / "tests" / "test_docs.py").write_text("")
    return copy


@pytest.fixture(scope="module")
def dist(checkout) -> Path:
    """The source distribution, and the wheel built from it, as `make dist` does."""
    uv("build", "--no-build-isolation", "--python", sys.executable, "--out-dir", checkout / "dist", checkout)
    return checkout / "dist"


@pytest.mark.slow
def test_a_release_holds_the_package_with_its_licences_and_nothing_else(dist, checkout):
    assert release.faults(dist, checkout) == []


@pytest.mark.slow
def test_what_is_missing_from_a_release_or_too_much_in_it_is_named(dist, checkout, tmp_path):
    wheel = next(dist.glob("*.whl"))
    for path in dist.glob("relish*"):
        shutil.copy(path, tmp_path)
    with zipfile.ZipFile(wheel) as whole, zipfile.ZipFile(tmp_path / wheel.name, "w") as changed:
        for name in whole.namelist():
            if not name.endswith(("py.typed", "/LICENSE")):
                changed.writestr(name, whole.read(name))
        changed.writestr("tests/test_docs.py", "")
    assert release.faults(tmp_path, checkout) == [
        "relish/py.typed is not in the wheel",
        "tests/test_docs.py does not belong into the wheel",
        "the licence LICENSE is not in the wheel",
    ]


@pytest.mark.parametrize(
    ("stated", "told", "doubtful"),
    [
        (SAID, "BSD-3-Clause", False),
        ([{"expression": "MIT AND Zlib"}], "MIT AND Zlib", False),
        (ENCODED, "MIT License", False),
        (GNU, "GNU GENERAL PUBLIC LICENSE V3", True),
        ([{"expression": "LGPL-2.1-or-later"}], "LGPL-2.1-or-later", True),
        (UNCLEAR, "says nothing", True),
        ([], "says nothing", True),
    ],
)
def test_a_package_with_no_licence_or_a_gnu_one_needs_a_look(stated, told, doubtful):
    lines, names = licences.listed([{"name": "x", "version": "1", "licenses": stated}])
    assert lines == [f"x 1: {told}"]
    assert names == (["x"] if doubtful else [])


@dataclass(frozen=True)
class Bare:
    """An environment outside the repository that holds the wheel and what it needs, without an extra."""

    folder: Path

    def run(self, *words: str, code: int = 0) -> str:
        """Run one of its programs, without a network; both of its outputs."""
        environment = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", **HOSTS_OF_NOBODY}
        environment |= {"HOME": str(self.folder), "RELISH_HOME": str(self.folder / "home")}
        program = str(self.folder / "bin" / words[0])
        done = subprocess.run([program, *words[1:]], cwd=self.folder, env=environment, capture_output=True, text=True)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def bare(dist, tmp_path_factory) -> Bare:
    """Linked to uv's cache, where `make setup` has put every package: no copy of gigabytes, also across disks."""
    folder = tmp_path_factory.mktemp("bare")
    uv("venv", "--clear", "--python", sys.executable, folder)
    wheel = next(dist.glob("*.whl"))
    words: Sequence[object] = ("pip", "install", "--link-mode", "symlink", "--python", folder / "bin" / "python")
    done = uv(*words, "--constraint", ROOT / "constraints.txt", wheel, check=False)
    if done.returncode and "CI" not in os.environ:
        pytest.skip(f"uv's cache does not hold all that relish needs: {done.stderr.strip()[-300:]}")
    assert done.returncode == 0, done.stderr
    return Bare(folder)


@pytest.mark.slow
def test_the_wheel_fits_in_a_bare_environment_which_holds_nothing_of_the_server(bare):
    found = bare.run("python", "-c", f"from importlib.util import find_spec; print(*map(find_spec, {SERVE_ALONE}))")
    assert set(found.split()) == {"None"}
    bare.run("python", "-c", SMALL_DEMO)
    assert "test accuracy" in bare.run(
        "relish", "fit", "relish-demo/pictures", "--recipe", "probe", "--image-size", "64"
    )
    refused = bare.run("relish", "serve", "runs/pictures-probe-1", code=1)
    assert refused.splitlines()[-1].strip() == "pip install 'relish-vision[serve]'"


@pytest.mark.slow
def test_the_wheel_says_the_version_that_it_is_named_by(bare, dist):
    version = next(dist.glob("*.whl")).name.split("-")[1]
    assert bare.run("relish", "--version").strip() == f"relish {version}"

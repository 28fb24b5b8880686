"""Dockerfile and compose.yaml, without an image: their steps run as a script, their services in namespaces."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import relish
from tests.in_a_container import MOUNTS

ROOT = Path(__file__).resolve().parents[1]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SERVICES = COMPOSE["services"]
TOKEN = "0123456789abcdef"  # noqa: S105 - of a server that nobody else reaches
IN_NAMESPACES = ["unshare", "--user", "--map-root-user", "--mount", "--net", "--pid", "--fork", "--kill-child"]


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's, in order: the word, and what stands behind it on one line."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]


def values(word: str) -> list[str]:
    return [rest for name, rest in instructions() if name == word]


def variables() -> dict[str, str]:
    """What the final stage sets, and the defaults of its arguments."""
    last = max(place for place, (name, _) in enumerate(instructions()) if name == "FROM")
    words = (word for name, rest in instructions()[last:] if name == "ENV" for word in shlex.split(rest))
    return dict(word.split("=", 1) for word in words)


def interpolated(text: str, given: dict[str, str]) -> str:
    """As compose puts variables into its values: a default, or a refusal where there is none."""
    return re.sub(r"\$\{(\w+)(:[-?])([^}]*)\}", lambda m: given.get(m[1], m[3] if m[2] == ":-" else ""), text)


def test_the_image_is_of_a_whole_version_and_runs_as_nobody_in_particular():
    assert re.fullmatch(r"PYTHON=3\.\d+\.\d+-slim-\w+", values("ARG")[0])
    assert {one.split()[0] for one in values("FROM")} == {"python:${PYTHON}"}
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", values("USER")[-1])


def test_the_image_is_built_with_the_uv_that_everything_else_is():
    pinned = re.search(r"^uv==(.*)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert pinned
    assert f"UV={pinned[1]}" in values("ARG")


def test_what_the_image_copies_is_there_and_not_ignored():
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {one for rest in values("COPY") if "--from" not in rest for one in rest.split()[:-1]}
    assert copied == kept
    assert [one for one in copied if not (ROOT / one).exists()] == []


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_can_change_nothing_but_its_data_and_is_published_to_this_computer_alone(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", interpolated(service["user"], {}))
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert ":?" in service["environment"]["RELISH_TOKEN"], "without a token compose has to refuse"


@pytest.mark.slow
def test_the_steps_that_build_the_image_make_an_environment_that_serves(tmp_path):
    """As a script, below a folder, from uv's cache; with the wheels for CUDA, which are in it."""
    program = Path(sys.executable).with_name("uv")
    if not program.exists():
        pytest.skip("needs uv in this environment")
    here = tmp_path / "src"
    here.mkdir()
    script = ["set -e", f"cd {here}"]
    stage = instructions()[: [name for name, _ in instructions()].index("FROM", 2)]
    for word, rest in stage:
        if word == "COPY":
            *sources, target = rest.split()
            script += [f"cp -r {' '.join(str(ROOT / one) for one in sources)} {target}"]
        elif word == "RUN" and not rest.startswith("pip install"):  # uv is there
            script += [rest.replace("/opt/relish", f"{tmp_path}/relish")]
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {"UV_OFFLINE": "1", "UV_LINK_MODE": "symlink", "DEVICE": "cuda"}
    environment["PATH"] = f"{program.parent}:/usr/bin:/bin"
    built = subprocess.run(["sh", "-c", "\n".join(script)], env=environment, capture_output=True, text=True)
    if built.returncode and "CI" not in os.environ:
        pytest.skip(f"uv's cache does not hold all of it: {built.stderr[-300:]}")
    assert built.returncode == 0, built.stderr
    asked = [
        f"{tmp_path}/relish/bin/python",
        "-c",
        "import relish, fastapi, onnx, pytorch_grad_cam; print(relish.__file__)",
    ]
    found = subprocess.run(asked, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, cwd=tmp_path)
    assert found.stdout.startswith(f"{tmp_path}/relish/lib"), found.stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare, of util-linux")
@pytest.mark.parametrize("name", SERVICES)
def test_a_service_works_on_a_read_only_file_system(name, colours, tiny_source, tmp_path):
    tried = subprocess.run([*IN_NAMESPACES, "mount", "-t", "tmpfs", "tmpfs", MOUNTS], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"no namespaces here: {tried.stderr.strip()}")
    (tmp_path / "data").mkdir()
    settings = {"image_size": 32, "batch_size": 4, "epochs": 1}
    relish.fit(colours, recipe="book", weights=tiny_source, settings=settings, out=tmp_path / "models" / "run")
    given = {"RELISH_TOKEN": TOKEN, "RELISH_MODEL": "run", "RELISH_MODELS": str(tmp_path / "models")}
    given["RELISH_DATA"] = str(tmp_path / "data")
    service = SERVICES[name]
    mounts = [
        [interpolated(one["source"], given), one["target"], one.get("read_only", False)] for one in service["volumes"]
    ]
    told = variables() | {key: interpolated(value, given) for key, value in service["environment"].items()}
    told |= {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    port = service["ports"][0].rpartition(":")[2]
    health = service["healthcheck"]["test"][1:] if "healthcheck" in service else image_health()
    ends = {"serve": "classes", "teach": "api/state"}
    wanted = {
        "command": [sys.executable, "-m", "relish", *(below(interpolated(one, given)) for one in service["command"])],
        "environment": {key: below(value) for key, value in told.items()},
        "mounts": mounts,
        "health": [sys.executable, *health[1:]],
        "page": f"http://127.0.0.1:{port}/{ends[name]}",
        "tokens": [TOKEN, "another-token-of-nobody"],
    }
    command = [*IN_NAMESPACES, sys.executable, "-m", "tests.in_a_container", json.dumps(wanted)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["healthy"], found["err"]
    assert found["statuses"] == {TOKEN: 200, "another-token-of-nobody": 401}
    assert found["code"] == 0, found["err"]
    assert "rror" not in found["err"], found["err"]


def below(path: str) -> str:
    """A path of the container, where the test has it."""
    return MOUNTS + path if path.startswith(("/data", "/models")) else path


def image_health() -> list[str]:
    found: list[str] = json.loads(values("HEALTHCHECK")[0].partition("CMD ")[2])
    return found

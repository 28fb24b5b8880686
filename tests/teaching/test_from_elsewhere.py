"""A client that is not on this computer: in a network namespace of its own, with a wire to the server's."""

import ctypes
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.processes import COMMAND, ended, started, wait_until
from tests.teaching.test_app import HANG
from tests.teaching.test_story import names

pytestmark = pytest.mark.slow

SERVER, LOOPBACK, PORT = "10.9.8.1", "127.0.0.1", 8008
"""Addresses and a port in namespaces that nobody else is in."""
TOKEN = "the-token-of-the-user"  # noqa: S105
WIRED = f"""
ip link set lo up
unshare --net sleep infinity & other=$!
trap 'kill $other' EXIT
until [ "$(readlink /proc/$other/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.01; done
ip link add here type veth peer name there netns $other
ip address add {SERVER}/24 dev here
ip link set here up
nsenter --target $other --net sh -ec 'ip address add 10.9.8.2/24 dev there; ip link set there up'
echo $$ $other
read -r _
"""
"""Two namespaces with a wire between them, which end with this script; inside a user namespace it needs no root."""
ASK = """
import json, sys, urllib.error, urllib.request
def status(path, body, headers):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(sys.argv[1] + path, data, {"Content-Type": "application/json", **headers})
    try:
        return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60).status
    except urllib.error.HTTPError as error:
        return error.code
    except urllib.error.URLError as error:
        return type(error.reason).__name__
print(json.dumps([status(*one) for one in json.loads(sys.argv[2])]))
"""
"""A client without relish: prints what came of each of some requests."""
CREATE = ("/api/classes/create", {"name": "stolen"})


@pytest.fixture
def wire() -> Iterator[tuple[str, str]]:
    """The ids of a process at the server's end and of one at the client's."""
    if sys.platform != "linux" or not all(map(shutil.which, ("unshare", "nsenter", "ip"))):
        pytest.skip("needs Linux with util-linux and iproute2")
    command = ["unshare", "--user", "--map-root-user", "--net", "bash", "-ec", WIRED]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as script:
        assert script.stdin
        assert script.stdout
        assert script.stderr
        ends = script.stdout.readline().decode().split()
        if not ends:
            pytest.skip(f"network namespaces are not permitted: {script.stderr.read().decode().strip()[:200]}")
        yield ends[0], ends[1]
        script.stdin.close()  # which ends it


def enter(end: str) -> None:
    """Go into the namespaces of a process; only one of a single thread may."""
    with open(f"/proc/{end}/ns/user") as user, open(f"/proc/{end}/ns/net") as net:
        for namespace in (user, net):
            assert ctypes.CDLL(None).setns(namespace.fileno(), 0) == 0


def asked(end: str, host: str, *requests: tuple[str, object, dict[str, str]]) -> list[int | str]:
    """What comes of requests to the server, from this end: a status, or why there is none."""
    inside = ["nsenter", "--target", end, "--user", "--preserve-credentials", "--net", sys.executable, "-c", ASK]
    command = [*inside, f"http://{host}:{PORT}", json.dumps(requests)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, timeout=HANG).stdout)


@contextmanager
def taught(end: str, host: str, folder: Path, source: Path, **environment: str) -> Iterator[None]:
    """`relish teach` at this end of the wire."""
    words = ("teach", folder, "--weights", source, "--host", host, "--port", PORT)
    process = started(COMMAND, *words, before=partial(enter, end), **environment)

    def listens() -> bool:
        assert process.poll() is None, process.communicate()
        return asked(end, host, ("/", None, {})) != ["ConnectionRefusedError"]

    try:
        wait_until(listens)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        ended(process)


def test_from_another_computer_nobody_comes_in_without_the_token_and_changes_nothing_without_the_pages(
    wire, tmp_path, tiny_source
):
    (server, client), folder = wire, tmp_path / "pets"
    requests = [("/", None), ("/?token=wrong", None), ("/api/state", None), ("/static/teach.js", None), CREATE]
    with taught(server, SERVER, folder, tiny_source, RELISH_TOKEN=TOKEN):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Cookie": "relish-teach=wrong"}):
            assert asked(client, SERVER, *((*one, headers) for one in requests)) == [401] * len(requests)
        theirs = {"Authorization": f"Bearer {TOKEN}"}
        assert asked(client, SERVER, ("/api/state", None, theirs), (*CREATE, theirs)) == [200, 403]
    assert names(folder) == [".relish"]


def test_without_a_token_another_computer_does_not_reach_the_server(wire, tmp_path, tiny_source):
    server, client = wire
    with taught(server, LOOPBACK, tmp_path / "pets", tiny_source):
        assert asked(server, LOOPBACK, ("/api/state", None, {})) == [200]
        assert asked(client, SERVER, ("/api/state", None, {})) == ["ConnectionRefusedError"]

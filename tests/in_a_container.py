"""Run one command as its service of compose.yaml would: read-only root file system, its mounts, no network, no image.

    unshare --user --map-root-user --mount --net --pid --fork --kill-child python -m tests.in_a_container JSON

The root file system is the machine's own. JSON names the command, its environment, the mounts (what, where below
`MOUNTS`, read-only or not), the command of the health check, a page to ask for and the tokens to do it with. Prints
what came of it, as JSON.
"""

import fcntl
import json
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request

MOUNTS = "/mnt"
"""Where what is mounted lies, since the machine's root has no folders for it."""
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1
_HANG = 300.0


def main(given: dict) -> dict:
    """Mount, start, wait until it is healthy, ask, end."""
    mount("-t", "tmpfs", "tmpfs", MOUNTS)
    for source, target, read_only in given["mounts"]:
        subprocess.run(["mkdir", "-p", MOUNTS + target], check=True)
        mount("--bind", source, MOUNTS + target)
        if read_only:
            mount("-o", "remount,bind,ro", MOUNTS + target)
    mount("-o", "remount,bind,ro", "/")
    mount("-t", "tmpfs", "tmpfs", "/tmp")  # noqa: S108 - nobody else sees this one
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))
    process = subprocess.Popen(given["command"], env=given["environment"], stderr=subprocess.PIPE, text=True, cwd="/")
    until = time.monotonic() + _HANG
    healthy = False
    while not healthy and process.poll() is None and time.monotonic() < until:
        checked = subprocess.run(given["health"], env=given["environment"], capture_output=True)
        healthy = checked.returncode == 0
    statuses = {token: status(given["page"], token) for token in given["tokens"]} if healthy else {}
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=_HANG)
    return {"healthy": healthy, "statuses": statuses, "code": process.returncode, "err": err}


def mount(*words: str) -> None:
    """Call `mount`, and fail as it does."""
    subprocess.run(["mount", *words], check=True)


def status(page: str, token: str) -> int:
    """What the server answers to whoever has this token."""
    asked = urllib.request.Request(page, headers={"Authorization": f"Bearer {token}"})  # noqa: S310 - our own server
    try:
        with urllib.request.urlopen(asked, timeout=_HANG) as answer:  # noqa: S310
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))

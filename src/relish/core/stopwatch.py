"""How long a job has taken, over all of its starts: kept in a file while it runs, so that a kill forgets a few seconds.

In:   a file of the job's folder.
Out:  seconds.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from relish.core.errors import WriteFailed
from relish.core.io import write_json

EVERY = 5.0
"""Seconds between two writes; what a kill forgets at most."""


def seconds_so_far(file: Path) -> float:
    """Seconds of all earlier starts; 0 where there was none, or where the file says nothing."""
    try:
        return max(0.0, float(json.loads(file.read_bytes())["seconds"]))
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


@contextmanager
def counted(file: Path, began: float) -> Iterator[None]:
    """Keep the time since `began`, by `time.monotonic`, in the file until the work within is over."""
    over = threading.Event()

    def keep() -> None:
        while True:
            ended = over.wait(EVERY)
            try:
                write_json(file, {"seconds": time.monotonic() - began})
            except WriteFailed:
                return  # a full disk is told by those who cannot go on without it
            if ended:
                return

    keeper = threading.Thread(target=keep, daemon=True)
    keeper.start()
    try:
        yield
    finally:
        over.set()
        keeper.join()

"""Stop when asked, at the end of a step, with the work saved.

The first SIGINT (Ctrl-C) or SIGTERM sets a flag that the loop reads after each step; a second one ends the process as
usual. Outside the main thread there are no signals to catch, and nothing is changed.
"""

import signal
import threading
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopFlag:
    """Within `with`, true once a stop was asked for."""

    def __init__(self) -> None:
        self._asked = False
        self._former: dict[int, Any] = {}

    def __bool__(self) -> bool:
        return self._asked

    def __enter__(self) -> "StopFlag":
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.signal(number, self._ask) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._give_back()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        self._give_back()

    def _give_back(self) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)
        self._former = {}

"""Who comes in: a seat for each request, and the bytes that all of them hold together.

In:   `Limits`.
Out:  seats, or a refusal with 503 and Retry-After.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from relish.serve.limits import Limits, megabytes
from relish.serve.refusals import busy


class Admission:
    """Counts of what is under way; used from the event loop alone."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.seated = 0
        self.held = 0

    @contextmanager
    def seat(self) -> Iterator["Seat"]:
        """A place for one request, given back at the end.

        Raises:
            Refusal: 503, all are taken.
        """
        if self.seated >= self.limits.requests:
            raise busy(f"{self.seated} requests are under way")
        self.seated += 1
        seat = Seat(self)
        try:
            yield seat
        finally:
            self.seated -= 1
            self.held -= seat.held


class Seat:
    """What one request holds."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.held = 0

    def hold(self, count: int) -> None:
        """Count bytes that were just received.

        Raises:
            Refusal: 503, all uploads together are too much.
        """
        self.held += count
        self._admission.held += count
        if self._admission.held > self._admission.limits.held_bytes:
            raise busy(f"uploads of {megabytes(self._admission.held - count)} are under way")

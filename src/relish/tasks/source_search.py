"""What `fit --source auto` may take: the candidates, the limits of size and time that each is held against, what came.

A size is four bytes for each number of the network. Milliseconds are those to read an image and predict its class,
measured before a candidate is tried and again afterwards: both have to be below the limit.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from relish.core.errors import ModelError, RecipeError
from relish.models.candidates import CANDIDATES, ON_REQUEST, Candidate, candidate, licence_of, restrictive
from relish.models.registry import EMBEDDED
from relish.models.source import lite_of
from relish.tasks.source_trials import Omitted

AUTO = "auto"
"""As a source model, whichever suits the images."""
HEAD_MEGABYTES = 12.0
"""Of an output layer of 1,000 classes, at most: a row of the table that is above the limit by less may be below it."""
Consent = bool | Callable[[str], bool]
"""Whether weights may be fetched; or a function that is asked so, with the question."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """What `fit` takes a source from."""

    candidates: Sequence[str | Path] | None = None
    """As `sources` takes them; none: those whose licence forbids nothing."""
    megabytes: float | None = None
    """Of the exported file, at most."""
    milliseconds: float | None = None
    """To read an image and predict its class on this machine, at most."""
    fetch: Consent = False

    def __post_init__(self) -> None:
        for name in ("megabytes", "milliseconds"):
            limit = getattr(self, name)
            if limit is not None and not 0 < limit < math.inf:
                raise RecipeError(f"--max-{name} must be above 0, got {limit:g}.")

    def asked(self) -> dict[str, Any]:
        """What was asked for, but for whether weights may be fetched; nothing of what was not."""
        named = None if self.candidates is None else list(map(str, self.candidates))
        asked = {"candidates": named, "max_megabytes": self.megabytes, "max_milliseconds": self.milliseconds}
        return {name: value for name, value in asked.items() if value is not None}

    def chosen(self) -> tuple[list[Candidate], list[Omitted]]:
        """Those to look among, the one that is always there first and then the statically best; and those too large."""
        named = [candidate(name) for name in dict.fromkeys(map(str, self.candidates or ()))]
        known = [*CANDIDATES, *ON_REQUEST, *([candidate("lite1")] if lite_of("lite1").files() else [])]
        among = sorted(named or known, key=lambda one: (one.name != EMBEDDED, -(one.top1 or 0.0)))
        reasons = {one.name: reason for one in among if (reason := self._against(one, by_itself=not named))}
        return [one for one in among if one.name not in reasons], [(name, why, None) for name, why in reasons.items()]

    def _against(self, one: Candidate, *, by_itself: bool) -> str:
        """Why one is not tried, as its row tells; nothing where it does not."""
        if by_itself and restrictive(licence := licence_of(one)):
            return f"not taken unless named: its licence is {licence}"
        if self.megabytes is not None and 4 * (one.parameters or 0.0) - HEAD_MEGABYTES > self.megabytes:
            return f"its file is above --max-megabytes {self.megabytes:g}"
        return ""


class OutOfTime(ModelError):
    """A candidate would not come to its end in the time of the search."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """The limits of a search, what each candidate was measured to take, and which would have taken too long."""

    search: Search
    ends: float
    """By `time.monotonic`."""
    measured: dict[str, list[float]] = field(default_factory=dict)
    """Milliseconds of an image, by name, each time."""
    late: list[Candidate] = field(default_factory=list)

    def check(self, one: Candidate, file_bytes: int, milliseconds: float) -> None:
        """Raises ModelError: it is above a limit."""
        self.measured.setdefault(one.name, []).append(milliseconds)
        most, longest = self.search.megabytes, self.search.milliseconds
        if most is not None and file_bytes / 1e6 > most:
            raise ModelError(f"its file takes {file_bytes / 1e6:.1f} MB, above --max-megabytes {most:g}.")
        if longest is not None and milliseconds > longest:
            raise ModelError(f"a picture takes {milliseconds:.3g} ms, above --max-milliseconds {longest:g}.")

    def check_time(self, one: Candidate, milliseconds: float, images: int, left: float) -> None:
        """Raises OutOfTime: so many images take longer than there is left."""
        if (seconds := images * milliseconds / 1000) > left:
            self.late.append(one)
            raise OutOfTime(f"{images:,} pictures would take {seconds:.0f} s, and {max(0.0, left):.0f} s are left.")

    def doubt(self, name: str) -> str:
        """Where one is as near to the limit as its times differ; else nothing."""
        longest, times = self.search.milliseconds, self.measured[name]
        if longest is None or 2 * max(times) - min(times) <= longest:
            return ""
        shown = " and ".join(f"{one:.3g}" for one in times)
        return f"{name} took {shown} ms a picture: at another time it may be above --max-milliseconds {longest:g}."


@dataclass(frozen=True, kw_only=True)
class FoundSource:
    """The source that a search came to."""

    candidate: Candidate
    seconds: float
    """That the search took, without looking the images over."""
    record: dict[str, Any]
    """For the run folder: what was tried, taken, and why."""

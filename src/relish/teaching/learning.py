"""Learning by itself: reads what is new in a folder, computes features, and solves the probe again after each change.

One thread follows the folder; another chooses the strength of the penalty anew, measures the learning curve and
compares framings, which take longer than a change may. Features come from relish's cache and go into it, so that
`relish fit` finds them there.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from relish.core.context import Context
from relish.core.errors import ImageError
from relish.core.progress import SILENT, Progress
from relish.data.dataset import TEST, Split
from relish.data.loader import View
from relish.data.survey import Facts, as_facts
from relish.data.transforms import book_preprocessing
from relish.evaluation.features import Backbone, features_of
from relish.evaluation.metrics import Proportion
from relish.evaluation.series import find_series
from relish.models.source import load_source
from relish.models.target import make_target
from relish.tasks.classifier import Classifier
from relish.teaching.framing import Framed, FramingChoice, much_changed
from relish.teaching.library import Library
from relish.teaching.shelves import Image
from relish.teaching.solving import (
    FEWEST,
    Examples,
    Solved,
    advice,
    as_classifier,
    chosen_strength,
    measured_curve,
    solve,
)
from relish.training.linear_probe import CrossValidated

LOOK_SECONDS = 1.0
"""Between two looks at the folder."""
QUIET_SECONDS = 4.0
"""Framings are compared where for so long nobody has changed anything or tried an image."""
_AT_ONCE = 32
"""Images whose features are computed between two looks at what has changed."""
_SERIES_IN = 2000
"""Images among which series are looked for; of more, copies alone are kept on one side."""
_ANOTHER = -1
"""In place of the library's revision, of a figure of a model in another framing."""


Known = tuple[str, str, str]
"""Path, SHA-256 and class of an image."""


class _Plain(Backbone):
    """Computes by PyTorch: so that features have one key in the cache, however many are computed at once."""

    def hastened(self, side: int, images: int, context: Context) -> Backbone:
        return self


@dataclass(frozen=True)
class Status:
    """How far learning has come."""

    phase: str = "waiting"
    queued: int = 0
    done: int = 0
    reason: str = ""
    needs: tuple[tuple[str, int], ...] = ()
    """Classes that have too few images, and how many more they need."""
    needs_classes: int = 2


class Learner:
    """Learns from a library until closed; whatever it knows is there to be read at any time.

    Args:
        source, weights: of the network, as `load_source` takes them.
        changed: called whenever there is something new to show, from any thread.
        later: called with each solution, in the thread of what takes longer.

    Raises:
        ModelError: the source model cannot be loaded or has no features.
    """

    def __init__(
        self,
        library: Library,
        source: str | None = None,
        weights: str | Path | None = None,
        device: str = "auto",
        changed: Callable[[], None] = lambda: None,
        later: Callable[[Solved], None] = lambda _: None,
        progress: Progress = SILENT,
    ) -> None:
        self.library, self._changed, self._later_too = library, changed, later
        self.source = load_source(source, weights, progress=progress)
        self.context = Context.on(device, SILENT)
        self.backbone = _Plain.of(make_target(self.source, ("a", "b"), seed=0), self.context.device)
        config = self.source.data_config
        book = book_preprocessing(config.input_size[1], config.mean, config.std)
        self.bias = self.backbone.head.bias is not None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="choose")
        self._choice = FramingChoice(
            library.journal, self.backbone.digest(), book, self.bias, self.facts, self._compute, self._submit
        )
        self.now: tuple[Framed, Solved | None] = (Framed(self._choice.chosen), None)
        """The images as they are framed, and their probe; who needs both takes them from here at once."""
        self.status = Status()
        self.more: dict[str, Any] | None = None
        self.final: tuple[Proportion, int] | None = None
        self.revision = 0
        """Of what was learned: it grows with each solution."""
        self._units: dict[str, str] = {}
        self._broken: set[str] = set()
        self._chosen_on: tuple[Framed | None, int] = (None, 0)
        self._seen = (-1, 0, 0)
        self._active = 0.0
        """When somebody last changed something or tried an image, by the monotonic clock."""
        self._strength: float | None = None
        self._waits = False
        self._wake, self._closed = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="learn", daemon=True)
        self._classifier: tuple[int, Classifier] | None = None
        self._answering = threading.Lock()

    @property
    def solved(self) -> Solved | None:
        """The probe of the moment."""
        return self.now[1]

    def start(self) -> None:
        """Begin to follow the folder."""
        self._thread.start()

    def wake(self) -> None:
        """Something has changed: look at once."""
        self._wake.set()

    def close(self) -> None:
        """End, after what is being computed."""
        self._closed = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        self._pool.shutdown(cancel_futures=True)

    def _run(self) -> None:
        while not self._closed:
            self._wake.wait(LOOK_SECONDS)
            self._wake.clear()
            try:
                busy = True
                while busy and not self._closed:
                    busy = self.step()
            except Exception as error:  # a folder that is gone, a full disk: the page says so, and it is tried again
                self._tell(replace(self.status, phase="failed", reason=str(error).splitlines()[0][:200]))
                time.sleep(LOOK_SECONDS)

    def step(self) -> bool:
        """Look at the folder, then do a little of what there is to do; whether there was something."""
        if self.library.look():
            self._changed()
        if self._deal_and_solve():
            return True
        framed, solved = self.now
        missing = self._missing(framed)
        if missing:
            self._compute(missing[:_AT_ONCE], [framed])
        elif not self.library.read_some():
            if self.status.phase == "features":
                self._tell(replace(self._waiting(), queued=0))
            if time.monotonic() - self._active < QUIET_SECONDS:
                return False
            return self._reframe() or (solved is not None and self._choice.step(solved, framed))
        unread = len(self.library.unread())
        self._tell(replace(self._waiting(), phase="features", queued=len(missing[_AT_ONCE:]) + unread))
        return True

    # ---- features ---------------------------------------------------------------------------------------------------

    def sha256(self, image: Image) -> str:
        """Of an image that has been read and can be opened, else empty."""
        outcome = self.library.outcome(image)
        return "" if outcome is None or outcome.reason else outcome.sha256

    def facts(self, contents: Sequence[str]) -> Facts:
        """(N,), of images that have been read and can be opened."""
        found = {one.sha256: one.facts for one in list(self.library.outcomes.values()) if one.facts}
        return as_facts(found[sha256] for sha256 in contents)

    def _images(self) -> dict[str, Image]:
        """Each content that can be opened, and an image that has it: of classes first, then the unlabelled ones."""
        content, found = self.library.content, dict[str, Image]()
        for image in (*(image for _, image in content.labelled), *content.unlabelled.images):
            if sha256 := self.sha256(image):
                found.setdefault(sha256, image)
        return found

    def _missing(self, framed: Framed) -> list[str]:
        """Contents that have no features in this framing."""
        return [sha256 for sha256 in self._images() if sha256 not in framed.rows and sha256 not in self._broken]

    def _compute(self, contents: Sequence[str], framings: Sequence[Framed]) -> None:
        """Add the features of these images to each of these framings; those that cannot be opened are left out."""
        images = self._images()
        paths = {self.library.folder / images[sha256].path: sha256 for sha256 in contents if sha256 in images}
        if not paths:  # moved away meanwhile
            return
        split = Split(tuple(paths), np.zeros(len(paths), dtype=np.int64))
        views = [View(framed.preprocessing) for framed in framings]
        try:
            found = features_of(self.backbone, split, views, paths, self.context)
        except ImageError:
            for sha256 in paths.values() if len(paths) > 1 else ():
                self._compute([sha256], framings)
            self.library.look()
            alone = next(iter(paths.values()))
            if len(paths) == 1 and self._images().get(alone) == images[alone]:
                self._broken.add(alone)  # it was read before, and no longer can be, though nobody has moved it
            return
        for framed, rows in zip(framings, found, strict=True):
            framed.rows.update(zip(paths.values(), rows, strict=True))

    def _reframe(self) -> bool:
        """Do a little towards using another framing, where one is to be used; whether there was something."""
        coming = self._choice.coming
        if coming is None:
            return False
        if missing := self._missing(coming):
            self._compute(missing[:_AT_ONCE], [coming])
            return True
        examples = self._examples(coming, self._known(coming))
        solved = None if examples is None else solve(examples, self.solved, strength=self._strength, bias=self.bias)
        self._put(solved, framed=coming)
        self._choice.taken()
        self._tell(self._waiting())
        self._choose_later()
        return True

    # ---- the probe --------------------------------------------------------------------------------------------------

    def _deal_and_solve(self) -> bool:
        """Set new images aside or not, and solve the probe where something has changed; whether it was solved."""
        framed = self.now[0]
        now = (self.library.revision, len(self.library.outcomes), len(framed.rows))
        if now == self._seen:
            return False
        self._seen, self._active = now, time.monotonic()
        known = self._known(framed)
        new = {sha256 for _, sha256, _ in known} - self._units.keys()
        if new and (len(new) < _AT_ONCE or not self._missing(framed)):  # of many that are coming, all together
            self._find_units(framed, known)
        self.library.set_aside({path: self._units[sha256] for path, sha256, _ in known if sha256 in self._units})
        needed = self.status
        examples = self._examples(framed, known)
        if self.status != needed:
            self._changed()
        if examples is None:
            if self.solved is not None:
                self.more = None
                self._put(None)
                self._tell(self._waiting())
            return False
        if self.solved is not None and examples.key == self.solved.examples.key:
            return False
        self._put(solve(examples, self.solved, strength=self._strength, bias=self.bias))
        self._tell(self._waiting())
        self._choose_later()
        return True

    def _known(self, framed: Framed) -> list[Known]:
        """The images of classes that have features in this framing."""
        labelled = ((image.path, self.sha256(image), name) for name, image in self.library.content.labelled)
        return [one for one in labelled if one[1] in framed.rows]

    def _find_units(self, framed: Framed, known: Sequence[Known]) -> None:
        """What stays on one side: copies, and series of one scene."""
        contents = [sha256 for _, sha256, _ in known]
        labels = np.unique([name for *_, name in known], return_inverse=True)[1].astype(np.int64)
        features = framed.features(contents) if len(contents) <= _SERIES_IN else None
        found = find_series(features, labels, self.facts(contents))
        keys = found.keys(contents)
        units = [
            len({key for key, one in zip(keys, labels, strict=True) if one == label}) for label in np.unique(labels)
        ]
        enough = np.bincount(labels)[np.unique(labels)] >= FEWEST
        if any(count < FEWEST for count, many in zip(units, enough, strict=True) if many):
            keys = replace(found, ids=found.copies).keys(contents)  # all of one series, none could be held out
        self._units |= dict(zip(contents, keys, strict=True))

    def _examples(self, framed: Framed, known: Sequence[Known]) -> Examples | None:
        """The images to learn from, each content once; sets what is needed before there can be any."""
        splits = self.library.splits
        rows = {sha: name for _, sha, name in known if sha in self._units and splits.get(sha, TEST) != TEST}
        units = defaultdict[str, set[str]](set)
        for sha256, name in rows.items():
            units[name].add(self._units[sha256])
        counts = {name: len(units[name]) for name in self.library.content.classes}
        ready = tuple(sorted(name for name, count in counts.items() if count >= FEWEST))
        needs = tuple((name, FEWEST - count) for name, count in counts.items() if count < FEWEST)
        self.status = replace(self.status, needs=needs, needs_classes=max(0, 2 - len(counts)))
        if len(ready) < 2:
            return None
        contents = tuple(sorted(sha256 for sha256, name in rows.items() if name in ready))
        place = {name: label for label, name in enumerate(ready)}
        return Examples(
            ready,
            contents,
            np.array([place[rows[sha256]] for sha256 in contents], dtype=np.int64),
            tuple(self._units[sha256] for sha256 in contents),
            framed.features(contents),
        )

    def _submit(self, task: Callable[[], CrossValidated]) -> "Future[CrossValidated]":
        """Have something done in the thread of what takes longer, and look at once what came of it."""
        future = self._pool.submit(task)
        future.add_done_callback(lambda _: self.wake())
        return future

    def _choose_later(self) -> None:
        """Have done what takes longer than a change may; several changes meanwhile are one."""
        if not self._waits:
            self._waits = True
            self._pool.submit(self._choose)

    def _choose(self) -> None:
        self._waits = False
        try:
            self._choose_for(*self.now)
        except Exception as error:  # the page goes on without it, and says so
            self._tell(replace(self.status, reason=(str(error).splitlines() or [type(error).__name__])[0][:200]))
        self._changed()

    def _choose_for(self, framed: Framed, solved: Solved | None) -> None:
        """Choose the strength anew, where there are many more images than before, and measure the learning curve."""
        if solved is None or self._closed:
            return
        self._later_too(solved)
        self._changed()
        count = len(solved.examples.contents)
        if self._chosen_on[0] is not framed or much_changed(count, self._chosen_on[1]):
            self._strength, self._chosen_on = chosen_strength(solved, self.bias), (framed, count)
            if self._strength != solved.strength:
                again = solve(solved.examples, solved, strength=self._strength, bias=self.bias)
                self._put(again, only_for=solved)
                solved = again
        images = sum(len(shelf.images) for shelf in self.library.content.classes.values())
        curve = measured_curve(solved, self.bias)
        more = advice(solved.accuracy, curve, images / max(1, len(self.library.content.classes)))
        with self._answering:
            if self.now[0] is framed:
                self.more = more

    def _put(self, solved: Solved | None, only_for: Solved | None = None, framed: Framed | None = None) -> None:
        """What is known from here on.

        Args:
            only_for: the solution that it takes the place of; where that is none of the moment, nothing happens.
            framed: where the images are framed otherwise from here on.
        """
        with self._answering:
            if only_for is None or self.solved is only_for:
                self.now, self.revision = (framed or self.now[0], solved), self.revision + 1
            if framed is not None:
                self.more = None
                self.final = self.final and (self.final[0], _ANOTHER)
        self._changed()

    def _waiting(self) -> Status:
        done = len(self.now[0].rows)
        phase = "ready" if self.solved is not None else "waiting"
        return replace(self.status, phase=phase, done=done, reason="")

    def _tell(self, status: Status) -> None:
        if status != self.status or status.phase == "ready":
            self.status = status
            self._changed()

    # ---- what is asked of it ----------------------------------------------------------------------------------------

    def final_figure(self) -> Proportion | None:
        """The accuracy on the images that were set aside; None where there are none, or no probe."""
        framed, solved = self.now
        if solved is None:
            return None
        classes = {name: label for label, name in enumerate(solved.examples.classes)}
        splits = self.library.splits
        rows = {sha256: classes[name] for _, sha256, name in self._known(framed) if name in classes}
        tests = {sha256: label for sha256, label in rows.items() if splits.get(sha256) == TEST}
        if not tests:
            return None
        found = solved.answers(framed.features(tuple(tests)))
        right = int((found.argmax(1) == np.array(list(tests.values()))).sum())
        self.final = (Proportion(right, len(tests)), self.library.revision)
        return self.final[0]

    def classifier(self) -> tuple[int, Classifier] | None:
        """The probe as a classifier that opens images and says what it is unsure of, and its revision."""
        self._active = time.monotonic()
        with self._answering:
            (framed, solved), revision = self.now, self.revision
            if solved is None:
                return None
            if self._classifier is None or self._classifier[0] != revision:
                self._classifier = (revision, as_classifier(solved, framed.preprocessing, self.source))
            return self._classifier

    def state(self) -> dict[str, Any]:
        """What the page is told."""
        status, (framed, solved) = self.status, self.now
        known = {
            "phase": status.phase,
            "queued": status.queued,
            "done": status.done,
            "reason": status.reason,
            "needs": [{"class": name, "more": more} for name, more in status.needs],
            "needs_classes": status.needs_classes,
            "framing": framed.preprocessing.framing_words,
            "revision": self.revision,
        }
        if solved is None:
            untold = dict.fromkeys(("accuracy", "more", "strength"))
            return {**known, **untold, "per_class": [], "confused": [], "seconds": 0}
        return {
            **known,
            "accuracy": figure(solved.accuracy),
            "per_class": [{"class": name, **figure(one)} for name, one in solved.per_class.items()],
            "confused": solved.confused,
            "more": self.more,
            "strength": solved.strength,
            "seconds": round(solved.seconds, 3),
        }


def figure(found: Proportion) -> dict[str, Any]:
    """A proportion as the page is told of it."""
    low, high = found.interval
    return {"right": found.correct, "of": found.count, "value": found.value, "low": low, "high": high}

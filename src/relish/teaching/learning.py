"""Learning by itself: reads what is new in a folder, computes features, and solves the probe again after each change.

One thread follows the folder; another chooses the strength of the penalty anew and measures the learning curve, which
take longer than a change may. Features come from relish's cache and go into it, so `relish fit` finds them there.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from relish.core.context import Context
from relish.core.errors import ImageError, RelishError
from relish.core.progress import SILENT, Progress
from relish.data.dataset import TEST, Split
from relish.data.loader import View
from relish.data.survey import as_facts
from relish.data.transforms import book_preprocessing
from relish.evaluation.features import Backbone, Features, features_of
from relish.evaluation.metrics import Proportion
from relish.evaluation.prediction import Decision, softmax
from relish.evaluation.series import find_series
from relish.evaluation.thresholds import choose_unsure
from relish.evaluation.unfamiliarity import Unfamiliarity, fit_unfamiliarity
from relish.models.source import load_source
from relish.models.target import make_target
from relish.tasks.classifier import Classifier
from relish.teaching.library import Library
from relish.teaching.shelves import Image
from relish.teaching.solving import FEWEST, Examples, Solved, advice, chosen_strength, measured_curve, solve

LOOK_SECONDS = 1.0
"""Between two looks at the folder."""
_AT_ONCE = 32
"""Images whose features are computed between two looks at what has changed."""
_GROWN = 1.3
"""Times as many images as when the strength was chosen: then it is chosen anew."""
_SERIES_IN = 2000
"""Images among which series are looked for; of more, copies alone are kept on one side."""
SURE = 0.95
"""Of the answers that are given, so many should be right: below, the page says that it is unsure."""


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
        self.preprocessing = book_preprocessing(config.input_size[1], config.mean, config.std)
        self.bias = self.backbone.head.bias is not None
        self.rows: dict[str, Features] = {}
        """Features by SHA-256."""
        self.status = Status()
        self.solved: Solved | None = None
        self.more: dict[str, Any] | None = None
        self.final: tuple[Proportion, int] | None = None
        self.revision = 0
        """Of what was learned: it grows with each solution."""
        self._units: dict[str, str] = {}
        self._broken: set[str] = set()
        self._chosen_on = 0
        self._seen = (-1, 0, 0)
        self._strength: float | None = None
        self._waits = False
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="choose")
        self._wake, self._closed = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="learn", daemon=True)
        self._classifier: tuple[int, Classifier] | None = None
        self._answering = threading.Lock()

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
        missing = self._missing()
        if missing:
            self._compute(missing[:_AT_ONCE])
        elif not self.library.read_some():
            if self.status.phase == "features":
                self._tell(replace(self._waiting(), queued=0))
            return False
        unread = len(self.library.unread())
        self._tell(replace(self._waiting(), phase="features", queued=len(missing[_AT_ONCE:]) + unread))
        return True

    # ---- features ---------------------------------------------------------------------------------------------------

    def sha256(self, image: Image) -> str:
        """Of an image that has been read and can be opened, else empty."""
        outcome = self.library.outcome(image)
        return "" if outcome is None or outcome.reason else outcome.sha256

    def _missing(self) -> list[Image]:
        """Images that have been read and have no features: of classes first, then the unlabelled ones."""
        content = self.library.content
        images = [*(image for _, image in content.labelled), *content.unlabelled.images]
        found = {sha256: image for image in reversed(images) if (sha256 := self.sha256(image))}
        lacking = found.keys() - self.rows.keys() - self._broken
        return [image for sha256, image in reversed(found.items()) if sha256 in lacking]

    def _compute(self, images: Sequence[Image]) -> None:
        paths = {self.library.folder / image.path: self.sha256(image) for image in images}
        split = Split(tuple(paths), np.zeros(len(paths), dtype=np.int64))
        try:
            (rows,) = features_of(self.backbone, split, [View(self.preprocessing)], paths, self.context)
        except ImageError:
            if len(images) == 1:
                self._broken.add(self.sha256(images[0]))  # it was read before, and no longer can be
            for image in images if len(images) > 1 else ():
                self._compute([image])
            return
        self.rows.update(zip(paths.values(), rows, strict=True))

    # ---- the probe --------------------------------------------------------------------------------------------------

    def _deal_and_solve(self) -> bool:
        """Set new images aside or not, and solve the probe where something has changed; whether it was solved."""
        now = (self.library.revision, len(self.library.outcomes), len(self.rows))
        if now == self._seen:
            return False
        self._seen = now
        known = [(image, name) for name, image in self.library.content.labelled if self.sha256(image) in self.rows]
        contents = [self.sha256(image) for image, _ in known]
        new = set(contents) - self._units.keys()
        if new and (len(new) < _AT_ONCE or not self._missing()):  # of many that are coming, all together
            self._find_units(contents, [name for _, name in known])
        ready = [
            (image.path, sha256) for (image, _), sha256 in zip(known, contents, strict=True) if sha256 in self._units
        ]
        self.library.set_aside({path: self._units[sha256] for path, sha256 in ready})
        needed = self.status
        examples = self._examples([(sha256, name) for (_, name), sha256 in zip(known, contents, strict=True)])
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

    def _find_units(self, contents: Sequence[str], classes: Sequence[str]) -> None:
        """What stays on one side: copies, and series of one scene."""
        outcomes = {one.sha256: one for one in list(self.library.outcomes.values()) if one.facts}
        features = np.stack([self.rows[sha256] for sha256 in contents])
        labels = np.unique(list(classes), return_inverse=True)[1].astype(np.int64)
        facts = as_facts(outcomes[sha256].facts for sha256 in contents)
        found = find_series(features if len(contents) <= _SERIES_IN else None, labels, facts)
        keys = found.keys(contents)
        units = [
            len({key for key, one in zip(keys, labels, strict=True) if one == label}) for label in np.unique(labels)
        ]
        enough = np.bincount(labels)[np.unique(labels)] >= FEWEST
        if any(count < FEWEST for count, many in zip(units, enough, strict=True) if many):
            keys = replace(found, ids=found.copies).keys(contents)  # all of one series, none could be held out
        self._units |= dict(zip(contents, keys, strict=True))

    def _examples(self, known: Sequence[tuple[str, str]]) -> Examples | None:
        """The images to learn from, each content once; sets what is needed before there can be any."""
        splits = self.library.splits
        rows = {sha: name for sha, name in known if sha in self._units and splits.get(sha, TEST) != TEST}
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
            np.stack([self.rows[sha256] for sha256 in contents]),
        )

    def _choose_later(self) -> None:
        """Have done what takes longer than a change may; several changes meanwhile are one."""
        if not self._waits:
            self._waits = True
            self._pool.submit(self._choose)

    def _choose(self) -> None:
        self._waits = False
        try:
            self._choose_for(self.solved)
        except Exception as error:  # the page goes on without it, and says so
            self._tell(replace(self.status, reason=(str(error).splitlines() or [type(error).__name__])[0][:200]))
        self._changed()

    def _choose_for(self, solved: Solved | None) -> None:
        """Choose the strength anew, where there are many more images than before, and measure the learning curve."""
        if solved is None or self._closed:
            return
        self._later_too(solved)
        self._changed()
        count = len(solved.examples.contents)
        if not self._chosen_on / _GROWN < count < self._chosen_on * _GROWN:
            self._chosen_on, self._strength = count, chosen_strength(solved, self.bias)
            if self._strength != solved.strength:
                again = solve(solved.examples, solved, strength=self._strength, bias=self.bias)
                self._put(again, only_for=solved)
                solved = again
        images = sum(len(shelf.images) for shelf in self.library.content.classes.values())
        curve = measured_curve(solved, self.bias)
        self.more = advice(solved.accuracy, curve, images / max(1, len(self.library.content.classes)))

    def _put(self, solved: Solved | None, only_for: Solved | None = None) -> None:
        """What is known from here on; in place of one solution alone, where that is given."""
        with self._answering:
            if only_for is None or self.solved is only_for:
                self.solved, self.revision = solved, self.revision + 1
        self._changed()

    def _waiting(self) -> Status:
        done = len(self.rows)
        phase = "ready" if self.solved is not None else "waiting"
        return replace(self.status, phase=phase, done=done, reason="")

    def _tell(self, status: Status) -> None:
        if status != self.status or status.phase == "ready":
            self.status = status
            self._changed()

    # ---- what is asked of it ----------------------------------------------------------------------------------------

    def probabilities(self, contents: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float64]] | None:
        """(N, K) of images with features, by the probe of all; None where there is none."""
        solved = self.solved
        if solved is None or not contents:
            return None
        return softmax(solved.probe.logits(np.stack([self.rows[one] for one in contents])), solved.temperature)

    def final_figure(self) -> Proportion | None:
        """The accuracy on the images that were set aside; None where there are none, or no probe."""
        solved = self.solved
        if solved is None:
            return None
        classes = {name: label for label, name in enumerate(solved.examples.classes)}
        splits = self.library.splits
        rows = {self.sha256(image): name for name, image in self.library.content.labelled if name in classes}
        tests = [(sha, classes[name]) for sha, name in rows.items() if splits.get(sha) == TEST and sha in self.rows]
        found = self.probabilities([sha256 for sha256, _ in tests])
        if found is None:
            return None
        right = int((found.argmax(1) == np.array([label for _, label in tests])).sum())
        self.final = (Proportion(right, len(tests)), self.library.revision)
        return self.final[0]

    def classifier(self) -> tuple[int, Classifier] | None:
        """The probe as a classifier that opens images and says what it is unsure of, and its revision."""
        with self._answering:
            solved, revision = self.solved, self.revision
            if solved is None:
                return None
            if self._classifier is None or self._classifier[0] != revision:
                self._classifier = (revision, self._made(solved))
            return self._classifier

    def _made(self, solved: Solved) -> Classifier:
        target = make_target(self.source, solved.examples.classes, seed=0)
        (head,) = target.heads
        head.weight.data.copy_(head.weight.data.new_tensor(solved.probe.weight))
        if head.bias is not None:
            head.bias.data.copy_(head.bias.data.new_tensor(solved.probe.bias))
        confidence = solved.probabilities.max(1)
        unfamiliar: Unfamiliarity | None = None
        decision = Decision(
            temperature=solved.temperature,
            unsure_below=choose_unsure(confidence, solved.right, SURE),
            fitted_on=len(confidence),
        )
        try:
            unfamiliar, limit = fit_unfamiliarity(solved.examples.features, solved.examples.units)
            decision = replace(decision, unknown_above=limit.above)
        except RelishError:
            pass  # all of one series: nothing can be called strange
        return Classifier(
            target.network, solved.examples.classes, self.preprocessing, source=self.source.name, decision=decision,
            heads=target.head_names, unfamiliarity=unfamiliar,
        )  # fmt: skip

    def state(self) -> dict[str, Any]:
        """What the page is told."""
        status, solved = self.status, self.solved
        known = {
            "phase": status.phase,
            "queued": status.queued,
            "done": status.done,
            "reason": status.reason,
            "needs": [{"class": name, "more": more} for name, more in status.needs],
            "needs_classes": status.needs_classes,
            "framing": self.preprocessing.framing_words,
            "revision": self.revision,
        }
        if solved is None:
            return {
                **known,
                "accuracy": None,
                "per_class": [],
                "confused": [],
                "more": None,
                "strength": None,
                "seconds": 0,
            }
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

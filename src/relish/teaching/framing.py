"""How images are framed, chosen anew in the background where there are many more or fewer of them than before.

By the ladder's rule, on as many images as it takes, in the folds of the probe that the page shows. Features are
computed a few images at a time and each framing's probe is solved beside other work, so whatever changes is answered
first. Where another framing wins, features of all images are computed in it before one of them is used.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from relish.data.split import stratified_sample
from relish.data.survey import Facts
from relish.data.transforms import Preprocessing
from relish.evaluation.features import Features
from relish.evaluation.grouped import group_numbers
from relish.teaching.journal import Journal
from relish.teaching.solving import Solved
from relish.training.budget import framed_on
from relish.training.linear_probe import CrossValidated, Labels, cross_validate
from relish.training.probe_stage import best_framing, framings, nearly_square

_GROWN = 1.3
"""Times as many images as when something was chosen: then it is chosen anew."""
_AT_ONCE = 4
"""Images whose features are computed between two looks at what has changed, each in several framings."""
_NOTE = "framing"
"""The journal's note of the framing, of the network it was chosen for, and of how many images."""

Compute = Callable[[Sequence[str], Sequence["Framed"]], None]
Submit = Callable[[Callable[[], CrossValidated]], Future[CrossValidated]]


def much_changed(count: int, before: int) -> bool:
    """Whether there are many more or fewer images than something was chosen on."""
    return not before / _GROWN < count < before * _GROWN


@dataclass(frozen=True, eq=False)
class Framed:
    """Images framed in one way."""

    preprocessing: Preprocessing
    rows: dict[str, Features] = field(default_factory=dict)
    """(D,) float32 features by SHA-256."""

    def features(self, contents: Sequence[str]) -> Features:
        """(N, D) float32 of these images, which have to be among the rows."""
        return np.stack([self.rows[sha256] for sha256 in contents])


class FramingChoice:
    """The framing of a folder's images, remembered in its journal.

    Args:
        network: tells it apart from other networks, for which another framing may be the best.
        book: the framing to begin with.
        bias: whether the output layer has one.
        facts: of images, by SHA-256.
        compute: adds the features of these images to each of these framings; those that cannot be opened are left out.
        submit: has something done beside.
    """

    def __init__(
        self,
        journal: Journal,
        network: str,
        book: Preprocessing,
        bias: bool,
        facts: Callable[[Sequence[str]], Facts],
        compute: Compute,
        submit: Submit,
    ) -> None:
        self._journal, self._network, self._bias = journal, network, bias
        self._facts, self._compute, self._submit = facts, compute, submit
        self._tried = framings(book)
        note = journal.note(_NOTE) or {}
        if note.get("network") != network:
            note = {}
        self.chosen = next((one for one in self._tried if one.framing_words == note.get("framing")), book)
        """The framing that was remembered, else the book's."""
        self.coming: Framed | None = None
        """The one to be used from when all images have features in it."""
        self._chosen_on = int(note.get("images", 0))
        self._comparison: _Comparison | None = None

    def step(self, solved: Solved, now: Framed) -> bool:
        """Do a little of the comparison, where it is time for one; whether there was something.

        Args:
            solved: the probe of all images to learn from, in the framing of `now`.
        """
        count = len(solved.examples.contents)
        if not much_changed(count, self._chosen_on):
            self._comparison = None
            return False
        before = self._comparison
        if before is None or before.key != solved.examples.key:
            self._comparison = _Comparison(solved, self._tried, now, before)
            if nearly_square(self._sizes(self._comparison.contents)):
                self._choose(self._tried[0], now, count)
            return True
        if lacking := before.lacking:
            self._compute(lacking[:_AT_ONCE], [one for one in before.framed if one is not now])
            return lacking[0] not in before.lacking  # one that has just been moved or deleted is looked for again later
        if not before.solved(self._submit, self._bias):
            return False
        self._choose(before.best, now, count)
        return True

    def _choose(self, best: Preprocessing, now: Framed, count: int) -> None:
        assert self._comparison is not None  # noqa: S101 - one has just come to its end
        found = next(one for one in self._comparison.framed if one.preprocessing == best)
        self._comparison, self._chosen_on = None, count
        if best == now.preprocessing:
            self._remember(best)
        else:
            self.coming = found

    def taken(self) -> None:
        """What was coming is used from here on."""
        assert self.coming is not None  # noqa: S101 - it is what was taken
        self._remember(self.coming.preprocessing)
        self.coming = None

    def _remember(self, chosen: Preprocessing) -> None:
        self.chosen = chosen
        note = {"framing": chosen.framing_words, "network": self._network, "images": self._chosen_on}
        self._journal.note(_NOTE, note)

    def _sizes(self, contents: Sequence[str]) -> list[tuple[int, int]]:
        facts = self._facts(contents)
        return list(zip(facts["width"].tolist(), facts["height"].tolist(), strict=True))


class _Comparison:
    """Framings, compared on some of the images of a probe.

    Args:
        before: a comparison of other images, or of these in other classes, whose features are used again.
    """

    def __init__(
        self, solved: Solved, tried: Sequence[Preprocessing], now: Framed, before: "_Comparison | None"
    ) -> None:
        examples = solved.examples
        self.key = examples.key
        self._classes, self._found = len(examples.classes), list[CrossValidated]()
        some = stratified_sample(
            examples.labels, examples.contents, framed_on(len(examples.contents), self._classes), seed=0
        )
        self.contents = [examples.contents[row] for row in some]
        self._labels: Labels = examples.labels[some]
        self._units = [examples.units[row] for row in some]
        self._folds = np.array([solved.fold_of[unit] for unit in self._units], dtype=np.int64)
        kept = {one.preprocessing: one for one in before.framed} if before is not None else {}
        self.framed: list[Framed] = [now if one == now.preprocessing else kept.get(one) or Framed(one) for one in tried]
        self._task: Future[CrossValidated] | None = None

    @property
    def lacking(self) -> list[str]:
        """The images that have no features yet in one of the framings."""
        return [sha256 for sha256 in self.contents if not all(sha256 in one.rows for one in self.framed)]

    def solved(self, submit: Submit, bias: bool) -> bool:
        """Have the probe of the next framing solved, if none is being solved; whether all are."""
        if self._task is not None and self._task.done():
            done, self._task = self._task, None
            self._found.append(done.result())
        if self._task is None and len(self._found) < len(self.framed):
            features = self.framed[len(self._found)].features(self.contents)
            self._task = submit(lambda: cross_validate(features, self._labels, self._classes, self._folds, bias=bias))
        return self._task is None

    @property
    def best(self) -> Preprocessing:
        """The framing that wins, once all are solved."""
        tried = (one.preprocessing for one in self.framed)
        return best_framing(zip(tried, self._found, strict=True), group_numbers(self._units))[0]

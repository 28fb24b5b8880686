"""The framing of a folder's images is chosen anew in the background, and what changes meanwhile is answered first."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import relish
from relish.data.dataset import TEST
from relish.data.survey import FACTS
from relish.data.transforms import book_preprocessing
from relish.teaching import framing, learning
from relish.teaching.framing import Framed, FramingChoice
from relish.teaching.journal import Journal
from relish.teaching.session import Session
from relish.teaching.solving import Examples, Solved, solve
from relish.training.budget import FRAMED
from relish.training.linear_probe import cross_validate
from relish.training.probe_stage import best_framing, framings
from tests.training.test_auto import rungs

HANG = 60.0
"""Seconds after which whatever is waited for does not come any more."""
BOOK = book_preprocessing(32, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
_, CROPPED, WHOLE, LETTERBOXED = framings(BOOK)
WIDE = {"blue": (40, 40, 200), "red": (200, 40, 40)}
"""Grey pictures but for a patch of such a colour at the left edge, which the book's crop cuts off."""


# ---- the choice alone, of features that are made up -----------------------------------------------------------------


class Choosing:
    """A choice among framings of which one alone shows the classes.

    Args:
        shows: it.
    """

    def __init__(
        self, file: Path, examples: Examples, shows=WHOLE, size: tuple[int, int] = (60, 20), network: str = "a network"
    ) -> None:
        self.examples, self.shows, self.size = examples, shows, size
        self.computed: list[str] = []
        self.compared: list[int] = []
        self.submitted: list[Callable] = []
        journal = Journal(file.parent, file)
        self.choice = FramingChoice(journal, network, BOOK, True, self._facts, self._compute, self._submit)
        self.now = self._full(self.choice.chosen)
        self.close = journal.close

    def _full(self, preprocessing) -> Framed:
        framed = Framed(preprocessing)
        self._fill(self.examples.contents, [framed])
        return framed

    def _facts(self, contents: Sequence[str]) -> np.ndarray:
        facts = np.zeros(len(contents), dtype=FACTS)
        facts["width"], facts["height"] = self.size
        return facts

    def _fill(self, contents: Sequence[str], framings: Sequence[Framed]) -> None:
        label_of = dict(zip(self.examples.contents, self.examples.labels.tolist(), strict=True))
        for framed in framings:
            for sha256 in contents:
                row = np.random.default_rng(int(sha256, 16)).normal(size=8).astype(np.float32)
                row[label_of[sha256]] += 3.0 * (framed.preprocessing == self.shows)
                framed.rows.setdefault(sha256, row)

    def _compute(self, contents: Sequence[str], framings: Sequence[Framed]) -> None:
        self.computed += contents
        self._fill(contents, framings)

    def _submit(self, task: Callable) -> Future:
        self.submitted.append(task)
        future: Future = Future()
        found = task()
        self.compared.append(len(found.held))
        future.set_result(found)
        return future

    def solved(self) -> Solved:
        features = self.now.features(self.examples.contents)
        return solve(replace(self.examples, features=features), bias=True)

    def run(self) -> None:
        """Until nothing is done any more, and what is coming is used."""
        solved, before = self.solved(), -1
        while len(self.submitted) + len(self.computed) != before:
            before = len(self.submitted) + len(self.computed)
            while self.choice.step(solved, self.now):
                pass
        if self.choice.coming is not None:
            self.now = self._full(self.choice.coming.preprocessing)
            self.choice.taken()


def examples(count: int = 40, together: int = 1) -> Examples:
    """Two classes in turn.

    Args:
        together: images of a class that are one series.
    """
    keys = tuple(f"{place:064x}" for place in range(count))
    labels = np.arange(count, dtype=np.int64) % 2
    units = tuple(f"{place % 2}/{place // 2 // together}" for place in range(count))
    return Examples(("cat", "dog"), keys, labels, units, np.zeros((count, 8), dtype=np.float32))


@pytest.fixture
def choosing(tmp_path):
    """Makes choices that are remembered in one journal, and closes it."""
    opened: list[Choosing] = []

    def made(*given, **named) -> Choosing:
        for one in opened:
            one.close()
        opened.append(Choosing(tmp_path / "journal.sqlite3", *given, **named))
        return opened[-1]

    yield made
    opened[-1].close()


@pytest.mark.parametrize("shows", framings(BOOK), ids=lambda one: one.framing_words)
def test_the_framing_that_shows_the_classes_is_chosen_and_remembered_for_this_network(choosing, shows):
    first = choosing(examples(), shows)
    first.run()
    assert first.now.preprocessing == shows
    again = choosing(examples(), shows)
    assert again.now.preprocessing == shows
    again.run()
    assert (again.computed, again.submitted) == ([], [])  # it has been decided
    assert choosing(examples(), shows, network="another").choice.chosen == BOOK


def test_with_many_more_images_it_is_chosen_anew(choosing):
    choosing(examples(40), WHOLE).run()
    some_more = choosing(examples(50), LETTERBOXED)
    some_more.run()
    assert (some_more.now.preprocessing, some_more.computed) == (WHOLE, [])
    many_more = choosing(examples(60), LETTERBOXED)
    many_more.run()
    assert many_more.now.preprocessing == LETTERBOXED


def test_what_was_coming_and_is_not_used_yet_is_not_remembered(choosing):
    first = choosing(examples())
    solved = first.solved()
    while first.choice.coming is None:
        first.choice.step(solved, first.now)
    assert first.choice.coming.preprocessing == WHOLE
    assert choosing(examples()).now.preprocessing == BOOK


def test_a_label_that_changes_begins_the_comparison_anew_with_the_features_that_there_are(choosing):
    one = choosing(examples())
    for _ in range(3):
        one.choice.step(one.solved(), one.now)
    assert 0 < len(one.computed) < 40
    labels = one.examples.labels.copy()
    labels[:2] = labels[1::-1]
    one.examples = replace(one.examples, labels=labels)
    one.run()
    assert sorted(one.computed) == sorted(one.examples.contents)
    assert one.now.preprocessing == WHOLE


def test_square_images_are_not_compared(choosing):
    square = choosing(examples(), size=(41, 40))
    square.run()
    assert (square.computed, square.submitted) == ([], [])


def test_as_many_images_are_compared_as_the_ladder_compares(choosing):
    many = choosing(examples(FRAMED + 100))
    many.run()
    assert len(many.computed) == FRAMED
    assert many.compared == [FRAMED] * 4


def test_series_are_held_out_together_and_count_as_one(choosing, monkeypatch):
    folds: list[np.ndarray] = []
    counted: list[int] = []

    def crossed(features, labels, classes, fold_of, **named):
        folds.append(fold_of)
        return cross_validate(features, labels, classes, fold_of, **named)

    def won(probes, groups):
        counted.append(len(set(groups)))
        return best_framing(probes, groups)

    monkeypatch.setattr(framing, "cross_validate", crossed)
    monkeypatch.setattr(framing, "best_framing", won)
    series = choosing(examples(40, together=4))
    series.run()
    units = series.examples.units
    assert len(folds) == 4
    for fold_of in folds:
        assert len(set(zip(units, fold_of.tolist(), strict=True))) == len(set(units)) == 10
    assert counted == [10]


# ---- the whole folder -----------------------------------------------------------------------------------------------


def draw(folder: Path, count: int, start: int = 0) -> None:
    for name, colour in WIDE.items():
        for number in range(start, start + count):
            rng = np.random.default_rng([number, len(name)])
            pixels = rng.normal(128, 30, (40, 120, 3))
            pixels[:, :7] = np.array(colour) + rng.normal(0, 20, (40, 7, 3))
            path = folder / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture
def opened(tmp_path, tiny_source, monkeypatch):
    """Opens the folder `wide`, closing it first; nobody waits until it is quiet."""
    monkeypatch.setattr(learning, "QUIET_SECONDS", 0.0)
    sessions: list[Session] = []

    def open_it() -> Session:
        for one in sessions:
            one.close()
        sessions.append(Session(tmp_path / "wide", weights=tiny_source))
        return sessions[-1]

    draw(tmp_path / "wide", 20)
    yield open_it
    sessions[-1].close()


def until(session: Session, true: Callable[[dict], object]) -> dict:
    """What is told of learning, once this is true of it; nothing is done but by steps from here."""
    end = time.monotonic() + HANG
    while not true(state := session.learner.state()):
        assert time.monotonic() < end, state
        if not session.learner.step():
            time.sleep(0.01)
    return state


def test_a_subject_that_the_crop_cuts_off_is_seen_in_another_framing_after_a_restart_too(opened, monkeypatch):
    session = opened()
    learner, shown, compared = session.learner, list[tuple[str, bool]](), set[str]()

    def look() -> None:
        """What the page is told now is of one framing."""
        framed, solved = learner.now
        if solved is not None:
            features = framed.features(solved.examples.contents)
            shown.append((framed.preprocessing.framing_words, np.array_equal(features, solved.examples.features)))

    def computed(contents: Sequence[str], framings: Sequence[Framed]) -> None:
        compared.update(contents)
        learner._compute(contents, framings)

    monkeypatch.setattr(learner, "_changed", look)
    monkeypatch.setattr(learner._choice, "_compute", computed)
    first = until(session, lambda state: state["accuracy"])
    assert first["framing"] == "squashed and cropped"
    second = until(session, lambda state: state["framing"] != first["framing"])
    assert second["framing"] in ("squashed", "letterboxed")
    assert second["accuracy"]["right"] > first["accuracy"]["right"]
    assert second["accuracy"]["of"] == first["accuracy"]["of"] == len(compared) == 32
    assert all(consistent for _, consistent in shown)
    tests = {sha256 for sha256, split in session.library.splits.items() if split == TEST}
    assert len(tests) == 8
    assert not tests & compared
    assert session.final()["of"] == 8
    assert learner.classifier()[1].preprocessing == learner.now[0].preprocessing

    again = opened()
    monkeypatch.setattr(again.learner._choice, "_compute", lambda *_: pytest.fail("it has been decided"))
    assert until(again, lambda state: state["accuracy"])["framing"] == second["framing"]
    assert [again.learner.step() for _ in range(5)] == [False] * 5


def test_what_changes_in_the_midst_is_answered_before_the_comparison_goes_on(opened, monkeypatch):
    session = opened()
    learner, library, calls, answered = session.learner, session.library, 0, list[tuple[str, bool]]()

    def computed(contents: Sequence[str], framings: Sequence[Framed]) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            learned = set(learner.solved.examples.contents)
            wrong = next(image for image in library.content.classes["red"].images if learner.sha256(image) in learned)
            library.move([wrong.id], "blue")
            draw(library.folder, 1, start=100)
            answered.append((learner.sha256(wrong), False))
        elif calls == 2:
            (sha256, _), known = answered.pop(), learner.solved.examples
            classes = dict(zip(known.contents, known.labels.tolist(), strict=True))
            answered.append((known.classes[classes[sha256]], len(learner.now[0].rows) == 42))
        learner._compute(contents, framings)

    monkeypatch.setattr(learner._choice, "_compute", computed)
    until(session, lambda state: state["framing"] != "squashed and cropped")
    assert answered == [("blue", True)]
    assert len(learner.now[0].rows) == 42


def test_while_somebody_is_at_work_framings_are_not_compared(opened, monkeypatch):
    session = opened()
    with monkeypatch.context() as patched:
        patched.setattr(learning, "QUIET_SECONDS", HANG)
        patched.setattr(session.learner._choice, "step", lambda *_: pytest.fail("compared"))
        until(session, lambda state: state["accuracy"])
        assert not session.learner.step()  # images have just come
        session.learner._active -= HANG
        session.model.prepare(Image.new("RGB", (120, 40)))
        assert not session.learner.step()  # one has just been tried
    until(session, lambda state: state["framing"] != "squashed and cropped")


def test_a_final_figure_of_another_framing_is_told_as_an_old_one(opened):
    session = opened()
    until(session, lambda state: state["accuracy"])
    session.final()
    assert session.state()["final"]["revision"] == session.library.revision
    until(session, lambda state: state["framing"] != "squashed and cropped")
    assert session.state()["final"]["revision"] != session.library.revision


def test_a_picture_prepared_in_one_framing_is_answered_by_the_model_that_framed_it(opened):
    session = opened()
    until(session, lambda state: state["accuracy"])
    picture = Image.open(session.library.folder / "red" / "3.png").convert("RGB")
    before, framed = session.learner.classifier()[1], session.model.prepare(picture)
    until(session, lambda state: state["framing"] != "squashed and cropped")
    after, reframed = session.learner.classifier()[1], session.model.prepare(picture)
    wanted = [one.predict_prepared([one.prepare(picture)])[0].probabilities for one in (before, after, before)]
    found = [one.probabilities for one in session.model.predict([framed, reframed, framed])]
    assert wanted[0] != wanted[1]
    np.testing.assert_allclose([list(one.values()) for one in found], [list(one.values()) for one in wanted], atol=1e-5)


def test_the_commands_that_do_it_again_choose_the_same_framing(opened, tmp_path, tiny_source):
    session = opened()
    seen = until(session, lambda state: state["framing"] != "squashed and cropped")
    relish.fit(session.library.folder, weights=tiny_source, recipe="probe", out=tmp_path / "run")
    (rung,) = rungs(tmp_path / "run")
    assert rung["framing"] == seen["framing"]

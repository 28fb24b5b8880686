"""One folder as it is taught: its images, what is learned from them, what is asked next, and what the page is told."""

import secrets
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from PIL import Image as Picture

from relish.core.errors import DataError, ModelError
from relish.core.progress import SILENT, Progress
from relish.data.archive import unpack_into
from relish.data.dataset import TEST
from relish.data.image_files import is_image_name
from relish.data.layout import everything_below
from relish.evaluation.prediction import Decision, Prediction
from relish.server.batching import Model, Predictor
from relish.server.limits import Limits, Refusal, megabytes
from relish.server.middleware import Metrics
from relish.server.uploads import Upload
from relish.tasks.serve import ServedClassifier
from relish.teaching.better import Better
from relish.teaching.journal import DONE, UNDONE
from relish.teaching.learning import Learner, figure
from relish.teaching.library import Added, Conflict, Library
from relish.teaching.names import parts_of
from relish.teaching.shelves import REMOVED, UNLABELLED, Image, Shelf, place_before, place_of, shown_place
from relish.teaching.solving import Solved
from relish.teaching.suggestions import RULE, Suggestion, most_useful, suggestions
from relish.teaching.takeaway import KINDS, Takeaway

if TYPE_CHECKING:
    from relish.tasks.classifier import Classifier

ZIP = b"PK\x03\x04"
"""First bytes of a zip that holds something."""


class LiveModel:
    """The probe of the moment, as the server's predictor calls a model."""

    name, value_range, explains = "probe", None, True

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self._explaining: tuple[int, ServedClassifier] | None = None

    @property
    def _now(self) -> "tuple[int, Classifier]":
        found = self._learner.classifier()
        if found is None:
            raise Conflict("there is no model any more.")
        return found

    @property
    def classes(self) -> tuple[str, ...]:
        """Those that are learned."""
        return self._now[1].classes

    @property
    def decision(self) -> Decision:
        """Of what it is unsure of."""
        return self._now[1].decision

    def prepare(self, image: Picture.Image) -> Any:
        """As `Classifier.prepare`, with the classifier that answers: the next one may frame images otherwise."""
        classifier = self._now[1]
        return classifier, classifier.prepare(image)

    def predict(self, prepared: Sequence[Any]) -> Sequence[Prediction]:
        """As `Classifier.predict_prepared`."""
        found: list[Prediction] = []
        for _, group in groupby(prepared, key=lambda one: id(one[0])):
            classifiers, images = zip(*group, strict=True)
            found += classifiers[0].predict_prepared(images)
        return found

    def explain(self, image: Picture.Image, class_name: str) -> Picture.Image:
        """As `ServedClassifier.explain`."""
        revision, classifier = self._now
        if self._explaining is None or self._explaining[0] != revision:
            self._explaining = (revision, ServedClassifier(classifier))
        served = self._explaining[1]
        if not served.explains:
            raise ModelError(f"where it looks cannot be shown: {served.unexplained}.")
        return served.explain(image, class_name)


class Session:
    """A folder that is open; may be asked from several threads.

    Args:
        folder: made if absent.
        source, weights, device, progress: as `Learner` takes them.

    Raises:
        BadInput: the folder cannot be opened.
        ModelError: the source model cannot be loaded.
    """

    predictor: Predictor

    def __init__(
        self,
        folder: Path,
        source: str | None = None,
        weights: str | Path | None = None,
        device: str = "auto",
        progress: Progress = SILENT,
    ) -> None:
        self.session = secrets.token_hex(8)
        """New at each start: a page of an earlier one has to load itself again."""
        self.version = 0
        """Grows whenever there is something to tell the page."""
        self.library = Library(folder)
        self.limits = Limits()
        self._closed = False
        self._suspected: list[Suggestion] = []
        self.learner = Learner(self.library, source, weights, device, self._tell, self._suspect, progress)
        self.model = LiveModel(self.learner)
        given = {"--source": source, "--weights": weights, "--device": None if device == "auto" else device}
        options = [word for name, value in given.items() if value is not None for word in (name, str(value))]
        self.better = Better(self.learner, options, self._tell)
        self.takeaway = Takeaway(self.learner, self.better, options, self._tell)

    def prepare(self, limits: Limits, metrics: Metrics) -> None:
        """Say what one request may hold."""
        self.limits = limits
        self.predictor = Predictor(cast(Model, self.model), limits, metrics)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Learn within the block; at its end the folder is closed."""
        self.learner.start()
        try:
            async with self.predictor.running():
                yield
        finally:
            self.close()

    def close(self) -> None:
        """End all work and close the folder; done already, nothing happens."""
        if self._closed:
            return
        self._closed = True
        self.better.close()
        self.takeaway.close()
        self.learner.close()
        self.library.close()

    def changed(self) -> None:
        """Something has been changed by the page."""
        self._tell()
        self.learner.wake()

    def _tell(self) -> None:
        self.version += 1

    def _suspect(self, solved: Solved) -> None:
        found, by_id = suggestions(self.learner, solved), self.library.content.by_id
        # What was moved meanwhile may come back by undo.
        self._suspected = [*found, *(one for one in self._suspected if one.image.id not in by_id)]

    # ---- what the page is told --------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """All but the lists."""
        library, learner = self.library, self.learner
        content, suspected = library.content, self._open()
        final = learner.final
        return {
            "session": self.session,
            "revision": library.revision,
            "folder": str(library.folder),
            "name": library.folder.name,
            "source": learner.source.name,
            "classes": [self._class(name, shelf) for name, shelf in sorted(content.classes.items())],
            "unlabelled": {"count": len(content.unlabelled.images), "stamp": self._stamp(content.unlabelled)},
            "removed": {"count": len(content.removed.images), "stamp": content.removed.stamp},
            "undo": self._step(DONE),
            "redo": self._step(UNDONE),
            "learning": learner.state(),
            "queue": {"count": len(suspected), "stamp": self._queue_stamp(suspected)},
            "final": None if final is None else {**figure(final[0]), "revision": final[1]},
            "better": self.better.state(),
            "exports": self.takeaway.state(),
            "export_kinds": list(KINDS),
            "limits": {
                "body_bytes": self.limits.body_bytes, "pixels": self.limits.pixels, "files": self.limits.files,
            },
        }  # fmt: skip

    def _class(self, name: str, shelf: Shelf) -> dict[str, Any]:
        splits = self.library.splits
        tests = sum(splits.get(self.learner.sha256(image)) == TEST for image in shelf.images)
        return {"name": name, "count": len(shelf.images), "test": tests, "stamp": self._stamp(shelf)}

    def _stamp(self, shelf: Shelf) -> str:
        return f"{shelf.stamp}.{self.learner.revision}"

    def _step(self, state: str) -> dict[str, Any] | None:
        step = self.library.journal.next_step(state)
        return None if step is None else step.shown

    def images(self, class_name: str | None, tray: str | None, offset: int, limit: int) -> dict[str, Any]:
        """The images of a class or a tray."""
        content = self.library.content
        shelf = {"unlabelled": content.unlabelled, "removed": content.removed}.get(tray or "")
        if shelf is None:
            shelf = content.classes.get(class_name or "")
        if shelf is None:
            raise Refusal(404, f'there is no class "{(class_name or tray or "")[:80]}".')
        said = self._said()
        rows = [self._row(image, said) for image in shelf.images[offset : offset + limit]]
        return {"stamp": self._stamp(shelf), "total": len(shelf.images), "images": rows}

    def _row(self, image: Image, said: dict[str, tuple[str, float]]) -> dict[str, Any]:
        outcome = self.library.outcome(image)
        sha256 = outcome.sha256 if outcome else ""
        predicted, probability = said.get(sha256, (None, None))
        place = place_of(image.path)
        return {
            "id": image.id,
            "name": image.name,
            "test": self.library.splits.get(sha256) == TEST and not place.startswith("."),
            "predicted": predicted,
            "probability": probability,
            "reason": outcome.reason if outcome else "",
            "from": shown_place(place_before(place)) if place.startswith(REMOVED) else "",
        }

    def _said(self) -> dict[str, tuple[str, float]]:
        """Content to class and probability, by a probe that has not seen it."""
        solved = self.learner.solved
        if solved is None:
            return {}
        names, likeliest = solved.examples.classes, solved.probabilities.max(1).tolist()
        said = (names[label] for label in solved.predicted)
        return dict(zip(solved.examples.contents, zip(said, likeliest, strict=True), strict=True))

    def image(self, image_id: str) -> Image:
        """An image by its id.

        Raises:
            Refusal: 404, it is not there any more.
        """
        found = self.library.content.by_id.get(image_id)
        if found is None:
            raise Refusal(404, "this picture is not there any more.", hint="It was moved, or changed elsewhere.")
        return found

    def known(self, contents: Sequence[str]) -> dict[str, Any]:
        """Which contents are here, and where."""
        there = self.library.known()
        found = {sha256: there[sha256] for sha256 in contents if sha256 in there}
        return {
            sha256: {"id": image.id, "class": shown_place(place_of(image.path)),
                     "tray": "unlabelled" if place_of(image.path) == UNLABELLED else ""}
            for sha256, image in found.items() if not image.path.startswith(REMOVED)
        }  # fmt: skip

    # ---- what to look at next ---------------------------------------------------------------------------------------

    def _open(self) -> list[Suggestion]:
        """What is suspected and has not been decided, of images that are where they were."""
        kept, by_id = self.library.journal.kept(), self.library.content.by_id
        there = (one for one in self._suspected if one.image.id in by_id and one.key not in kept)
        return [one for one in there if one.other is None or one.other.id in by_id]

    def queue(self, limit: int) -> dict[str, Any]:
        """Images to look at, each with why."""
        found = self._open()
        items = [self._suspicion(one) for one in found[:limit]]
        return {"stamp": self._queue_stamp(found), "total": len(found), "items": items}

    def _queue_stamp(self, found: Sequence[Suggestion]) -> str:
        return f"{self.library.revision}.{self.learner.revision}.{len(found)}"

    def _suspicion(self, one: Suggestion) -> dict[str, Any]:
        return {
            "key": one.key,
            "kind": one.kind,
            "id": one.image.id,
            "name": one.image.name,
            "class": one.label,
            "suggested": one.suggested,
            "probability": one.probability,
            "other": one.other.id if one.other else None,
            "other_class": shown_place(place_of(one.other.path)) if one.other else None,
            "test": self.library.splits.get(self.learner.sha256(one.image)) == TEST,
        }

    def unlabelled(self, limit: int) -> dict[str, Any]:
        """The unlabelled images, those first whose labels would teach most."""
        shelf, (framed, solved) = self.library.content.unlabelled, self.learner.now
        known = [(image, sha) for image in shelf.images if (sha := self.learner.sha256(image)) in framed.rows]
        contents = [sha256 for _, sha256 in known]
        rows = framed.features(contents) if contents else np.zeros((0, 1), dtype=np.float32)
        found = solved.answers(rows) if solved is not None and contents else None
        order = most_useful(rows, found, limit)
        items = []
        for place in order:
            proposed: dict[str, Any] = {"proposed": None, "probability": None, "margin": None}
            if found is not None and solved is not None:
                second, first = np.sort(found[place])[-2:]
                name = solved.examples.classes[int(found[place].argmax())]
                proposed = {"proposed": name, "probability": float(first), "margin": float(first - second)}
            items.append({"id": known[place][0].id, "name": known[place][0].name, **proposed})
        return {"stamp": self._stamp(shelf), "total": len(shelf.images), "rule": RULE, "items": items}

    # ---- uploads, and the rest --------------------------------------------------------------------------------------

    def add(self, uploads: Sequence[Upload], place: str | None, batch: str) -> list[dict[str, Any]]:
        """Add uploads, those of zips among them, to a place or to the class that each one's folder says."""
        found: list[Added] = []
        plain: list[tuple[Upload, str]] = []
        for upload in uploads:
            if upload.content.startswith(ZIP):
                found += self._unpacked(upload, place, batch)
            else:
                plain.append((upload, place or _place_by_name(upload.name)))
        found += self.library.add(plain, self.limits.reason_to_refuse, batch)
        return [self._result(one) for one in found]

    def _unpacked(self, upload: Upload, place: str | None, batch: str) -> list[Added]:
        with tempfile.TemporaryDirectory(prefix="relish-") as name:
            archive, folder = Path(name) / "upload.zip", Path(name) / "unpacked"
            archive.write_bytes(upload.content)
            folder.mkdir()
            try:
                unpack_into(archive, folder, zip_encoding=None, progress=SILENT)
            except DataError as error:
                reason = error.message.replace(f"{archive}: ", "")
                return [Added(upload.name, "refused", reason=reason)]
            paths = [path for path in everything_below(folder).images if path.is_file() and is_image_name(path.name)]
            sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}
            most = self.limits.body_bytes
            larger = [name for name, size in sizes.items() if size > most]
            found = [Added(name, "refused", reason=f"larger than {megabytes(most)}") for name in larger]
            for names in self._portions({name: size for name, size in sizes.items() if size <= most}):
                sent = [(Upload(one, (folder / one).read_bytes()), place or _place_by_name(one)) for one in names]
                found += self.library.add(sent, self.limits.reason_to_refuse, batch or upload.name)
                self._tell()
            return found or [Added(upload.name, "refused", reason="holds no pictures")]

    def _portions(self, sizes: Mapping[str, int]) -> Iterator[list[str]]:
        """The files in portions that a request could bring, which bounds memory; none is larger than a request."""
        portion: list[str] = []
        held = 0
        for name, size in sizes.items():
            if len(portion) == self.limits.files or held + size > self.limits.body_bytes:
                yield portion
                portion, held = [], 0
            portion.append(name)
            held += size
        yield portion

    def _result(self, one: Added) -> dict[str, Any]:
        place = shown_place(place_of(one.image.path)) if one.image else ""
        there = one.image.id if one.image else None
        return {"name": one.name, "status": one.status, "id": there, "class": place, "reason": one.reason}

    def final(self) -> dict[str, Any]:
        """The accuracy on the images that were set aside.

        Raises:
            Conflict: there are none, or no model.
        """
        found = self.learner.final_figure()
        if found is None or self.learner.final is None:
            raise Conflict("no pictures are set aside yet.", hint="Of five pictures of a class, one is.")
        return {**figure(found), "revision": self.learner.final[1]}

    def commands(self) -> list[str]:
        """What to type for the same."""
        return [*self.better.commands(), *self.takeaway.commands()]


def _place_by_name(name: str) -> str:
    """The class that an upload's folder says, or the unlabelled images."""
    folders = parts_of(name)
    return folders[-1] if folders else UNLABELLED

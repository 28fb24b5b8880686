"""Changes to a folder of class folders, each one step of its journal; and what came of reading its images.

The folder on the disk is the truth: what changes there from elsewhere is found by the times of its folders.
"""

import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from filelock import FileLock, Timeout

from relish.core.errors import BadInput
from relish.core.io import atomic_path, cannot_write
from relish.core.progress import SILENT
from relish.data.dataset import class_name
from relish.data.image import size_from_header
from relish.data.image_files import HEAD_BYTES, no_image_reason
from relish.data.set_aside import OWN, deal, read_splits, write_splits
from relish.data.survey import Outcome, Scaling, examine
from relish.server.uploads import Upload
from relish.teaching.journal import DONE, UNDONE, Journal, Names, Operation, Step, move
from relish.teaching.names import safe_class, safe_file
from relish.teaching.shelves import (
    REMOVED,
    UNLABELLED,
    Image,
    Shelves,
    State,
    image_at,
    place_before,
    place_of,
    refuse_splits,
    removed_place,
    shown_place,
)

_INCOMING = f"{OWN}/incoming/upload"
"""Where an upload is written; what a kill leaves beside it goes at the next opening, and was not acknowledged."""
_AT_ONCE = 64
"""Files read between two looks at what has changed."""


class Conflict(BadInput):
    """Something has changed meanwhile: another tab or program was sooner."""


class Added(NamedTuple):
    """What became of one upload."""

    name: str
    status: Literal["added", "there", "refused"]
    image: Image | None = None
    reason: str = ""


class Library:
    """A folder of images, changed through a journal; may be used from several threads.

    Args:
        folder: made if absent.

    Raises:
        BadInput: it is no folder, holds splits of its own, or another `relish teach` has it open.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        refuse_splits(self.folder)
        try:
            (self.folder / OWN).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(self.folder, error) from error
        self._file_lock = FileLock(self.folder / OWN / "lock")
        try:
            self._file_lock.acquire(blocking=False)
        except Timeout:
            hint = "Use the page that it serves, or end it."
            raise BadInput(f"{folder} is open in another relish teach.", hint=hint) from None
        shutil.rmtree((self.folder / _INCOMING).parent, ignore_errors=True)
        self.lock = threading.RLock()
        self.journal = Journal(self.folder, self.folder / OWN / "journal.sqlite3")
        self.outcomes: dict[State, Outcome] = {}
        self.revision = 0
        self._shelves = Shelves(self.folder)
        self.splits: dict[str, str] = dict(read_splits(self.folder).values())
        """SHA-256 to the split that it was dealt to, of images that are no longer here too."""
        self.content = self._shelves.read()

    def close(self) -> None:
        """End the use of the folder."""
        self.journal.close()
        self._file_lock.release()

    # ---- what is there ----------------------------------------------------------------------------------------------

    def look(self) -> bool:
        """Whether something has changed from elsewhere since the last look; then the content is what is there now."""
        with self.lock:
            return self._shelves.changed and self.refresh()

    def refresh(self) -> bool:
        """Read the folder again; whether something has changed."""
        with self.lock:
            before = self.content
            self.content = self._shelves.read()
            changed = before != self.content
            self.revision += changed
            return changed

    def outcome(self, image: Image) -> Outcome | None:
        """What came of reading an image; None until it has been read."""
        return self.outcomes.get(image.state)

    def unread(self) -> list[Image]:
        """The images that have not been read, those of classes first."""
        content = self.content
        shelves = [*content.classes.values(), content.unlabelled, content.removed]
        return [image for shelf in shelves for image in shelf.images if image.state not in self.outcomes]

    def read(self, images: Sequence[Image]) -> None:
        """Read and decode images; what came of it is an `outcome` from here on."""
        paths = {self.folder / image.path: image for image in images}
        found = examine(list(paths), SILENT, "")
        if deep := {path: one for path, one in found.items() if one.used}:
            found |= examine(list(deep), SILENT, "", Scaling(None, deep))
        for path, outcome in found.items():
            if outcome.lasting or path.exists():
                self.outcomes[paths[path].state] = outcome

    def read_some(self) -> bool:
        """Read a few of the unread images; whether there were any."""
        some = self.unread()[:_AT_ONCE]
        self.read(some)
        return bool(some)

    def known(self) -> dict[str, Image]:
        """SHA-256 to image, of those that have been read; of copies the one in a class."""
        content = self.content
        shelves = [content.removed, content.unlabelled, *content.classes.values()]
        found = ((self.outcome(image), image) for shelf in shelves for image in shelf.images)
        return {outcome.sha256: image for outcome, image in found if outcome is not None}

    def set_aside(self, units: Mapping[str, str]) -> None:
        """Deal the images of classes that are not dealt yet, and write `split.csv`.

        Args:
            units: path to the key of what stays on one side, of the images that are to be dealt.
        """
        with self.lock:
            read = [
                (image.path, outcome.sha256, name)
                for name, image in self.content.labelled
                if (outcome := self.outcome(image)) and not outcome.reason and image.path in units
            ]
            contents, labels = [sha256 for _, sha256, _ in read], [name for _, _, name in read]
            dealt = deal(contents, labels, [units[path] for path, _, _ in read], self.splits)
            self.splits |= dealt
            rows = {path: (sha256, dealt[sha256]) for path, sha256, _ in read}
            if rows and rows != read_splits(self.folder):
                write_splits(self.folder, rows)

    # ---- changes ----------------------------------------------------------------------------------------------------

    def create(self, name: str) -> str:
        """Make a class; its name, made safe."""
        with self._changing():
            safe = self._new_name(name)
            self._perform("create", [Operation("mkdir", safe)], to=safe)
            return safe

    def rename(self, name: str, to: str) -> str:
        """Rename a class; its new name, made safe."""
        with self._changing():
            self._require(name)
            safe = self._new_name(to, but=name)
            if safe != name:
                count = len(self.content.classes[name].images)
                self._perform("rename", [Operation("move", name, safe)], count, name, safe)
            return safe

    def merge(self, name: str, into: str) -> dict[str, str]:
        """Move all of one class into another; old id to new id."""
        with self._changing():
            self._require(name)
            self._require(into)
            if name == into:
                raise BadInput("a class cannot be merged into itself.")
            return self._emptied("merge", name, into)

    def delete(self, name: str) -> dict[str, str]:
        """Remove a class with its images, which are kept; old id to new id."""
        with self._changing():
            self._require(name)
            return self._emptied("delete", name, removed_place(name))

    def move(self, ids: Sequence[str], place: str) -> tuple[dict[str, str], list[str]]:
        """Move images to a class or to `UNLABELLED`; old id to new id, and the ids that are not there any more."""
        with self._changing():
            if place != UNLABELLED:
                self._require(place)
            return self._moved("move", ids, lambda _: place)

    def remove(self, ids: Sequence[str]) -> tuple[dict[str, str], list[str]]:
        """Remove images, which are kept; answers as `move`."""
        with self._changing():
            return self._moved("remove", ids, lambda image: removed_place(place_of(image.path)), removed=False)

    def restore(self, ids: Sequence[str]) -> tuple[dict[str, str], list[str]]:
        """Put removed images back where they were; answers as `move`."""
        with self._changing():
            return self._moved("restore", ids, lambda image: place_before(place_of(image.path)), removed=True)

    def keep(self, keys: Sequence[str]) -> None:
        """Remember that these suspicions are none."""
        with self._changing():
            new = [key for key in dict.fromkeys(keys) if key not in self.journal.kept()]
            if new:
                self._perform("decide", [Operation("keep", key) for key in new], len(new))

    def undo(self) -> Step:
        """Take the last step back."""
        return self._reversed(DONE, "undo")

    def redo(self) -> Step:
        """Do the last step again that was undone."""
        return self._reversed(UNDONE, "do again")

    def add(
        self, uploads: Iterable[tuple[Upload, str]], refused: Callable[[tuple[int, int]], str], batch: str = ""
    ) -> list[Added]:
        """Add images that nobody has here yet.

        Each is written where removed images are kept, whole, and then moved to its place by one step: a kill in between
        leaves it there.

        Args:
            uploads: each with the place it is for: the name of a class, which is made if absent, or `UNLABELLED`.
            refused: why an image of a width and height is refused; empty where it is not.
            batch: steps of one batch are undone together.

        Returns:
            What became of each, in order.
        """
        with self._changing():
            found: list[Added | tuple[str, str, str]] = []  # or name, SHA-256 and where it will be
            operations: list[Operation] = []
            coming: dict[str, str] = {}
            placed = [(one, wanted if wanted == UNLABELLED else self._class_for(wanted)) for one, wanted in uploads]
            sizes = {len(upload.content) for upload, _ in placed}
            self.read([one for one in self.unread() if one.state[1] in sizes])  # after a start none has been read
            known, names = self.known(), Names(self.folder)
            for upload, place in placed:
                sha256 = hashlib.sha256(upload.content).hexdigest()
                there = known.get(sha256)
                if sha256 in coming or (there is not None and not there.path.startswith(REMOVED)):
                    found.append((upload.name, sha256, ""))
                    continue
                staged = there.path if there is not None else self._staged(upload, place, names, refused)
                if isinstance(staged, Added):
                    found.append(staged)
                    continue
                coming[sha256] = names.free(f"{place}/{safe_file(upload.name, Path(staged).suffix)}")
                operations += [Operation("mkdir", place)] * (not (self.folder / place).is_dir())
                operations.append(Operation("move", staged, coming[sha256]))
                found.append((upload.name, sha256, coming[sha256]))
            operations = list(dict.fromkeys(operations))
            if coming:
                places = {place_of(path) for path in coming.values()}
                to = shown_place(places.pop()) if len(places) == 1 else ""
                self._perform("add", operations, len(coming), to=to, batch=batch)
            now = self.known()
            return [
                one if isinstance(one, Added) else Added(one[0], "added" if one[2] else "there", now.get(one[1]))
                for one in found
            ]

    # ---- inside -----------------------------------------------------------------------------------------------------

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """One change at a time, of what is there now."""
        with self.lock:
            self.look()
            yield

    def _perform(
        self, kind: str, operations: Sequence[Operation], count: int = 0, start: str = "", to: str = "", batch: str = ""
    ) -> None:
        details: dict[str, Any] = {"kind": kind, "count": count, "from": start, "to": to}
        self.journal.perform(details | ({"batch": batch} if batch else {}), operations)
        self._changed()

    def _changed(self) -> None:
        """Read the folder again after a change, which counts where it moved no file, too."""
        if not self.refresh():
            self.revision += 1

    def _reversed(self, state: str, words: str) -> Step:
        with self._changing():
            steps = self.journal.reverse(state)
            if not steps:
                raise Conflict(f"there is nothing to {words}.")
            self._changed()
            count = sum(step.details["count"] for step in steps)
            return replace(steps[0], details={**steps[0].details, "count": count})

    def _moved(
        self, kind: str, ids: Sequence[str], place: Callable[[Image], str], removed: bool | None = None
    ) -> tuple[dict[str, str], list[str]]:
        """Move each image to its place; `removed`: those alone that are removed (True) or are not (False)."""
        by_id, names = self.content.by_id, Names(self.folder)
        there = [one for one in dict.fromkeys(ids) if one in by_id and (self.folder / by_id[one].path).is_file()]
        images, missing = [by_id[one] for one in there], sorted(set(ids).difference(there))
        if removed is not None:
            images = [image for image in images if image.path.startswith(f"{REMOVED}/") == removed]
        pairs = [(image, place(image)) for image in images if place(image) != place_of(image.path)]
        targets = {image.id: names.free(f"{to}/{image.name}") for image, to in pairs}
        makes = [Operation("mkdir", to) for to in sorted({to for _, to in pairs}) if not (self.folder / to).is_dir()]
        if pairs:
            starts, ends = {shown_place(place_of(i.path)) for i, _ in pairs}, {shown_place(to) for _, to in pairs}
            moves = [Operation("move", image.path, targets[image.id]) for image, _ in pairs]
            start, end = (next(iter(some)) if len(some) == 1 else "" for some in (starts, ends))
            self._perform(kind, [*makes, *moves], len(pairs), start, end)
        return self._new_ids({image.id: targets.get(image.id, image.path) for image in images}), missing

    def _emptied(self, kind: str, name: str, place: str) -> dict[str, str]:
        """Move all that is in a class to another place, and the class is gone."""
        names, shelf = Names(self.folder), self.content.classes[name]
        entries = sorted(os.listdir(self.folder / name))
        targets = {entry: names.free(f"{place}/{entry}") for entry in entries}
        makes = [Operation("mkdir", place)] * (not (self.folder / place).is_dir())
        moves = [Operation("move", f"{name}/{entry}", target) for entry, target in targets.items()]
        self._perform(kind, [*makes, *moves, Operation("rmdir", name)], len(shelf.images), name, shown_place(place))

        def moved(path: str) -> str:
            entry, slash, rest = path.removeprefix(f"{name}/").partition("/")
            return f"{targets.get(entry, entry)}{slash}{rest}"

        return self._new_ids({image.id: moved(image.path) for image in shelf.images})

    def _new_ids(self, path_of: Mapping[str, str]) -> dict[str, str]:
        by_path = {image.path: image.id for image in self.content.by_id.values()}
        return {old: by_path[path] for old, path in path_of.items() if path in by_path}

    def _staged(
        self, upload: Upload, place: str, names: Names, refused: Callable[[tuple[int, int]], str]
    ) -> str | Added:
        """Write an upload, read it, and put it where removed images are kept: its path, or why it is refused."""
        size = size_from_header(upload.content)
        if size is None or (reason := refused(size)):
            reason = no_image_reason(upload.content[:HEAD_BYTES]) if size is None else reason
            return Added(upload.name, "refused", reason=reason)
        written = self.folder / _INCOMING
        with atomic_path(written) as temporary:
            temporary.write_bytes(upload.content)
        image = image_at(_INCOMING, written.stat())
        self.read([image])
        outcome = self.outcomes[image.state]
        if outcome.reason:
            written.unlink()
            return Added(upload.name, "refused", reason=outcome.reason)
        path = names.free(f"{removed_place(place)}/{safe_file(upload.name, _suffix(upload.content))}")
        try:
            move(written, self.folder / path)
        except OSError as error:
            raise cannot_write(self.folder / path, error) from error
        return path

    def _new_name(self, text: str, but: str = "") -> str:
        safe = safe_class(text)
        there = self._existing(safe)
        if there is not None and there != but:
            raise Conflict(f'there is a class "{there}" already.', hint="Merge the two, or take another name.")
        if there is None and os.path.lexists(self.folder / safe):
            raise Conflict(f'there is a file "{safe}" in the folder.', hint="Take another name.")
        return safe

    def _class_for(self, text: str) -> str:
        safe = safe_class(text)
        return self._existing(safe) or safe

    def _existing(self, name: str) -> str | None:
        wanted = class_name(name).casefold()
        return next((one for one in self.content.classes if class_name(one).casefold() == wanted), None)

    def _require(self, name: str) -> None:
        if name not in self.content.classes:
            raise Conflict(f'there is no class "{name[:80]}" any more.', hint="Somebody has renamed or removed it.")


def _suffix(content: bytes) -> str:
    starts = {b"\xff\xd8": ".jpg", b"\x89P": ".png", b"GI": ".gif", b"BM": ".bmp", b"II": ".tiff", b"MM": ".tiff"}
    return starts.get(content[:2], ".webp" if content[8:12] == b"WEBP" else ".jpg")

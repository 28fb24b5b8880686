"""A page to judge suspicions by eye: the pictures of each finding side by side.

In:   findings, where the pictures lie, and typical pictures of each class where they are known.
Out:  one HTML file that needs nothing else: pictures inside it, no script, no link, no network.
Not here: finding anything (`checks/`), the template (`check_template.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from relish.core.errors import ImageError
from relish.core.io import write_text
from relish.data.findings import Finding
from relish.data.image import open_image
from relish.reporting.check_template import CHECK
from relish.reporting.embedding import Embedded, embedded
from relish.reporting.findings import by_kind, count_of, title
from relish.reporting.predictions_page import percent

SHOWN, PICTURES = 60, 6
"""Findings of a kind that are shown at most, and pictures of one that concerns one picture or a group."""
GALLERY = 24
"""Pictures of a finding that is about many."""
SIDE = 224
"""Longest side of an embedded picture in pixels."""
_NONE = Embedded("", 0, 0)


@dataclass(frozen=True)
class _Picture:
    name: str
    words: str
    source: str
    """A `data:` address; empty where the picture cannot be opened."""
    width: int
    height: int
    typical: bool


@dataclass(frozen=True)
class _Block:
    message: str
    advice: str
    severity: str
    pictures: Sequence[_Picture]
    more: int


@dataclass(frozen=True)
class _Section:
    anchor: str
    heading: str
    words: str
    blocks: Sequence[_Block]
    severity: str


def write_check_page(
    path: Path,
    findings: Sequence[Finding],
    files: Mapping[str, Path],
    captions: Mapping[str, str],
    typical: Mapping[str, Sequence[str]],
    *,
    heading: str,
    pictures: int,
) -> None:
    """Write the page.

    Args:
        path: the HTML file.
        findings: in the order they should be read.
        files: where each picture lies, by the name findings give it.
        captions: a few words for each picture, such as its split and class.
        typical: for each class, names of pictures that are surely of it, to hold doubtful ones against.
        heading: of the page.
        pictures: how many were looked at.

    Raises:
        WriteFailed: no space or no permission.
    """
    gallery = _Gallery(files, captions, typical)
    sections = [gallery.section(kind, held) for kind, held in by_kind(findings).items()]
    engine = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = engine.from_string(CHECK).render(title=heading, count=pictures, sections=sections)
    write_text(path, page)


class _Gallery:
    """Opens pictures for the page, each once."""

    def __init__(
        self, files: Mapping[str, Path], captions: Mapping[str, str], typical: Mapping[str, Sequence[str]]
    ) -> None:
        self.files, self.captions, self.typical = files, captions, typical
        self.opened: dict[str, Embedded] = {}

    def section(self, kind: str, held: Sequence[Finding]) -> _Section:
        """All findings of one kind."""
        blocks = [self.block(finding) for finding in held[:SHOWN]]
        words = f"The first {SHOWN} of {len(held):,}." if len(held) > SHOWN else ""
        name = held[0].kind
        return _Section(kind, title(name, count_of(held)), words, blocks, held[0].severity)

    def block(self, finding: Finding) -> _Block:
        """One finding with its pictures, and beside a doubtful label what its suggestion looks like."""
        most = GALLERY if finding.kind in ("off-topic", "blank", "dark", "blurred", "odd-size") else PICTURES
        shown = [self.picture(name) for name in finding.paths[:most]]
        if finding.kind == "wrong-label":
            others = [name for name in self.typical.get(finding.suggested or "", ()) if name not in finding.paths]
            shown += [self.picture(name, typical=True) for name in others[:2]]
        message = finding.message
        if finding.confidence is not None:
            message = f"{message.removesuffix('.')} ({percent(finding.confidence)} sure)."
        return _Block(message, finding.advice, finding.severity, shown, max(0, len(finding.paths) - most))

    def picture(self, name: str, *, typical: bool = False) -> _Picture:
        """A picture as the page shows it."""
        if name not in self.opened:
            try:
                self.opened[name] = embedded(open_image(self.files[name]), SIDE) if name in self.files else _NONE
            except ImageError:
                self.opened[name] = _NONE
        one = self.opened[name]
        return _Picture(name, self.captions.get(name, ""), one.address, one.width, one.height, typical)

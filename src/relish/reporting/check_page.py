"""What a check found: a summary for the terminal, and a page to look at suspicions by eye.

The page is one HTML file with the images of each finding side by side; it has no script and loads nothing.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from relish.core.errors import ImageError, one_line
from relish.core.io import write_text
from relish.data.dataset import KINDS, SEVERITIES, Finding, Kind, first_few
from relish.data.depth import ValueRange
from relish.data.image import open_image
from relish.reporting.page import Embedded, embed, render, whole_percent

TITLES: dict[Kind, tuple[str, str]] = {
    "unreadable": ("file that cannot be opened", "files that cannot be opened"),
    "exact-duplicate": ("group of exact duplicates", "groups of exact duplicates"),
    "near-duplicate": ("group of near duplicates", "groups of near duplicates"),
    "shared-group": ("picture of a group that training has too", "pictures of groups that training has too"),
    "series": ("series of pictures that look like one scene", "series of pictures that look like one scene"),
    "wrong-label": ("label that looks wrong", "labels that look wrong"),
    "off-topic": ("picture unlike all others", "pictures unlike all others"),
    "blank": ("blank picture", "blank pictures"),
    "blurred": ("blurred picture", "blurred pictures"),
    "dark": ("dark picture", "dark pictures"),
    "odd-size": ("picture of odd size, shape or colour", "pictures of odd size, shape or colour"),
    "many-pages": ("picture with more pages or frames", "pictures with more pages or frames"),
    "imbalance": ("uneven pair of classes", "uneven pairs of classes"),
    "too-few": ("case of too few pictures", "cases of too few pictures"),
    "layout": ("remark on the layout", "remarks on the layout"),
}
"""The name of one and of several of each kind."""
_ONE_A_FINDING = {"exact-duplicate", "near-duplicate", "series"}
"""Kinds whose findings are counted, and not their images."""
_ABOUT_MANY = {"shared-group", "off-topic", "blank", "dark", "blurred", "odd-size", "many-pages"}
"""Kinds with one finding of all their images."""
MOST_FINDINGS, FEW_IMAGES, MANY_IMAGES = 60, 6, 24
"""Shown on the page at most: findings of a kind, images of a finding about one image or a group, images of others."""
FEW_PRINTED = 4
"""Findings of a kind in the terminal."""
SIDE = 224
"""Longest side of an embedded image in pixels."""
_CANNOT_BE_SHOWN = Embedded("", 0, 0)


def _title(kind: Kind, findings: Sequence[Finding]) -> str:
    """Such as `3 labels that look wrong`; counted are groups of copies, else images, else remarks."""
    count = sum(1 if kind in _ONE_A_FINDING else max(1, len(f.paths)) for f in findings)
    return f"{count:,} {TITLES[kind][count != 1]}"


def _by_kind(findings: Sequence[Finding]) -> dict[Kind, list[Finding]]:
    """The findings of each kind; a kind with an error comes before one with notes alone."""
    kinds = {kind: [f for f in findings if f.kind == kind] for kind in KINDS}
    present = {kind: held for kind, held in kinds.items() if held}
    return dict(sorted(present.items(), key=lambda item: min(SEVERITIES.index(f.severity) for f in item[1])))


def findings_text(findings: Sequence[Finding], images: int, data: str, *, page: Path | None) -> str:
    """What `relish check` prints: how many findings of each kind, the first few of each, what to type next.

    Args:
        findings: in the order they should be read.
        images: how many were checked.
        data: what the user gave.
        page: the page that was written, if one was.
    """
    head = f"{images:,} picture{'s' * (images != 1)} looked at"
    if not findings:
        return f"{head}: nothing found.\n\nnext    relish fit {shlex.quote(data)}"
    kinds = _by_kind(findings)
    lines = [f"{head}. Suspicions, to be judged by eye; nothing was changed.", ""]
    lines += [f"  {_mark(held)} {_title(kind, held)}{_across(held)}" for kind, held in kinds.items()]
    for kind, held in kinds.items():
        lines += ["", f"{TITLES[kind][1][0].upper()}{TITLES[kind][1][1:]}"]
        lines += [one_line(line) for finding in held[:FEW_PRINTED] for line in _lines(finding)]
        if len(held) > FEW_PRINTED:
            lines.append(f"  … and {len(held) - FEW_PRINTED:,} more")
        lines += [f"  → {advice}" for advice in dict.fromkeys(f.advice for f in held[:FEW_PRINTED])]
    return "\n".join([*lines, "", *_next(findings, data, page)])


def findings_line(findings: Sequence[Finding], data: str) -> tuple[str, bool]:
    """The findings in one line, empty where none is worse than a note; and whether one of them is an error."""
    kinds = _by_kind([f for f in findings if f.severity != "note"])
    if not kinds:
        return "", False
    grave = any(f.severity == "error" for held in kinds.values() for f in held)
    summary = first_few([_title(kind, held) + _across(held) for kind, held in kinds.items()])
    return f"{'' if grave else 'check   '}{summary}. Look with  relish check {shlex.quote(data)}", grave


def write_check_page(
    path: Path,
    findings: Sequence[Finding],
    files: Mapping[str, Path],
    captions: Mapping[str, str],
    typical: Mapping[str, Sequence[str]],
    *,
    heading: str,
    images: int,
    value_range: ValueRange | None = None,
) -> None:
    """Write the page.

    Args:
        findings: in the order they should be read.
        files: where each image lies, by the name findings give it.
        captions: a few words for each image, such as its split and class.
        typical: for each class, names of images that are surely of it, to compare doubtful ones with.
        images: how many were checked.
        value_range: of images deeper than 8 bits, for `open_image`.

    Raises:
        WriteFailed: no space or no permission.
    """
    gallery = _Gallery(files, captions, typical, value_range)
    sections = [gallery.section(kind, held) for kind, held in _by_kind(findings).items()]
    write_text(path, render("check.html", title=heading, count=images, sections=sections))


@dataclass(frozen=True)
class _Gallery:
    """The images of the page, each opened once; see `write_check_page`."""

    files: Mapping[str, Path]
    captions: Mapping[str, str]
    typical: Mapping[str, Sequence[str]]
    value_range: ValueRange | None
    embedded: dict[str, Embedded] = field(default_factory=dict)

    def section(self, kind: Kind, findings: Sequence[Finding]) -> dict[str, Any]:
        """All findings of one kind, as `check.html` shows them."""
        blocks = [self.block(finding) for finding in findings[:MOST_FINDINGS]]
        text = f"The first {MOST_FINDINGS} of {len(findings):,}." if len(findings) > MOST_FINDINGS else ""
        heading, severity = _title(kind, findings), findings[0].severity
        return {"anchor": kind, "heading": heading, "text": text, "blocks": blocks, "severity": severity}

    def block(self, finding: Finding) -> dict[str, Any]:
        """One finding with its images; beside a doubtful label, typical images of the suggested class."""
        most = MANY_IMAGES if finding.kind in _ABOUT_MANY else FEW_IMAGES
        shown = [self.image(name) for name in finding.paths[:most]]
        if finding.kind == "wrong-label":
            others = [name for name in self.typical.get(finding.suggested or "", ()) if name not in finding.paths]
            shown += [self.image(name, typical=True) for name in others[:2]]
        message = finding.message
        if finding.confidence is not None:
            message = f"{message.removesuffix('.')} ({whole_percent(finding.confidence)} sure)."
        more = max(0, len(finding.paths) - most)
        return {"finding": finding, "message": message, "images": shown, "more": more}

    def image(self, name: str, *, typical: bool = False) -> dict[str, Any]:
        """An image as the page shows it."""
        if name not in self.embedded:
            try:
                self.embedded[name] = embed(open_image(self.files[name], value_range=self.value_range), SIDE)
            except (KeyError, ImageError):
                self.embedded[name] = _CANNOT_BE_SHOWN
        caption = self.captions.get(name, "")
        return {"name": name, "caption": caption, "image": self.embedded[name], "typical": typical}


def _mark(held: Sequence[Finding]) -> str:
    severities = {f.severity for f in held}
    return "!!" if "error" in severities else " !" if "warning" in severities else "  "


def _across(held: Sequence[Finding]) -> str:
    if held[0].kind not in _ONE_A_FINDING:
        return ""
    splits, classes = (sum(border in f.across for f in held) for border in ("split", "class"))
    parts = [f"{splits:,} across splits"] * bool(splits) + [f"{classes:,} across classes"] * bool(classes)
    return f" ({', '.join(parts)})" if parts else ""


def _lines(finding: Finding) -> list[str]:
    names = first_few(list(finding.paths), 3)
    if finding.kind == "wrong-label":
        sure = whole_percent(finding.confidence or 0.0)
        return [f'  {names}: labelled "{finding.given}", looks like "{finding.suggested}" ({sure} sure)']
    if finding.kind == "unreadable":
        return [f"  {names}: {finding.message[0].lower()}{finding.message[1:]}"]
    return [f"  {finding.message}"] + ([f"      {names}"] if names else [])


def _next(findings: Sequence[Finding], data: str, page: Path | None) -> list[str]:
    given = shlex.quote(data)
    lines = [f"page    {page}"] if page else [f"next    relish check {given} --html check.html   to see the pictures"]
    if any(f.kind in ("unreadable", "exact-duplicate", "near-duplicate") for f in findings):
        lines.append(f"        relish check {given} --fix clean.csv     to leave out broken files and copies")
    return lines

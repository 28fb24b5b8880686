"""What a check found, in words for a screen.

In:   findings.
Out:  lines: how many of each kind, the first few of each, what to type next.
Not here: the page with the pictures (`check_page.py`).
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

from relish.data.dataset import first_few
from relish.data.findings import KINDS, SEVERITIES, Finding, Kind
from relish.reporting.predictions_page import percent

TITLES: dict[Kind, tuple[str, str]] = {
    "unreadable": ("file that cannot be opened", "files that cannot be opened"),
    "exact-duplicate": ("group of exact duplicates", "groups of exact duplicates"),
    "near-duplicate": ("group of near duplicates", "groups of near duplicates"),
    "wrong-label": ("label that looks wrong", "labels that look wrong"),
    "off-topic": ("picture unlike all others", "pictures unlike all others"),
    "blank": ("blank picture", "blank pictures"),
    "blurred": ("blurred picture", "blurred pictures"),
    "dark": ("dark picture", "dark pictures"),
    "odd-size": ("picture of odd size, shape or colour", "pictures of odd size, shape or colour"),
    "imbalance": ("uneven pair of classes", "uneven pairs of classes"),
    "too-few": ("case of too few pictures", "cases of too few pictures"),
    "layout": ("remark on the layout", "remarks on the layout"),
}
"""What one and several of each kind are called."""
_ONE_A_FINDING = {"exact-duplicate", "near-duplicate"}
"""Kinds whose findings are counted, and not their pictures."""


def title(kind: Kind, count: int) -> str:
    """`3 labels that look wrong`."""
    return f"{count:,} {TITLES[kind][count != 1]}"


def count_of(findings: Sequence[Finding]) -> int:
    """How many of their kind these are: groups of copies, else pictures, else remarks."""
    return sum(1 if f.kind in _ONE_A_FINDING else max(1, len(f.paths)) for f in findings)


def by_kind(findings: Sequence[Finding]) -> dict[Kind, list[Finding]]:
    """The findings of each kind that there is; a kind with an error comes before one with notes alone."""
    kinds = {kind: [f for f in findings if f.kind == kind] for kind in KINDS}
    found = {kind: held for kind, held in kinds.items() if held}
    return dict(sorted(found.items(), key=lambda item: min(SEVERITIES.index(f.severity) for f in item[1])))


def findings_words(findings: Sequence[Finding], pictures: int, data: str, *, page: Path | None, shown: int = 4) -> str:
    """The whole answer of `relish check`.

    Args:
        findings: in the order they should be read.
        pictures: how many were looked at.
        data: what the user gave.
        page: the page that was written, if one was.
        shown: findings of each kind that are told one by one.
    """
    head = f"{pictures:,} picture{'s' * (pictures != 1)} looked at"
    if not findings:
        return f"{head}: nothing found.\n\nnext    relish fit {shlex.quote(data)}"
    kinds = by_kind(findings)
    lines = [f"{head}. Suspicions, to be judged by eye; nothing was changed.", ""]
    lines += [f"  {_mark(held)} {title(kind, count_of(held))}{_across(held)}" for kind, held in kinds.items()]
    for kind, held in kinds.items():
        lines += ["", f"{TITLES[kind][1][0].upper()}{TITLES[kind][1][1:]}"]
        lines += [line for finding in held[:shown] for line in _lines(finding)]
        if len(held) > shown:
            lines.append(f"  … and {len(held) - shown:,} more")
        lines += [f"  → {advice}" for advice in dict.fromkeys(f.advice for f in held[:shown])]
    return "\n".join([*lines, "", *_next(findings, data, page)])


def first_look(findings: Sequence[Finding], data: str) -> tuple[str, bool]:
    """A line at the start of a run, or an empty one; and whether figures cannot be trusted before it is dealt with."""
    kinds = by_kind([f for f in findings if f.severity != "note"])
    if not kinds:
        return "", False
    grave = any(f.severity == "error" for held in kinds.values() for f in held)
    told = first_few([title(kind, count_of(held)) + _across(held) for kind, held in kinds.items()])
    return f"{'' if grave else 'check   '}{told}. Look with  relish check {shlex.quote(data)}", grave


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
        sure = percent(finding.confidence or 0.0)
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

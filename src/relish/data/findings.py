"""What a check of a dataset can find, in one shape for screen, JSON, page and report.

A finding is a suspicion, and its words say so: of labels that such a check flags, people who look confirm about half
(Northcutt, Athalye and Mueller 2021, arXiv:2103.14749, table 2: 51% on average over ten datasets).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

Kind = Literal[
    "unreadable", "exact-duplicate", "near-duplicate", "wrong-label", "off-topic", "blank", "blurred", "dark",
    "odd-size", "imbalance", "too-few", "layout",
]  # fmt: skip
KINDS: tuple[Kind, ...] = get_args(Kind)
Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
"""The gravest first. `error`: figures or model cannot be trusted before it is dealt with; `warning`: look at it;
`note`: good to know."""
Border = Literal["split", "class"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One suspicion, of one image, of a group of them, or of the dataset."""

    kind: Kind
    severity: Severity
    message: str
    """What is suspected, in a plain sentence."""
    advice: str
    """What to do about it."""
    paths: tuple[str, ...] = ()
    """The images, as `Dataset.label` names them; none where it is about the dataset."""
    across: tuple[Border, ...] = ()
    """What a group of duplicates crosses: splits (the test is then no test), classes (their labels contradict)."""
    given: str | None = None
    """Of `wrong-label`: the class the image lies in."""
    suggested: str | None = None
    """Of `wrong-label`: the class it is taken for."""
    confidence: float | None = None
    """Of `wrong-label`: probability of the suggested class, 0 to 1, by a probe that did not learn from the image."""

    def as_json(self) -> dict[str, Any]:
        """The document of `relish check --json`; fields that this kind has no use for are omitted."""
        document: dict[str, Any] = {
            "kind": self.kind,
            "severity": self.severity,
            "paths": list(self.paths),
            "message": self.message,
            "advice": self.advice,
        }
        if self.across:
            document["across"] = list(self.across)
        if self.kind == "wrong-label":
            document |= {"given": self.given, "suggested": self.suggested, "confidence": self.confidence}
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Finding":
        """What `as_json` wrote down."""
        return cls(**{**document, "paths": tuple(document["paths"]), "across": tuple(document.get("across", ()))})

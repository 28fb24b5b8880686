"""Files that cannot be opened as pictures, each with the reason.

In:   a survey.
Out:  `unreadable` findings, one a file.
Not here: opening pictures (`data/pictures.py`).
"""

from relish.data.findings import Finding
from relish.data.survey import Survey


def unreadable(looked: Survey) -> list[Finding]:
    """One finding for each file that was left out."""
    return [
        Finding(
            kind="unreadable",
            severity="warning",
            message=f"Cannot be opened: {reason}.",
            advice="It is left out of everything. Get the file again, or take it away.",
            paths=(name,),
        )
        for name, reason in looked.unreadable
    ]

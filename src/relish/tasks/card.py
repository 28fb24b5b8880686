"""`card`: a run's model card, written when the run ends, and again when something in it changes.

In:   a run folder.
Out:  its README.md.

A card may be edited by hand. One that differs from what relish would have written is left alone.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from yaml import YAMLError

from relish.core.errors import BadInput, RunError
from relish.core.io import write_text
from relish.core.progress import Progress
from relish.core.run_folder import RunFolder
from relish.reporting.card_data import UNKNOWN
from relish.reporting.model_card import model_card


def card(run: str | Path, *, licence: str | None = None, overwrite: bool = False) -> Path:
    """Write the card of a finished run again.

    Args:
        run: the run folder.
        licence: an identifier of the Hugging Face Hub, such as `mit`; None keeps the one the card names.
        overwrite: also where the card was changed by hand.

    Returns:
        The path of the card.

    Raises:
        BadInput: the licence is no identifier.
        RunError: no such run, not finished, or the card was changed by hand.
    """
    if licence is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", licence):
        raise BadInput(
            f'--license "{licence}": not an identifier of a licence.', hint="Such as mit, apache-2.0, other."
        )
    folder = RunFolder.open(Path(run))
    evaluation = folder.read_evaluation()
    if not overwrite and not _as_written(folder, evaluation):
        raise RunError(
            f"{folder.card} was changed since relish wrote it.", hint="Edit it, or write it anew with --overwrite."
        )
    write_card(folder, evaluation, licence or _licence(folder))
    return folder.card


def write_card(folder: RunFolder, evaluation: Mapping[str, Any], licence: str | None = None) -> None:
    """The card of a run with these figures."""
    write_text(folder.card, model_card(folder, evaluation, licence))


def renew_card(folder: RunFolder, former: Mapping[str, Any], evaluation: Mapping[str, Any], progress: Progress) -> None:
    """The card with new figures, where it is as it was written with the former ones; else a warning."""
    if _as_written(folder, former):
        write_card(folder, evaluation, _licence(folder))
    else:
        progress.warn(f"{folder.card} was changed by hand: it is left as it is, with the former figures.")


def _as_written(folder: RunFolder, evaluation: Mapping[str, Any]) -> bool:
    if not folder.card.is_file():
        return True
    head = _head(folder)  # its name too: a folder may have been renamed
    written = model_card(folder, evaluation, _licence(folder), str(head.get("model_name") or ""))
    return folder.card.read_text(encoding="utf-8", errors="replace") == written


def _licence(folder: RunFolder) -> str | None:
    """The one that the card names; None where it names none."""
    named = _head(folder).get("license")
    return named if isinstance(named, str) and named != UNKNOWN else None


def _head(folder: RunFolder) -> dict[str, Any]:
    """What the card says to programs; nothing where there is no card, or its head cannot be read."""
    try:
        return dict(vars(ModelCard.load(folder.card, ignore_metadata_errors=True).data))
    except (OSError, ValueError, YAMLError):
        return {}

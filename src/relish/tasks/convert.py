"""`convert`: a file of weights as safetensors whose header says how to build the network.

In:   any file that `--weights` takes; of a Gluon `.params` its names and shapes say which network it is of.
Out:  one file, which needs nothing but itself from then on.
"""

from pathlib import Path

from relish.core.errors import ModelError
from relish.core.progress import Progress
from relish.models.header import save_model
from relish.models.source import SourceModel, load_source


def convert(
    weights: str | Path,
    out: str | Path,
    *,
    source: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> SourceModel:
    """Write a file of weights anew, with a header.

    Args:
        weights: the file to read; it is left as it is.
        out: the file to write, `.safetensors`.
        source: the network it must be of; None takes what the file says, as `--weights` does.
        overwrite: replace a file that stands at `out`.
        progress: is told what was read.

    Returns:
        The model that was read and written.

    Raises:
        ModelError: the file cannot be read, is of another network, or `out` cannot be written to so.
        WriteFailed: no space, no permission.
    """
    given, target, voice = Path(weights), Path(out), progress or Progress()
    _check(given, target, overwrite)
    model = load_source(source, given, progress=voice)
    total = sum(parameter.numel() for parameter in model.network.parameters())
    arguments = "".join(f", {key} {value}" for key, value in model.model_args.items())
    voice.say(f"read    {given}: {model.name}{arguments}, {model.num_classes} classes, {total:,} parameters")
    if model.library == "gluon" and model.labels is not None:
        voice.say(
            "labels  ImageNet's, in ImageNet's order: a claim, since the file has none. "
            "fit --recipe source-head proves it on your pictures"
        )
    save_model(target, model.network, model.description, {"source": f"{given.name} (SHA-256 {model.sha256})"})
    voice.say(f"next    relish models --weights {target}    or:  relish fit DATA --weights {target}")
    return model


def _check(given: Path, target: Path, overwrite: bool) -> None:
    if str(given) == "none":
        raise ModelError("there is nothing to convert: random weights are in no file.", hint="Name a file of weights.")
    if target.suffix != ".safetensors":
        raise ModelError(
            f"{target}: is not named .safetensors.", hint=f"Write to {target.with_suffix('.safetensors')}."
        )
    if target.is_dir():
        raise ModelError(f"{target}: is a folder.", hint="Name a file.")
    if target.exists() and given.exists() and target.samefile(given):
        raise ModelError(f"{target}: is the file to read.", hint="Name another to write.")
    if target.exists() and not overwrite:
        raise ModelError(f"{target} exists already.", hint="Name another file, or replace it: --overwrite.")

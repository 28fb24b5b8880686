"""`export`: a saved model as one ONNX file that prepares its pictures itself, proved against PyTorch before it is kept.

In:   a run folder or a `.safetensors` file, labelled pictures to prove it on.
Out:  the file with its certificate inside, or no file and the reason.
The steps are in `relish/exporting/`; `exporting/onnx_classifier.py` uses the file.
"""

import json
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt

from relish.core.errors import BadInput, Failed, ModelError, RunError

try:
    import onnx
    import onnxscript  # noqa: F401 - torch's exporter writes with it
except ImportError as error:
    raise Failed("export needs packages that are not installed.", hint='pip install "relish-vision[export]"') from error
from relish.core.io import atomic_path, sha256_of_file
from relish.core.progress import Progress
from relish.core.run_folder import RunFolder
from relish.data.dataset import TRAIN, Split
from relish.data.image import open_image
from relish.data.transforms import evaluation_transform, normalise, stacked
from relish.evaluation.prediction import Decision, decision_from
from relish.exporting.build import (
    CALIBRATION_PICTURES,
    MOST_LOST,
    assemble,
    network_model,
    quantised,
    with_metadata,
)
from relish.exporting.onnx_classifier import FORMAT_VERSION, SUFFIX, About, session
from relish.exporting.parity import (
    TOLERANCE,
    Certificate,
    Exported,
    certify,
    explain,
    exported_model,
    failures,
    torch_model,
)
from relish.models.saved_model import read_header
from relish.tasks.classifier import Classifier, labelled_images, split_of_run


def export(
    run: str | Path,
    out: str | Path,
    *,
    batch: int = 1,
    int8: bool = False,
    data: str | Path | None = None,
    limit: int | None = None,
    allow_mismatch: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Exported:
    """Write a saved model as ONNX.

    Args:
        run: a run folder, or a `.safetensors` file with our header.
        out: the file to write, `.onnx`.
        batch: pictures it takes at once, fixed in the file, all of one size; 1 or more.
        int8: compute the network in 8-bit whole numbers, calibrated on the run's training pictures (those of `data`,
            where it is given).
        data: labelled pictures to prove it on, as `evaluate` takes them; None takes those the run was judged on.
        limit: prove it on the first so many of them, spread evenly; None takes all.
        allow_mismatch: keep a file that answers otherwise than PyTorch; it says so of itself.
        overwrite: replace a file that stands at `out`.

    Raises:
        RunError, ModelError, DataError: the model or the pictures cannot be used.
        Failed: the file answers otherwise than PyTorch, or torch cannot export the network; nothing is written.
    """
    target, voice = Path(out), progress or Progress()
    _check(target, batch, limit, overwrite)
    model = Classifier.load(run, device="cpu")
    file = _model_file(Path(run))
    header = read_header(file)
    decision = decision_from(header)
    pictures, names, part = _proof(Path(run), model, data, limit, voice)
    how, classes = model.preprocessing, len(model.classes)
    voice.say(f"export  {model.source}, {classes} classes, {how.image_size} px, {how.framing_words}")
    network = network_model(model.network, how.image_size, batch)
    forms = {"f32": assemble(network, how, decision, classes=classes, count=batch)}
    if int8:
        inputs = _calibration(Path(run), model, data, batch, voice)
        forms["int8"] = assemble(quantised(network, inputs), how, decision, classes=classes, count=batch)
    sessions = {name: session(form.SerializeToString(), threads=1) for name, form in forms.items()}
    answers = {name: exported_model(loaded, batch) for name, loaded in sessions.items()}
    found = certify(
        torch_model(model.network, how, decision), answers, pictures, names, decision, model.classes, progress=voice
    )
    kept = "int8" if int8 else "f32"
    mismatch = _mismatch(model, forms["f32"], found, pictures, names, batch)
    if mismatch and not allow_mismatch:
        raise Failed(
            f"{target}: the exported model is not the model it was made from: {'; '.join(mismatch)}.",
            hint="No file was written. To keep it all the same: --allow-mismatch.",
        )
    done = Exported(target, kept, part, found[kept], found["f32"], tuple(mismatch))
    _write(done, forms[kept], _about(done, model, header, decision, file))
    return done


def _check(target: Path, batch: int, limit: int | None, overwrite: bool) -> None:
    if target.suffix != SUFFIX:
        raise ModelError(f"{target}: is not named {SUFFIX}.", hint=f"Write to {target.with_suffix(SUFFIX)}.")
    if target.is_dir():
        raise ModelError(f"{target}: is a folder.", hint="Name a file.")
    if target.exists() and not overwrite:
        raise ModelError(f"{target} exists already.", hint="Name another file, or replace it: --overwrite.")
    if batch < 1:
        raise BadInput(f"--batch must be 1 or more, got {batch}.")
    if limit is not None and limit < 1:
        raise BadInput(f"--limit must be 1 or more, got {limit}.")


def _model_file(run: Path) -> Path:
    return run if run.is_file() else RunFolder.open(run).model


def _proof(
    run: Path, model: Classifier, data: str | Path | None, limit: int | None, voice: Progress
) -> tuple[Split, list[str], str]:
    """The pictures to prove the export on, their names, and what they are called together."""
    if data is not None:
        _, split, part = labelled_images(data, model.classes, None, voice)
    elif run.is_file():
        raise RunError(
            f"{run}: a model's file does not say which pictures to prove an export on.", hint="Add --data DATA."
        )
    else:
        part = str(RunFolder.open(run).read_evaluation()["split"])
        split = split_of_run(RunFolder.open(run), part, model.classes)
    chosen = _spread(split, limit)
    return chosen, _names(chosen), part


def _names(split: Split) -> list[str]:
    """Paths below the folder they share: where that lies on this machine is nothing to tell in the file."""
    shared = os.path.commonpath([path.parent for path in split.paths])
    return [path.relative_to(shared).as_posix() for path in split.paths]


def _spread(split: Split, limit: int | None) -> Split:
    """Evenly over the pictures, which are sorted by class."""
    if limit is None or limit >= len(split):
        return split
    return split.take(np.linspace(0, len(split) - 1, limit).round().astype(np.int64))


def _calibration(
    run: Path, model: Classifier, data: str | Path | None, batch: int, voice: Progress
) -> Iterator[npt.NDArray[np.float32]]:
    """Training pictures as the network takes them."""
    if data is not None:
        _, split, _ = labelled_images(data, model.classes, TRAIN, voice)
    else:
        split = split_of_run(RunFolder.open(run), TRAIN, model.classes)
    chosen = _spread(split, CALIBRATION_PICTURES)
    voice.say(f"int8    calibrated on {len(chosen)} training pictures")
    for path in chosen.paths:
        pixels = evaluation_transform(open_image(path), model.preprocessing)
        yield normalise(stacked([pixels] * batch), model.preprocessing).contiguous().numpy()


def _mismatch(
    model: Classifier,
    graph: onnx.ModelProto,
    found: dict[str, Certificate],
    pictures: Split,
    names: list[str],
    batch: int,
) -> list[str]:
    """Why the export cannot be trusted."""
    f32, int8 = found["f32"], found.get("int8")
    words = failures(f32)
    if words:
        worst = f32.worst_picture if f32.worst_difference > TOLERANCE else f32.disagreements[0]
        picture = open_image(pictures.paths[names.index(worst)])
        words.append(explain(graph, model.network, model.preprocessing, picture, batch))
    if int8 is not None and f32.accuracy.correct - int8.accuracy.correct > MOST_LOST * int8.pictures:
        words.append(
            f"int8 is right for {int8.accuracy.correct} of {int8.pictures} pictures where float32 is for "
            f"{f32.accuracy.correct}: more than {MOST_LOST:.0%} lost"
        )
    return words


def _about(done: Exported, model: Classifier, header: dict[str, str], decision: Decision, file: Path) -> About:
    return About(
        relish_format=FORMAT_VERSION,
        classes=model.classes,
        decision=decision,
        precision=done.precision,
        preprocessing=model.preprocessing.as_dict(),
        source=model.source,
        recipe=json.loads(header.get("recipe", "{}")),
        model_sha256=sha256_of_file(file),
        relish_version=version("relish-vision"),
        certificate=done.proof(),
        speed=done.speed(),
    )


def _write(done: Exported, model: onnx.ModelProto, about: About) -> None:
    content = with_metadata(model, about.words()).SerializeToString(deterministic=True)
    with atomic_path(done.path) as temporary:
        temporary.write_bytes(content)

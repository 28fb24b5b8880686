"""`export`: write a saved model as one ONNX file with its preprocessing inside, verified against PyTorch first.

The file carries the certificate of that comparison; where the exported model differs from PyTorch, no file is written.
The steps are in `relish/exporting/`; `exporting/onnx_classifier.py` reads the file.
"""

import json
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Unpack

import numpy as np
import numpy.typing as npt

from relish.core.errors import BadInput, DataError, Failed, RunError
from relish.data.sources import DataSource, Reading, ReadingOptions
from relish.data.split import evenly_spaced

try:
    import onnx
    import onnxscript  # noqa: F401 - torch's exporter writes with it
except ImportError as error:
    raise Failed("export needs packages that are not installed.", hint='pip install "relish-vision[export]"') from error
from relish.core.io import atomic_path, check_target, sha256_of_file
from relish.core.progress import Progress, default_progress
from relish.core.run_folder import RunFolder
from relish.data.dataset import TRAIN, Split, split_of
from relish.data.image import open_image
from relish.data.transforms import evaluation_transform, normalise, stacked
from relish.exporting import build, parity
from relish.exporting.onnx_classifier import FORMAT_VERSION, SUFFIX, About, session
from relish.models.saved_model import read_header
from relish.tasks.classifier import Classifier, labelled_images, reloaded, saved_path
from relish.tasks.run_results import RunImages


def export(
    run: str | Path | Classifier,
    out: str | Path,
    *,
    batch: int = 1,
    int8: bool = False,
    data: DataSource | None = None,
    limit: int | None = None,
    allow_mismatch: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    **reading: Unpack[ReadingOptions],
) -> parity.Exported:
    """Write a saved model as ONNX.

    Args:
        run: a run folder, a `.safetensors` file with our header, or the classifier that either was loaded to.
        out: the file to write, `.onnx`.
        batch: images it takes at once, fixed in the file, all of one size; 1 or more.
        int8: compute the network in 8-bit integers, calibrated on the run's training images (those of `data`, where it
            is given).
        data: labelled images to verify it on, as `evaluate` takes them; None takes those the run was evaluated on.
        reading: how `data` is read, as in `fit`.
        limit: verify on so many of them, evenly spaced; None takes all.
        allow_mismatch: keep a file whose predictions differ from PyTorch's; its metadata says so.
        overwrite: replace a file that stands at `out`.

    Raises:
        RunError, ModelError, DataError: the model or the images cannot be used.
        Failed: the predictions differ from PyTorch's, or torch cannot export the network; nothing is written.
    """
    path, target, progress = saved_path(run), Path(out), progress or default_progress()
    check_target(target, SUFFIX, overwrite=overwrite)
    if batch < 1:
        raise BadInput(f"--batch must be 1 or more, got {batch}.")
    if limit is not None and limit < 1:
        raise BadInput(f"--limit must be 1 or more, got {limit}.")
    model = reloaded(run, "cpu")
    told = Reading(**reading)
    images, names, split = _verification_images(path, model, data, told, limit, progress)
    graphs = _graphs(model, batch, _calibration(path, model, data, told, batch, progress) if int8 else None, progress)
    sessions = {precision: session(graph.SerializeToString(), threads=1) for precision, graph in graphs.items()}
    scored = model.unfamiliarity is not None
    reference = parity.torch_model(model.scored, model.preprocessing, model.decision, scored=scored)
    candidates = {precision: parity.exported_model(loaded, batch) for precision, loaded in sessions.items()}
    found = parity.certify(
        reference, candidates, images, names, model.decision, model.classes,
        value_range=model.preprocessing.value_range, progress=progress,
    )  # fmt: skip
    mismatch = _mismatch(model, graphs["f32"], found, images, names, batch)
    if mismatch and not allow_mismatch:
        raise Failed(
            f"{target}: the exported model is not the model it was made from: {'; '.join(mismatch)}.",
            hint="No file was written. To keep it all the same: --allow-mismatch.",
        )
    kept = "int8" if int8 else "f32"
    exported = parity.Exported(target, kept, split, found[kept], found["f32"], tuple(mismatch))
    graph = build.with_metadata(graphs[kept], _about(exported, model, path).words())
    with atomic_path(target) as temporary:
        temporary.write_bytes(graph.SerializeToString(deterministic=True))
    return exported


def _verification_images(
    run: Path, model: Classifier, data: DataSource | None, told: Reading, limit: int | None, progress: Progress
) -> tuple[Split, list[str], str]:
    """The images to compare both models on, their names, and what they are called together."""
    if data is not None:
        _, split, part = labelled_images(data, model.classes, model.preprocessing.value_range, None, progress, told)
    elif run.is_file():
        raise RunError(
            f"{run}: a model's file does not say which pictures to prove an export on.", hint="Add --data DATA."
        )
    else:
        part = split_of(str(RunFolder.open(run).read_evaluation()["split"]))
        split = _split_of_run(RunFolder.open(run), part, model.classes)
    chosen = split if limit is None else split.take(evenly_spaced(len(split), limit))
    # Paths below the folder they share: where that lies on this machine is kept out of the file.
    shared = os.path.commonpath([path.parent for path in chosen.paths])
    return chosen, [path.relative_to(shared).as_posix() for path in chosen.paths], part


def _split_of_run(folder: RunFolder, split: str, classes: tuple[str, ...]) -> Split:
    """The images of a run's split, at the paths they had when it was made.

    Raises:
        DataError: one of them is not there any more.
    """
    images = RunImages(folder.read_dataset())
    found = images.split(images.rows[split], classes)
    gone = [path for path in found.paths if not path.is_file()]
    if gone:
        raise DataError(
            f"{gone[0]}: a picture of the run is not there any more"
            + (f", nor are {len(gone) - 1} others." if len(gone) > 1 else "."),
            hint="Say where they are now: --data DATA.",
        )
    return found


def _calibration(
    run: Path, model: Classifier, data: DataSource | None, told: Reading, batch: int, progress: Progress
) -> Iterator[npt.NDArray[np.float32]]:
    """Training images as the network takes them, (batch, 3, S, S) float32 each."""
    if data is not None:
        _, split, _ = labelled_images(data, model.classes, model.preprocessing.value_range, TRAIN, progress, told)
    else:
        split = _split_of_run(RunFolder.open(run), TRAIN, model.classes)
    chosen = split.take(evenly_spaced(len(split), build.CALIBRATION_IMAGES))
    progress.say(f"int8    calibrated on {len(chosen)} training pictures")
    for path in chosen.paths:
        image = open_image(path, value_range=model.preprocessing.value_range)
        pixels = evaluation_transform(image, model.preprocessing)
        yield normalise(stacked([pixels] * batch), model.preprocessing).contiguous().numpy()


def _graphs(
    model: Classifier, batch: int, calibration: Iterator[npt.NDArray[np.float32]] | None, progress: Progress
) -> dict[str, onnx.ModelProto]:
    """The whole model in ONNX by precision: `f32`, and `int8` where there are images to calibrate it."""
    preprocessing, classes = model.preprocessing, len(model.classes)
    progress.say(
        f"export  {model.source}, {classes} classes, {preprocessing.image_size} px, {preprocessing.framing_words}"
    )
    head = None if model.unfamiliarity is None else model.heads[0]
    networks = {"f32": build.network_model(model.network, preprocessing.image_size, batch, head)}
    if calibration is not None:
        networks["int8"] = build.quantised(networks["f32"], calibration)
    return {
        precision: build.assemble(
            network, preprocessing, model.decision, model.unfamiliarity, classes=classes, count=batch
        )
        for precision, network in networks.items()
    }


def _mismatch(
    model: Classifier,
    graph: onnx.ModelProto,
    found: dict[str, parity.Certificate],
    images: Split,
    names: list[str],
    batch: int,
) -> list[str]:
    """Why the export cannot be trusted; empty where it can."""
    f32, int8 = found["f32"], found.get("int8")
    reasons = []
    if f32.worst_difference > parity.TOLERANCE:
        reasons.append(
            f"a probability differs by {f32.worst_difference:.2g} (tolerance {parity.TOLERANCE:g}), "
            f"most for {f32.worst_picture}"
        )
    if f32.disagreements:
        reasons.append(f"{len(f32.disagreements)} of {f32.pictures} pictures get another class")
    if reasons:
        worst = f32.worst_picture if f32.worst_difference > parity.TOLERANCE else f32.disagreements[0]
        image = open_image(images.paths[names.index(worst)], value_range=model.preprocessing.value_range)
        reasons.append(parity.explain(graph, model.network, model.preprocessing, image, batch))
    if f32.unknown is not None and f32.unknown.worst_difference > parity.TOLERANCE:
        reasons.append(
            f"an unfamiliarity differs by {f32.unknown.worst_difference:.2g} (tolerance {parity.TOLERANCE:g}), "
            f"most for {f32.unknown.worst_picture}"
        )
    if f32.unknown is not None and f32.unknown.disagreements:
        count = len(f32.unknown.disagreements)
        reasons.append(f"{count} of {f32.pictures} pictures are unknown to one and not to the other")
    if int8 is not None and f32.accuracy.correct - int8.accuracy.correct > build.INT8_LOSS_MAX * int8.pictures:
        reasons.append(
            f"int8 is right for {int8.accuracy.correct} of {int8.pictures} pictures where float32 is for "
            f"{f32.accuracy.correct}: more than {build.INT8_LOSS_MAX:.0%} lost"
        )
    return reasons


def _about(exported: parity.Exported, model: Classifier, run: Path) -> About:
    file = run if run.is_file() else RunFolder.open(run).model
    return About(
        relish_format=FORMAT_VERSION,
        classes=model.classes,
        decision=model.decision,
        precision=exported.precision,
        preprocessing=model.preprocessing.as_dict(),
        source=model.source,
        recipe=json.loads(read_header(file).get("recipe", "{}")),
        model_sha256=sha256_of_file(file),
        relish_version=version("relish-vision"),
        certificate=exported.proof(),
        speed=exported.speed(),
    )

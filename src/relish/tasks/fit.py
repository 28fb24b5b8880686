"""`fit`: from pictures and a source model to a target model in a run folder.

Resuming takes everything from the run folder; an argument given again is checked, never obeyed. `pretrain` is step 1: a
source model trained from random weights, whose `model.safetensors` says how to build it, so that
`fit(weights=its run)` needs nothing else.
"""

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Unpack

from torch import nn

from relish.core.context import Context, Listener
from relish.core.errors import RecipeError, RunError
from relish.core.io import write_json
from relish.core.progress import Progress
from relish.core.run_folder import RunFolder
from relish.core.runtime import keep_freed_memory
from relish.data.depth import AskedRange, range_option
from relish.data.sources import DataSource, Reading, ReadingOptions, data_name
from relish.data.transforms import Transform
from relish.models.candidates import Candidate
from relish.tasks.classifier import Classifier
from relish.tasks.prepare import Prepared, Request, prepare
from relish.tasks.run import introduce, new_folder, train_and_evaluate
from relish.tasks.source_search import AUTO, Consent, FoundSource, Search
from relish.tasks.sources import find_source
from relish.tasks.user_code import UserCode, own_network, resumed_code, user_code
from relish.training.optim import Loss
from relish.training.recipe import Recipe, named_recipe, recipe_from_dict

DEFAULT_RECIPE = "auto"


def fit(
    data: DataSource | None = None,
    *,
    source: str | nn.Module | None = None,
    weights: str | Path | None = None,
    candidates: Sequence[str | Path] | None = None,
    max_megabytes: float | None = None,
    max_milliseconds: float | None = None,
    fetch: Consent = False,
    recipe: str | Recipe | None = None,
    settings: Mapping[str, Any] | None = None,
    mapping: Mapping[str, str | int] | None = None,
    seed: int | None = None,
    val_split: float | None = None,
    budget: float | None = None,
    target_accuracy: float | None = None,
    threshold: str | None = None,
    unsure: str | None = None,
    unknown: str | float | None = None,
    sha1: str | None = None,
    sha256: str | None = None,
    strict: bool = False,
    value_range: AskedRange = None,
    track: str | None = None,
    head: str | None = None,
    image_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    transform: Transform | None = None,
    loss: Loss | None = None,
    callbacks: Sequence[Listener] = (),
    workers: int | None = None,
    device: str = "auto",
    out: str | Path | None = None,
    resume: str | Path | None = None,
    progress: Progress | None = None,
    **reading: Unpack[ReadingOptions],
) -> Classifier:
    """Fine-tune a source model on a folder of labelled pictures.

    Args:
        data: folder, archive, address, table or registered name; or a torchvision ImageFolder, a list of (path, label)
            or (path, label, split), a data frame with these columns. With `resume` it may be omitted.
        source: name of the source model; None takes the one that `weights` describes, else the embedded one. Or an
            `nn.Module` from (B, 3, H, W) float32 to (B, S) logits, which is copied: one from `target_model` keeps its
            output layer, and its classes are matched by name; any other gets a new one. "auto" tries several on up to
            1,000 training pictures: of those within a standard error of the most accurate, the quickest is taken.
        weights: weights file, run folder, or "none" for random.
        candidates: with source "auto", what is tried, as in `sources`.
        fetch: whether weights may be fetched for that, as in `sources`.
        max_megabytes: with source "auto", the most that the exported file may take.
        max_milliseconds: the most that a picture's prediction may then take on this machine.
        recipe: a name or a `Recipe`; None takes the default.
        settings: recipe fields to change, such as `{"epochs": 3}`.
        mapping: class name to source class, for a head that begins with source rows.
        seed: of every random draw; None is 0.
        val_split: share of the training pictures to hold back, between 0 and 1; None holds back a fifth where there is
            nothing else to score on, and nothing of so few pictures that nested cross-validation says more.
        budget: seconds that recipe `auto` may take, 60 or more, from the first picture it computes on to the end.
        target_accuracy: on held-out pictures, above 0 to 1; recipe `auto` ends at the first rung that reaches it.
        threshold: with two classes, what a threshold is chosen for on held-out pictures: `precision=0.99`,
            `recall=0.95` or `f1`, with the class it is about as `precision=0.99:hotdog`; None says the likelier class.
        unsure: `accuracy=0.98`: the model is unsure of as few pictures as leave the others right so often, on held-out
            pictures; None is never unsure.
        unknown: the share of held-out pictures that may be called unlike anything the model learned from, above 0 to
            below 1; None is 0.01, and "none" or 0 tells nothing of the kind.
        sha1: checksum that the archive must have.
        sha256: the same, of the other kind.
        strict: an unreadable picture is an error instead of being left out.
        value_range: what is black and white in images deeper than 8 bits, two numbers or such as "0..4095"; values
            beyond are cut off. None finds it in all of them together. Images of 8 bits are not touched by it.
        track: a tracker for the run's figures as they come, "tensorboard" or another of Accelerate's.
        head: of a module, the name of its output layer; None finds it.
        image_size: side of the square the network sees, in pixels; the recipe's field of that name.
        mean: three numbers, subtracted from the channels of images from 0 to 1; None takes the source model's.
        std: three numbers that the channels are then divided by; None takes the source model's.
        transform: of training images, in place of the recipe's: from an RGB PIL image to one, or to a (3, H, W) tensor,
            float from 0 to 1 or uint8. Python's, NumPy's and torch's generators are seeded from (seed, epoch, image)
            around it.
        loss: from (B, K) float32 logits and (B,) int64 labels to (B,) losses, or to one number, their mean.
        callbacks: each is called with every event that `metrics.jsonl` records, a mapping.
        workers: processes that read pictures; None chooses.
        device: "auto", "cpu", "cuda" or "mps".
        out: the run folder to make; None takes the next free `runs/DATA-RECIPE-N`.
        resume: a run folder to resume; arguments given again have to agree with it. A module of your own class, a
            transform and a loss have to be given again.
        reading: how the dataset is read: `split_names`, `root`, `column_names`, `zip_encoding`, `group_by`, each
            described in `relish.data.sources.Reading`.

    Returns:
        The finished run's classifier.

    Raises:
        RelishError: one of its kinds, by what is wrong.
    """
    began = time.monotonic()
    keep_freed_memory()
    context = Context.on(device, progress, workers)
    say = context.progress.say
    module = source if isinstance(source, nn.Module) else None
    code = user_code(data, module, head, transform, loss, callbacks, mean, std)
    settings = {**(settings or {}), **({} if image_size is None else {"image_size": image_size})}
    search = Search(candidates=candidates, megabytes=max_megabytes, milliseconds=max_milliseconds, fetch=fetch)
    given: dict[str, Any] = {
        "data": None if data is None else data_name(data),
        "source": None if module is not None or source == AUTO else source,
        "weights": weights and str(weights),
        "mapping": mapping and {name: str(row) for name, row in mapping.items()},
        "seed": seed,
        "val_split": val_split,
        "budget": budget,
        "target_accuracy": target_accuracy,
        "threshold": threshold,
        "unsure": unsure,
        "unknown": None if unknown is None else str(unknown),
        "sha1": sha1,
        "sha256": sha256,
        **asdict(Reading(**reading)),
        "strict": strict or None,
        "value_range": range_option(value_range),
        "track": track,
    }
    asked = {key: value for key, value in given.items() if value is not None}
    found: FoundSource | None = None
    if resume is not None:
        begun = RunFolder.open(Path(resume))
        if source == AUTO or search.asked():
            _check_search(begun, search)
        request, chosen = _resumed(begun, asked, recipe, settings, out, code)
        code = resumed_code(begun, request.python, code, module)
        if begun.finished:
            say(f"{begun.path} is finished already.")
            return Classifier.load(begun.path, network=own_network(code.source), device=device)
        folder: RunFolder | None = begun
    elif data is None:
        raise RunError("there are no pictures to learn from: name a folder, or a run to --resume.")
    else:
        folder, request = None, Request(**asked, python=code.words())
        named = recipe if isinstance(recipe, Recipe) else named_recipe(recipe or DEFAULT_RECIPE)
        chosen = named.with_settings(settings)
        if out is not None:
            RunFolder.refuse_existing(Path(out))  # now, not after every picture has been read
        if source == AUTO:
            found = _found_source(context, request, chosen, code, search)
            request, chosen = _with_source(request, chosen, found.candidate)
        elif search.asked():
            words = ", ".join(f"--{name.replace('_', '-')}" for name in search.asked())
            raise RecipeError(f"{words}: only --source auto looks for a source.", hint="Add it, or omit them.")
    prepared = prepare(context, request, chosen, code, again=found is not None)
    introduce(prepared, context.progress)
    if folder is None:
        folder = new_folder(context, prepared, None if out is None else Path(out))
        if found is not None and context.is_main:
            _keep_search(folder, chosen, found)
        say(f"run     {folder.path}")
    else:
        _check_same(folder, prepared)
        if chosen.method == "train" and not folder.checkpoint.is_file():
            say(f"{folder.path} has no checkpoint yet: starting over.")
    if request.budget is not None:
        say(f"start   {time.monotonic() - began:.0f} s to look the pictures over; the budget counts from here")
    classifier = train_and_evaluate(context, prepared, folder)
    say(f"next    {_next(folder, code)}")
    return classifier


def _found_source(context: Context, request: Request, recipe: Recipe, code: UserCode, search: Search) -> FoundSource:
    if request.weights is not None or recipe.start == "random":
        random = recipe.start == "random"
        what = f"recipe {recipe.name} takes no weights of one" if random else "--weights names one"
        raise RecipeError(f"--source auto looks for a source model, and {what}.", hint="Omit one of the two.")
    return find_source(context, request, recipe, code, search)


def _with_source(request: Request, recipe: Recipe, found: Candidate) -> tuple[Request, Recipe]:
    """A run that begins with this source, at the size that it was tried at."""
    request = replace(request, source=found.source, weights=found.weights)
    if recipe.image_size is None and found.image_size is not None:
        recipe = recipe.with_settings({"image_size": found.image_size})
    return request, recipe


def _check_search(folder: RunFolder, search: Search) -> None:
    """A run to resume has its source: what is given again has to agree with how that was found."""
    kept = folder.read_sources()
    if kept is None or any(kept["asked"].get(name) != value for name, value in search.asked().items()):
        raise RunError(
            f"{folder.path} was begun with another source than such a search finds.",
            hint="Omit --source auto and its limits to resume it, or start a new run without --resume.",
        )


def _keep_search(folder: RunFolder, recipe: Recipe, found: FoundSource) -> None:
    """What the search found; its time is part of the climb's, and of its budget."""
    write_json(folder.sources, found.record)
    if recipe.method != "train":
        write_json(folder.stopwatch, {"seconds": found.seconds})


def _next(folder: RunFolder, code: UserCode) -> str:
    """What to type next; no command can load a model of the user's own class."""
    if own_network(code.source) is not None:
        return 'relish.report(clf)    or:  relish.export(clf, "model.onnx")'
    made = shlex.quote(str(folder.path))
    return f"relish report {made}    or:  relish predict {made} PICTURE…"


def _resumed(
    folder: RunFolder,
    asked: Mapping[str, Any],
    named: str | Recipe | None,
    settings: Mapping[str, Any],
    out: str | Path | None,
    code: UserCode,
) -> tuple[Request, Recipe]:
    """The request and recipe of a run to resume; whatever is given again has to agree with them."""
    request = Request(**{key: value for key, value in folder.read_request().items() if key != "identity"})
    recipe = recipe_from_dict(folder.read_recipe())
    again = replace(request, **asked).as_dict()
    differ = [f"{key} ({value}, not {again[key]})" for key, value in request.as_dict().items() if again[key] != value]
    for key, value in settings.items():
        if recipe.with_settings({key: value}) != recipe:
            differ.append(f"{key} ({getattr(recipe, key)}, not {value})")
    if named is not None and named not in (recipe, recipe.name):
        differ.append(f"recipe ({recipe.name}, not {named if isinstance(named, str) else named.name})")
    begun, now = request.python, code.words()
    differ += [f"{name} ({begun.get(name, 'none')}, not {now[name]})" for name in now if begun.get(name) != now[name]]
    if out is not None and Path(out).resolve() != folder.path.resolve():
        differ.append(f"out ({folder.path}, not {out})")
    if differ:
        raise RunError(
            f"{folder.path} was begun with another {', '.join(differ)}.",
            hint="Omit those arguments to resume it, or start a new run without --resume.",
        )
    return request, recipe


def _check_same(folder: RunFolder, prepared: Prepared) -> None:
    if folder.read_request().get("identity") != prepared.identity:
        raise RunError(
            f"{folder.path} cannot be resumed: its pictures or its source weights have changed since it began.",
            hint="Put them back as dataset.json lists them, or start a new run.",
        )


DESIGN = "torchvision/resnet18"
"""The book's network (Dive into Deep Learning, section 14.2)."""


def pretrain(
    data: str | Path | None = None,
    *,
    source: str = DESIGN,
    settings: Mapping[str, Any] | None = None,
    seed: int | None = None,
    val_split: float | None = None,
    value_range: AskedRange = None,
    workers: int | None = None,
    device: str = "auto",
    out: str | Path | None = None,
    resume: str | Path | None = None,
    progress: Progress | None = None,
    **reading: Unpack[ReadingOptions],
) -> Classifier:
    """Train the design `source` from random weights; arguments as in `fit`.

    Raises:
        RelishError: one of its kinds, by what is wrong.
    """
    return fit(
        data,
        source=None if resume else source,
        weights=None if resume else "none",
        recipe="pretrain",
        unknown=None if resume else "none",
        settings=settings,
        seed=seed,
        val_split=val_split,
        value_range=value_range,
        workers=workers,
        device=device,
        out=out,
        resume=resume,
        progress=progress,
        **reading,
    )

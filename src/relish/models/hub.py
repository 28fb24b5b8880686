"""Published weights: which ones a name stands for, fetched once from its library's hub, checked and cached.

Files are kept under `relish_home()/weights`. torchvision's names carry the start of their SHA-256, which is checked;
timm's come as safetensors through huggingface_hub, whose settings hold: HF_ENDPOINT, HF_TOKEN or the token of
`hf auth login`, HF_HUB_OFFLINE, the proxies of the environment. Older formats are read as plain tensors only.
"""

import re
import time
from collections.abc import Mapping
from http.client import responses
from pathlib import Path
from typing import Any

import torch
from torch import nn

from relish.core.errors import DownloadFailed, ModelError, RelishError, nearest
from relish.core.io import cannot_write, relish_home, sha256_of_file
from relish.core.progress import Progress
from relish.core.runtime import raise_if_no_memory
from relish.data.download import (
    FIRST_PAUSE,
    SPACE_HINT,
    TRANSIENT_STATUSES,
    TRIES,
    download,
    kept_at,
    proxy_words,
    require_space,
    shown,
    size_words,
)
from relish.models.gluon.loading import gluon_description
from relish.models.registry import ZooName, imagenet_labels, pad_quickly
from relish.models.saved_model import DataConfig, ModelDescription
from relish.models.weights import fill, read_tensors


def default_description(name: ZooName) -> ModelDescription:
    """What the published weights of this name are like, or the architecture itself where it has none; no network.

    Raises:
        ModelError: no weights of that tag.
    """
    if name.library == "gluon":
        return gluon_description(name.architecture)
    return _timm_description(name) if name.library == "timm" else _torchvision_description(name)


def load_from_hub(name: ZooName, progress: Progress) -> tuple[nn.Module, ModelDescription, str, str]:
    """Fetch the published weights (once) and build the network around them.

    Returns:
        The network in eval mode, its description, what was taken in words, and the file's SHA-256.

    Raises:
        ModelError: there are no published weights, as there are none of Gluon's any more; or they do not fit.
        DownloadFailed: the hub cannot be reached, or sent something else; the hint gives the command to type instead.
    """
    if name.library == "gluon":
        raise ModelError(
            f"{name}: the place that Gluon's weights were fetched from is gone.",
            hint=f"Give a file of them: --source {name} --weights FILE.params, or --weights none for random ones.",
        )
    description = default_description(name)
    load = _load_timm if name.library == "timm" else _load_torchvision
    network, path, tag = load(name, description, progress)
    sha256 = sha256_of_file(path)
    return network.eval(), description, f"{name.library}'s weights {tag} (SHA-256 {sha256[:12]}…)", sha256


def kept_file(name: ZooName) -> Path | None:
    """The file of the published weights, where relish or its library's hub has fetched it before; no network.

    Raises:
        ModelError: no weights of that tag.
    """
    record = _timm_record(name) if name.library == "timm" else _torchvision_weights(name)
    if name.library == "timm" and record.hf_hub_id:
        return _kept_from_hub(name, record)
    return _kept_from(record.url, name) if record is not None and record.url else None


def published_licence(name: ZooName) -> str | None:
    """Of the published weights, as timm's records state it; other libraries state none."""
    return _timm_record(name).license if name.library == "timm" else None


# torchvision


def _torchvision_weights(name: ZooName) -> Any:
    import torchvision

    models: Any = torchvision.models
    known = models.get_model_weights(name.architecture)
    if name.tag is None:
        return known.DEFAULT if len(known) else None
    if name.tag not in known.__members__:
        raise _unknown_tag(name, [weights.name for weights in known])
    return known[name.tag]


def _torchvision_description(name: ZooName) -> ModelDescription:
    weights = _torchvision_weights(name)
    arguments: dict[str, Any] = {}
    if name.architecture in ("googlenet", "inception_v3"):
        # Their auxiliary outputs only serve training from nothing and would need output layers of their own; their
        # published weights expect the input to be shifted inside the network.
        arguments = {"aux_logits": False, "transform_input": True, "init_weights": True}
    if weights is None:
        return ModelDescription(
            library="torchvision", architecture=name.architecture, model_args=arguments, num_classes=1000
        )
    preset, classes = weights.transforms(), tuple(weights.meta["categories"])
    size = preset.crop_size[0]
    if name.architecture.startswith("vit_") and size != 224:
        arguments["image_size"] = size
    data = {"mean": preset.mean, "std": preset.std, "interpolation": preset.interpolation.value}
    return ModelDescription(
        library="torchvision",
        architecture=name.architecture,
        model_args=arguments,
        num_classes=len(classes),
        # The same thousand classes in the same order as timm's table, which also has the synonyms.
        labels=imagenet_labels() if len(classes) == 1000 else classes,
        data_config=DataConfig.from_weights({"input_size": (3, size, size), **data}),
    )


def _load_torchvision(name: ZooName, description: ModelDescription, progress: Progress) -> tuple[nn.Module, Path, str]:
    weights = _torchvision_weights(name)
    if weights is None:
        raise _no_weights(name)
    path = _fetch(name, weights.url, progress)
    network = description.build()
    fill(network, read_tensors(path), told=str(path), network_name=description.network_name)
    return network, path, weights.name


# timm


def _timm_record(name: ZooName) -> Any:
    from timm.models import get_arch_pretrained_cfgs, get_pretrained_cfg

    full = f"{name.architecture}.{name.tag}" if name.tag else name.architecture
    known = get_arch_pretrained_cfgs(name.architecture)
    if name.tag and full not in known:
        raise _unknown_tag(name, [key.partition(".")[2] for key in known])
    return get_pretrained_cfg(full)


def _timm_description(name: ZooName) -> ModelDescription:
    record: Mapping[str, Any] = _timm_record(name).to_dict()
    outputs = record["num_classes"]  # 0 where the network is published without a classifier
    if record.get("interpolation") not in ("bilinear", "bicubic"):
        record = {**record, "interpolation": None}
    return ModelDescription(
        library="timm",
        architecture=name.architecture,
        num_classes=outputs,
        labels=_timm_labels(record, outputs),
        data_config=DataConfig.from_weights(record),
    )


def _timm_labels(record: Mapping[str, Any], outputs: int) -> tuple[str, ...] | None:
    from timm.data.imagenet_info import infer_imagenet_subset

    if record.get("label_names"):
        return tuple(record["label_names"])
    label_set = infer_imagenet_subset({"num_classes": outputs})
    labels = imagenet_labels(label_set) if label_set else None
    return labels if labels and len(labels) == outputs else None


def _load_timm(name: ZooName, description: ModelDescription, progress: Progress) -> tuple[nn.Module, Path, str]:
    import timm

    record = _timm_record(name)
    if not record.has_weights:
        raise _no_weights(name)
    path = _fetch_from_hub(name, record, progress) if record.hf_hub_id else _fetch(name, record.url, progress)
    full = f"{name.architecture}.{record.tag}" if record.tag else name.architecture
    try:
        with torch.random.fork_rng(devices=[]):
            # timm's own loading knows each family's older tensor names; given a file, it downloads nothing and reads
            # plain tensors only.
            network = timm.create_model(full, pretrained=True, pretrained_cfg_overlay={"file": str(path)})
            pad_quickly(network)
    except (RuntimeError, KeyError, ValueError, OSError, AssertionError) as error:
        raise_if_no_memory(error, f"to load {path}")
        raise ModelError(
            f"{path}: does not hold the weights of {name} ({str(error).splitlines()[0][:150]}).",
            hint="Delete it and fetch it again.",
        ) from error
    return network, path, record.tag or "of no tag"


def _place_on_hub(record: Any) -> tuple[str, str, str | None]:
    """Repository, file and revision of a timm record."""
    repo, _, revision = record.hf_hub_id.partition("@")
    return repo, record.hf_hub_filename or "model.safetensors", revision or None


def _kept_from_hub(name: ZooName, record: Any) -> Path | None:
    from huggingface_hub import constants, try_to_load_from_cache

    repo, file, revision = _place_on_hub(record)
    for cache in (_kept(name), constants.HF_HUB_CACHE):
        kept = try_to_load_from_cache(repo, file, cache_dir=cache, revision=revision)
        if isinstance(kept, str):
            return Path(kept)
    return None


def _fetch_from_hub(name: ZooName, record: Any, progress: Progress) -> Path:
    """Bring a file here once, by huggingface_hub's own client.

    The client resumes what was dropped and waits as long as the hub asks for; what ends it all the same, such as a 503
    in place of the file, is tried again.
    """
    if (kept := _kept_from_hub(name, record)) is not None:
        return kept
    tries = 0
    while True:
        tries += 1
        try:
            return _receive(name, record, progress)
        except RelishError:
            raise
        # Every way a hub can fail, under their own names or the transport's.
        except Exception as error:
            if tries == TRIES or not _may_pass(error):
                raise _failed(name, record, error) from error
            progress.say(f"{_reason(error)}; trying again")
        time.sleep(FIRST_PAUSE * 2 ** (tries - 1))


def _receive(name: ZooName, record: Any, progress: Progress) -> Path:
    """One try to fetch a file, and the check of it."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    repo, file, revision = _place_on_hub(record)
    address, folder = hf_hub_url(repo, file, revision=revision), _kept(name)
    _require_online(name, address)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        # Left alone, their client tries for half a minute before it says that there is no network.
        size = get_hf_file_metadata(address, timeout=10).size or 0
    except Exception as error:
        if _status(error) not in TRANSIENT_STATUSES:
            raise _failed(name, record, error) from error
        size = 0  # not known yet; their client waits until it is
    require_space(folder, size, folder, f"{size_words(size)} of {name} are to come")
    progress.say(f"fetching {shown(address)}")
    path = Path(hf_hub_download(repo, file, cache_dir=folder, revision=revision, etag_timeout=10))
    said = path.readlink().name if path.is_symlink() else ""  # the hub's SHA-256 of a large file, which they only store
    if re.fullmatch(r"[0-9a-f]{64}", said) and (found := sha256_of_file(path)) != said:
        path.resolve().unlink()
        path.unlink()
        raise _another_file(name, address, found, said)
    return path


def _response(error: BaseException | None) -> Any:
    """The hub's answer behind an error of its client, in whichever library of requests; None where there was none."""
    while error is not None:
        if (response := getattr(error, "response", None)) is not None:
            return response
        error = error.__cause__ or error.__context__
    return None


def _status(error: BaseException) -> int | None:
    response = _response(error)
    return None if response is None else int(response.status_code)


def _may_pass(error: Exception) -> bool:
    """Whether another try may succeed: a connection was dropped, or the hub is busy and their client has not waited."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    if isinstance(error, LocalEntryNotFoundError) or _is_of_disk(error):
        return False
    status = _status(error)
    return status is None or status in TRANSIENT_STATUSES - {408, 429}


def _is_of_disk(error: Exception) -> bool:
    return isinstance(error, OSError) and bool(error.errno) and not isinstance(error, ConnectionError | TimeoutError)


def _reason(error: Exception) -> str:
    """Why a try failed, in a few words, without the token that was sent."""
    if (status := _status(error)) is not None:
        return f"the hub answered {status} {responses.get(status, '')}".strip()
    cause = error.__cause__ or error
    words = (str(cause).splitlines() or [""])[0][:120] or type(cause).__name__
    return re.sub(r"Bearer .*", "Bearer …", words)


_DENIED = {401: "is not valid", 403: "has no access"}
"""What a hub says of a token by its answer."""


def _failed(name: ZooName, record: Any, error: Exception) -> RelishError:
    """What could not be fetched, from where, why, and what to do next."""
    from huggingface_hub import constants, get_token, hf_hub_url

    if isinstance(error, OSError) and _is_of_disk(error):
        return cannot_write(_kept(name), error, f"{SPACE_HINT}.")
    repo, file, revision = _place_on_hub(record)
    address, status, token = hf_hub_url(repo, file, revision=revision), _status(error), get_token()
    why = advice = ""
    if status in (401, 403):
        why = f": the token that is set {_DENIED[status]}" if token else ": it needs a token, and none is set"
        advice = f"Ask for access at {shown(constants.ENDPOINT)}/{repo}; then hf auth login, or set HF_TOKEN. "
    elif status == 404:
        why, advice = f": there is no {file}", "It may have moved. "
    else:
        advice = f"{proxy_words(address)}Try again {'with a network' if status is None else 'later'}. "
    return DownloadFailed(
        f"{name}: its weights cannot be fetched from {shown(address)} ({_reason(error)}){why}.",
        hint=f"{advice}{_instead(name)}",
    )


# Fetching


def _fetch(name: ZooName, address: str, progress: Progress) -> Path:
    """Bring a file here once; the start of its SHA-256 is checked where its name carries one."""
    if (kept := _kept_from(address, name)) is None:
        _require_online(name, address)
    try:
        path = kept or download(address, folder=_kept(name), progress=progress)
    except DownloadFailed as error:
        raise DownloadFailed(f"{name}: {error.message}", hint=f"{error.hint}\n  {_instead(name)}") from error
    found, said = sha256_of_file(path), _said_sha256(address)
    if not found.startswith(said):
        # Not a file that a user made: it came from the address just now, and would be found again.
        path.unlink()
        raise _another_file(name, address, found, said)
    return path


def _kept_from(address: str, name: ZooName) -> Path | None:
    """A file fetched from this address before, by relish or by torch.hub; no network."""
    place = kept_at(address, _kept(name))
    if place.is_file():
        return place
    theirs, said = Path(torch.hub.get_dir(), "checkpoints", address.rsplit("/", 1)[-1]), _said_sha256(address)
    return theirs if said and theirs.is_file() and sha256_of_file(theirs).startswith(said) else None


def _said_sha256(address: str) -> str:
    """The start of a file's SHA-256 where its name carries that, as torch.hub has it; else empty."""
    said = re.search(r"-([0-9a-f]{8,})\.\w+$", address)
    return said[1] if said else ""


def _require_online(name: ZooName, address: str) -> None:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise DownloadFailed(
            f"{name}: its weights are not on this machine, and HF_HUB_OFFLINE is set ({shown(address)}).",
            hint=f"Unset it to fetch them. {_instead(name)}",
        )


def _another_file(name: ZooName, address: str, found: str, said: str) -> DownloadFailed:
    return DownloadFailed(
        f"{name}: {shown(address)} sent another file: its SHA-256 starts {found[:8]}, not {said[:8]}.",
        hint="Something on the way may have answered in its place; try again, or give --weights FILE.",
    )


def _kept(name: ZooName) -> Path:
    return relish_home() / "weights" / name.library


def _instead(name: ZooName) -> str:
    return f"Or type --source embedded, --source {name} --weights FILE, or --weights none for random ones."


def _no_weights(name: ZooName) -> ModelError:
    return ModelError(
        f"{name} has no published weights.", hint="Give --weights FILE, or --weights none for random ones."
    )


def _unknown_tag(name: ZooName, known: list[str]) -> ModelError:
    offer = nearest(name.tag or "", known)
    return ModelError(
        f'{name.library}/{name.architecture} has no weights "{name.tag}".',
        hint=f"It has: {', '.join(known) or 'none'}. {offer}".strip(),
    )

"""The inputs of a network's output layer (features): computed once for each image, cached on disk, and searched.

Features are stored under the hash of everything they depend on: the backbone's tensors, the preprocessing, the file's
content. So runs share them, and adding or moving one image costs one image.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor, nn

from relish.core.cache import Cache
from relish.core.errors import ModelError
from relish.core.io import fingerprint
from relish.core.progress import Progress
from relish.core.runtime import to_device
from relish.data.dataset import Split
from relish.data.loader import View, view_batches
from relish.data.transforms import Preprocessing, normalise
from relish.evaluation.inference import BATCH_SIZE
from relish.models.head import OutputLayer, head_names, output_layer
from relish.models.target import TargetModel

Features = npt.NDArray[np.float32]

_RULES = 1
"""Raise it when pictures are opened, scaled or fed in another way than before."""
_KEEP_EVERY = 4
"""Batches between two writes; what a kill can cost."""


class Backbone:
    """A network up to its output layer, all of it in eval mode."""

    def __init__(self, target: TargetModel, device: torch.device | str = "cpu") -> None:
        """
        Raises:
            ModelError: what the network says is not its output layer's output, so no probe can be trained on the
                layer's input: two heads, or pooling behind the head.
        """
        if len(target.heads) != 1:
            raise ModelError(
                f"{target.source.name} has {len(target.heads)} output layers, which no probe can be trained for.",
                hint="Take --recipe book or frozen, or another --source.",
            )
        self._take(target.network, target.heads[0], target.source.name, torch.device(device))

    @classmethod
    def of_saved(cls, network: nn.Module, classes: int, name: str, device: torch.device | str = "cpu") -> "Backbone":
        """Of a target model that was loaded from its file, which no longer knows its source model.

        Raises:
            ModelError: it has two output layers.
        """
        heads = head_names(network, classes)
        if len(heads) != 1:
            raise ModelError(f"{name} has {len(heads)} output layers: which one's inputs are its features?")
        made = cls.__new__(cls)
        made._take(network, output_layer(network, heads[0]), name, torch.device(device))
        return made

    def _take(self, network: nn.Module, head: OutputLayer, name: str, device: torch.device) -> None:
        self.network, self.head, self.device = network, head, device
        self.width = head.weight.shape[1]
        self.name = name
        to_device(network, device)

    @torch.inference_mode()
    def __call__(self, images: Tensor, how: Preprocessing) -> Tensor:
        """(B, 3, S, S) uint8 pictures to (B, D) float32 features.

        Raises:
            ModelError: what the output layer says is not what the network says, or what it is given is not finite.
        """
        met: list[tuple[Tensor, Tensor]] = []
        hook = self.head.register_forward_hook(lambda _, inputs, output: met.append((inputs[0], output)))
        try:
            said = self.network.eval()(normalise(images.to(self.device), how))
        finally:
            hook.remove()
        features, output = (tensor.flatten(1) for tensor in met[-1]) if met else (torch.empty(0), torch.empty(0))
        if not features.isfinite().all():
            raise ModelError(
                f"{self.name} makes infinite numbers of these pictures, or none: its weights are damaged.",
                hint="Take another file of weights, or another --source.",
            )
        if features.shape != (len(images), self.width) or output.shape != said.shape or not torch.equal(output, said):
            raise ModelError(
                f"{self.name} does more after its output layer than relish can train a probe for.",
                hint="Take --recipe book or frozen, or another --source.",
            )
        return features.float()

    def takes(self, side: int) -> bool:
        """Whether the network takes squares of this side, in pixels; some are made for one size alone."""
        try:
            with torch.inference_mode():
                self.network.eval()(torch.zeros(1, 3, side, side, device=self.device))
        except (RuntimeError, AssertionError, ValueError):
            return False
        return True

    def digest(self) -> str:
        """SHA-256 of every tensor but the output layer's, with its name."""
        found = hashlib.sha256()
        own = {id(tensor) for tensor in self.head.parameters()}
        for name, tensor in self.network.state_dict(keep_vars=True).items():
            if id(tensor) not in own:
                found.update(name.encode() + b"\0")
                found.update(tensor.detach().cpu().contiguous().numpy())
        return found.hexdigest()


def features_of(
    backbone: Backbone,
    split: Split,
    looks: Sequence[View],
    sha256: Mapping[Path, str],
    accelerator: Accelerator,
    *,
    workers: int = 0,
    progress: Progress | None = None,
    title: str = "features",
) -> list[Features]:
    """The features of every picture of a split, from the cache where they are known.

    Args:
        looks: ways of looking at a picture; it is opened once for all of them.
        sha256: of each picture's file.

    Returns:
        For each look (N, D) float32, in the order of the split; the same in every process.

    Raises:
        ModelError: see `Backbone`.
        ImageError: a picture cannot be opened any more.
    """
    voice, keys = progress or Progress(), [sha256[path] for path in split.paths]
    place_of = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    digest = backbone.digest()
    cache = Cache(voice)
    shelves = [_Shelf(cache, _key(backbone, digest, look), place_of, backbone.width, accelerator) for look in looks]
    lacking = [shelf.missing for shelf in shelves]
    missing = {key for some in lacking for key in some}
    with voice.bar(title, len(keys), sum(key not in missing for key in keys)) as bar:
        for fresh in _computed(backbone, split, looks, keys, lacking, accelerator, workers):
            for shelf, rows in zip(shelves, fresh, strict=True):
                new = {key: row for key, row in rows.items() if key in shelf.missing}
                if accelerator.is_main_process:
                    shelf.keep(new)
                shelf.put(new)
            bar.advance(len({key for rows in fresh for key in rows} & missing))
    if len(place_of) == len(keys):  # no copies: the rows are in the order of the split
        return [shelf.rows for shelf in shelves]
    return [shelf.rows[[place_of[key] for key in keys]] for shelf in shelves]


class _Shelf:
    """The rows of one look: what is kept on disk, and what is missing."""

    def __init__(
        self, cache: Cache, name: str, place_of: Mapping[str, int], width: int, accelerator: Accelerator
    ) -> None:
        self.cache, self.kind, self.place_of = cache, f"features/{name[:32]}", place_of
        self.rows = np.full((len(place_of), width), np.nan, dtype=np.float32)
        self.missing = set(place_of)
        # The first process reads, for all of them.
        if accelerator.is_main_process:
            self._recall()
        if accelerator.num_processes > 1:
            found: list[Any] = [self.rows, self.missing]
            broadcast_object_list(found)
            self.rows, self.missing = found

    def _recall(self) -> None:
        keys = {bytes.fromhex(key): key for key in self.place_of}
        for digest, row in self.cache.recall(self.kind, keys):
            self.rows[self.place_of[keys[digest]]] = np.frombuffer(row, dtype="<f4")
            self.missing.discard(keys[digest])

    def keep(self, rows: Mapping[str, Features]) -> None:
        self.cache.remember(self.kind, {bytes.fromhex(key): row.astype("<f4").tobytes() for key, row in rows.items()})

    def put(self, rows: Mapping[str, Features]) -> None:
        for key, row in rows.items():
            self.rows[self.place_of[key]] = row


def _computed(
    backbone: Backbone,
    split: Split,
    looks: Sequence[View],
    keys: Sequence[str],
    missing: Sequence[set[str]],
    accelerator: Accelerator,
    workers: int,
) -> Iterator[list[dict[str, Features]]]:
    """The rows of each look, a few batches at a time, the same in every process; at least those that are missing."""
    # Cut before looking what is missing: a picture meets the same neighbours after a kill as it would have before, and
    # its row is the same to the last bit.
    batches = [range(i, min(i + BATCH_SIZE, len(keys))) for i in range(0, len(keys), BATCH_SIZE)]
    needed = [list(batch) for batch in batches if any(keys[p] in some for some in missing for p in batch)]
    mine = needed[accelerator.process_index :: accelerator.num_processes]
    pictures = view_batches(split, looks, mine, contents=keys, workers=workers)
    rounds = math.ceil(len(needed) / (_KEEP_EVERY * accelerator.num_processes))
    for _ in range(rounds):
        fresh: list[dict[str, Features]] = [{} for _ in looks]
        for batch in islice(pictures, _KEEP_EVERY):
            places = batch.positions.tolist()
            for rows, look, images, some in zip(fresh, looks, batch.images, missing, strict=True):
                if any(keys[p] in some for p in places):
                    found = backbone(images, look.preprocessing).cpu().numpy()
                    rows.update((keys[p], row) for p, row in zip(places, found, strict=True))
        if accelerator.num_processes > 1:
            parts = gather_object([fresh])
            fresh = [{key: row for part in parts for key, row in part[i].items()} for i in range(len(looks))]
        yield fresh


def _key(backbone: Backbone, digest: str, look: View) -> str:
    return fingerprint(
        [_RULES, digest, look.preprocessing.as_dict(), look.view, backbone.device.type, torch.__version__]
    )


Nearest = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]
"""Positions, nearest first, and similarities, a row for each picture that was asked about."""


def nearest(learned: Features, asked: Features, count: int) -> Nearest:
    """The nearest of the learned pictures to each that is asked about.

    Args:
        learned: (N, D) float32.
        asked: (M, D) float32.
        count: how many to find; fewer where N is smaller.

    Returns:
        (M, k) int64 positions in `learned`, nearest first; (M, k) float64 cosine similarities, 1 is the same direction.
    """
    from sklearn.neighbors import NearestNeighbors  # late: a start of a training does without it

    search = NearestNeighbors(n_neighbors=min(count, len(learned)), metric="cosine", algorithm="brute").fit(learned)
    distances, positions = search.kneighbors(asked)
    return positions.astype(np.int64), 1.0 - distances

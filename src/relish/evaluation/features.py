"""The inputs of a network's output layer (features): computed once for each image, cached on disk, and searched.

Features are stored under the hash of everything they depend on: the backbone's tensors, the preprocessing, the file's
content. So runs share them, and adding or moving one image costs one image.
"""

import copy
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from relish.core.cache import Cache
from relish.core.context import Context
from relish.core.errors import ModelError
from relish.core.io import fingerprint
from relish.core.runtime import raise_if_no_memory, to_device
from relish.data.dataset import Split
from relish.data.loader import DecodedImages, View, ViewBatch, view_batches
from relish.data.transforms import Preprocessing, normalise
from relish.evaluation.inference import forward_in_parts, images_at_once
from relish.evaluation.onnx_network import LIBRARIES, OnnxNetwork, faster, library_of
from relish.models.head import output_layer
from relish.models.target import TargetModel

Features = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]

_RULES = 1
"""Increase it when images are opened, scaled or normalised in another way than before."""
_KEEP_EVERY = 4
"""Batches between two writes: what a kill can cost."""
_SMALL = 16
"""In batches of more images than this, the last bits of a row do not depend on the number of images."""


class Backbone:
    """A network up to its output layer, all of it in eval mode.

    Args:
        network: moved to the device.
        heads: the names of its output layers.
        name: what errors call it.

    Raises:
        ModelError: it has two output layers, so there is no one input to take as features.
    """

    def __init__(self, network: nn.Module, heads: Sequence[str], name: str, device: torch.device | str = "cpu") -> None:
        if len(heads) != 1:
            raise ModelError(
                f"{name} has {len(heads)} output layers; features are the inputs of a single one.",
                hint="Take --recipe book or frozen, or another --source.",
            )
        self.network, self.head_name, self.name = network, heads[0], name
        self.head = output_layer(network, heads[0])
        self.device, self.width = torch.device(device), self.head.weight.shape[1]
        to_device(network, self.device)

    @classmethod
    def of(cls, target: TargetModel, device: torch.device | str = "cpu") -> "Backbone":
        """The backbone of a target model."""
        return cls(target.network, target.head_names, target.source.name, device)

    @torch.inference_mode()
    def __call__(self, images: Tensor, preprocessing: Preprocessing) -> Tensor:
        """(B, 3, S, S) uint8 images to (B, D) float32 features.

        Raises:
            ModelError: the output layer's output is not the network's logits, or a feature is not finite.
        """
        calls: list[tuple[Tensor, Tensor]] = []
        hook = self.head.register_forward_hook(lambda _, inputs, output: calls.append((inputs[0], output)))
        try:
            logits = self.network.eval()(normalise(images.to(self.device), preprocessing))
        finally:
            hook.remove()
        features, output = (tensor.flatten(1) for tensor in calls[-1]) if calls else (torch.empty(0), torch.empty(0))
        if not features.isfinite().all():
            raise ModelError(
                f"{self.name} makes infinite numbers of these pictures, or none: its weights are damaged.",
                hint="Take another file of weights, or another --source.",
            )
        own_logits = output.shape == logits.shape and torch.equal(output, logits)
        if features.shape != (len(images), self.width) or not own_logits:
            raise ModelError(
                f"{self.name} does more after its output layer than relish can train a probe for.",
                hint="Take --recipe book or frozen, or another --source.",
            )
        return features.float()

    def accepts(self, side: int) -> bool:
        """Whether the network accepts square images of this side, in pixels; some accept one size only."""
        try:
            with torch.inference_mode():
                self.network.eval()(torch.zeros(1, 3, side, side, device=self.device))
        except (RuntimeError, AssertionError, ValueError) as error:
            raise_if_no_memory(error, f"for a picture of {side} pixels")
            return False
        return True

    def hastened(self, side: int, images: int, context: Context) -> "Backbone":
        """This one, or the same through ONNX Runtime where that computes so many images sooner: see `faster`."""
        found = faster(self.network.eval(), self.head_name, side, images, context)
        if found is None:
            return self
        other = copy.copy(self)
        other.network = found
        return other

    def digest(self) -> str:
        """SHA-256 of the network's layers but the output layer, and of every tensor of theirs with its name."""
        digest = hashlib.sha256(str(self.network).replace(str(self.head), "").encode())
        of_head = {id(tensor) for tensor in self.head.parameters()}
        for name, tensor in self.network.state_dict(keep_vars=True).items():
            if id(tensor) not in of_head:
                digest.update(name.encode() + b"\0")
                digest.update(tensor.detach().cpu().contiguous().numpy())
        return digest.hexdigest()

    def noise_digest(self, preprocessing: Preprocessing) -> str:
        """SHA-256 of the features of one fixed noise image, where the network's class is the user's own; else nothing.

        Layers and tensors do not tell what such a class computes with them.
        """
        if library_of(self.network) in LIBRARIES:
            return ""
        side = preprocessing.image_size
        noise = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, side, side), dtype=np.uint8))
        return hashlib.sha256(self(noise, preprocessing).cpu().numpy().tobytes()).hexdigest()


def features_of(
    backbone: Backbone,
    split: Split,
    views: Sequence[View],
    sha256: Mapping[Path, str],
    context: Context,
    *,
    title: str = "features",
    took: Callable[[int, float], None] | None = None,
    decoded: DecodedImages | None = None,
) -> list[Features]:
    """The features of every image of a split, from the cache where it has them.

    Args:
        views: an image is opened once for all of them.
        sha256: of each image's file.
        took: told as rows are computed, how many, counting views, and the seconds that they took.
        decoded: holds images that were decoded for an evaluation with the preprocessing of the one view, the plain one.

    Returns:
        For each view (N, D) float32, in the order of the split; the same in every process.

    Raises:
        ModelError: see `Backbone`.
        ImageError: an image can no longer be opened.
        TooLittleMemory: for one image.
        WorkerFailed: see `Workers`.
    """
    keys = [sha256[path] for path in split.paths]
    row_of = {key: row for row, key in enumerate(dict.fromkeys(keys))}
    digest, cache = backbone.digest(), Cache(context.progress)
    sides = {view.preprocessing.image_size for view in views}
    if len(sides) == 1:
        backbone = backbone.hastened(sides.pop(), len(keys), context)
    tables = [_CachedFeatures(cache, _key(backbone, digest, v), row_of, backbone.width, context) for v in views]
    missing_of_view = [table.missing for table in tables]
    missing = set().union(*missing_of_view)
    with context.progress.bar(title, len(keys), sum(key not in missing for key in keys)) as bar:
        began = time.monotonic()
        for computed in _computed(backbone, split, views, keys, missing_of_view, context, decoded):
            if took is not None:
                took(sum(map(len, computed)), time.monotonic() - began)
                began = time.monotonic()
            for table, rows in zip(tables, computed, strict=True):
                new = {key: row for key, row in rows.items() if key in table.missing}
                if context.is_main:
                    table.store(new)
                table.put(new)
            bar.advance(len({key for rows in computed for key in rows} & missing))
    if len(row_of) == len(keys):  # no copies: the rows are in the order of the split
        return [table.rows for table in tables]
    return [table.rows[[row_of[key] for key in keys]] for table in tables]


def features_to_compute(
    backbone: Backbone, split: Split, view: View, sha256: Mapping[Path, str], context: Context
) -> int:
    """How many of the images `features_of` would compute, since the cache lacks them."""
    row_of = {key: row for row, key in enumerate(dict.fromkeys(sha256[path] for path in split.paths))}
    quick = backbone.hastened(view.preprocessing.image_size, len(split), context)
    name = _key(quick, backbone.digest(), view)
    return len(_CachedFeatures(Cache(context.progress), name, row_of, backbone.width, context).missing)


class _CachedFeatures:
    """The features of one view: rows read from the cache, and the keys that it lacks."""

    def __init__(self, cache: Cache, name: str, row_of: Mapping[str, int], width: int, context: Context) -> None:
        self.cache, self.kind, self.row_of = cache, f"features/{name[:32]}", row_of
        self.rows = np.full((len(row_of), width), np.nan, dtype=np.float32)
        read = context.from_main(self._read)
        self.put(read)
        self.missing = set(row_of) - set(read)

    def _read(self) -> dict[str, Features]:
        keys = {bytes.fromhex(key): key for key in self.row_of}
        return {keys[digest]: np.frombuffer(row, dtype="<f4") for digest, row in self.cache.recall(self.kind, keys)}

    def store(self, rows: Mapping[str, Features]) -> None:
        self.cache.remember(self.kind, {bytes.fromhex(key): row.astype("<f4").tobytes() for key, row in rows.items()})

    def put(self, rows: Mapping[str, Features]) -> None:
        for key, row in rows.items():
            self.rows[self.row_of[key]] = row


def _computed(
    backbone: Backbone,
    split: Split,
    views: Sequence[View],
    keys: Sequence[str],
    missing: Sequence[set[str]],
    context: Context,
    decoded: DecodedImages | None,
) -> Iterator[list[dict[str, Features]]]:
    """Compute the rows of each view, a few batches at a time; every process gets all of them.

    Rows that are not missing may be among them: see `_needed`.
    """
    # Cut the batches before dropping what is cached: a run that resumes after a kill then computes each image in the
    # same batch as a run that was never killed, and the rows are equal to the last bit.
    size = images_at_once(*(view.preprocessing.image_size for view in views))
    batches = [range(i, min(i + size, len(keys))) for i in range(0, len(keys), size)]
    needed = [part for batch in batches if (part := _needed(batch, keys, missing))]
    mine = needed[context.process :: context.processes]
    if decoded:
        plain = decoded.batches(split, views[0].preprocessing, mine, workers=context.workers)
        loaded: Iterator[ViewBatch] = (ViewBatch((batch.images,), batch.labels, batch.positions) for batch in plain)
    else:
        loaded = view_batches(split, views, mine, contents=keys, workers=context.workers)
    rounds = math.ceil(len(needed) / (_KEEP_EVERY * context.processes))
    for _ in range(rounds):
        computed: list[dict[str, Features]] = [{} for _ in views]
        for batch in islice(loaded, _KEEP_EVERY):
            positions = batch.positions.tolist()
            for rows, view, images, some in zip(computed, views, batch.images, missing, strict=True):
                if any(keys[p] in some for p in positions):
                    forward = partial(_features, backbone, view.preprocessing)
                    features, size = forward_in_parts(images.to(backbone.device), forward, size)
                    rows.update((keys[p], row) for p, row in zip(positions, features, strict=True))
        if context.processes > 1:
            parts = gather_object([computed])
            computed = [{key: row for part in parts for key, row in part[i].items()} for i in range(len(views))]
        yield computed


def _features(backbone: Backbone, preprocessing: Preprocessing, images: Tensor) -> Features:
    found: Features = backbone(images, preprocessing).cpu().numpy()
    return found


def _needed(batch: Sequence[int], keys: Sequence[str], missing: Sequence[set[str]]) -> list[int]:
    """The positions of a batch to compute: those whose rows are missing, or the whole batch where they are few.

    `_SMALL` images or fewer, computed alone, would give rows that differ in their last bits.
    """
    lacking = [p for p in batch if any(keys[p] in some for some in missing)]
    return list(batch) if 0 < len(lacking) <= _SMALL else lacking


def _key(backbone: Backbone, digest: str, view: View) -> str:
    engine = [version("onnxruntime")] if isinstance(backbone.network, OnnxNetwork) else []
    return fingerprint(
        [
            _RULES, digest, backbone.noise_digest(view.preprocessing), view.preprocessing.as_dict(), view.view,
            torch.cuda.get_device_name() if backbone.device.type == "cuda" else backbone.device.type,
            torch.__version__, *engine,
        ]
    )  # fmt: skip


Nearest = tuple[Positions, npt.NDArray[np.float64]]
"""Positions, nearest first, and cosine similarities, a row for each query."""


def nearest(features: Features, queries: Features, count: int) -> Nearest:
    """The images whose features are nearest to each query's, by their angle: the length of a vector says little.

    Args:
        features: (N, D) float32.
        queries: (M, D) float32.
        count: how many to find; fewer where N is smaller.

    Returns:
        (M, k) int64 positions in `features`, nearest first; (M, k) float64 cosine similarities, at most 1.
    """
    from sklearn.neighbors import NearestNeighbors  # late: training does without scikit-learn

    search = NearestNeighbors(n_neighbors=min(count, len(features)), metric="cosine", algorithm="brute").fit(features)
    distances, positions = search.kneighbors(queries)
    return positions.astype(np.int64), 1.0 - distances


CELL = 2000
"""Images of a cell on average; up to four times as many are compared without cells."""
_CELLS_SEARCHED = 3
_CENTRES_FROM = 20_000
"""Images that the cells' centres are computed from."""


def unit_vectors(features: Features) -> Features:
    """(N, D) float32 of length 1, so that the product of two rows is their cosine."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    vectors: Features = features / np.maximum(lengths, np.float32(1e-12))
    return vectors


def nearest_others(vectors: Features, count: int) -> tuple[Positions, Features]:
    """Each image's nearest others, nearest first.

    Of many images, an inverted file of k-means cells is searched: the work does not grow with the square of their
    number (Jegou, Douze and Schmid 2011, IEEE TPAMI 33(1), section III.C).

    Args:
        vectors: (N, D) float32 of length 1, see `unit_vectors`; N is 2 or more.
        count: how many, at most N - 1.

    Returns:
        (N, count) int64 positions, -1 where a cell has fewer; (N, count) float32 cosines, -1 there.
    """
    from sklearn.neighbors import NearestNeighbors  # late, as above and below

    positions = np.full((len(vectors), count), -1, dtype=np.int64)
    cosines = np.full((len(vectors), count), -1.0, dtype=np.float32)
    if not count:
        return positions, cosines
    for cell, candidates in _cells(vectors):
        k = min(count + 1, len(candidates))
        search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(vectors[candidates])
        distances, found = search.kneighbors(vectors[cell])
        others = candidates[found] != cell[:, None]
        others[others.all(1), -1] = False  # among many equal ones an image may not be found itself
        positions[cell, : k - 1] = candidates[found][others].reshape(len(cell), k - 1)
        cosines[cell, : k - 1] = 1 - distances[others].reshape(len(cell), k - 1) ** 2 / 2
    return positions, cosines


def _cells(vectors: Features) -> Iterator[tuple[Positions, Positions]]:
    """For each cell the images in it, and the images that they are compared with."""
    everything = np.arange(len(vectors))
    if len(vectors) <= 4 * CELL:
        yield everything, everything
        return
    from sklearn.cluster import MiniBatchKMeans

    rng = np.random.RandomState(0)
    some = rng.permutation(len(vectors))[:_CENTRES_FROM]
    means = MiniBatchKMeans(len(vectors) // CELL, random_state=rng, n_init=1, batch_size=4096).fit(vectors[some])
    near = np.argsort(means.transform(vectors), axis=1)[:, :_CELLS_SEARCHED]  # (N, 3)
    for number in range(means.n_clusters):
        cell = np.flatnonzero(near[:, 0] == number)
        if len(cell):
            yield cell, np.flatnonzero((near == number).any(1))

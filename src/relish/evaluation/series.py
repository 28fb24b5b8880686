"""Series: images of one scene, object or patient, found by their features, so that no split and no fold divides them.

A class may be dense, so a small distance proves nothing. What tells a series is a gap: the others of the scene are
near, and then nobody for a long way. So distances are taken relative to that of a further image of the class, for
whichever of the two images it is nearer, and clustered within the class by average linkage, which does not chain: an
image joins where it is near all of a series on average. Where few images are near, they may be of a rare kind, such as
the cupcakes of a class of other foods. Where many are, images come in series.

There are two uses. To keep images on one side of a fold costs next to nothing, so there all that are near are a series;
where images come in series, others that are not quite as near are of these scenes too: what every image of a class
varies in is made to count less, and the tree is cut where its clusters are most compact and most apart. A false report
costs trust, so a series that is reported is surely of one scene: where images come in series all that are near, and
where few are near, what is nearer still.

Sources: distances relative to a further neighbour's: Zelnik-Manor and Perona 2004, NIPS 17, section 2. Whitened
features: Jegou and Chum 2012, ECCV, section 3. Where to cut: Rousseeuw 1987, J. Comput. Appl. Math. 20, 53-65.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from relish.data.dataset import plural
from relish.data.near_copies import Positions, exact_pairs, group_pairs, members, pairs_by_hashes
from relish.data.survey import Facts
from relish.evaluation.features import Features, nearest_others, unit_vectors

Doubles = npt.NDArray[np.float64]

FEWEST = 6
"""Images that a class needs: with fewer, there is no further image to compare distances with."""
FAR, FAR_SHARE = 30, 0.6
"""The further neighbour, by its rank; in a small class the one at this share of the others, so that it lies beyond a
series of half of the class."""
CUT, CHANCE = 0.7, 0.002
"""Near: clusters are less far apart, on average, than this share of the distance to the further neighbour, and than the
share that chance undercuts for `CHANCE` of the images. Of 2,000 photographs 47 are then in series, about half of them
truly of one scene; of 360 drawn scenes, each drawn once, 27."""
RARE_CUT = 0.55
"""The first share where series are rare and are to be reported: images of one kind are as near as 0.6 of the further
distance. It takes true series along: of 108 images of rare scenes in six views, 46 are found, with `CUT` 90."""
COMMON = 0.25
"""Share of the merges below `CUT` from which images come in series. It is .54 to .65 of drawn scenes in six views
each, .28 in two; .04 in one view, .01 of photographs, .09 of scans with some slices of each patient."""
SHRINKAGE = 0.8
"""Of the whitening, towards none at all. Of 216 scenes in three sets, 0.6 to 0.9 find series alike; with 0.3, and with
the 0.16 of Ledoit and Wolf, views of one scene are as far apart as scenes are."""
CUTS = np.linspace(0.2, 0.98, 40)
"""Shares of the merges that are below the cuts that are tried."""
LARGEST = 3000
"""Images that are clustered at a time, which bounds memory: a larger class is first cut where no links are."""
LONGEST, STRICTER = 0.9, 0.9
"""The longest link, relative to the further distance; and what it is multiplied by until no part is too large."""
COPY_COSINE = 0.9
"""Of the features of two images whose hashes say that they are copies, at least."""
_SMALLEST = 1e-6


@dataclass(frozen=True, eq=False)
class Series:
    """Which images are of one series."""

    ids: Positions
    """(N,) int64: images of one series, or copies of one another, have equal numbers."""
    copies: Positions
    """(N,) int64: the same of copies alone."""

    @property
    def scenes(self) -> list[Positions]:
        """The positions of each series that holds more than copies of one image."""
        return [group for group in members(self.ids) if len(np.unique(self.copies[group])) > 1]

    def keys(self, contents: Sequence[str]) -> list[str]:
        """For each image the smallest hash of its series: the same in whatever order the images come.

        Args:
            contents: N hashes.
        """
        least: dict[int, str] = {}
        for number, content in zip(self.ids.tolist(), contents, strict=True):
            least[number] = min(content, least.get(number, content))
        return [least[number] for number in self.ids.tolist()]

    def names(self, paths: Sequence[Path], contents: Sequence[str]) -> dict[Path, str]:
        """A name of its series for each image of a series that holds more than one file's content."""
        keys, found = self.keys(contents), dict[Path, str]()
        for group in members(self.ids):
            if len({contents[i] for i in group}) > 1:
                found |= {paths[i]: f"series {keys[i][:16]}" for i in group}
        return found

    def sentence(self) -> str:
        """Such as `2,936 pictures in 412 series of 2 to 9 that look like one scene`; empty where there are none."""
        sizes = [len(group) for group in self.scenes]
        if not sizes:
            return ""
        least, most = min(sizes), max(sizes)
        of = f"{least}" if least == most else f"{least} to {most}"
        return f"{plural(sum(sizes), 'picture')} in {len(sizes):,} series of {of} that look like one scene"


def find_series(features: Features | None, labels: Positions, facts: Facts, *, sure: bool = False) -> Series:
    """Images that look like one scene, and copies.

    Series are looked for within a class, copies everywhere. Where features are not known, there are copies alone.

    Args:
        features: (N, D) float32 of the source's backbone.
        labels: (N,) int64.
        facts: (N,), recorded by the survey.
        sure: only those beyond doubt, to be reported; else all that had better stay on one side. Of new scenes 2 and 3
            of 240 are then taken for ones that were photographed six times, of two draws; else 40 and 66. Of views of
            these 120 and 117 of 144 are found; else 143.
    """
    pairs = np.concatenate([exact_pairs(facts), pairs_by_hashes(facts)])
    if features is None:
        copies = group_pairs(len(labels), pairs)
        return Series(copies, copies)
    vectors = unit_vectors(features)
    near = np.einsum("ij,ij->i", vectors[pairs[:, 0]], vectors[pairs[:, 1]]) >= COPY_COSINE
    copies = group_pairs(len(labels), pairs[near])
    chains = [np.stack([group[:-1], group[1:]], axis=1) for group in _scenes(vectors, labels, sure)]
    return Series(group_pairs(len(labels), np.concatenate([pairs[near], *chains])), copies)


def _scenes(vectors: Features, labels: Positions, sure: bool) -> Iterator[Positions]:
    """The positions of each series that clustering finds.

    Args:
        vectors: (N, D) float32 of length 1.
    """
    from scipy.cluster.hierarchy import fcluster, linkage  # late: a command that looks for no series does without

    classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    parts, trees, chances = [], [], [CUT]
    for rows in classes:
        if len(rows) >= FEWEST:
            near = _Neighbours(vectors[rows])
            chances.append(near.chance)
            for part in near.parts():
                parts.append(rows[part])
                trees.append(linkage(near.relative_distances(part), "average"))
    cut = min(CUT, float(np.median(chances)))
    common = bool(trees) and float(np.mean(_heights(trees) < cut)) >= COMMON
    if sure and not common:
        cut = min(cut, RARE_CUT)
    elif common and not sure:
        white = _whitened(vectors, classes)
        trees = [linkage(_cosine_distances(white[part]), "average") for part in parts]
        cut = _compact_cut(white, parts, trees)
    for rows, tree in zip(parts, trees, strict=True):
        for group in members(fcluster(tree, cut, "distance").astype(np.int64)):
            yield rows[group]


def _heights(trees: Sequence[Doubles]) -> Doubles:
    """(M,) the distances at which clusters merge."""
    return np.concatenate([tree[:, 2] for tree in trees])


def _whitened(vectors: Features, classes: Sequence[Positions]) -> Features:
    """(N, D) float32 of length 1: within a class, directions of much variance are shortened.

    These are of light, of backgrounds, of how near the camera is: many scenes share a value, and views of one do not.
    """
    apart = vectors.copy()
    for rows in classes:
        apart[rows] -= vectors[rows].mean(0)
    variances, directions = np.linalg.eigh(apart.T @ apart / len(apart))
    shrunk = (1 - SHRINKAGE) * np.maximum(variances, 0) + SHRINKAGE * variances.mean()
    return unit_vectors(apart @ (directions / np.sqrt(np.maximum(shrunk, _SMALLEST**2))).astype(np.float32))


def _cosine_distances(vectors: Features) -> Doubles:
    """(n * (n - 1) / 2,) as `linkage` takes them."""
    cosines = (vectors @ vectors.T)[np.triu_indices(len(vectors), 1)].astype(np.float64)
    above: Doubles = np.maximum(1 - cosines, 0)
    return above


def _compact_cut(vectors: Features, parts: Sequence[Positions], trees: Sequence[Doubles]) -> float:
    """The cut of all trees whose clusters have the largest mean silhouette; an image alone has 0.

    Args:
        vectors: (N, D) float32 of length 1.
        parts: the positions of the images of each tree.
    """
    from scipy.cluster.hierarchy import fcluster  # late, as above
    from scipy.spatial.distance import squareform
    from sklearn.metrics import silhouette_samples

    cuts = np.quantile(_heights(trees), CUTS)
    total = np.zeros(len(cuts))
    for rows, tree in zip(parts, trees, strict=True):
        distances = squareform(_cosine_distances(vectors[rows]))
        for number, cut in enumerate(cuts):
            clusters = fcluster(tree, cut, "distance")
            if 1 < clusters.max() < len(rows):
                total[number] += silhouette_samples(distances, clusters, metric="precomputed").sum()
    return float(cuts[total.argmax()])


class _Neighbours:
    """The n images of a class, with the distances to the nearest others, up to the further one."""

    def __init__(self, vectors: Features) -> None:
        self.vectors = vectors
        self.nearest, cosines = nearest_others(vectors, min(FAR, round(FAR_SHARE * (len(vectors) - 1))))
        self.distances = np.maximum(np.sqrt(np.maximum(2 - 2 * cosines.astype(np.float64), 0)), _SMALLEST)  # (n, k)
        self.scale = self.distances[:, -1]

    @property
    def chance(self) -> float:
        """The distance to the nearest other, over that to the further one, that chance undercuts for `CHANCE` of the
        images.

        At dimension m the number of images within a distance d grows as d ** m. Of k images, one lies within x times
        the farthest's distance with a probability of about k * x ** m. The dimension is measured by maximum likelihood
        between the further ones (Levina and Bickel 2004, NIPS 17, section 2), beyond most series.
        """
        count = self.distances.shape[1]
        logs = np.log(self.scale[:, None] / self.distances[:, count // 3 : -1]) if count > 2 else np.ones((1, 1))
        dimension = 1 / max(float(np.median(logs.mean(1))), _SMALLEST)
        return float((CHANCE / count) ** (1 / dimension))

    def relative_distances(self, part: Positions) -> Doubles:
        """(n * (n - 1) / 2,) distances within a part, as `linkage` takes them, over the smaller scale of the two."""
        exact, scale = self.vectors[part].astype(np.float64), self.scale[part]
        distances = np.sqrt(np.maximum(2 - 2 * exact @ exact.T, 0)) / np.minimum(scale[:, None], scale)
        above: Doubles = distances[np.triu_indices(len(part), 1)]
        return above

    def parts(self) -> list[Positions]:
        """The images that are clustered together: all; where that is too many, what short links join."""
        parts, longest = [np.arange(len(self.vectors))], LONGEST
        while max(map(len, parts), default=0) > LARGEST:
            scale = np.minimum(self.scale[:, None], self.scale[self.nearest])
            first, place = np.nonzero((self.distances <= longest * scale) & (self.nearest >= 0))
            pairs = np.stack([first, self.nearest[first, place]], axis=1)
            parts, longest = members(group_pairs(len(self.vectors), pairs)), STRICTER * longest
        return parts

"""Series: images of one scene, object or patient, found by their features, so that no split and no fold divides them.

A class may be dense, so a small distance proves nothing. What tells a series is a gap: the others of the scene are
near, and then nobody for a long way. So distances are taken relative to that of a further image of the class, for
whichever of the two images it is nearer, and clustered within the class by average linkage, which does not chain: an
image joins where it is near all of a series on average. Where to cut is measured: where few images are near enough to
be of one scene beyond doubt, those are all; where many are, so are probably others that are not quite as near, and the
cut is the valley between merges within scenes and merges of scenes (docs/evaluating.md).

Source: distances relative to a further neighbour's: Zelnik-Manor and Perona 2004, NIPS 17, section 2.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import fcluster, linkage

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
"""Where series are rare: clusters are merged that are less far apart, on average, than this share of the distance to
the further neighbour; or than the share that chance undercuts for `CHANCE` of the images. Of 2,000 photographs 47 are
then in series, about half of them truly of one scene; of 360 drawn scenes, each drawn once, 27."""
COMMON = 0.25
"""Share of the merges below that from which pictures come in series. It is .57 and .62 of two sets of drawn scenes in
six views each, .04 of drawn scenes in one view, .01 of photographs, .09 of scans with some slices of each patient."""
VALLEY, STEP, WIDTH = (0.6, 0.9), 0.02, 0.04
"""Where they do, it is cut where merges are rarest: between those within scenes and those of scenes; and the width of
the kernel that tells how many there are."""
LARGEST = 3000
"""Images that are clustered at a time, which bounds memory: a larger class is first cut where no links are."""
STRICTER = 0.9
"""What the longest link is then multiplied by, time and again, until no part is too large."""
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


def find_series(features: Features | None, labels: Positions, facts: Facts) -> Series:
    """Images that look like one scene, and copies.

    Series are looked for within a class, copies everywhere. Where features are not known, there are copies alone.

    Args:
        features: (N, D) float32 of the source's backbone.
        labels: (N,) int64.
        facts: (N,), recorded by the survey.
    """
    pairs = np.concatenate([exact_pairs(facts), pairs_by_hashes(facts)])
    if features is None:
        copies = group_pairs(len(labels), pairs)
        return Series(copies, copies)
    vectors = unit_vectors(features)
    near = np.einsum("ij,ij->i", vectors[pairs[:, 0]], vectors[pairs[:, 1]]) >= COPY_COSINE
    copies = group_pairs(len(labels), pairs[near])
    chains = [np.stack([group[:-1], group[1:]], axis=1) for group in _scenes(vectors, labels)]
    return Series(group_pairs(len(labels), np.concatenate([pairs[near], *chains])), copies)


def _scenes(vectors: Features, labels: Positions) -> Iterator[Positions]:
    """The positions of each series that clustering finds.

    Args:
        vectors: (N, D) float32 of length 1.
    """
    classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    trees, chances = [], [CUT]
    for rows in classes:
        if len(rows) >= FEWEST:
            near = _Neighbours(vectors[rows])
            chances.append(near.chance)
            trees += [(rows[part], linkage(near.relative_distances(part), "average")) for part in near.parts()]
    cut = cut_of(np.concatenate([np.zeros(0), *(tree[:, 2] for _, tree in trees)]), float(np.median(chances)))
    for rows, tree in trees:
        for group in members(fcluster(tree, cut, "distance").astype(np.int64)):
            yield rows[group]


def cut_of(heights: Doubles, chance: float) -> float:
    """Where to cut the trees of clusters.

    Args:
        heights: (M,) at which clusters merge, relative to the distance of a further image.
        chance: below it chance hardly explains a merge.
    """
    strict = min(CUT, chance)
    if not len(heights) or np.mean(heights < strict) < COMMON:
        return strict
    places = np.arange(*VALLEY, STEP)
    return float(places[_density(heights, places).argmin()])


def _density(heights: Doubles, places: Doubles) -> Doubles:
    """(P,) merges near each place, with a normal kernel; no unit."""
    found: Doubles = np.exp(-(((places[:, None] - heights) / WIDTH) ** 2) / 2).sum(1)
    return found


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
        parts, longest = [np.arange(len(self.vectors))], VALLEY[1]
        while max(map(len, parts), default=0) > LARGEST:
            scale = np.minimum(self.scale[:, None], self.scale[self.nearest])
            first, place = np.nonzero((self.distances <= longest * scale) & (self.nearest >= 0))
            pairs = np.stack([first, self.nearest[first, place]], axis=1)
            parts, longest = members(group_pairs(len(self.vectors), pairs)), STRICTER * longest
        return parts

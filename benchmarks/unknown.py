"""Which score tells images of no known class: distances between features, energy, and the largest probability.

    python benchmarks/unknown.py HOTDOG MRI WORK [--run RUN] [--left-out 5] [--draws 3]

HOTDOG and MRI are datasets with a test split. Known are the hot dogs and other photographs of HOTDOG (all of them, then
10 a class), and 40 drawn classes but one. Unknown are scans of MRI, drawn pictures, noise, pages of text, and the class
that was left out. Scores are fitted to training images, and judged on test images beside unknown ones: the area under
the ROC curve, and the share of unknown images found at 1% false alarms. The chosen one is judged at its own limit too.
RUN, a run on HOTDOG, takes the place of the embedded source model's backbone. Writes `results/unknown.json`.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fontpkg
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from scipy.special import logsumexp
from sklearn.covariance import ledoit_wolf
from sklearn.metrics import roc_auc_score

from many_classes import draw_dataset
from relish.core.context import Context
from relish.core.io import atomic_folder
from relish.core.progress import Screen
from relish.core.runtime import rng_for
from relish.data.dataset import TEST, TRAIN, Split
from relish.data.drawn.datasets import draw_hotdogs
from relish.data.loader import View
from relish.data.sources import find_dataset
from relish.data.split import evenly_spaced
from relish.data.survey import Survey, survey
from relish.data.transforms import Preprocessing, book_preprocessing
from relish.evaluation.features import Backbone, Features, features_of
from relish.evaluation.unfamiliarity import NEIGHBOURS, fit_unfamiliarity, limit_of
from relish.models.source import load_source
from relish.models.target import make_target
from relish.reporting.text import text_table
from relish.tasks.classifier import Classifier
from relish.training.linear_probe import fit_probe
from study import write_results

Score = Callable[[Features], np.ndarray]
"""(N, D) features to (N,) scores; higher is stranger."""
Fit = Callable[[Features, np.ndarray], Score]
STRENGTH = 0.03
"""Of the probe's penalty: about what cross-validation chooses for all these images."""
PAGES, NOISES, SCANS, DRAWN = 100, 100, 250, 60
FEW = 10
"""Images of a class, where there are few."""


# ---- images of no class ---------------------------------------------------------------------------------------------


def page(rng: np.random.Generator) -> Image.Image:
    """A page of words in Noto Sans."""
    sheet = Image.new("RGB", (480, 640), (int(rng.integers(235, 256)),) * 3)
    size = int(rng.integers(10, 25))
    font, pen = ImageFont.truetype(fontpkg.path("Noto Sans"), size), ImageDraw.Draw(sheet)
    for top in range(24, 600, round(1.4 * size)):
        words = ["".join(rng.choice(list("aaabcdeeefghiiklmnnooprrsstttuvw"), rng.integers(2, 10))) for _ in range(14)]
        pen.text((24, top), " ".join(words)[: int(rng.integers(20, 90))], fill=(30, 30, 30), font=font)
    return sheet


def noise(rng: np.random.Generator) -> Image.Image:
    """Pixels drawn one by one, some of them blurred."""
    image = Image.fromarray(rng.integers(0, 256, (240, 320, 3), dtype=np.uint8))
    return image.filter(ImageFilter.GaussianBlur(float(rng.choice([0, 1, 3]))))


def made(root: Path, draw: Callable[[np.random.Generator], Image.Image], count: int) -> Path:
    """So many images of a kind in `root/of/`, once."""
    if not root.exists():
        with atomic_folder(root) as folder:
            (folder / "of").mkdir()
            for number in range(count):
                draw(rng_for(0, f"unknown/{root.name}", number)).save(folder / "of" / f"{number:03}.png")
    return root


# ---- scores ---------------------------------------------------------------------------------------------------------


def probe_logits(features: Features, labels: np.ndarray) -> Score:
    found = fit_probe(features, labels, int(labels.max()) + 1, STRENGTH)
    return found.logits


def largest_probability(features: Features, labels: np.ndarray) -> Score:
    """1 minus the probability of the likeliest class: the baseline (Hendrycks and Gimpel 2017, arXiv:1610.02136)."""
    logits = probe_logits(features, labels)
    return lambda new: -np.exp(logits(new).max(1) - logsumexp(logits(new), axis=1))


def energy(features: Features, labels: np.ndarray) -> Score:
    """Liu et al. 2020, arXiv:2010.03759."""
    logits = probe_logits(features, labels)
    return lambda new: -logsumexp(logits(new), axis=1)


def _whitening(centred: Features) -> np.ndarray:
    """(D, D): the inverse root of their covariance, shrunk by Ledoit and Wolf's rule."""
    covariance, _ = ledoit_wolf(centred.astype(np.float64), assume_centered=True)
    values, vectors = np.linalg.eigh(covariance)
    return vectors / np.sqrt(np.maximum(values, 1e-12))


def mahalanobis(features: Features, labels: np.ndarray, *, relative: bool = False) -> Score:
    """Lee et al. 2018, arXiv:1807.03888; less the distance to one Gaussian of all images, Ren et al. 2021."""
    means = np.stack([features[labels == k].mean(0) for k in np.unique(labels)])
    white = _whitening(features - means[np.searchsorted(np.unique(labels), labels)])
    middle = features.mean(0)
    white_of_all = _whitening(features - middle) if relative else None

    def score(new: Features) -> np.ndarray:
        there, centres = new @ white, means @ white
        squares = (there**2).sum(1)[:, None] - 2 * there @ centres.T + (centres**2).sum(1)
        background = 0.0 if white_of_all is None else (((new - middle) @ white_of_all) ** 2).sum(1)
        return squares.min(1) - background

    return score


def relative_mahalanobis(features: Features, labels: np.ndarray) -> Score:
    """Ren et al. 2021, arXiv:2106.09022."""
    return mahalanobis(features, labels, relative=True)


def neighbours(k: int, *, centred: bool = False, whitened: bool = False, most: int = 819) -> Fit:
    """Sun et al. 2022, arXiv:2204.06507; also of features that are centred, or whitened, first."""

    def fit(features: Features, labels: np.ndarray) -> Score:
        middle = features.mean(0) if centred or whitened else np.zeros(features.shape[1], np.float32)
        white = np.eye(1) if not whitened else _whitening(features - middle).astype(np.float32)

        def unit(new: Features) -> np.ndarray:
            moved = new - middle
            moved = moved @ white if whitened else moved
            return moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-6)

        bank = unit(features[evenly_spaced(len(features), most)])
        return lambda new: 1 - np.sort(unit(new) @ bank.T, axis=1)[:, -min(k, len(bank))]

    return fit


FITS: dict[str, Fit] = {
    "largest probability": largest_probability,
    "energy": energy,
    "Mahalanobis": mahalanobis,
    "relative Mahalanobis": relative_mahalanobis,
    **{f"{k}-th neighbour": neighbours(k) for k in (1, 3, 5, 10, 20)},
    "3rd, centred": neighbours(3, centred=True),
    "3rd, whitened": neighbours(3, whitened=True),
    "3rd of all": neighbours(3, most=10**6),
}


# ---- judging --------------------------------------------------------------------------------------------------------


def judged(known: np.ndarray, unknown: np.ndarray) -> tuple[float, float]:
    """The area under the ROC curve, and the share of unknown images above the 1% strangest known ones."""
    area = roc_auc_score(np.r_[np.zeros(len(known)), np.ones(len(unknown))], np.r_[known, unknown])
    return float(area), float((unknown > limit_of(known, 0.01).above).mean())


class Pictures:
    """Features of any split by one backbone."""

    def __init__(self, backbone: Backbone, preprocessing: Preprocessing) -> None:
        self.backbone, self.preprocessing = backbone, preprocessing
        self.context = Context.on("cpu", Screen())

    def of(self, looked: Survey, split: Split) -> Features:
        """(N, D) float32, kept in the cache."""
        return features_of(self.backbone, split, [View(self.preprocessing)], looked.sha256, self.context)[0]

    def test_of(self, data: Path, most: int) -> Features:
        """Of the test images of a dataset, or of all where it has no splits."""
        looked = survey(find_dataset(data), progress=Screen())
        splits = looked.dataset.splits
        split = splits[TEST] if TEST in splits else next(iter(splits.values()))
        return self.of(looked, split.take(evenly_spaced(len(split), most)))


def compared(
    train: Features, labels: np.ndarray, test: Features, unknown: dict[str, Features], fits: dict[str, Fit]
) -> dict[str, dict[str, tuple[float, float]]]:
    """For each score and each kind of unknown images, what `judged` finds."""
    rows: dict[str, dict[str, tuple[float, float]]] = {}
    for name, fit in fits.items():
        score = fit(train, labels)
        known = score(test)
        rows[name] = {kind: judged(known, score(features)) for kind, features in unknown.items()}
        print(name, {kind: tuple(round(x, 3) for x in pair) for kind, pair in rows[name].items()}, flush=True)
    return rows


def own_limit(train: Features, keys: Sequence[str], test: Features, unknown: dict[str, Features]) -> dict[str, Any]:
    """The chosen score at the limit that `fit` gives it: false alarms on test images, and the unknown ones found."""
    import torch

    fitted, limit = fit_unfamiliarity(train[evenly_spaced(len(train), 1000)], keys, 0.01)

    def above(features: Features) -> float:
        return float((fitted.of(fitted.similarity(torch.from_numpy(features))).numpy() > limit.above).mean())

    found = {kind: above(features) for kind, features in unknown.items()}
    return {"limit": limit.sentence(), "false_alarms": above(test), "found": found}


def mean_of(tables: Sequence[dict[str, dict[str, tuple[float, float]]]]) -> dict[str, dict[str, tuple[float, float]]]:
    """The mean over draws, figure by figure."""
    return {
        name: {kind: tuple(np.mean([one[name][kind] for one in tables], axis=0).tolist()) for kind in tables[0][name]}
        for name in tables[0]
    }


def printed(title: str, rows: dict[str, dict[str, tuple[float, float]]]) -> None:
    kinds = list(next(iter(rows.values())))
    print(f"\n{title}: area under the ROC curve, share found at 1% false alarms")
    cells = [[name, *(f"{row[k][0]:.3f} {row[k][1]:.0%}" for k in kinds)] for name, row in rows.items()]
    print(text_table(["score", *kinds], cells), flush=True)


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("hotdog", type=Path)
    ask.add_argument("mri", type=Path)
    ask.add_argument("work", type=Path)
    ask.add_argument("--run", type=Path)
    ask.add_argument("--left-out", type=int, default=5)
    ask.add_argument("--draws", type=int, default=3)
    ask.add_argument("--image-size", type=int, default=224)
    asked = ask.parse_args()
    work = asked.work
    if asked.run is None:
        source = load_source()
        target = make_target(source, ("hotdog", "not-hotdog"), seed=0)
        how = book_preprocessing(asked.image_size, source.data_config.mean, source.data_config.std, None)
        pictures = Pictures(Backbone.of(target), how)
    else:
        model = Classifier.load(asked.run, device="cpu")
        pictures = Pictures(Backbone(model.network, model.heads, model.source), model.preprocessing)
    if not (work / "drawn").exists():
        draw_hotdogs(work / "drawn", train=1, test=DRAWN, progress=Screen())
    unknown = {
        "scans": pictures.test_of(asked.mri, SCANS),
        "drawn": pictures.test_of(work / "drawn", 10**6),
        "noise": pictures.test_of(made(work / "noise", noise, NOISES), 10**6),
        "text": pictures.test_of(made(work / "text", page, PAGES), 10**6),
    }
    looked = survey(find_dataset(asked.hotdog), progress=Screen())
    train, test = looked.dataset.splits[TRAIN], looked.dataset.splits[TEST]
    features, judged_on = pictures.of(looked, train), pictures.of(looked, test)
    command = "python benchmarks/unknown.py HOTDOG MRI WORK" + " --run RUN" * (asked.run is not None)
    record: dict[str, Any] = {"command": command, "neighbours": NEIGHBOURS}
    record["photographs"] = compared(features, train.labels, judged_on, unknown, FITS)
    printed(f"{len(train)} photographs", record["photographs"])
    some = evenly_spaced(len(train), 1000)
    keys = [looked.sha256[train.paths[i]] for i in some]
    record["own_limit"] = own_limit(features, keys, judged_on, unknown)
    print(record["own_limit"])
    if asked.run is None:
        few = []
        for draw in range(asked.draws):
            rng = rng_for(draw, "unknown/few")
            rows = [rng.permutation(np.flatnonzero(train.labels == k))[:FEW] for k in np.unique(train.labels)]
            positions = np.concatenate(rows)
            few.append(compared(features[positions], train.labels[positions], judged_on, unknown, FITS))
        record["few"] = mean_of(few)
        printed(f"{FEW} photographs a class, mean of {asked.draws} draws", record["few"])
        record["left_out"] = left_out(pictures, work, asked.left_out)
        printed(f"40 drawn classes but one, mean of {asked.left_out}", record["left_out"])
    write_results("unknown" if asked.run is None else "unknown_tuned", record)


def left_out(pictures: Pictures, work: Path, count: int) -> dict[str, dict[str, tuple[float, float]]]:
    """One class at a time is left out of training, and its test images are the unknown ones."""
    looked = survey(find_dataset(draw_dataset(work / "shapes")), progress=Screen())
    train, test = looked.dataset.splits[TRAIN], looked.dataset.splits[TEST]
    features, judged_on = pictures.of(looked, train), pictures.of(looked, test)
    tables = []
    for k in evenly_spaced(len(looked.dataset.classes), count):
        learned, known = train.labels != k, test.labels != k
        labels = train.labels[learned]
        labels = np.searchsorted(np.unique(labels), labels)
        tables.append(compared(features[learned], labels, judged_on[known], {"left out": judged_on[~known]}, FITS))
    return mean_of(tables)


if __name__ == "__main__":
    main()

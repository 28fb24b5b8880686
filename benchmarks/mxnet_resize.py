"""What it changes that MXNet scales pictures without smoothing: pixels, and the answers of a trained model.

    MX/bin/python benchmarks/mxnet_resize.py prepare PICTURES WORK     # MXNet 1.9.1, in an environment of its own
    python benchmarks/mxnet_resize.py compare PICTURES WORK RUN        # relish's environment

PICTURES holds a folder for each class, such as hotdog/test; RUN is a finished run on these classes. `prepare` does to
every picture what the book's MXNet tab does to a test picture: decode, scale both sides to 256, crop 224 in the middle,
by MXNet itself. `compare` prints how far relish's pixels are from those, and what the model says of either.

tests/fixtures/gluon/make_fixtures.py says how to make MXNet's environment.
"""

import argparse
from pathlib import Path

import numpy as np

DECODED = 50
"""Pictures whose decoded pixels are kept too, to tell the decoder's share of the difference."""


def listed(pictures: Path) -> list[Path]:
    """Every picture, in the same order in both environments."""
    return sorted(path for path in pictures.glob("*/*") if path.is_file())


def prepare(pictures: Path, work: Path) -> None:
    """Write MXNet's test pictures, (N, 224, 224, 3) uint8, and a few decoded ones."""
    import mxnet as mx
    from mxnet.gluon.data.vision import transforms

    how = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])
    work.mkdir(parents=True, exist_ok=True)
    ready = []
    for number, path in enumerate(listed(pictures)):
        decoded = mx.image.imread(str(path))
        ready.append(how(decoded).asnumpy())
        if number < DECODED:
            np.save(work / f"decoded-{number}.npy", decoded.asnumpy())
    np.save(work / "mxnet.npy", np.stack(ready))
    print(f"{len(ready)} pictures")


def compare(pictures: Path, work: Path, run: Path) -> None:
    """Print the differences of the pixels, and how often the model is right on either."""
    import torch
    from PIL import Image

    from relish.data.image import open_image
    from relish.data.transforms import book_preprocessing, evaluation_transform
    from relish.evaluation.inference import batch_logits
    from relish.evaluation.metrics import score
    from relish.evaluation.prediction import softmax
    from relish.evaluation.significance import mcnemar
    from relish.models.saved_model import load_model

    torch.set_grad_enabled(False)
    paths, theirs = listed(pictures), np.load(work / "mxnet.npy", mmap_mode="r")
    network, description, _ = load_model(run / "model.safetensors")
    how = book_preprocessing(224, description.data_config.mean, description.data_config.std)
    classes = tuple(description.labels or ())
    truth = np.array([classes.index(path.parent.name) for path in paths])
    off, filter_alone, decoder_alone, found = [], [], [], {"relish": [], "MXNet": []}
    for start in range(0, len(paths), 32):
        ours = torch.stack([evaluation_transform(open_image(path), how) for path in paths[start : start + 32]])
        other = torch.from_numpy(theirs[start : start + 32].copy()).permute(0, 3, 1, 2).contiguous()
        off += (ours.float() - other.float()).abs().mean((1, 2, 3)).tolist()
        found["relish"].append(softmax(batch_logits(network, ours, how)))
        found["MXNet"].append(softmax(batch_logits(network, other, how)))
    for number, path in enumerate(paths[:DECODED]):
        decoded = np.load(work / f"decoded-{number}.npy")
        mine = np.asarray(open_image(path))
        decoder_alone.append(np.abs(mine.astype(float) - decoded).mean() if mine.shape == decoded.shape else np.nan)
        scaled = evaluation_transform(Image.fromarray(decoded), how).permute(1, 2, 0).numpy()
        filter_alone.append(np.abs(scaled.astype(float) - theirs[number]).mean())
    print(f"mean absolute difference of {len(off)} pictures: {np.mean(off):.2f} of 255 (largest {max(off):.2f})")
    decoding, scaling = np.nanmean(decoder_alone), np.mean(filter_alone)
    print(f"of the first {DECODED}: decoder alone {decoding:.2f}, scaling alone {scaling:.2f}")
    said = {name: np.concatenate(rows) for name, rows in found.items()}
    for name, rows in said.items():
        print(f"accuracy on {name}'s pixels: {score(rows, truth, classes).sentence()}")
    right = [rows.argmax(1) == truth for rows in said.values()]
    print(f"the class said changes for {(said['relish'].argmax(1) != said['MXNet'].argmax(1)).sum()} pictures")
    print(mcnemar(*right).sentence("relish's", "MXNet's"))


def main() -> None:
    """Run one stage."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("stage", choices=("prepare", "compare"))
    ask.add_argument("pictures", type=Path)
    ask.add_argument("work", type=Path)
    ask.add_argument("run", type=Path, nargs="?")
    asked = ask.parse_args()
    if asked.stage == "prepare":
        prepare(asked.pictures, asked.work)
    else:
        compare(asked.pictures, asked.work, asked.run)


if __name__ == "__main__":
    main()

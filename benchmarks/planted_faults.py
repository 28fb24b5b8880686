"""How many planted faults `relish check` finds among real photographs, and how many labels it doubts beside them.

    python benchmarks/planted_faults.py PICTURES WORK [--seeds 0 1 2]

PICTURES holds `train/` and `test/` of class folders; it is only read. For each seed WORK gets a copy (hard links where
the disk allows them) with 40 faults: 10 exact duplicates across splits (5 of them saved anew without loss), 10 near
duplicates across splits (recompressed, shrunk, cropped, cropped and shrunk, mirrored; 2 each), 10 training pictures
moved to another class, 5 files cut short, 3 blank pictures and 2 of nothing (noise; a page of text). The command is run
as a user runs it, in a process of its own. The first seed starts without remembered features, the others find those of
the pictures they share.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from measuring import finish

Chance = np.random.Generator
KINDS = {
    "exact duplicate": ("exact-duplicate", "near-duplicate"),
    "near duplicate": ("exact-duplicate", "near-duplicate"),
    "wrong label": ("wrong-label",),
    "cut short": ("unreadable",),
    "blank or off-topic": ("blank", "off-topic"),
}


def copy(pictures: Path, root: Path) -> dict[str, list[Path]]:
    """A copy of the dataset; the files of each `split/class`."""
    found: dict[str, list[Path]] = {}
    for file in sorted(p for p in pictures.glob("*/*/*") if p.is_file()):
        target = root / file.relative_to(pictures)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(file, target)
        except OSError:
            shutil.copy(file, target)
        found.setdefault(str(target.parent.relative_to(root)), []).append(target)
    return found


def recompressed(picture: Image.Image, target: Path) -> None:
    picture.save(target, quality=45)


def smaller(picture: Image.Image, target: Path) -> None:
    picture.resize((picture.width * 3 // 5, picture.height * 3 // 5)).save(target, quality=80)


def cropped(picture: Image.Image, target: Path) -> None:
    w, h = picture.size
    picture.crop((w // 12, h // 10, w - w // 14, h - h // 16)).save(target, quality=85)


def cropped_and_smaller(picture: Image.Image, target: Path) -> None:
    w, h = picture.size
    picture.crop((w // 10, 0, w, h - h // 8)).resize((w * 7 // 10, h * 7 // 10)).save(target, quality=75)


def mirrored(picture: Image.Image, target: Path) -> None:
    picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(target, quality=80)


NEAR: tuple[Callable[[Image.Image, Path], None], ...] = (recompressed, smaller, cropped, cropped_and_smaller, mirrored)


def plant(root: Path, found: dict[str, list[Path]], chance: Chance) -> list[dict[str, Any]]:
    """Put the faults in: of each its kind and the names that a finding has to hold."""
    train = [file for place, files in found.items() if place.startswith("train/") for file in files]
    chosen = [train[i] for i in chance.permutation(len(train))[:40]]
    faults: list[dict[str, Any]] = []

    def planted(kind: str, *files: Path, how: str = "") -> None:
        faults.append({"kind": kind, "names": [str(f.relative_to(root)) for f in files], "how": how})

    for number, file in enumerate(chosen[:20]):
        target = root / "test" / file.parent.name / f"planted-{number:02}.{'png' if number in range(5, 10) else 'jpg'}"
        with Image.open(file) as opened:
            picture = opened.convert("RGB")
        if number < 5:
            shutil.copy(file, target)
        elif number < 10:
            picture.save(target)
        else:
            NEAR[number % 5](picture, target)
        how = NEAR[number % 5].__name__ if number >= 10 else ""
        planted("exact duplicate" if number < 10 else "near duplicate", file, target, how=how)
    classes = sorted({file.parent.name for file in train})
    for number, file in enumerate(chosen[20:30]):
        other = next(name for name in classes if name != file.parent.name)
        target = root / "train" / other / f"moved-{number:02}{file.suffix}"
        file.rename(target)
        planted("wrong label", target)
    for file in chosen[30:35]:
        content = file.read_bytes()
        file.unlink()
        file.write_bytes(content[: len(content) // 2])
        planted("cut short", file)
    for number, picture in enumerate(nothing_to_see(chance)):
        target = root / "train" / classes[number % len(classes)] / f"nothing-{number}.jpg"
        picture.save(target, quality=90)
        planted("blank or off-topic", target)
    return faults


def nothing_to_see(chance: Chance) -> list[Image.Image]:
    """White, nearly one grey, black; noise, and a page of text."""
    page = Image.new("RGB", (320, 240), "white")
    pen = ImageDraw.Draw(page)
    for line in range(14):
        words = " ".join("".join(chance.choice(list("aeinorstu"), size=5)) for _ in range(8))
        pen.text((12, 10 + 16 * line), words, fill="black")
    grey = chance.normal(140, 2, (240, 320, 1)).repeat(3, 2)
    noise = chance.integers(0, 256, (240, 320, 3))
    return [
        Image.new("RGB", (320, 240), "white"),
        Image.fromarray(grey.clip(0, 255).astype(np.uint8)),
        Image.new("RGB", (240, 320), "black"),
        Image.fromarray(noise.astype(np.uint8)),
        page,
    ]


def check(root: Path) -> tuple[dict[str, Any], float]:
    """The document of `relish check --json`, and the seconds it took."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "relish", "check", str(root), "--json"], stdout=subprocess.PIPE, check=True
    )
    return json.loads(done.stdout), time.perf_counter() - began


def is_found(fault: dict[str, Any], findings: list[dict[str, Any]]) -> bool:
    return any(f["kind"] in KINDS[fault["kind"]] and set(fault["names"]) <= set(f["paths"]) for f in findings)


def judge(faults: list[dict[str, Any]], findings: list[dict[str, Any]]) -> dict[str, Any]:
    """What was found of what was planted, and what beside it."""
    planted = {name for fault in faults for name in fault["names"]}
    doubled = ("exact-duplicate", "near-duplicate")
    beside = [f for f in findings if not set(f["paths"]) & planted]
    return {
        "found": sum(is_found(fault, findings) for fault in faults),
        "planted": len(faults),
        "by_kind": {kind: sum(is_found(f, findings) for f in faults if f["kind"] == kind) for kind in KINDS},
        "missed": [fault for fault in faults if not is_found(fault, findings)],
        "further_wrong_labels": sum(f["kind"] == "wrong-label" for f in beside),
        "native_duplicates": [f["paths"] for f in beside if f["kind"] in doubled],
        "further_off_topic": sum(len(f["paths"]) for f in findings if f["kind"] == "off-topic"),
    }


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("pictures", type=Path)
    ask.add_argument("work", type=Path)
    ask.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    asked = ask.parse_args()
    os.environ.setdefault("RELISH_HOME", str(asked.work / "home"))
    rounds = []
    for seed in asked.seeds:
        root = asked.work / f"seed-{seed}"
        shutil.rmtree(root, ignore_errors=True)
        faults = plant(root, copy(asked.pictures, root), np.random.default_rng(seed))
        document, seconds = check(root)
        (asked.work / f"seed-{seed}.json").write_text(json.dumps(document, indent=1))
        rounds.append({"seed": seed, **judge(faults, document["findings"]), "seconds": seconds})
        print(json.dumps(rounds[-1]), flush=True)
    table = [["seed", "found of 40", "labels doubted beside them", "native duplicates", "seconds"]]
    table += [
        [str(r["seed"]), str(r["found"]), str(r["further_wrong_labels"]), str(len(r["native_duplicates"])),
         f"{r['seconds']:.0f}"]
        for r in rounds
    ]  # fmt: skip
    finish(
        "planted_faults", "python benchmarks/planted_faults.py PICTURES WORK", rounds, table,
        least_found=min(r["found"] for r in rounds),
        median_seconds=statistics.median(r["seconds"] for r in rounds),
    )  # fmt: skip


if __name__ == "__main__":
    main()

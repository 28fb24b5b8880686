"""Run the README's commands for real: fill in what they print, and make its pictures anew.

In:   README.md. A console block under the line `<!-- printed by docs/make_images.py -->` gives the commands.
Out:  the same file with what each command printed below it, the same blocks in its translation, README.id.md, and
      the pictures of docs/images/.
Not here: checking that the commands work (`tests/test_docs.py`, on a handful of pictures).

    python docs/make_images.py WORK
    python docs/make_images.py --translations

WORK is a folder to run in, made if it does not exist. What ran there before is not run again, so a stop costs nothing.
With `--translations` nothing runs: the README's blocks are put into its translation as they are.
Pages are photographed by Chromium; without it those pictures stay as they are.
"""

import argparse
import hashlib
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

from PIL import Image

from relish.data.drawn.datasets import draw_hotdogs

DOCS = Path(__file__).resolve().parent
README = DOCS.parent / "README.md"
TRANSLATION = DOCS.parent / "README.id.md"
BLOCK = re.compile(r"(<!-- printed by docs/make_images.py -->\n```console\n)(.*?)(```)", re.DOTALL)

PICTURES = {
    "check.png": "check.png",
    "show.png": "pictures.png",
    "augmented.png": "augmented.png",
    "curves.svg": "runs/photos-auto-1/curves.svg",
    "compare.svg": "relish-demo/runs/pictures-compare-1/curves.svg",
    "sweep.svg": "runs/photos-sweep-1/sweep.svg",
    "predictions.png": "predictions.png",
    "report.png": "report.png",
    "report-narrow.png": "report-narrow.png",
    "serve.png": "serve.png",
    "teach.png": "teach.png",
    "teach-phone.png": "teach-phone.png",
}
"""What the documents show, and where the commands leave it."""
REPORTED = "relish-demo/runs/pictures-book-1"
"""The run whose report is shown: its pictures are drawn, and two others lie beside it."""
PHONE, NARROWEST = 390, 500
"""In pixels: a phone's screen, and the narrowest window of Chromium."""
WIDEST = 1000
"""In pixels: what a page shows without shrinking it."""


def main() -> None:
    """Fill the README and its translation in, then make their pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("work", type=Path, nargs="?", help="folder to run in")
    what.add_argument("--translations", action="store_true", help="only copy the README's blocks")
    given = parser.parse_args()
    if given.work:
        make_anew(given.work.resolve())
    else:
        copy_blocks(README, TRANSLATION)


def make_anew(work: Path) -> None:
    """Run the commands in a folder; put what they print into the documents, and the pictures beside them."""
    work.mkdir(parents=True, exist_ok=True)
    text = README.read_text(encoding="utf-8")
    README.write_text(BLOCK.sub(lambda m: m[1] + printed(m[2], work) + m[3], text), encoding="utf-8")
    copy_blocks(README, TRANSLATION)
    photograph(work / "relish-demo" / "predictions.html", work / "predictions.png")
    run(f"relish report {REPORTED}", work)
    report = work / REPORTED / "report.html"
    photograph(report, work / "report.png", 1100, 1500)
    photograph(in_a_frame(report, work / "narrow.html"), work / "report-narrow.png", PHONE, 1500)
    photograph(page_of_findings(work / "faults"), work / "check.png")
    photograph_serving(work / "runs" / "photos-auto-1", work / "photos" / "test", work / "serve.png")
    photograph_teaching(work / "photos" / "train", work)
    for name, made in PICTURES.items():
        if (work / made).is_file():
            (shutil.copy if name.endswith(".svg") else shrink)(work / made, DOCS / "images" / name)


def copy_blocks(source: Path, target: Path) -> None:
    """Put the printed blocks of one document into another one that has as many, in their order."""
    filled = [block[0] for block in BLOCK.finditer(source.read_text(encoding="utf-8"))]
    text = target.read_text(encoding="utf-8")
    if (has := len(BLOCK.findall(text))) != len(filled):
        sys.exit(f"{target.name} has {has} printed blocks, {source.name} {len(filled)}: translate what is new first.")
    following = iter(filled)
    target.write_text(BLOCK.sub(lambda _: next(following), text), encoding="utf-8")


def printed(block: str, work: Path) -> str:
    """The block's commands, each with what it prints."""
    commands = [line[2:] for line in block.splitlines() if line.startswith("$ ")]
    return "".join(f"$ {command}\n{abridged(run(command, work))}" for command in commands)


def abridged(text: str) -> str:
    """Without the epochs of every run but the first: a sweep has many."""
    kept, runs = [], 0
    for line in text.splitlines(keepends=True):
        runs += line.startswith("training ")
        if runs < 2 or not line.startswith("epoch "):
            kept.append(line)
    return "".join(kept)


def run(command: str, work: Path) -> str:
    """What a command prints on both streams; remembered, so that it runs once in a folder."""
    kept = work / ".printed" / hashlib.sha256(command.encode()).hexdigest()[:16]
    if not kept.is_file():
        print(f"$ {command}", flush=True)
        done = subprocess.run(  # noqa: S602 - the commands are the README's own
            command, shell=True, cwd=work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        print(done.stdout, flush=True)
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(done.stdout, encoding="utf-8")
    return kept.read_text(encoding="utf-8")


def photograph(page: Path, picture: Path, width: int = 1000, height: int = 1100) -> None:
    """The top of a page, as a browser shows it."""
    if browser := chromium():
        window = f"--window-size={max(width, NARROWEST)},{height}"
        command = [browser, "--headless", "--no-sandbox", "--hide-scrollbars", window]
        subprocess.run([*command, f"--screenshot={picture}", page.as_uri()], check=True, capture_output=True)
        with Image.open(picture) as taken:
            taken.crop((0, 0, width, height)).save(picture)


def in_a_frame(page: Path, around: Path) -> Path:
    """A page that shows another one as a phone would: a browser's own window does not become as narrow."""
    style = f"border:0;width:{PHONE}px;height:100vh"
    around.write_text(f'<body style="margin:0"><iframe src="{page.as_uri()}" style="{style}"></iframe>', "utf-8")
    return around


def page_of_findings(folder: Path) -> Path:
    """What `relish check --html` says of drawn pictures with a copy in the test, a wrong label and a blank one."""
    shutil.rmtree(folder, ignore_errors=True)
    photos = draw_hotdogs(folder / "photos", train=41, test=12)
    shutil.copy(photos / "train/hotdog/003.jpg", photos / "test/hotdog/copy.jpg")
    with Image.open(photos / "train/not-hotdog/007.jpg") as picture:
        width, height = picture.size
        cropped = picture.crop((width // 12, height // 10, width, height)).resize((width // 2, height // 2))
        cropped.save(photos / "test/not-hotdog/crop.jpg", quality=70)
    (photos / "train/hotdog/040.jpg").rename(photos / "train/not-hotdog/moved.jpg")
    Image.new("RGB", (320, 240), (236, 234, 228)).save(photos / "train/hotdog/blank.jpg")
    subprocess.run(
        [sys.executable, "-m", "relish", "check", "photos", "--html", "check.html"], cwd=folder, check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return folder / "check.html"


@contextmanager
def browsing(command: str, **context: Any) -> Iterator[Any]:
    """A browser's page on a server that a command starts, opened at the address that it prints."""
    from playwright.sync_api import sync_playwright

    words = [sys.executable, "-m", "relish", *shlex.split(command), "--port", "0"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as server, sync_playwright() as playwright:
        try:
            lines = iter(server.stderr or [])
            address = next(found[1] for line in lines if (found := re.search(r"page\s+(http\S+)", line)))
            Thread(target=list, args=(lines,), daemon=True).start()  # it waits where nobody reads what it logs
            browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
            page = browser.new_page(**context)
            page.goto(address)
            yield page
        finally:
            server.terminate()


def chromium() -> str | None:
    """Where it is; None: it is not installed."""
    return shutil.which("chromium") or shutil.which("google-chrome")


def photograph_serving(run: Path, pictures: Path, picture: Path) -> None:
    """The page of a server, with a few drawn pictures."""
    if not (chromium() and run.is_dir()):
        return
    with browsing(shlex.join(["serve", str(run)]), viewport={"width": 1000, "height": 1040}) as page:
        for chosen in ("not-hotdog/003.jpg", "hotdog/002.jpg", "not-hotdog/001.jpg", "hotdog/000.jpg"):
            page.locator("#file").set_input_files(pictures / chosen)
            page.locator("#said").filter(has_text=f"{Path(chosen).name}: ").wait_for()
        page.wait_for_load_state("networkidle")
        page.screenshot(path=picture)


def photograph_teaching(pictures: Path, work: Path) -> None:
    """The page of `relish teach` on a folder with two wrong labels, on a desk and on a telephone."""
    if not (chromium() and pictures.is_dir()):
        return
    folder = work / "lunch"
    for name, other in (("hotdog", "not-hotdog"), ("not-hotdog", "hotdog")):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for path in sorted((pictures / name).iterdir())[:40]:
            shutil.copy(path, folder / name)
        shutil.copy(sorted((pictures / other).iterdir())[50], folder / name / "astray.jpg")
    with browsing(shlex.join(["teach", str(folder)]), viewport={"width": 1440, "height": 900}) as page:
        page.set_default_timeout(300_000)
        page.locator("#card:visible").wait_for()
        page.locator("#trial-file").set_input_files(sorted((pictures / "hotdog").iterdir())[60])
        page.locator(".answer").wait_for()
        page.locator("#learning").wait_for(state="hidden")
        page.screenshot(path=work / "teach.png")
        page.set_viewport_size({"width": PHONE, "height": 844})
        page.locator("#tabs a").nth(1).click()
        page.screenshot(path=work / "teach-phone.png")


def shrink(made: Path, target: Path) -> None:
    """A copy no wider than `WIDEST`, in a palette where that makes it smaller."""
    with Image.open(made) as picture:
        plain = picture.convert("RGB")
    if plain.width > WIDEST:
        plain = plain.resize((WIDEST, round(plain.height * WIDEST / plain.width)), Image.Resampling.LANCZOS)
    plain.quantize(256).save(target, optimize=True)
    print(f"{target}: {plain.width} x {plain.height}, {target.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()

"""Run the README's commands for real: fill in what they print, and make its pictures anew.

In:   README.md. A console block under the line `<!-- printed by docs/make_images.py -->` gives the commands.
Out:  the same file with what each command printed below it, and the pictures of docs/images/.
Not here: checking that the commands work (`tests/test_docs.py`, on a handful of pictures).

    python docs/make_images.py WORK

WORK is a folder to run in, made if it does not exist. What ran there before is not run again, so a stop costs nothing.
Pages are photographed by Chromium; without it those pictures stay as they are.
"""

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image

DOCS = Path(__file__).resolve().parent
README = DOCS.parent / "README.md"
BLOCK = re.compile(r"(<!-- printed by docs/make_images.py -->\n```console\n)(.*?)(```)", re.DOTALL)

PICTURES = {
    "show.png": "pictures.png",
    "augmented.png": "augmented.png",
    "curves.png": "runs/photos-auto-1/curves.png",
    "compare.png": "relish-demo/runs/pictures-compare-1/curves.png",
    "sweep.png": "runs/photos-sweep-1/sweep.png",
    "predictions.png": "predictions.png",
    "serve.png": "serve.png",
}
"""What the documents show, and where the commands leave it."""
WIDEST = 1000
"""In pixels: what a page shows without shrinking it."""


def main() -> None:
    """Fill the README in, then make its pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    work = parser.parse_args().work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    text = README.read_text(encoding="utf-8")
    README.write_text(BLOCK.sub(lambda m: m[1] + printed(m[2], work) + m[3], text), encoding="utf-8")
    photograph(work / "relish-demo" / "predictions.html", work / "predictions.png")
    photograph_serving(work / "runs" / "photos-auto-1", work / "photos" / "test", work / "serve.png")
    for name, made in PICTURES.items():
        if (work / made).is_file():
            shrink(work / made, DOCS / "images" / name)


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


def photograph(page: Path, picture: Path) -> None:
    """The top of a page, as a browser shows it."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser:
        command = [browser, "--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=1000,1100"]
        subprocess.run([*command, f"--screenshot={picture}", page.as_uri()], check=True, capture_output=True)


def photograph_serving(run: Path, pictures: Path, picture: Path) -> None:
    """The page of a server, with a few drawn pictures."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not (browser and run.is_dir()):
        return
    from playwright.sync_api import sync_playwright

    command = [sys.executable, "-m", "relish", "serve", str(run), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server, sync_playwright() as playwright:
        try:
            lines = iter(server.stderr or [])
            address = next(found[1] for line in lines if (found := re.search(r"page\s+(http\S+)", line)))
            page = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"]).new_page(
                viewport={"width": 1000, "height": 1040}
            )
            page.goto(address)
            for chosen in ("not-hotdog/003.jpg", "hotdog/002.jpg", "not-hotdog/001.jpg", "hotdog/000.jpg"):
                page.locator("#file").set_input_files(pictures / chosen)
                page.locator("#said").filter(has_text=f"{Path(chosen).name}: ").wait_for()
            page.wait_for_load_state("networkidle")
            page.screenshot(path=picture)
        finally:
            server.terminate()


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

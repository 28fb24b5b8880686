"""Making better in a process of its own, and taking the model away."""

import io
import json
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image, ImageCms

from relish.evaluation.held_out import HeldOut
from relish.exporting.onnx_classifier import OnnxClassifier
from relish.exporting.web_page import has_web_runtime, write_web_page
from relish.teaching import takeaway
from relish.teaching.app import create_app
from relish.teaching.better import Work
from relish.teaching.session import Session
from tests.browser import watched_page
from tests.conftest import COLOURS
from tests.exporting.test_web_page import RUNTIME
from tests.processes import COMMAND, started
from tests.teaching.test_app import LIMITS, TOKEN, Page, learned, page

__all__ = ["page"]


def test_a_run_is_set_beside_the_probe_on_the_same_images(page: Page):
    """The run's logits are made up: it errs on two images of ten."""
    learned(page)
    session, folder = page.session, page.folder / ".relish" / "runs" / "better-1"
    solved = session.learner.solved
    assert solved is not None
    rows = range(10)
    contents = tuple(solved.examples.contents[row] for row in rows)
    labels = solved.examples.labels[:10]
    logits = np.eye(2, dtype=np.float32)[labels]
    logits[:2] = logits[:2, ::-1]
    folder.mkdir(parents=True)
    (folder / "request.json").write_text(json.dumps({"identity": "x"}))
    (folder / "recipe.yaml").write_text("name: auto\n")
    (folder / "classes.json").write_text(json.dumps(solved.examples.classes))
    (folder / "evaluation.json").write_text("{}")
    HeldOut(labels, logits, contents).save(folder / "held_out.npz")
    session.better.run, session.better._phase = folder, "done"
    outcome = page.get("state")["better"]["outcome"]
    assert (outcome["probe"]["right"], outcome["run"]["right"], outcome["probe"]["of"]) == (10, 8, 10)
    assert (outcome["only_probe"], outcome["only_run"], outcome["verdict"]) == (2, 0, "no_difference")


def test_nothing_is_made_better_or_taken_away_before_there_is_a_model(page: Page):
    for path, body in (("better/start", {"minutes": 1}), ("export", {"kind": "run"}), ("better/stop", {})):
        assert page.client.post(f"/api/{path}", json=body).status_code == 409
    assert page.client.post("/api/better/start", json={"minutes": 0.1}).status_code == 422
    assert page.client.get("/api/download/..%2f..%2fcat").status_code == 404
    assert page.client.get("/api/download/none.zip").status_code == 404


@pytest.mark.slow
def test_making_better_starts_stops_and_goes_on_after_a_restart(page: Page, tiny_source: Path):
    learned(page)
    page.post("better/start", minutes=1)
    assert page.client.post("/api/better/start", json={"minutes": 1}).status_code == 409
    page.until(lambda state: (page.folder / ".relish/runs/better-1/request.json").is_file())
    page.post("better/stop")
    state = page.until(lambda state: state["better"]["phase"] in ("stopped", "done"))
    page.session.close()
    again = Session(page.folder, weights=tiny_source)
    assert again.better.state()["phase"] == state["better"]["phase"]
    again.close()


class InFork(Work):
    """A command in a forked process, without the seconds that loading takes; it says its lines when it has ended."""

    def __init__(self, words: Sequence[str], line: Callable[[str], None], ended: Callable[[int], None]) -> None:
        process = started(COMMAND, *words)

        def follow() -> None:
            _, said = process.communicate()
            for one in said.splitlines():
                line(one)
            ended(process.returncode)

        threading.Thread(target=follow, daemon=True).start()


class Pretended(Work):
    """A command that does nothing but write the files that show that it was done."""

    def __init__(self, words: Sequence[str], line: Callable[[str], None], ended: Callable[[int], None]) -> None:
        if words[0] == "fit":
            run = Path(words[list(words).index("--out") + 1])
            run.mkdir(parents=True)
            (run / "evaluation.json").write_text("{}")
        else:
            (Path(words[1]) / "report.html").write_text("")
        ended(0)


def test_what_is_taken_away_is_of_the_images_as_they_are_now_also_after_a_restart(
    page: Page, tiny_source: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(takeaway, "Work", Pretended)
    runs = page.folder / ".relish" / "runs"

    def taken_from(opened: Page) -> set[str]:
        learned(opened)
        opened.post("export", kind="run")
        opened.until(lambda state: _export(state, "run")["phase"] == "ready")
        return {path.name for path in runs.iterdir()}

    first = taken_from(page)
    assert taken_from(page) == first  # nothing has changed
    page.session.close()
    (page.folder / "red" / "red-0.png").rename(page.folder / "blue" / "astray.png")
    session = Session(page.folder, weights=tiny_source)
    with TestClient(create_app(session, LIMITS, TOKEN), base_url="http://127.0.0.1") as client:
        client.headers["x-relish-token"] = TOKEN
        second = taken_from(Page(client, session))
    assert first < second


@pytest.fixture(scope="module")
def taken(home_of_module: None, tiny_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A page whose model was taken away in every way: also as a web page, where there is onnxruntime-web."""
    kinds = ["run", "onnx", *(["web"] if has_web_runtime(RUNTIME) else [])]
    session = Session(tmp_path_factory.mktemp("taken") / "colours", weights=tiny_source)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(takeaway, "Work", InFork)
        patch.setattr(takeaway, "KINDS", kinds)
        patch.setattr(takeaway, "write_web_page", partial(write_web_page, runtime=RUNTIME))
        with TestClient(create_app(session, LIMITS, TOKEN), base_url="http://127.0.0.1") as client:
            client.headers["x-relish-token"] = TOKEN
            page = Page(client, session)
            learned(page)
            for kind in kinds:
                page.post("export", kind=kind)
                page.until(lambda state, kind=kind: _export(state, kind)["phase"] != "making")
            yield page


def taken_away(page: Page, kind: str) -> zipfile.ZipFile:
    """What was taken away, downloaded."""
    export = _export(page.get("state"), kind)
    assert export["phase"] == "ready", export["reason"]
    answer = page.client.get(f"/{export['url']}")
    assert len(answer.content) == export["bytes"]
    return zipfile.ZipFile(io.BytesIO(answer.content))


@pytest.mark.slow
def test_the_run_folder_and_the_onnx_file_are_taken_away(taken: Page):
    assert {"colours/model.safetensors", "colours/report.html"} <= set(taken_away(taken, "run").namelist())
    assert {"colours.onnx", "report.html"} <= set(taken_away(taken, "onnx").namelist())
    proof = _export(taken.get("state"), "onnx")["certificate"]
    assert 0 < proof["agree"] == proof["of"]


@pytest.mark.slow
@pytest.mark.skipif(not has_web_runtime(RUNTIME), reason="needs onnxruntime-web: npm install in tests/javascript")
def test_the_web_page_taken_away_gives_each_image_the_class_and_the_probabilities_that_python_gives(
    taken: Page, tmp_path: Path
):
    """Twelve images in as many kinds of files, from wholly red to wholly blue."""
    taken_away(taken, "web").extract("colours.html", tmp_path)
    classifier = OnnxClassifier(Path(taken_away(taken, "onnx").extract("colours.onnx", tmp_path)))
    paths = odd_files(tmp_path / "images")
    wanted = {path.name: answer for path, answer in zip(paths, classifier.predict(paths), strict=True)}
    with watched_page((tmp_path / "colours.html").as_uri(), locale="en-US") as seen:
        page = seen.page
        page.locator("#file:enabled").set_input_files(paths)
        page.locator("#answers > li").nth(len(paths) - 1).wait_for()
        shown = page.locator("#answers > li").evaluate_all(SHOWN)
        assert seen.complaints == []
    assert {name for name, *_ in shown} == set(wanted)
    for name, class_name, shares in shown:
        assert class_name == wanted[name].class_name, name
        assert shares == pytest.approx(wanted[name].probabilities, abs=TOLERANCE), name
    likeliest = [max(answer.probabilities.values()) for answer in wanted.values()]
    assert {answer.class_name for answer in wanted.values()} == {"blue", "red"}
    assert np.std(likeliest) > 100 * TOLERANCE


TOLERANCE = 1e-4
"""Of a probability: the two runtimes add up in other orders."""
SHOWN = """(items) => items.map((item) => {
  const rows = [...item.querySelectorAll("ol > li")];
  const share = (row) => parseFloat(row.querySelector("i").style.width) / 100;
  const shares = rows.map((row) => [row.querySelector("bdi").textContent, share(row)]);
  return [item.querySelector("img").alt, item.querySelector(".class").textContent, Object.fromEntries(shares)];
})"""
"""Of each answer: the file, the class, the share of each class by the length of its bar, which is not rounded."""


def odd_files(folder: Path) -> list[Path]:
    """Images as people have them: turned by their Exif data, with a colour profile, see-through, grey, narrow."""
    folder.mkdir()
    sideways, profile = Image.Exif(), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    sideways[0x0112] = 6
    swapped = profile.replace(b"rXYZ", b"....").replace(b"bXYZ", b"rXYZ").replace(b"....", b"bXYZ")
    kinds: list[tuple[str, tuple[int, int], str, dict[str, object]]] = [
        ("plain.png", (40, 32), "RGB", {}),
        ("large.jpg", (900, 700), "RGB", {"quality": 80}),
        ("sideways.jpg", (300, 120), "RGB", {"exif": sideways}),
        ("profile.jpg", (60, 60), "RGB", {"icc_profile": swapped}),
        ("profile.png", (60, 60), "RGB", {"icc_profile": swapped}),
        ("clear.png", (80, 60), "RGBA", {}),
        ("photo.webp", (200, 200), "RGB", {"quality": 70}),
        ("palette.png", (64, 64), "P", {}),
        ("grey.jpg", (64, 64), "L", {}),
        ("cmyk.jpg", (64, 64), "CMYK", {}),
        ("narrow.png", (400, 9), "RGB", {}),
        ("progressive.jpg", (150, 222), "RGB", {"progressive": True}),
    ]
    red, blue = (np.array(COLOURS[name], dtype=float) for name in ("red", "blue"))
    for number, (name, (width, height), mode, options) in enumerate(kinds):
        part = number / (len(kinds) - 1)
        noise = np.random.default_rng(number).normal(0, 40, (height, width, 3))
        image = Image.fromarray((part * blue + (1 - part) * red + noise).clip(0, 255).astype(np.uint8))
        if mode == "RGBA":
            image.putalpha(Image.linear_gradient("L").resize(image.size))
        image.convert(mode).save(folder / name, **options)
    return sorted(folder.iterdir())


def _export(state: dict, kind: str) -> dict:
    return next(one for one in state["exports"] if one["kind"] == kind)

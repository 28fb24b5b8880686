"""Making better in a process of its own, and taking the model away."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from relish.evaluation.held_out import HeldOut
from relish.teaching.session import Session
from tests.teaching.test_app import Page, learned, page

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


@pytest.mark.slow
def test_the_run_folder_and_the_onnx_file_are_taken_away(page: Page):
    learned(page)
    for kind, wanted in (("run", "colours/model.safetensors"), ("onnx", "colours.onnx")):
        page.post("export", kind=kind)
        state = page.until(lambda state, kind=kind: _export(state, kind)["phase"] != "making")
        export = _export(state, kind)
        assert export["phase"] == "ready", export["reason"]
        answer = page.client.get(f"/{export['url']}")
        assert len(answer.content) == export["bytes"]
        assert wanted in zipfile.ZipFile(io.BytesIO(answer.content)).namelist()
    assert _export(state, "onnx")["certificate"]


def _export(state: dict, kind: str) -> dict:
    return next(one for one in state["exports"] if one["kind"] == kind)

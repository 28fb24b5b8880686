"""`sources`: candidates compared on the same training images, nothing computed twice, each failure named."""

import html
import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from scipy.stats import sem
from timm.models import get_pretrained_cfg

import relish
from relish.core.context import Context
from relish.core.errors import ModelError, RunError
from relish.data.sources import as_options
from relish.evaluation import features
from relish.models.candidates import (
    CANDIDATES,
    FREE_LICENCES,
    ON_REQUEST,
    candidate,
    licence_of,
    megabytes_to_fetch,
    restrictive,
)
from relish.models.hub import default_description
from relish.models.registry import hollow_network, parse_name
from relish.models.saved_model import ModelDescription, save_model
from relish.models.source import load_source
from relish.models.summary import multiply_accumulates
from relish.tasks import sources as module
from relish.tasks.prepare import Request
from relish.tasks.source_search import Search
from relish.tasks.sources import find_source
from relish.tasks.user_code import NOTHING
from relish.training.linear_probe import cross_validate
from relish.training.recipe import named_recipe
from tests.commands import refused
from tests.commands import relish as typed
from tests.conftest import SQUARE, Heard, draw, read_json, same_tensors
from tests.hub_mirror import point_hub_at

CLASSES = ("dark", "grey", "light")
EACH = 8
"""Training images of a class."""


@pytest.fixture(scope="module", autouse=True)
def _quickly():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LASTING", 0.0)
        patch.setattr(module, "cross_validate", partial(cross_validate, strengths=(0.1,)))
        yield


@pytest.fixture
def untimed(monkeypatch):
    monkeypatch.setattr(module, "forward_seconds", lambda *given, **_: {32: 0.001})
    monkeypatch.setattr(module, "step_seconds", lambda *_: 0.002)


@pytest.fixture(scope="module")
def other_source(tmp_path_factory):
    """Another network than `tiny_source`, random too."""
    source = load_source("timm/test_efficientnet", "none", seed=5)
    path = tmp_path_factory.mktemp("other") / "other.safetensors"
    description = ModelDescription(library="timm", architecture="test_efficientnet", num_classes=1000)
    save_model(path, source.network, description, {})
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Three shades of grey, too alike to be told apart every time."""
    root = tmp_path_factory.mktemp("drawn") / "greys"
    for place, name in enumerate(CLASSES):
        for number in range(EACH + 2):
            path = root / ("train" if number < EACH else "test") / name / f"{number}.png"
            draw(path, (120 + 3 * place,) * 3, 100 * place + number, SQUARE)
    return root


@pytest.fixture(scope="module")
def once(images, tiny_source, other_source, tmp_path_factory, home_of_module):
    """What came of two sources and a file that is none, what was said on the way, the runs' folder, the home."""
    runs, heard = tmp_path_factory.mktemp("runs"), Heard()
    broken = runs / "broken.safetensors"
    broken.write_bytes(b"no weights at all")
    return (
        tried(images, [tiny_source, broken, other_source], runs, progress=heard),
        heard,
        runs,
        os.environ["RELISH_HOME"],
    )


def tried(images, candidates, runs, *, group_by="none", **more):
    return relish.sources(images, candidates=candidates, image_size=32, runs=runs, group_by=group_by, **more)


def counted(monkeypatch, *, stop_after=None):
    """The images that pass through a network for their features, by batches of four; Ctrl-C after so many."""
    seen, compute = [], features._features

    def counting(backbone, preprocessing, batch):
        if stop_after is not None and sum(seen) >= stop_after:
            raise KeyboardInterrupt
        seen.append(len(batch))
        return compute(backbone, preprocessing, batch)

    monkeypatch.setattr(features, "_features", counting)
    monkeypatch.setattr(features, "images_at_once", lambda *_: 4)
    return seen


def test_the_best_comes_first_with_the_paired_difference_of_the_others(once):
    found, *_ = once
    rows = found.as_json()["sources"]
    assert len(rows) == 2
    assert [(-row["accuracy"]["correct"], row["forward_ms"]) for row in rows] == sorted(
        (-row["accuracy"]["correct"], row["forward_ms"]) for row in rows
    )
    best, other = (np.array(trial.right, dtype=float) for trial in found.trials)
    assert best.sum() >= other.sum()
    assert rows[1]["from_best"] == pytest.approx((other - best).mean())
    assert rows[1]["from_best_error"] == pytest.approx(sem(other - best))
    assert (rows[0]["from_best"], rows[0]["from_best_error"]) == (0, 0)
    assert f"{(other - best).mean():+.4f} ± {sem(other - best):.4f}" in found.table()


def test_the_command_that_comes_next_reads_the_data_alike():
    given = {"root": "my pictures", "column_names": {"path": "id", "label": "breed"}, "group_by": None}
    assert as_options(given) == " --root 'my pictures' --column-names path=id,label=breed"


def test_a_row_tells_size_and_time(once, tiny_source):
    found, *_ = once
    row = next(row for row in found.as_json()["sources"] if row["name"] == str(tiny_source))
    network = load_source(weights=tiny_source).network  # of three classes, as the images are
    assert row["parameters"] == sum(parameter.numel() for parameter in network.parameters())
    first = network.conv1
    first = first[0] if isinstance(first, torch.nn.Sequential) else first
    assert row["macs"] > 16 * 16 * first.weight.numel()
    assert row["forward_ms"] > 0
    assert row["step_ms"] > 0


def test_multiply_accumulates_are_those_of_the_layers():
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.Flatten(), torch.nn.Linear(4 * 64, 5))
    assert multiply_accumulates(network, 8) == 64 * 3 * 4 * 9 + 4 * 64 * 5


def test_a_candidate_that_fails_is_named_and_the_others_go_on(once):
    found, heard, *_ = once
    assert [name.rsplit("/", 1)[-1] for name, *_ in found.omitted] == ["broken.safetensors"]
    assert sum("broken.safetensors" in line for line in found.lines()) == 1
    assert any("broken.safetensors is omitted" in line for line in heard.warnings)


def test_the_study_is_kept_with_table_figures_and_chart(once):
    found, *_ = once
    assert {path.name for path in found.folder.iterdir()} == {"sources.txt", "study.json", "sources.svg"}
    assert found.table() in (found.folder / "sources.txt").read_text()
    assert read_json(found.folder / "study.json")["sources"] == found.as_json()["sources"]


def test_a_second_time_nothing_is_computed_and_the_same_is_said(once, images, monkeypatch, tiny_source, other_source):
    found, _, runs, home = once
    monkeypatch.setenv("RELISH_HOME", home)
    seen = counted(monkeypatch)
    heard = Heard()
    again = tried(images, [tiny_source, runs / "broken.safetensors", other_source], runs, progress=heard)
    assert again.as_json() == found.as_json()
    assert again.folder == found.folder
    assert sum(line.startswith("kept") for line in heard.lines) == 2
    assert seen == []


@pytest.mark.usefixtures("untimed")
def test_killed_in_the_middle_it_goes_on_without_computing_a_feature_twice(
    images, tiny_source, other_source, tmp_path, monkeypatch
):
    """Features are written every four batches: the first source is complete, and a part of the second one."""
    with monkeypatch.context() as patch:
        first = counted(patch, stop_after=24 + 16)
        with pytest.raises(KeyboardInterrupt):
            tried(images, [tiny_source, other_source], tmp_path)
    second = counted(monkeypatch)
    found = tried(images, [tiny_source, other_source], tmp_path)
    assert (sum(first), sum(second)) == (24 + 16, 24 - 16)
    assert len(found.trials) == 2


def test_no_image_but_those_to_train_on_is_tried_on(images, tiny_source, tmp_path, monkeypatch):
    asked = []

    def asking(real):
        def asked_for(backbone, split, *given, **named):
            asked.append(split.paths)
            return real(backbone, split, *given, **named)

        return asked_for

    for name in ("features_of", "forward_seconds"):
        monkeypatch.setattr(module, name, asking(getattr(module, name)))
    monkeypatch.setattr(module, "IMAGES", 12)
    found = tried(images, [tiny_source], tmp_path)
    assert len(asked) == 2
    assert {path.parent.parent.name for paths in asked for path in paths} == {"train"}
    assert found.images == 12
    assert {sum(path.parent.name == name for path in asked[0]) for name in CLASSES} == {4}


def test_where_nothing_can_be_tried_each_reason_is_told(images, tmp_path):
    with pytest.raises(ModelError, match="none of the candidates") as told:
        tried(images, ["resnet81", tmp_path / "absent.pth"], tmp_path)
    assert "resnet81" in told.value.hint
    assert "absent.pth" in told.value.hint


@pytest.mark.parametrize("answer", [False, True])
def test_weights_to_fetch_are_told_with_their_size_and_asked_for_once(answer, images, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    point_hub_at("http://127.0.0.1:9", monkeypatch)
    questions, heard = [], Heard()
    with pytest.raises(ModelError) as told:
        tried(
            images, ["timm/resnet10t", "timm/test_vit"], tmp_path, progress=heard,
            fetch=lambda question: questions.append(question) or answer,
        )  # fmt: skip
    (said,) = [line for line in heard.lines if line.startswith("to fetch")]
    assert "timm/resnet10t (22 MB), timm/test_vit (" in said
    assert len(questions) == 1
    assert told.value.hint.count("cannot be fetched") == (2 if answer else 0)
    assert ("--yes fetches it" in told.value.hint) == (not answer)


def test_weights_that_huggingface_hub_has_fetched_are_used(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    one = candidate("timm/test_resnet")
    assert megabytes_to_fetch(one) > 0
    tensors = load_source("timm/test_resnet", "none", seed=4).network.state_dict()
    folder = tmp_path / "models--timm--test_resnet.r160_in1k"
    (folder / "snapshots" / "abc").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    safetensors.torch.save_file(tensors, folder / "snapshots" / "abc" / "model.safetensors")
    assert megabytes_to_fetch(one) is None
    assert same_tensors(load_source(one.source).network.state_dict(), tensors)


def test_offline_nothing_is_fetched_or_asked_for(images, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError) as told:
        tried(images, ["timm/resnet10t"], tmp_path, fetch=lambda _: pytest.fail("asked"))
    assert "HF_HUB_OFFLINE is set" in told.value.hint


@pytest.mark.usefixtures("untimed")
def test_images_of_a_group_are_held_out_together(images, tiny_source, tmp_path, monkeypatch):
    """Of a name's digit, so that a group has an image of each class."""
    folds, real = [], module.cross_validate

    def looking(features, labels, classes, fold_of, **named):
        folds.append(fold_of)
        return real(features, labels, classes, fold_of, **named)

    monkeypatch.setattr(module, "cross_validate", looking)
    found = tried(images, [tiny_source], tmp_path, group_by=r"^\d")
    assert (folds[0].reshape(len(CLASSES), EACH) == folds[0][:EACH]).all()  # sorted by class, then by name
    assert len(set(found.trials[0].groups)) == EACH


def test_copies_of_an_image_in_its_group_leave_the_error_of_a_difference_alone(once):
    best, other = once[0].trials
    thrice = [
        replace(trial, right=tuple(np.repeat(trial.right, 3)), groups=tuple(np.arange(EACH * len(CLASSES)).repeat(3)))
        for trial in (best, other)
    ]
    assert thrice[1].behind(thrice[0]) == pytest.approx(other.behind(best))


def test_the_command_prints_one_json_document(once, images, tiny_source, other_source, monkeypatch):
    found, _, runs, home = once
    monkeypatch.setenv("RELISH_HOME", home)
    options = ["--image-size=32", "--group-by=none", f"--runs={runs}", "--json"]
    ended = typed("sources", images, f"--candidates={tiny_source},{other_source}", *options)
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["sources"] == found.as_json()["sources"]


# ---- a source that `fit` takes by itself ----------------------------------------------------------------------------


def fitted(images, candidates, out, **more):
    more = {"recipe": "probe", "image_size": 32, "unknown": "none", "group_by": "none"} | more
    return relish.fit(images, source="auto", candidates=candidates, out=out, **more)


@pytest.fixture(scope="module")
def taken_by_fit(images, tiny_source, other_source, tmp_path_factory, home_of_module):
    """The run of a fit that looked for its source among two, and what was said."""
    out, heard = tmp_path_factory.mktemp("auto") / "run", Heard()
    fitted(images, [tiny_source, other_source], out, progress=heard)
    return out, heard


def test_fit_takes_the_quickest_within_a_standard_error_of_the_best_and_keeps_the_table(taken_by_fit, tiny_source):
    out, heard = taken_by_fit
    found, request = read_json(out / "sources.json"), read_json(out / "request.json")
    near = [row for row in found["sources"] if -row["from_best"] <= (row["from_best_error"] or 0)]
    assert found["taken"] == min(near, key=lambda row: row["forward_ms"])["name"]
    assert (request["source"], request["weights"]) == (None, found["taken"])
    assert any(found["why"] in line for line in heard.lines)
    assert {row["name"] for row in found["sources"]} >= {str(tiny_source)}


def test_report_and_card_show_which_source_was_taken_from_which_and_why(taken_by_fit):
    out, _ = taken_by_fit
    found = read_json(out / "sources.json")
    page, card = relish.report(out).read_text(), (out / "README.md").read_text()
    section = page[page.index('id="sources"') : page.index('id="climb"')]
    assert section.count("✓ taken") == 1
    assert card.count("## Which source model it began with") == 1
    for row in found["sources"]:
        assert f"{row['forward_ms']:.3g} ms" in section
        assert f"{row['forward_ms']:.3g} ms" in card
        assert Path(row["name"]).name in section
    for sentence in (found["why"], found["larger"]):
        assert sentence in html.unescape(section)
    assert str(out.parent) not in card
    assert not any(row["name"] in card for row in found["sources"])  # where a file lay is not told


def test_a_run_is_resumed_with_the_source_that_it_began_with(taken_by_fit, tiny_source, other_source, monkeypatch):
    out, _ = taken_by_fit
    monkeypatch.setattr("relish.tasks.fit.find_source", lambda *_: pytest.fail("looked for again"))
    assert fitted(None, [tiny_source, other_source], None, resume=out, recipe=None, image_size=None).path == out
    with pytest.raises(RunError, match="begun with another source"):
        relish.fit(resume=out, source="auto", max_megabytes=3)


@pytest.mark.usefixtures("untimed")
def test_fit_killed_in_its_search_goes_on_without_computing_a_feature_twice(
    images, tiny_source, other_source, tmp_path, monkeypatch
):
    def searched(found):
        monkeypatch.setattr("relish.tasks.fit.prepare", lambda *_, **__: pytest.fail("the search is over"))
        with pytest.raises(found):
            fitted(images, [tiny_source, other_source], tmp_path / "run")

    with monkeypatch.context() as patch:
        first = counted(patch, stop_after=24 + 16)
        searched(KeyboardInterrupt)
    second = counted(monkeypatch)
    searched(pytest.fail.Exception)
    assert (sum(first), sum(second)) == (24 + 16, 24 - 16)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("limit", ["max_megabytes", "max_milliseconds"])
def test_what_is_above_a_limit_is_named_with_what_exceeded_and_not_tried(
    limit, images, tiny_source, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "forward_seconds", lambda *_, **__: {32: 0.005})
    seen = counted(monkeypatch)
    with pytest.raises(ModelError, match="no source can be taken") as told:
        fitted(images, [tiny_source], tmp_path / "run", **{limit: 0.5})
    above = "MB, above --max-megabytes 0.5" if limit == "max_megabytes" else "5 ms, above --max-milliseconds 0.5"
    assert above in told.value.hint
    assert str(tiny_source) in told.value.hint
    assert seen == []


def test_a_source_that_is_above_its_time_when_measured_again_is_not_taken(images, tiny_source, tmp_path, monkeypatch):
    times = iter([0.001, 0.005])
    monkeypatch.setattr(module, "forward_seconds", lambda *_, **__: {32: next(times)})
    monkeypatch.setattr(module, "step_seconds", lambda *_: 0.002)
    with pytest.raises(ModelError) as told:
        fitted(images, [tiny_source], tmp_path / "run", max_milliseconds=3)
    assert "5 ms, above --max-milliseconds 3" in told.value.hint


def test_within_a_budget_a_candidate_that_would_not_finish_is_dropped(images, tiny_source, other_source, monkeypatch):
    """24 pictures of a second each do not fit into a quarter of a minute; of a millisecond they do."""
    monkeypatch.setattr(module, "step_seconds", lambda *_: 0.002)
    monkeypatch.setattr(module, "forward_seconds", lambda backbone, *_, **__: {32: times[backbone.name]})
    times = {load_source(weights=path).name: seconds for path, seconds in ((tiny_source, 1.0), (other_source, 0.001))}
    request = Request(data=str(images), group_by="none", budget=60)
    recipe = named_recipe("auto").with_settings({"image_size": 32})
    search = Search(candidates=[tiny_source, other_source])
    found = find_source(Context.on("cpu"), request, recipe, NOTHING, search)
    assert found.record["taken"] == str(other_source)
    assert [row["reason"] for row in found.record["omitted"]] == ["24 pictures would take 24 s, and 15 s are left."]
    alone = find_source(Context.on("cpu"), request, recipe, NOTHING, Search(candidates=[tiny_source]))
    assert alone.record["taken"] == str(tiny_source)
    assert "no time to compare" in alone.record["why"]


def test_nothing_is_taken_by_itself_whose_licence_is_not_known_to_forbid_nothing():
    among, _ = Search().chosen()
    assert among[0].name == "embedded"
    assert all(licence_of(one) in FREE_LICENCES for one in among)


def test_a_row_that_is_far_above_the_megabytes_is_not_even_fetched():
    among, above = Search(megabytes=30).chosen()
    assert "timm/convnext_base.fb_in22k_ft_in1k" in {name for name, *_ in above}
    assert {one.name for one in among} >= {"embedded", "lite2"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["compare", "DATA", "--source=auto"], "--source auto is for relish fit"),
        (["sweep", "DATA", "--vary=lr=1e-4,1e-3", "--source=auto"], "--source auto is for relish fit"),
        (["fit", "DATA", "--source=auto", "--weights=none"], "--weights names one"),
        (["fit", "DATA", "--source=auto", "--recipe=book-scratch"], "takes no weights of one"),
        (["fit", "DATA", "--max-megabytes=3"], "only --source auto looks for a source"),
        (["fit", "DATA", "--source=auto", "--max-milliseconds=0"], "--max-milliseconds must be above 0"),
    ],
)
def test_what_makes_no_sense_of_a_search_is_refused(words, told, images):
    assert told in refused(*[str(images) if word == "DATA" else word for word in words])


# ---- the table of candidates ----------------------------------------------------------------------------------------


HEADLESS = ("DINOv2", "DINOv3", "SigLIP 2")
TABLE = (*CANDIDATES, *ON_REQUEST)


@pytest.mark.parametrize("row", [row for row in TABLE if row.name.startswith("timm/")], ids=lambda row: row.name)
def test_a_row_of_the_table_is_what_timm_says(row):
    record = get_pretrained_cfg(row.name.removeprefix("timm/"))
    assert record.license == row.licence
    assert record.num_classes == (0 if row.family in HEADLESS else 1000)
    assert row.top1 is None or row.top1_side >= (row.image_size or record.input_size[1])


@pytest.mark.parametrize("row", [row for row in TABLE if row.family in HEADLESS], ids=lambda row: row.name)
def test_the_size_of_a_network_without_a_classifier_is_that_of_its_weights(row):
    known = default_description(parse_name(row.name))
    network = hollow_network(known.library, known.architecture, known.model_args, 0)
    assert round(sum(parameter.numel() for parameter in network.parameters()) / 1e6, 2) == row.parameters


def test_what_its_licence_restricts_is_shown_and_tried_only_where_it_is_named(images, tmp_path, monkeypatch):
    assert not any(restrictive(row.licence) for row in CANDIDATES)
    assert all(restrictive(row.licence) for row in ON_REQUEST)
    assert [restrictive(licence) for licence in ("cc-by-nc-4.0", "mit", None)] == [True, False, False]
    assert candidate(ON_REQUEST[0].name) is ON_REQUEST[0]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(module, "CANDIDATES", CANDIDATES[-1:])
    with pytest.raises(ModelError) as told:
        relish.sources(images, image_size=32, runs=tmp_path, group_by="none")
    assert f"{ON_REQUEST[0].name}: not tried unless named: its licence is dinov3-license" in told.value.hint


def test_the_table_is_documented():
    page = (Path(__file__).parents[2] / "docs" / "source-models.md").read_text(encoding="utf-8")
    for row in TABLE:
        accuracy = f"{row.top1:.1f} | {row.top1_side}" if row.top1 else "– | –"
        words = f"| {row.use} | {accuracy} | {row.parameters:.2f} M | {row.licence}"
        assert any(line.startswith(f"| `{row.name}`") and words.lower() in line.lower() for line in page.splitlines())


def test_each_use_has_several_candidates_and_the_embedded_one_is_there():
    assert {use: sum(row.use == use for row in CANDIDATES) for use in ("processor", "middle", "best")} == {
        "processor": 5,
        "middle": 4,
        "best": 6,
    }
    assert megabytes_to_fetch(candidate("embedded")) is None


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("embedded", "--source embedded"),
        ("resnet18", "--source resnet18"),
        ("timm/resnet18.a1_in1k", "--source timm/resnet18.a1_in1k"),
        ("my weights.pth", "--weights 'my weights.pth'"),
        ("timm/resnet18=w.pth", "--source timm/resnet18 --weights w.pth"),
    ],
)
def test_what_a_user_names_is_what_fit_will_take(text, options):
    assert candidate(text).options == options


def test_the_licence_of_other_weights_is_timms_word_or_not_known():
    assert licence_of(candidate("timm/resnet18.fb_swsl_ig1b_ft_in1k")) == "cc-by-nc-4.0"
    assert licence_of(candidate("torchvision/resnet18")) is None
    assert licence_of(candidate("w.safetensors")) is None
    assert licence_of(candidate("lite0")) == licence_of(candidate("embedded"))

"""The ladder keeps a rung only where it is better, leaves each at once, and ends in time."""

import json
import math
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import relish
from relish.core.context import Context
from relish.core.errors import DataError, Diverged, ModelError, RecipeError
from relish.core.progress import Progress
from relish.core.run_folder import RunFolder
from relish.core.workers import Workers
from relish.data import loader as batches
from relish.data.folder import index_folder
from relish.data.image import open_image
from relish.data.loader import View
from relish.data.split import stratified_folds
from relish.data.survey import survey
from relish.data.transforms import book_preprocessing
from relish.evaluation import significance
from relish.evaluation.features import Backbone, features_of
from relish.evaluation.inference import split_logits
from relish.evaluation.prediction import softmax
from relish.models.freeze import half_frozen, layer_groups
from relish.models.saved_model import load_model
from relish.models.source import load_source
from relish.models.target import make_target
from relish.training import auto, budget, finetune, measure, probe_stage
from relish.training import train as loop
from relish.training.checkpoint import between, mean_of
from tests.conftest import COLOURS, SQUARE, TORTURE, draw, draw_dataset, read_json

SMALL = {"image_size": 32, "batch_size": 8, "epochs": 2}


class Heard(Progress):
    """Keeps what was said."""

    def __init__(self):
        self.lines = []

    def say(self, line=""):
        self.lines.append(line)

    def warn(self, line):
        self.lines.append(line)


class Clock:
    """Goes on by ten milliseconds whenever it is read, and by what work is said to take."""

    def __init__(self):
        self.now = 0.0

    def read(self):
        self.now += 0.01
        return self.now


def clock_of(monkeypatch):
    """A clock that relish measures work and budgets by."""
    from relish.tasks import fit, run  # noqa: F401 - else loaded later, with a clock of their own

    clock = Clock()
    faked = SimpleNamespace(**{**vars(time), "monotonic": clock.read, "perf_counter": clock.read})
    for name, module in list(sys.modules.items()):
        if name.startswith("relish.") and not name.startswith("relish.core.") and hasattr(module, "time"):
            monkeypatch.setattr(module, "time", faked)
    return clock


def rungs(run):
    return [event for event in RunFolder.open(run).records() if event["event"] == "rung"]


# ---- features -------------------------------------------------------------------------------------------------------


@pytest.fixture
def looked(colours):
    return survey(index_folder(colours, name="colours", source=str(colours)))


def backbone_of(looked, tiny_source):
    return Backbone.of(make_target(load_source(None, tiny_source), looked.dataset.classes, seed=0))


def features(looked, tiny_source, view=0):
    how = book_preprocessing(32, (0.5,) * 3, (0.5,) * 3)
    split, device = looked.dataset.splits["train"], Context.on("cpu")
    return features_of(backbone_of(looked, tiny_source), split, [View(how, view)], looked.sha256, device)[0]


def test_the_head_on_features_is_the_network_on_pictures(looked, tiny_source):
    backbone, split = backbone_of(looked, tiny_source), looked.dataset.splits["train"]
    how = book_preprocessing(32, (0.5,) * 3, (0.5,) * 3)
    (found,) = features_of(backbone, split, [View(how)], looked.sha256, Context.on("cpu"))
    with torch.no_grad():
        ours = backbone.head(torch.from_numpy(found)).softmax(1)
    theirs = softmax(split_logits(backbone.network, split, how, Context.on("cpu")))
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-5)


def test_features_are_computed_once(looked, tiny_source, monkeypatch):
    first = features(looked, tiny_source)
    monkeypatch.setattr(Backbone, "__call__", lambda *_: pytest.fail("computed again"))
    np.testing.assert_array_equal(features(looked, tiny_source), first)


def test_a_picture_is_opened_once_for_all_looks(looked, tiny_source, monkeypatch):
    opened, split, how = [], looked.dataset.splits["train"], book_preprocessing(32, (0.5,) * 3, (0.5,) * 3)
    monkeypatch.setattr(batches, "open_image", lambda path, **more: opened.append(path) or open_image(path, **more))
    looks = [View(how), View(replace(how, resize=32)), View(how, 1), View(how, 2)]
    backbone = backbone_of(looked, tiny_source)
    together = features_of(backbone, split, looks, looked.sha256, Context.on("cpu"))
    assert sorted(opened) == sorted(split.paths)
    monkeypatch.setenv("RELISH_HOME", str(split.paths[0].parent / "elsewhere"))
    for look, found in zip(looks, together, strict=True):
        (alone,) = features_of(backbone, split, [look], looked.sha256, Context.on("cpu"))
        np.testing.assert_array_equal(found, alone)


def test_another_backbone_framing_or_view_has_other_features(looked, tiny_source):
    plain = features(looked, tiny_source)
    assert not np.array_equal(features(looked, tiny_source, view=1), plain)
    assert not np.array_equal(features(looked, tiny_source, view=2), features(looked, tiny_source, view=3))
    backbone = backbone_of(looked, tiny_source)
    with torch.no_grad():
        next(backbone.network.parameters()).mul_(1.01)
    assert backbone.digest() != backbone_of(looked, tiny_source).digest()


def test_the_output_layer_is_no_part_of_the_backbone(looked, tiny_source):
    source, classes = load_source(None, tiny_source), looked.dataset.classes
    one, other = make_target(source, classes, seed=0), make_target(source, (*classes, "further"), seed=1)
    assert Backbone.of(one).digest() == Backbone.of(other).digest()


def test_a_network_that_goes_on_after_its_head_is_refused(looked):
    """SqueezeNet pools behind its 1 × 1 convolution: no probe on the convolution's input gives what it says."""
    target = make_target(load_source("torchvision/squeezenet1_1", "none"), ("a", "b"), seed=0)
    with pytest.raises(ModelError, match="--recipe book"):
        Backbone.of(target)(
            torch.zeros(2, 3, 64, 64, dtype=torch.uint8), book_preprocessing(64, (0.5,) * 3, (0.5,) * 3)
        )


def test_weights_that_make_no_numbers_are_told_as_such(looked, tiny_source):
    backbone = backbone_of(looked, tiny_source)
    with torch.no_grad():
        next(backbone.network.parameters()).fill_(float("inf"))
    with pytest.raises(ModelError, match="weights are damaged"):
        backbone(torch.full((2, 3, 32, 32), 200, dtype=torch.uint8), book_preprocessing(32, (0.5,) * 3, (0.5,) * 3))


# ---- the rungs ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tiny_source, tmp_path_factory):
    """A folder with `colours`, a finished climb on them, `run`, a finished `probe`, and what the climb said."""
    folder, heard = tmp_path_factory.mktemp("made"), Heard()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RELISH_HOME", str(folder / "home"))
        data = draw_dataset(folder / "colours", size=SQUARE)
        relish.fit(data, weights=tiny_source, settings=SMALL, out=folder / "run", progress=heard)
        relish.fit(data, weights=tiny_source, recipe="probe", settings={"image_size": 32}, out=folder / "probe")
    return folder, heard.lines


@pytest.fixture
def colours(squares):
    """Ways of framing are compared at the end of this file alone."""
    return squares


@pytest.fixture
def climbed(made, tmp_path):
    """A copy of the climb."""
    return Path(shutil.copytree(made[0] / "run", tmp_path / "run"))


@pytest.fixture
def probed(made):
    """The weights of the finished probe."""
    return load_model(made[0] / "probe" / "model.safetensors")[0].state_dict()


def test_auto_is_the_default_and_learns_two_colours(made):
    run, lines = made[0] / "run", made[1]
    assert rungs(run)[0]["rung"] == "probe"
    evaluation = read_json(run / "evaluation.json")
    assert evaluation["top1"]["correct"] >= 11
    assert evaluation["training_seconds"] >= rungs(run)[-1]["seconds"]
    clf = relish.load(run)
    assert clf.predict(made[0] / "colours" / "test" / "red" / "000.png")[0].class_name == "red"
    said = [line.split()[0] for line in lines if line]
    assert said.index("plan") < said.index("rung") < said.index("tuned") < said.index("won")


def test_the_probe_alone_is_the_ladders_first_rung(made, probed, colours, tiny_source, tmp_path):
    """Where nothing above it is kept, `auto` ends with the very model that `probe` makes."""
    wild = {**SMALL, "learning_rate": 3.0}
    relish.fit(colours, weights=tiny_source, settings=wild, out=tmp_path / "auto")
    assert not rungs(tmp_path / "auto")[-1]["kept"]
    assert [rung["rung"] for rung in rungs(made[0] / "probe")] == ["probe"]
    auto = load_model(tmp_path / "auto" / "model.safetensors")[0].state_dict()
    assert all(torch.equal(auto[name], probed[name]) for name in probed)


def test_the_probe_leaves_the_backbone_as_it_was(probed, tiny_source):
    source = load_source(None, tiny_source).network.state_dict()
    for name, tensor in probed.items():
        assert name.startswith("fc.") or torch.equal(tensor, source[name]), name


@pytest.mark.slow
@settings(max_examples=8 if TORTURE else 4, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.integers(0, 10_000), st.floats(-5, 0.5), st.integers(6, 16), st.sampled_from([1, 3]), st.sampled_from([60, 120])
)
def test_auto_is_never_worse_on_held_out_pictures_than_its_own_probe(
    tiny_source, tmp_path_factory, seed, rate, pictures, folds, spread
):
    """Problems from easy to hopeless, rates from timid to ruinous."""
    root, chance = tmp_path_factory.mktemp("problem"), np.random.default_rng(seed)
    for name, middle in (("a", 110), ("b", 130)):
        for number in range(pictures):
            colour = tuple(int(v) for v in np.clip(chance.normal(middle, spread, 3), 0, 255))
            draw(root / "all" / "train" / name / f"{number}.png", colour, seed + number, SQUARE)
            draw(root / "all" / "test" / name / f"{number}.png", colour, seed + number + 1, SQUARE)
    wanted = {**SMALL, "learning_rate": 10.0**rate}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auto, "folds_for", lambda _: folds)
        relish.fit(root / "all", weights=tiny_source, settings=wanted, out=root / "run")
    last = rungs(root / "run")[-1]
    assert not last["kept"] or (last["correct"] >= last["probe_correct"] and last["gain"] > last["error"])
    if last["kept"] and folds == 1:  # one model: what was chosen is what was saved, so it can be judged again
        network, description, extra = load_model(root / "run" / "model.safetensors")
        looked = survey(index_folder(root / "all", name="all", source="all"))
        learn = looked.dataset.splits["train"]
        contents = [looked.sha256[path] for path in learn.paths]
        held = stratified_folds(learn.labels, contents, 5, 0) == 0
        how = ladder_preprocessing(extra, description)
        said = split_logits(network, learn.take(np.flatnonzero(held)), how, Context.on("cpu"))
        assert (said.argmax(1) == learn.labels[held]).sum() == last["correct"]


def ladder_preprocessing(extra, description):
    from relish.data.transforms import preprocessing_from

    config = description.data_config
    return preprocessing_from(extra, book_preprocessing(config.input_size[1], config.mean, config.std))


def test_a_probe_for_some_of_the_pictures_has_no_bias_where_the_head_has_none():
    """Fine-tuning starts from it: what it said with a bias, the network could not say."""
    labels = np.arange(40) % 2
    features = (5 + np.random.default_rng(0).normal(size=(40, 6)) + 4 * labels[:, None] * np.eye(6)[0]).astype("f4")
    folds = np.arange(40) // 2 % 5
    found = probe_stage.cross_validate(features, labels, 2, folds, bias=False)
    assert (found.fit(without=folds == 0).bias == 0).all()


def test_a_target_that_the_probe_reaches_ends_the_climb(colours, tiny_source, tmp_path):
    relish.fit(colours, weights=tiny_source, settings=SMALL, target_accuracy=0.5, out=tmp_path / "run")
    assert [rung["rung"] for rung in rungs(tmp_path / "run")] == ["probe"]


def test_a_budget_is_kept_and_cut_short_where_the_machine_is_slower_than_it_seemed(
    colours, tiny_source, tmp_path, monkeypatch
):
    """Training is made slow after it was measured; the run has to end in time all the same."""
    add, clock = loop.Sums.add, clock_of(monkeypatch)

    def slow(*arguments):
        clock.now += 0.5
        add(*arguments)

    monkeypatch.setattr(loop.Sums, "add", slow)
    monkeypatch.setattr("relish.tasks.prepare.SMALLEST_BUDGET", 1)
    settings = {**SMALL, "epochs": 1000}
    heard = Heard()
    relish.fit(colours, weights=tiny_source, settings=settings, budget=12, out=tmp_path / "run", progress=heard)
    (start,) = (float(line.split()[1]) for line in heard.lines if line.startswith("start "))
    assert clock.now < start + 1 + 12 * 1.1
    assert (tmp_path / "run" / "evaluation.json").is_file()


def test_a_run_that_was_cut_short_does_not_learn_on_when_it_is_resumed(climbed, monkeypatch):
    before = (climbed / "model.safetensors").read_bytes()
    (climbed / "evaluation.json").unlink()
    monkeypatch.setattr(finetune, "train", lambda *_: pytest.fail("trained again"))
    relish.fit(resume=climbed)
    assert (climbed / "model.safetensors").read_bytes() == before


def test_an_unfinished_climb_answers_with_its_best_rung_so_far(colours, tiny_source, tmp_path, monkeypatch):
    monkeypatch.setattr(finetune, "train", interrupted)
    with pytest.raises(relish.RelishError):
        relish.fit(colours, weights=tiny_source, settings=SMALL, out=tmp_path / "run")
    clf = relish.load(tmp_path / "run")
    assert clf.predict(colours / "test" / "red" / "000.png")[0].class_name == "red"
    assert "not finished" in repr(clf)


def interrupted(*_):
    raise KeyboardInterrupt


def not_on_all(instead):
    """`train`, but for the pass over all the pictures, where something else is done."""
    real = finetune.train
    return lambda stage, setup: instead() if "all" in stage.folder.path.name else real(stage, setup)


@pytest.fixture
def fine_tuning_wins(monkeypatch):
    """Whatever the pictures held out say."""
    verdict = significance.Verdict(gain=1.0, error=0.1, right=24, right_before=20, count=24)
    monkeypatch.setattr(auto, "_chosen", lambda _: (1.0, verdict))


@pytest.mark.usefixtures("fine_tuning_wins")
def test_a_run_that_is_resumed_keeps_its_best_model_meanwhile(colours, tiny_source, tmp_path, monkeypatch):
    """Killed while it was judged, gone on with, and killed again."""
    run = tmp_path / "run"
    relish.fit(colours, weights=tiny_source, settings=SMALL, out=run)
    best = (run / "model.safetensors").read_bytes()
    assert rungs(run)[-1]["kept"]
    (run / "evaluation.json").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(auto, "fine_tune", interrupted)
        with pytest.raises(relish.RelishError):
            relish.fit(resume=run)
    assert (run / "model.safetensors").read_bytes() == best


@pytest.mark.parametrize("damage", ["gone", "of another version"])
def test_a_run_that_is_planned_afresh_trains_afresh(climbed, monkeypatch, damage):
    """What an earlier plan's models learned from, this plan's may be judged by."""
    run, trained, real = climbed, [], finetune.train
    before = (run / "model.safetensors").read_bytes()
    (run / "evaluation.json").unlink()
    plan = read_json(run / "plan.json")
    (run / "plan.json").unlink()
    if damage != "gone":
        del plan["fine-tuning"]["rates"]
        (run / "plan.json").write_text(json.dumps(plan))
    monkeypatch.setattr(finetune, "train", lambda *given: trained.append(1) or real(*given))
    relish.fit(resume=run)
    assert len(trained) >= 4
    assert (run / "model.safetensors").read_bytes() == before


def test_a_rate_that_diverged_is_not_tried_again(colours, tiny_source, tmp_path, monkeypatch):
    run, rates, real = tmp_path / "run", [], finetune.train

    def train(stage, setup):
        rates.append(setup.recipe.learning_rate)
        if len(rates) == 1:
            raise Diverged("the loss became infinite: too high.")
        if len(rates) == 3:
            raise KeyboardInterrupt
        return real(stage, setup)

    monkeypatch.setattr(finetune, "train", train)
    with pytest.raises(relish.RelishError):
        relish.fit(colours, weights=tiny_source, settings=SMALL, out=run)
    relish.fit(resume=run)
    assert rates[0] > rates[1]
    assert set(rates[1:]) == {rates[1]}


def test_framings_are_not_compared_where_no_class_could_be_held_out(colours, tiny_source, tmp_path, monkeypatch):
    """As with a thousand classes, where a sample had one picture of each."""
    monkeypatch.setattr(probe_stage, "framed_on", lambda *_: 2)
    monkeypatch.setattr(probe_stage, "nearly_square", lambda *_: False)
    relish.fit(colours, weights=tiny_source, recipe="probe", settings={"image_size": 32}, out=tmp_path / "run")
    assert rungs(tmp_path / "run")[0]["framing"] == book_preprocessing(32, (0.5,) * 3, (0.5,) * 3).framing_words


def test_reading_a_picture_takes_as_long_whatever_becomes_of_it(looked, monkeypatch):
    clock = clock_of(monkeypatch)

    def slow(*_, **__):
        clock.now += 0.05
        yield batches.Batch(torch.zeros(1), torch.zeros(1), torch.zeros(1))

    monkeypatch.setattr(measure, "evaluation_batches", slow)
    how = book_preprocessing(224, (0.5,) * 3, (0.5,) * 3)
    backbone = Mock(device=torch.device("cpu"))
    found = measure.forward_seconds(backbone, looked.dataset.splits["train"], how, [224, 160, 96], Workers())
    assert list(found) == [224, 160, 96]
    assert found[96] > 0.5 * found[224]
    assert min(found[96], found[224]) <= found[160] <= max(found[96], found[224])


@pytest.mark.usefixtures("fine_tuning_wins")
def test_an_average_that_is_as_good_as_its_models_stays_as_it_is(colours, tiny_source, tmp_path, monkeypatch):
    one = []
    monkeypatch.setattr(finetune, "between", lambda probe, tuned, share: one.append(tuned) or one[0])
    monkeypatch.setattr(finetune, "train", not_on_all(lambda: pytest.fail("it learned on")))
    rate = {**SMALL, "learning_rate": 1e-12}
    relish.fit(colours, weights=tiny_source, settings=rate, out=tmp_path / "run")
    assert rungs(tmp_path / "run")[-1]["kept"]


@pytest.mark.usefixtures("fine_tuning_wins")
def test_an_average_that_is_worse_than_its_models_learns_from_all_the_pictures(
    colours, tiny_source, tmp_path, monkeypatch
):
    """Stopped in that pass, the run is gone on with and ends with the weights of one that was not."""

    def headless(states):
        return {name: tensor * 0 if name.startswith("fc.") else tensor for name, tensor in states[0].items()}

    monkeypatch.setattr(finetune, "mean_of", headless)
    monkeypatch.setattr(auto, "joint_epochs_for", lambda _: 12)
    quick = {**SMALL, "head_multiplier": 100.0}  # the head has to come back within those epochs
    learned, real = [], finetune.train

    def stopped_in_the_last(stage, setup):
        learned.append(len(setup.train))
        if len(learned) == 5:
            raise KeyboardInterrupt
        return real(stage, setup)

    relish.fit(colours, weights=tiny_source, settings=quick, out=tmp_path / "whole")
    assert rungs(tmp_path / "whole")[-1]["kept"]
    monkeypatch.setattr(finetune, "train", stopped_in_the_last)
    with pytest.raises(relish.RelishError):
        relish.fit(colours, weights=tiny_source, settings=quick, out=tmp_path / "run")
    assert learned[0] == learned[1]  # at one rate and at another
    assert learned[4] == sum(learned[1:4]) / 2
    relish.fit(resume=tmp_path / "run")
    whole, again = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "run"))
    assert whole == again


@pytest.mark.parametrize(
    ("rate", "share", "stage"), [(3.0, 1e-5, "fine-tuning-1-slower"), (1e-2, 1e-5, "fine-tuning-1")]
)
@pytest.mark.usefixtures("fine_tuning_wins")
def test_the_rate_that_is_better_for_the_first_model_is_that_of_all(
    colours, tiny_source, tmp_path, monkeypatch, rate, share, stage
):
    """3 wrecks any network, and where the source is a random one, a tiny rate gets nowhere."""
    monkeypatch.setattr(budget, "RATES", (rate, rate * share))
    rates, real = [], finetune.train
    monkeypatch.setattr(
        finetune, "train", lambda stage, setup: rates.append(setup.recipe.learning_rate) or real(stage, setup)
    )
    heard = Heard()
    relish.fit(colours, weights=tiny_source, settings=SMALL, out=tmp_path / "run", progress=heard)
    chosen = rate * (share if stage.endswith("slower") else 1.0)
    assert rates[:4] == pytest.approx([rate, rate * share, chosen, chosen])
    told = rungs(tmp_path / "run")[-1]
    assert (told["curves"], told["learning_rate"]) == (stage, pytest.approx(chosen))
    assert any(line.startswith(f"rate    {chosen:g} ") for line in heard.lines)
    assert (tmp_path / "run" / "curves.svg").is_file()


def rates_of(data, source, out, monkeypatch, **settings):
    """The rates that were trained at, and what was said of the plan."""
    rates, real, heard = [], finetune.train, Heard()
    with monkeypatch.context() as patch:
        patch.setattr(
            finetune, "train", lambda stage, setup: rates.append(setup.recipe.learning_rate) or real(stage, setup)
        )
        relish.fit(data, weights=source, settings={**SMALL, "epochs": 1, **settings}, out=out, progress=heard)
    return rates, next(line for line in heard.lines if line.startswith("plan    fine-tuning"))


@pytest.mark.parametrize("folded", [3000, 0])
def test_a_rate_that_is_given_is_the_one_that_is_used(colours, tiny_source, tmp_path, monkeypatch, folded):
    """Above 3,000 pictures too, where half of it was used."""
    monkeypatch.setattr(budget, "FOLDED", folded)
    rates, plan = rates_of(colours, tiny_source, tmp_path / "run", monkeypatch, learning_rate=3e-3)
    assert set(rates) == {3e-3}
    assert "at rate 0.003;" in plan


@pytest.mark.parametrize(("folded", "words"), [(3000, "at rates 0.001 and 0.0002;"), (0, "at rate 0.0005;")])
def test_rates_that_the_ladder_chooses_are_told_as_they_are_used(
    colours, tiny_source, tmp_path, monkeypatch, folded, words
):
    monkeypatch.setattr(budget, "FOLDED", folded)
    rates, plan = rates_of(colours, tiny_source, tmp_path / "run", monkeypatch)
    assert words in plan
    assert sorted(set(rates)) == ([2e-4, 1e-3] if folded else [5e-4])


def test_a_held_out_picture_is_decoded_once_however_often_it_is_evaluated(colours, tiny_source, tmp_path, monkeypatch):
    decoded, real, viewed, real_views = [], batches.evaluation_batches, [], batches.view_batches

    def counted(split, how, positions, **more):
        decoded.extend(split.paths[p] for batch in positions for p in batch)
        return real(split, how, positions, **more)

    def for_features(*given, **more):
        viewed.append(len(decoded))
        return real_views(*given, **more)

    monkeypatch.setattr(batches, "evaluation_batches", counted)  # what `DecodedImages` reads with
    monkeypatch.setattr("relish.evaluation.features.view_batches", for_features)
    relish.fit(colours, weights=tiny_source, settings=SMALL, out=tmp_path / "run")
    assert len(decoded) == len(set(decoded)) == 20
    assert viewed
    assert not any(viewed)  # only before: what is unknown is told by the images that are decoded already
    assert [path.name for path in (tmp_path / "run" / "stages").iterdir() if path.is_file()] == []


def test_a_run_that_is_planned_afresh_withdraws_its_rungs(climbed):
    (climbed / "plan.json").unlink()
    (climbed / "evaluation.json").unlink()
    before = rungs(climbed)
    relish.fit(resume=climbed)
    after = rungs(climbed)
    assert [rung["rung"] for rung in after] == [rung["rung"] for rung in before] == ["probe", "average"]
    assert after[0]["seconds"] > before[-1]["seconds"]


@pytest.mark.usefixtures("fine_tuning_wins")
def test_half_of_the_layers_stand_still_where_the_plan_says_so(colours, tiny_source, tmp_path, monkeypatch):
    plan = budget.FineTuningPlan(folds=1, epochs=2, rates=1, seconds=1.0, half_still=True)
    monkeypatch.setattr(budget, "plan_fine_tuning", lambda **_: plan)
    relish.fit(colours, weights=tiny_source, settings=SMALL, budget=600, out=tmp_path / "run")
    target = make_target(load_source(None, tiny_source), ("blue", "red"), seed=0)
    tuned = load_model(tmp_path / "run" / "model.safetensors")[0].state_dict()
    names = {id(parameter): name for name, parameter in target.network.named_parameters()}
    groups = layer_groups(target)
    same = [all(torch.equal(one, tuned[names[id(one)]]) for one in group) for group in groups]
    assert same == [place < math.ceil(len(groups) / 2) for place in range(len(groups))]
    learning = [one.requires_grad for group in groups for one in group]
    with half_frozen(target):
        assert not groups[0][0].requires_grad
    assert [one.requires_grad for group in groups for one in group] == learning


@pytest.mark.usefixtures("fine_tuning_wins")
def test_an_average_that_stays_worse_than_its_models_is_not_kept(probed, colours, tiny_source, tmp_path, monkeypatch):
    monkeypatch.setattr(
        finetune, "mean_of", lambda states: {name: torch.zeros_like(tensor) for name, tensor in states[0].items()}
    )
    monkeypatch.setattr(finetune, "train", not_on_all(lambda: None))
    heard = Heard()
    relish.fit(colours, weights=tiny_source, settings=SMALL, out=tmp_path / "run", progress=heard)
    assert not rungs(tmp_path / "run")[-1]["kept"]
    assert any("so the probe is kept after all" in line for line in heard.lines)
    run = load_model(tmp_path / "run" / "model.safetensors")[0].state_dict()
    assert all(torch.equal(run[name], probed[name]) for name in probed)


@pytest.mark.parametrize(("given", "words"), [({"budget": 59}, "60 seconds"), ({"target_accuracy": 1.5}, "at most 1")])
def test_limits_out_of_range_are_refused(colours, tiny_source, given, words):
    with pytest.raises(RecipeError, match=words):
        relish.fit(colours, weights=tiny_source, **given)


def test_limits_for_a_recipe_that_does_not_climb_are_refused(colours, tiny_source):
    with pytest.raises(RecipeError, match="--recipe auto"):
        relish.fit(colours, weights=tiny_source, recipe="book", budget=60)


@pytest.mark.parametrize("given", [{"mapping": {"red": "red"}}, {"settings": {"head": "zeros"}}])
def test_what_a_solved_for_head_cannot_start_from_is_refused(colours, tiny_source, given):
    with pytest.raises(RecipeError, match="source-head"):
        relish.fit(colours, weights=tiny_source, **given)


def test_a_rate_that_ruins_the_fine_tuning_leaves_the_probe(colours, tiny_source, tmp_path):
    ruin = {**SMALL, "learning_rate": 1e30}
    relish.fit(colours, weights=tiny_source, settings=ruin, out=tmp_path / "run")
    assert read_json(tmp_path / "run" / "evaluation.json")["top1"]["correct"] >= 11


def test_a_network_that_no_probe_fits_is_refused_before_a_run_folder_is_made(colours, tmp_path):
    settings = {"image_size": 64}
    with pytest.raises(ModelError, match="--recipe book"):
        relish.fit(colours, source="torchvision/squeezenet1_1", weights="none", settings=settings, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_pictures_that_are_all_the_same_are_refused_in_words(tiny_source, tmp_path):
    for part in ("train", "test"):
        for name in ("blue", "red"):
            for number in range(4):
                draw(tmp_path / "same" / part / name / f"{number}.png", (60, 60, 190), seed=0)
    with pytest.raises(DataError, match="Copies of a picture count as one"):
        relish.fit(tmp_path / "same", weights=tiny_source, settings=SMALL, out=tmp_path / "run")


def test_a_validation_split_of_ones_own_is_what_rungs_are_chosen_by(tiny_source, tmp_path):
    root = draw_dataset(tmp_path / "own", train=10, test=6, size=SQUARE)
    for place, name in enumerate(("blue", "red")):
        for number in range(7):
            draw(root / "validation" / name / f"{number}.png", COLOURS[name], 900_000 + 1000 * place + number, SQUARE)
    relish.fit(root, weights=tiny_source, settings=SMALL, out=tmp_path / "run")
    probe, average = rungs(tmp_path / "run")
    assert (probe["count"], average["count"]) == (14, 14)


def test_a_full_cache_is_no_reason_to_stop(colours, tiny_source, tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "cache.sqlite3").mkdir()
    monkeypatch.setenv("RELISH_HOME", str(tmp_path / "home"))
    settings = {"image_size": 32}
    relish.fit(colours, weights=tiny_source, recipe="probe", settings=settings, out=tmp_path / "run")
    assert read_json(tmp_path / "run" / "evaluation.json")["top1"]["correct"] >= 11


# ---- framing --------------------------------------------------------------------------------------------------------


def test_a_subject_that_a_crop_cuts_off_is_seen_by_another_framing(tiny_source, tmp_path):
    """Wide pictures, grey but for a patch at the left edge: the class is nowhere else."""
    chance = np.random.default_rng(0)
    for part, count in (("train", 20), ("test", 10)):
        for name, colour in (("blue", (40, 40, 200)), ("red", (200, 40, 40))):
            for number in range(count):
                pixels = chance.normal(128, 30, (40, 120, 3))
                pixels[:, :14] = np.array(colour) + chance.normal(0, 20, (40, 14, 3))
                path = tmp_path / "wide" / part / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                from PIL import Image

                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    relish.fit(
        tmp_path / "wide", weights=tiny_source, recipe="probe", settings={"image_size": 64}, out=tmp_path / "run"
    )
    assert rungs(tmp_path / "run")[0]["framing"] in ("squashed", "letterboxed", "squashed and cropped")
    assert read_json(tmp_path / "run" / "evaluation.json")["top1"]["correct"] >= 16


def test_square_pictures_are_not_compared_in_every_framing(tiny_source, tmp_path, monkeypatch):
    root = tmp_path / "square"
    for part in ("train", "test"):
        for name, colour in (("blue", (60, 60, 190)), ("red", (190, 60, 60))):
            for number in range(6):
                draw(root / part / name / f"{number}.png", colour, number, size=(40, 40))
    monkeypatch.setattr(probe_stage, "framings", lambda _: pytest.fail("compared"))
    relish.fit(root, weights=tiny_source, recipe="probe", settings={"image_size": 32}, out=tmp_path / "run")


# ---- averaging ------------------------------------------------------------------------------------------------------


@given(st.floats(0, 1), st.integers(0, 100))
def test_averages_lie_between_and_have_the_right_ends(share, seed):
    chance = torch.Generator().manual_seed(seed)
    one, two = ({"w": torch.randn(4, generator=chance), "n": torch.tensor(k)} for k in (1, 2))
    mixed = between(one, two, share)
    low, high = torch.minimum(one["w"], two["w"]) - 1e-5, torch.maximum(one["w"], two["w"]) + 1e-5
    assert ((low <= mixed["w"]) & (mixed["w"] <= high)).all()
    torch.testing.assert_close(between(one, two, 0.0)["w"], one["w"])
    torch.testing.assert_close(between(one, two, 1.0)["w"], two["w"])
    torch.testing.assert_close(mean_of([one, two])["w"], between(one, two, 0.5)["w"])

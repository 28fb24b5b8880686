"""f32 or bf16: chosen by measuring, remembered, the same to the end of a run, and never at the cost of an answer."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import relish
from relish.core.cache import cache_file
from relish.core.errors import BadInput, RunError
from relish.models import precision
from relish.models.precision import DIFFERENCE, GAIN, LONG, Computing, checked_precision, computing_in, fastest, trial
from relish.training import measure
from relish.training.measure import run_computing
from relish.training.recipe import named_recipe
from relish.training.train import train
from tests.conftest import SMALL
from tests.training.test_train import pictures, run_in, setup_for  # noqa: F401 (a fixture)

CPU = torch.device("cpu")


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 3),
    )  # fmt: skip


IMAGES = torch.randn(20, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def times(monkeypatch):
    """Say how long a pass takes; counts how often both were timed."""
    asked = {"f32": 2.0, "bf16": 1.0, "count": 0}

    def timed(network, images, training, precisions):
        asked["count"] += 1
        return {one: asked[one] for one in precisions}

    monkeypatch.setattr(precision, "_timed", timed)
    return asked


@pytest.mark.parametrize("difference", [0.0, DIFFERENCE, 2 * DIFFERENCE])
@pytest.mark.parametrize("bf16", [1.0, 1.9, 1.95, 20.0])
def test_bf16_is_chosen_only_where_it_is_faster_and_says_the_same(bf16, difference, times, monkeypatch):
    times["bf16"] = bf16
    monkeypatch.setattr(precision, "_difference", lambda network, images: difference)
    chosen = trial(small_network(), IMAGES, trained=1).precision
    assert (chosen == "bf16") == (GAIN * bf16 <= 2.0 and difference <= DIFFERENCE)


def test_hopelessly_slow_bf16_is_tried_on_two_images_alone(monkeypatch):
    tried = []

    def passed(network, images, kind, training):
        tried.append(len(images))
        return 1.0 if kind == "f32" else 7.0

    monkeypatch.setattr(precision, "_pass", passed)
    found = trial(small_network(), IMAGES, trained=1)
    assert found.sentence() == "f32: bf16 is 0.14 times as fast as f32 here"
    assert set(tried) == {2}


@pytest.mark.parametrize("training", [False, True])
def test_a_trial_measures_and_leaves_network_and_chance_as_they_were(training):
    network, chance = small_network().train(), torch.get_rng_state()
    before = copy.deepcopy(network.state_dict())
    found = trial(network, IMAGES, trained=int(training))
    assert found.f32_seconds > 0
    assert found.bf16_seconds > 0
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.equal(torch.get_rng_state(), chance)
    assert network.training


def test_a_trial_is_remembered_by_network_shape_and_purpose(times):
    trial(small_network(), IMAGES, trained=1)
    trial(small_network(), IMAGES + 1, trained=1)
    assert times["count"] == 1
    trial(small_network(), IMAGES[:, :, :15], trained=1)
    trial(small_network(), IMAGES)
    trial(nn.Sequential(small_network(), nn.ReLU()), IMAGES, trained=1)
    still = small_network()
    still[0].weight.requires_grad_(False)
    trial(still, IMAGES, trained=1)
    assert times["count"] == 5


def test_a_trial_of_an_earlier_kind_is_measured_anew(times, monkeypatch):
    trial(small_network(), IMAGES, trained=1)
    monkeypatch.setattr(precision, "_VERSION", precision._VERSION + 1)
    trial(small_network(), IMAGES, trained=1)
    assert times["count"] == 2


@pytest.mark.parametrize(("seconds", "compiled_seconds", "chosen"), [(61, 50, True), (59, 10, False), (61, 60, False)])
def test_kernels_are_compiled_where_training_is_long_and_they_are_faster(
    seconds, compiled_seconds, chosen, monkeypatch
):
    """A training of so many seconds, in f32 alone; the trial's other layout is timed in a long one only."""
    layouts = []

    def timed(network, images, training, precisions):
        layouts.append(network[0].weight.is_contiguous(memory_format=torch.channels_last))
        return dict.fromkeys(precisions, float(compiled_seconds if layouts[-1] else seconds))

    monkeypatch.setattr(precision, "_timed", timed)
    found = trial(small_network(), IMAGES[:2], trained=2, precisions=("f32",), layouts=True)
    assert found.computing == ("f32", chosen)
    assert layouts == [False, True][: 1 + (seconds > LONG)]
    assert found.f32_seconds == (compiled_seconds if chosen else seconds)
    assert found.as_json()["bf16_seconds"] is None
    assert ("compiled" in found.sentence()) == chosen


@pytest.mark.cuda
def test_a_gpu_is_tried_at_the_batch_that_trains(times, monkeypatch):
    """Of 16 images and of 20 it would say something else."""
    on_gpu = IMAGES.cuda()
    trial(small_network().cuda(), on_gpu, trained=1)
    trial(small_network().cuda(), on_gpu[:16], trained=1)
    assert times["count"] == 2


@pytest.mark.cuda
def test_a_trial_on_a_gpu_measures_both(monkeypatch):
    found = trial(small_network().cuda().train(), IMAGES.cuda(), trained=1)
    assert 0 < found.f32_seconds < 1
    assert 0 < found.bf16_seconds < 1


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"SQLite format 3\0" + bytes(900), b"\xff\xfe"])
def test_a_damaged_memory_is_measured_anew(content, times):
    trial(small_network(), IMAGES, trained=1)
    cache_file().write_bytes(content)
    trial(small_network(), IMAGES, trained=1)
    assert times["count"] == 2
    trial(small_network(), IMAGES, trained=1)
    assert times["count"] == 2


def test_a_memory_that_cannot_be_written_stops_nothing(times, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("RELISH_HOME", str(tmp_path / "file"))
    assert trial(small_network(), IMAGES, trained=1).precision == "bf16"


def test_answers_are_compared_every_time_since_weights_differ(times):
    network = small_network().eval()
    assert trial(network, IMAGES, trained=1).precision == "bf16"
    with torch.no_grad():  # large logits around zero: rounding tips them
        network[-1].weight.mul_(1e4)
        network[-1].bias.sub_(network(IMAGES).mean(0))
    found = trial(network, IMAGES, trained=1)
    assert found.difference > DIFFERENCE
    assert found.precision == "f32"


def test_an_answer_that_is_no_number_is_no_answer(times):
    network = small_network()
    with torch.no_grad():
        network[-1].bias.fill_(float("nan"))
    assert trial(network, IMAGES, trained=1).precision == "f32"


def test_computing_in_f32_changes_no_bit_and_in_bf16_the_parameters_stay_f32():
    network = small_network().eval()
    with computing_in("f32", CPU):
        assert torch.equal(network(IMAGES), network(IMAGES))
        assert not torch.is_autocast_enabled("cpu")
    with computing_in("bf16", CPU):
        assert network(IMAGES).dtype == torch.bfloat16
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_grouped_convolutions_stay_f32_while_training_in_bf16():
    """Seen by what they compute: rounding the input to bf16 first would lose the difference."""
    torch.manual_seed(0)
    layer, images = nn.Conv2d(4, 4, 3, groups=4, bias=False), torch.randn(2, 4, 8, 8)
    with computing_in("bf16", CPU):
        found = layer(images)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, layer(images).bfloat16())
    found.float().sum().backward()
    assert layer.weight.grad.dtype == torch.float32


# ---- in prediction --------------------------------------------------------------------------------------------------


def test_predictions_are_f32_unless_asked_otherwise_and_scores_always_are(colours, tiny_source, tmp_path, times):
    """In bf16 the same pictures get the same classes, within `DIFFERENCE`."""
    recipe = named_recipe("book").with_settings(SMALL)
    relish.fit(colours, weights=tiny_source, recipe=recipe, out=tmp_path / "run")
    files = sorted((colours / "test").rglob("*.png"))
    plain, asked = (relish.load(tmp_path / "run", precision=precision) for precision in ("f32", "auto"))
    exact, quick = plain.predict(files), asked.predict(files)
    assert times["count"] == 1
    assert [p.probability for p in exact] != [p.probability for p in quick]
    assert [p.probability for p in exact] == pytest.approx([p.probability for p in quick], abs=DIFFERENCE)
    assert plain.evaluate(colours).as_json() == asked.evaluate(colours).as_json()


def test_a_single_picture_needs_no_trial(times):
    assert fastest(small_network(), IMAGES[:1]) == "f32"
    assert times["count"] == 0


def test_an_unknown_precision_is_refused(tmp_path):
    with pytest.raises(BadInput, match="f32, auto"):
        checked_precision("bf16")


# ---- in a run -------------------------------------------------------------------------------------------------------


def auto(**settings):
    return named_recipe("book").with_settings({"epochs": 1, "batch_size": 8, "precision": "auto", **settings})


def test_only_a_recipe_that_asks_for_it_makes_a_trial(pictures, tiny_source, tmp_path, times):  # noqa: F811
    recipe = named_recipe("book")
    setup, run = setup_for(pictures, recipe, tiny_source), run_in(tmp_path, recipe)
    assert run_computing(run, setup, 1).precision == "f32"
    assert times["count"] == 0
    assert not run.folder.precision.exists()


def test_a_run_goes_on_in_the_precision_it_began_in(pictures, tiny_source, tmp_path, times):  # noqa: F811
    setup, run = setup_for(pictures, auto(), tiny_source), run_in(tmp_path, auto())
    assert run_computing(run, setup, 1).precision == "bf16"
    times["f32"], times["bf16"] = 1.0, 2.0
    cache_file().unlink()
    assert run_computing(run, setup, 1).precision == "bf16"
    assert times["count"] == 1
    run.folder.precision.write_text('{"precision": "f32", "compiled": true}')
    assert run_computing(run, setup, 1) == ("f32", True)


def test_a_run_whose_precision_is_lost_says_what_to_write(pictures, tiny_source, tmp_path, times):  # noqa: F811
    setup, run = setup_for(pictures, auto(), tiny_source), run_in(tmp_path, auto())
    run.folder.precision.write_text('{"precision": "f1"}')
    with pytest.raises(RunError, match="in which precision the run began"):
        run_computing(run, setup, 1)


def test_training_in_bf16_learns_about_the_same_with_parameters_in_f32(pictures, tiny_source, tmp_path):  # noqa: F811
    losses = {}
    for chosen in ("f32", "bf16"):
        setup = replace(setup_for(pictures, auto(), tiny_source), computing=Computing(chosen))
        run = run_in(tmp_path, auto(), chosen)
        train(run, setup)
        losses[chosen] = [event["loss"] for event in run.folder.records() if event["event"] == "train"]
        assert {p.dtype for p in setup.target.network.parameters()} == {torch.float32}
    assert losses["f32"] != losses["bf16"]
    assert losses["bf16"] == pytest.approx(losses["f32"], rel=0.05)


# ---- times ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "lasting", "passes"), [(0.01, measure.SECONDS, 102), (0.01, measure.ROUGHLY, 12),
                                                            (2.0, measure.SECONDS, 4)])  # fmt: skip
def test_short_passes_are_repeated_for_as_long_as_hangs_on_them(monkeypatch, seconds, lasting, passes):
    """One of them that another process interrupts would count for a hundred."""
    ended = []
    monkeypatch.setattr(measure, "time", SimpleNamespace(perf_counter=lambda: len(ended) * seconds))
    assert measure._mean_seconds(4, ended.append, lasting=lasting) == pytest.approx(seconds / 4)
    assert len(ended) == pytest.approx(passes, abs=1)

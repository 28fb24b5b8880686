"""Gluon's networks here against MXNet 1.9.1 itself, whose answers lie in `fixtures/gluon` (`make_fixtures.py`)."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from relish.core.context import Context
from relish.core.run_folder import RunFolder
from relish.data.dataset import Split
from relish.data.loader import Batch
from relish.data.transforms import book_preprocessing, normalise
from relish.models.gluon.loading import own_names, plain_name, renamed
from relish.models.gluon.networks import Norm
from relish.models.gluon.params import read_params
from relish.models.own_module import source_model
from relish.models.source import load_source
from relish.models.target import make_target
from relish.training import train as loop
from relish.training.recipe import named_recipe
from relish.training.train import TrainingSetup, train
from tests.conftest import same_tensors
from tests.fixtures.gluon.make_fixtures import BATCH, MEAN, SIZE, STD, labels, pictures
from tests.gluon_files import params_bytes

FIXTURES = Path(__file__).parents[2] / "fixtures" / "gluon"
EXPECTED = np.load(FIXTURES / "expected.npz")
NAMES = json.loads((FIXTURES / "names.json").read_text())
HOW = book_preprocessing(SIZE, MEAN, STD)
FAMILIES = {
    "v1_basic": ("resnet18_v1", {"layers": [2, 1, 1], "channels": [4, 4, 6, 8]}),
    "v1_bottleneck": ("resnet50_v1", {"layers": [1, 2], "channels": [4, 8, 12]}),
    "v2_basic": ("resnet18_v2", {"layers": [2, 1, 1], "channels": [4, 4, 6, 8]}),
    "v2_bottleneck": ("resnet50_v2", {"layers": [1, 2], "channels": [4, 8, 12]}),
    "mobilenet": ("mobilenet1.0", {"multiplier": 0.0625}),
    "mobilenetv2": ("mobilenetv2_1.0", {"multiplier": 0.125}),
}
OTHER_FORMS = ("counted", "exported", "numpy", "book")


def images():
    return torch.from_numpy(pictures(BATCH, SIZE))


def answers(network):
    with torch.inference_mode():
        return network.eval()(normalise(images(), HOW)).numpy()


@pytest.mark.parametrize("family", FAMILIES)
def test_names_and_shapes_alone_say_which_network_a_file_is_of(family):
    source = load_source(weights=FIXTURES / f"{family}.params")
    architecture, model_args = FAMILIES[family]
    assert (source.description.architecture, source.num_classes, source.labels) == (architecture, 5, None)
    build = source.description.build()
    assert {k: v.shape for k, v in build.state_dict().items()} == {
        k: v.shape for k, v in source.network.state_dict().items()
    }
    if "multiplier" in model_args:
        assert int(32 * source.description.model_args["multiplier"]) == int(32 * model_args["multiplier"])
    else:
        assert dict(source.description.model_args) == model_args


@pytest.mark.parametrize("family", FAMILIES)
def test_it_answers_as_mxnet_does(family):
    found = answers(source_model(weights=FIXTURES / f"{family}.params"))
    np.testing.assert_allclose(found, EXPECTED[f"{family}/eval"], rtol=1e-4, atol=1e-4)
    assert EXPECTED[f"{family}/eval"].std(0).min() > 0.05  # what is compared depends on the pictures


def after_one_step(family, folder):
    """The target network after one step of relish's own loop with `book-mxnet`; it begins as the source's twin.

    The step is computed in float64: in float32 the last digits decide now and then on which side of a ReLU a value
    falls, and they differ with the processor and the number of threads. MXNet's own step lies as near to the exact one.
    """
    source = load_source(weights=FIXTURES / f"{family}.params")
    recipe = named_recipe("book-mxnet").with_settings({"batch_size": BATCH, "epochs": 1})
    names = [f"class {number}" for number in range(5)]
    target = make_target(
        source, names, head_init="source", seed=0, mapping={name: row for row, name in enumerate(names)}
    )
    assert same_tensors(dict(source.network.state_dict()), dict(target.network.state_dict()))
    truth = torch.from_numpy(labels())
    split = Split(tuple(Path(str(i)) for i in range(BATCH)), labels().astype(np.int64))
    setup = TrainingSetup(target=target, recipe=recipe, train=split, validation=split.take([]), preprocessing=HOW)
    target.network.double().register_forward_pre_hook(lambda _, inputs: (inputs[0].double(),))
    batch = Batch(images(), truth, torch.arange(BATCH))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "training_batches", lambda *_, **__: iter([batch]))
        train(Context.on("cpu").in_run(RunFolder.create(folder, {}, {})), setup)
    return target.network.float()


def expected_after(family, network):
    """What MXNet has after its step, under our names."""
    start = f"{family}/after/"
    given = {key.removeprefix(start): torch.from_numpy(EXPECTED[key]) for key in EXPECTED if key.startswith(start)}
    return renamed(given, network)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_step_of_book_mxnet_moves_every_tensor_as_mxnet_does(family, tmp_path):
    """Parameters and running statistics: rates, the mean of the losses, weight decay, biased variances."""
    network = after_one_step(family, tmp_path / "run")
    before = load_source(weights=FIXTURES / f"{family}.params").network.state_dict()
    found, wanted = network.state_dict(), expected_after(family, network)
    assert {name for name in found if not name.endswith("num_batches_tracked")} == set(wanted)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    still = {name for name, value in wanted.items() if torch.equal(value, before[name])}
    # The first norm of a v2 learns nothing, so no gradient comes back through it, and MXNet leaves its statistics.
    first = {"features.0.bias", "features.0.running_mean", "features.0.running_var"}
    assert still == (first if family.startswith("v2") else set())


@pytest.mark.parametrize("how", ["lr", "head", "decay", "loss", "biased"])
def test_the_comparison_of_the_step_can_fail(how, monkeypatch, tmp_path):
    """Each thing the step consists of, done wrongly, is further off than the tolerance."""
    recipe = named_recipe("book-mxnet")
    wrong = {"lr": {"learning_rate": 0.011}, "head": {"head_multiplier": 9.0}, "decay": {"weight_decay": 0.0}}
    changed = recipe.with_settings(wrong.get(how, {"loss": "sum"} if how == "loss" else {}))
    monkeypatch.setattr("tests.models.gluon.test_parity.named_recipe", lambda name: changed)
    if how == "biased":
        monkeypatch.setattr(Norm, "forward", torch.nn.BatchNorm2d.forward)
    network = after_one_step("v1_basic", tmp_path / "run")
    wanted = expected_after("v1_basic", network)
    found = network.state_dict()
    assert any(not torch.allclose(found[n], v, rtol=1e-5, atol=1e-5) for n, v in wanted.items())


@pytest.mark.parametrize("form", OTHER_FORMS)
def test_every_form_mxnet_writes_is_the_same_network(form):
    """Names by counting, `arg:` and `aux:`, numpy's shapes, and the two prefixes of the book's fine-tuned network."""
    plain, other = (load_source(weights=FIXTURES / f"v2_basic{end}.params") for end in ("", f"-{form}"))
    assert same_tensors(plain.network.state_dict(), other.network.state_dict())
    assert (plain.name, plain.description) == (other.name, other.description)


def test_the_forms_are_really_other_forms():
    names = {form: list(read_params(FIXTURES / f"v2_basic-{form}.params")) for form in OTHER_FORMS}
    assert any(name.startswith("resnetv20_stage1_") or "stage1_" in name for name in names["counted"])
    assert {name.partition(":")[0] for name in names["exported"]} == {"arg", "aux"}
    assert len({name.partition("_")[0] for name in names["book"]}) == 2
    magic = (FIXTURES / "v2_basic-numpy.params").read_bytes()[24:28]
    assert magic == bytes.fromhex("cafa93f9")


def test_halves_are_read_as_halves():
    plain, half = (read_params(FIXTURES / f"v2_basic{end}.params") for end in ("", "-half"))
    assert all(tensor.dtype == torch.float32 for tensor in half.values())
    del plain["features.0.gamma"], half["features.0.gamma"]  # not used; MXNet writes ones there when it computes
    assert same_tensors({name: tensor.half().float() for name, tensor in plain.items()}, half)
    found = answers(source_model(weights=FIXTURES / "v2_basic-half.params"))
    np.testing.assert_allclose(found, EXPECTED["v2_basic/eval"], rtol=0.02, atol=0.05)


@pytest.mark.parametrize("version", [0, 1, 2, 3])
@pytest.mark.parametrize("family", ["v2_basic", "mobilenetv2"])
def test_every_version_of_the_format_holds_the_same(version, family, tmp_path):
    """V0 and V1 are made from the description of the format: MXNet 1.9.1 reads them and writes only V2 and V3."""
    given = read_params(FIXTURES / f"{family}.params")
    path = tmp_path / "again.params"
    path.write_bytes(params_bytes({name: tensor.numpy() for name, tensor in given.items()}, version))
    assert same_tensors(read_params(path), given)
    if version == 2:
        assert path.read_bytes() == (FIXTURES / f"{family}.params").read_bytes()


@pytest.mark.parametrize("family", FAMILIES)
def test_names_by_counting_are_gluons_own(family, tmp_path):
    """Every family's, as MXNet itself listed them; the network's prefix may be any word."""
    network = load_source(weights=FIXTURES / f"{family}.params").network
    by_place, counted = own_names(network, counted=False), own_names(network, counted=True)
    theirs = {plain_name(name): place for name, place in NAMES[family].items()}
    assert len(theirs) == len(NAMES[family])
    assert {name: by_place[place] for name, place in theirs.items()} == counted
    tensors = read_params(FIXTURES / f"{family}.params")
    file = tmp_path / "counted.params"
    file.write_bytes(params_bytes({f"my_own_{name}": tensors[place].numpy() for name, place in theirs.items()}))
    assert same_tensors(load_source(weights=file).network.state_dict(), network.state_dict())


def test_a_stored_factor_that_is_not_used_reads_as_one_and_a_stored_offset_counts(tmp_path):
    """`scale=False, center=False`: MXNet keeps both arrays, and computes with the second."""
    given = read_params(FIXTURES / "v2_basic.params")
    assert (given["features.0.gamma"] > 2).all()
    path = tmp_path / "changed.params"

    def outputs(**changes):
        path.write_bytes(params_bytes({k: v.numpy() for k, v in {**given, **changes}.items()}))
        return answers(source_model(weights=path))

    before = outputs()
    assert np.array_equal(outputs(**{"features.0.gamma": torch.zeros(3)}), before)
    assert not np.allclose(outputs(**{"features.0.beta": torch.ones(3)}), before, atol=1e-3)


def test_running_variances_are_means_of_biased_ones():
    torch.manual_seed(0)
    norm, pictures_ = Norm(3), torch.randn(2, 3, 2, 2)
    norm(pictures_)
    batch = pictures_.transpose(0, 1).reshape(3, -1)
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * batch.var(1, correction=0))
    torch.testing.assert_close(norm.running_mean, 0.1 * batch.mean(1))
    assert int(norm.num_batches_tracked) == 1
    assert math.isclose(norm.eps, 1e-5)


def test_statistics_stay_where_no_gradient_comes_back():
    norm = Norm(3)
    norm.requires_grad_(False)
    norm(torch.randn(2, 3, 2, 2))
    assert not norm.running_mean.any()
    with torch.no_grad():
        Norm(3)(torch.randn(2, 3, 2, 2))

"""Gluon files as source models: which network one is of, and how it gets on with the rest of relish."""

import math
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch

import relish
from relish.core.errors import ModelError
from relish.models.freeze import freeze, layer_groups, set_train_mode
from relish.models.gluon.loading import recognise
from relish.models.gluon.networks import SPECS, Norm, build_gluon
from relish.models.gluon.params import read_params
from relish.models.head import head_names, head_words
from relish.models.own_module import source_model
from relish.models.registry import hollow_network, parse_name
from relish.models.saved_model import load_model, read_header
from relish.models.source import load_source
from relish.models.summary import list_models
from relish.models.target import make_target
from tests.commands import done, refused
from tests.conftest import SMALL, draw_dataset, read_json, same_tensors
from tests.gluon_files import params_bytes, write_gluon

FIXTURES = Path(__file__).parents[2] / "fixtures" / "gluon"
SMALLEST = FIXTURES / "v2_bottleneck.params"
ONE = np.arange(6, dtype=np.float32).reshape(2, 3)
NARROW = {"layers": [1, 1], "channels": [4, 4, 8]}


def hollow_shapes(*described):
    return {name: tuple(tensor.shape) for name, tensor in hollow_network(*described).state_dict().items()}


# ---- which network --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", SPECS)
def test_every_name_of_the_zoo_is_recognised_by_its_shapes(architecture):
    """By place and by counting; on the meta device, since only shapes are looked at."""
    from relish.models.gluon.loading import own_names

    with torch.device("meta"):
        network = build_gluon(architecture, {}, 7)
    tensors = network.state_dict()
    for counted in (False, True):
        names = own_names(network, counted=counted)
        given = {theirs: tensors[own] if own else torch.empty(3) for theirs, own in names.items()}
        found = recognise(given, "x")
        assert (found.architecture, dict(found.model_args), found.num_classes) == (architecture, {}, 7)


@pytest.mark.parametrize("multiplier", [0.0625, 0.1, 0.2, 0.35, 0.6, 1.3, 1.4, 2.0])
@pytest.mark.parametrize("architecture", ["mobilenet1.0", "mobilenetv2_1.0"])
def test_a_width_of_ones_own_is_found_from_the_channels(architecture, multiplier):
    from relish.models.gluon.loading import own_names

    with torch.device("meta"):
        network = build_gluon(architecture, {"multiplier": multiplier}, 3)
    tensors = network.state_dict()
    found = recognise({a: tensors[b] for a, b in own_names(network, counted=False).items()}, "x")
    wanted = hollow_shapes("gluon", architecture, {"multiplier": multiplier}, 3)
    assert hollow_shapes("gluon", found.architecture, found.model_args, 3) == wanted


@pytest.mark.parametrize("architecture", SPECS)
def test_the_size_listed_is_the_networks_own(architecture):
    with torch.device("meta"):
        network = build_gluon(architecture, {}, 1000)
    listed = next(model for model in list_models(f"gluon/{architecture}") if model.name == f"gluon/{architecture}")
    assert listed.parameters == sum(parameter.numel() for parameter in network.parameters())


def test_tensors_of_no_gluon_network_are_refused(tmp_path):
    path = tmp_path / "x.params"
    path.write_bytes(params_bytes({"ssd0_conv0_weight": ONE, "output.weight": ONE}))
    with pytest.raises(ModelError, match="are of no Gluon network that relish knows"):
        load_source(weights=path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("features.7.gamma"), "missing 1: features.7.weight"),
        (lambda t: t.update({"features.9.weight": ONE}), "unexpected 1: features.9.weight"),
        (lambda t: t.update({"features.2.gamma": ONE}), "another shape 1: features.2.weight 2×3, not 4"),
    ],
)
def test_a_file_with_something_missing_or_too_much_is_refused(change, words, tmp_path):
    tensors = {name: tensor.numpy() for name, tensor in read_params(SMALLEST).items()}
    change(tensors)
    (tmp_path / "x.params").write_bytes(params_bytes(tensors))
    with pytest.raises(ModelError, match=words):
        load_source(weights=tmp_path / "x.params")


def test_two_networks_in_one_file_are_refused(tmp_path):
    tensors = {name: tensor.numpy() for name, tensor in read_params(FIXTURES / "v2_basic-counted.params").items()}
    both = {prefix + name.partition("_")[2]: value for prefix in ("one_", "two_") for name, value in tensors.items()}
    (tmp_path / "x.params").write_bytes(params_bytes(both))
    with pytest.raises(ModelError, match="twice"):
        load_source(weights=tmp_path / "x.params")


def test_naming_the_network_changes_nothing_and_naming_another_is_refused():
    assert load_source("gluon/resnet50_v2", SMALLEST).name == "gluon/resnet50_v2"
    with pytest.raises(ModelError, match=r"is a gluon/resnet50_v2, not --source gluon/resnet34_v2"):
        load_source("gluon/resnet34_v2", SMALLEST)
    for other in ("resnet50", "timm/resnet18", "embedded"):
        with pytest.raises(ModelError, match="is no network of Gluon's"):
            load_source(other, SMALLEST)


def test_without_weights_the_hub_that_is_gone_is_told():
    with pytest.raises(ModelError, match=r"is gone.\n.*--weights FILE.params, or --weights none"):
        load_source("gluon/resnet18_v2")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("resnet18_v2", "Write --source gluon/resnet18_v2"),
        ("mobilenet1.0", "Write --source gluon/mobilenet1.0"),
        ("gluon/resnet18_v3", 'did you mean "resnet18_v'),
        ("gluon/mobilenet1.1", 'did you mean "mobilenet1.0"'),
    ],
)
def test_a_name_that_is_not_quite_gluons_is_met_with_the_nearest(text, words):
    with pytest.raises(ModelError, match=words):
        parse_name(text)


def test_a_dot_in_a_name_of_gluons_is_a_width():
    assert str(parse_name("gluon/mobilenetv2_0.75")) == "gluon/mobilenetv2_0.75"


@pytest.mark.parametrize(
    ("architecture", "model_args", "words"),
    [
        ("resnet18_v2", {"multiplier": 1}, "has no model_args multiplier"),
        ("mobilenet1.0", {"layers": [1]}, "has no model_args layers"),
        ("mobilenet1.0", {"multiplier": 0.01}, "must be a number from 0.0625 to 8"),
        ("mobilenet1.0", {"multiplier": 1e9}, "must be a number"),
        ("mobilenet1.0", {"multiplier": "1"}, "must be a number"),
        ("mobilenet1.0", {"multiplier": True}, "must be a number"),
        ("mobilenet1.0", {"multiplier": math.nan}, "must be a number"),
        ("resnet18_v1", {"layers": [10**9] * 4}, "layers must be"),
        ("resnet18_v1", {"layers": []}, "layers must be"),
        ("resnet18_v1", {"layers": 3}, "layers must be"),
        ("resnet18_v1", {"layers": [1, 1]}, "channels must be one more"),
        ("resnet18_v1", {"channels": [64, 64, 128, 256, 10**9]}, "channels must be"),
        ("resnet50_v1", {"channels": [64, 64, 128, 256, 2]}, "cannot be built|channels"),
    ],
)
def test_what_could_not_be_built_is_refused_with_what_it_takes(architecture, model_args, words):
    with pytest.raises(ModelError, match=words):
        hollow_shapes("gluon", architecture, model_args, 2)


def test_random_weights_are_the_books_xavier_with_biases_of_zero():
    """`init.Xavier()` is uniform up to the square root of 3 over the mean of both fans."""
    network = source_model("gluon/resnet18_v2", "none")
    weight = network.get_submodule("features.5.0.conv1").weight
    bound = math.sqrt(3 / ((64 * 9 + 64 * 9) / 2))
    assert 0.98 * bound < weight.abs().max() <= bound
    assert not network.output.bias.any()
    assert all((m.weight is None or (m.weight == 1).all()) for m in network.modules() if isinstance(m, Norm))


# ---- with the rest of relish ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "words"), [("resnet18_v2", "output: 512 → 7"), ("mobilenetv2_0.25", "output.0: 1280 → 7")]
)
def test_the_head_is_the_output_even_where_it_is_a_convolution(architecture, words):
    network = build_gluon(architecture, {}, 7)
    (name,) = head_names(network, 7)
    assert head_words(network, name) == words


def gluon_target(architecture="resnet18_v2", **model_args):
    from dataclasses import replace

    source = load_source(f"gluon/{architecture}", "none")
    if model_args:
        description = replace(source.description, model_args=model_args)
        source = replace(source, network=build_gluon(architecture, model_args, 1000), description=description)
    return make_target(source, ["a", "b"], seed=0)


@pytest.mark.parametrize(
    ("architecture", "groups"),
    [("resnet18_v1", 5), ("resnet18_v2", 5), ("mobilenet0.25", 14), ("mobilenetv2_0.25", 19)],
)
def test_groups_are_the_stem_and_the_stages_or_blocks(architecture, groups):
    target = gluon_target(architecture)
    found = layer_groups(target)
    assert len(found) == groups
    assert sorted(id(p) for g in found for p in g) == sorted(id(p) for p in target.backbone_parameters())
    assert found[0][0].shape[1] == 3  # the first convolution meets the picture


@pytest.mark.parametrize("what", ["backbone", "1"])
def test_the_first_norm_of_a_v2_is_frozen_with_what_follows_it(what):
    """It has no parameters that could say so; left alone, it would norm by the batch in a frozen network."""
    target = gluon_target(**NARROW)
    freeze(target, what)
    set_train_mode(target.network, target)
    first = target.network.get_submodule("features.0")
    assert not first.training
    freeze(free := gluon_target(**NARROW), "none")
    set_train_mode(free.network, free)
    assert free.network.get_submodule("features.0").training


def test_a_frozen_gluon_backbone_is_bitwise_as_it_was():
    from tests.models.test_freeze import moved, snapshot, train

    target = gluon_target(**NARROW)
    freeze(target, "backbone")
    before = snapshot(target)
    train(target)
    assert moved(target, before) == set(target.new)


def test_convert_writes_a_file_that_needs_nothing_else(tmp_path):
    given = write_gluon(tmp_path / "x.params", "resnet18_v2", 5, **NARROW)
    out = tmp_path / "y.safetensors"
    ended = done("convert", given, out)
    assert ended.out == f"{out}\n"
    assert "gluon/resnet18_v2, layers [1, 1], channels [4, 4, 8], 5 classes" in ended.err
    network, description, _ = load_model(out)
    assert description.network_name == "gluon/resnet18_v2"
    assert same_tensors(network.state_dict(), load_source(weights=given).network.state_dict())
    assert dict(description.model_args) == NARROW
    with safetensors.safe_open(out, framework="pt") as file:
        assert file.metadata()["library"] == "gluon"
    before = out.read_bytes()
    assert "exists already" in refused("convert", given, out)
    done("convert", given, out, "--overwrite", "--source", "gluon/resnet18_v2")
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_args": '{"layers": [99, 99], "channels": [4, 4, 8]}'}, "are not of gluon/resnet18_v2"),
        ({"model_args": '{"layers": [1, 1], "channels": [4, 4, 16384]}'}, "another shape"),
        ({"model_args": '{"layers": [1e9]}'}, "layers must be"),
        ({"model_args": '{"layers": "many"}'}, "layers must be"),
        ({"model_args": '{"pretrained": true}'}, "may not set pretrained"),
        ({"architecture": "resnet18_v9"}, "no architecture"),
        ({"architecture": "mobilenet1.0"}, "has no model_args"),
    ],
)
def test_a_hostile_header_of_a_converted_file_is_one_clear_error(changes, words, tmp_path):
    given = write_gluon(tmp_path / "x.params", "resnet18_v2", 5, **NARROW)
    relish.convert(given, tmp_path / "y.safetensors")
    header = {**read_header(tmp_path / "y.safetensors"), **changes}
    tensors = safetensors.torch.load_file(tmp_path / "y.safetensors")
    safetensors.torch.save_file(tensors, tmp_path / "y.safetensors", header)
    with pytest.raises(ModelError, match=words):
        load_source(weights=tmp_path / "y.safetensors")


def test_convert_of_a_thousand_classes_says_that_their_order_is_a_claim(tmp_path):
    given = write_gluon(tmp_path / "x.params", "mobilenet0.25")
    ended = done("convert", given, tmp_path / "y.safetensors")
    assert "a claim" in ended.err
    assert read_header(tmp_path / "y.safetensors")["labels"] == "imagenet-1k"


def test_convert_refuses_what_it_cannot_do(tmp_path):
    given = write_gluon(tmp_path / "x.params", "resnet18_v2", 5, **NARROW)
    assert "no such file" in refused("convert", tmp_path / "no.params", tmp_path / "y.safetensors")
    assert "is not named .safetensors" in refused("convert", given, tmp_path / "y.params")
    assert "not --source gluon/resnet18_v1" in refused(
        "convert", given, tmp_path / "y.safetensors", "--source", "gluon/resnet18_v1"
    )
    (tmp_path / "broken.params").write_bytes(given.read_bytes()[:-3])
    assert "too early" in refused("convert", tmp_path / "broken.params", tmp_path / "y.safetensors")
    done("convert", given, tmp_path / "y.safetensors")
    assert "is the file to read" in refused(
        "convert", tmp_path / "y.safetensors", tmp_path / "y.safetensors", "--overwrite"
    )
    assert "random weights" in refused("convert", "none", tmp_path / "z.safetensors")


def test_a_gluon_model_goes_through_every_command(tmp_path, monkeypatch):
    """fit, resume, evaluate, predict, compare, sweep, models and pretrain, from the file alone."""
    monkeypatch.chdir(tmp_path)
    colours = draw_dataset(tmp_path / "colours", train=6, test=3)
    # With 2 to 7 channels into a 1 × 1 convolution of stride 2, PyTorch 2.15.0 writes past its memory in the backward
    # pass of the channels-last layout, on some processors.
    given = write_gluon(tmp_path / "x.params", "resnet18_v2", 5, layers=[1, 1], channels=[8, 8, 16])
    small = [word for key, value in SMALL.items() for word in (f"--{key.replace('_', '-')}", value)]
    done("fit", colours, "--weights", given, "--recipe", "book-mxnet", "--out", "run", *small)
    recipe = (tmp_path / "run" / "recipe.yaml").read_text()
    assert "head: xavier-zero" in recipe
    assert "loss: mean" in recipe
    assert "finished already" in done("fit", "--resume", "run").err
    picture = next((colours / "test").glob("*/*.png"))
    assert done("predict", "run", picture).out.startswith(str(picture))
    assert "accuracy" in done("evaluate", "run", colours).out
    assert read_header(tmp_path / "run" / "model.safetensors")["architecture"] == "resnet18_v2"
    assert "gluon/resnet18_v2" in done("models", "--weights", given).out
    assert "gluon/resnet18_v2" in done("models", "--weights", "run").out
    recipes = "book-mxnet,book-mxnet-scratch,frozen"
    assert "book-mxnet-scratch" in done("compare", colours, "--weights", given, "--recipes", recipes, *small).out
    swept = ["--vary", "lr=1e-3..1e-2", "--points", 2, "--recipes", "book-mxnet"]
    assert "best" in done("sweep", colours, "--weights", given, *swept, *small).out
    done("pretrain", colours, "--source", "gluon/mobilenet0.25", "--out", "own", *small)
    assert read_json(tmp_path / "own" / "classes.json") == ["blue", "red"]
    done("fit", colours, "--weights", "own", "--epochs", 0, "--out", "again", "--image-size", 32)


def test_from_python_a_gluon_file_is_a_module(tmp_path):
    given = write_gluon(tmp_path / "x.params", "mobilenet0.25")
    network = relish.source_model("gluon/mobilenet0.25", weights=given)
    assert network.labels[934].startswith("hotdog")
    assert network.data_config.mean == (0.485, 0.456, 0.406)
    model = relish.convert(given, tmp_path / "y.safetensors")
    assert same_tensors(model.network.state_dict(), network.state_dict())


def test_gluons_names_are_listed():
    assert "gluon/resnet18_v2" in done("models", "gluon/").out
    assert "output: 512 → 1000" in done("models", "gluon/resnet18_v2").out

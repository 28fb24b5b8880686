"""Modules handed in and out: what is copied, what is new, which output layer, and what is refused."""

import copy

import pytest
import torch
from torch import nn

import relish
from relish.core.errors import ModelError, RecipeError
from relish.models.own_module import is_target, kept_target, source_of, tensors_sha256
from relish.models.saved_model import load_model, save_model
from relish.models.target import make_target
from tests.conftest import same_tensors

NAME = "timm/test_resnet"


class Net(nn.Module):
    """Three layers, the last one not called last."""

    def __init__(self, classes=5):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=2)
        self.out = nn.Linear(8, classes)
        self.hidden = nn.Linear(6, 8)

    def forward(self, images):
        return self.out(torch.relu(self.hidden(torch.relu(self.conv(images)).mean((2, 3)))))


@pytest.fixture
def source():
    return relish.source_model(NAME, "none")


@pytest.fixture
def net():
    torch.manual_seed(1)
    return Net()


def test_a_source_model_is_the_librarys_own_module(source):
    import timm

    assert isinstance(source, nn.Module)
    assert source.state_dict().keys() == timm.create_model("test_resnet").state_dict().keys()
    assert source(torch.zeros(2, 3, 64, 64)).shape == (2, 1000)
    assert source.data_config.input_size == (3, 160, 160)


def test_a_target_model_is_the_source_but_for_its_head(source):
    before = copy.deepcopy(source.state_dict())
    target = relish.target_model(source, ["cat", "dog"])
    assert same_tensors(source.state_dict(), before)
    tensors = target.state_dict()
    assert [name for name in tensors if not torch.equal(tensors[name], before[name])] == ["fc.weight", "fc.bias"]
    assert tensors["fc.weight"].shape == (2, before["fc.weight"].shape[1])
    assert target(torch.zeros(3, 3, 64, 64)).shape == (3, 2)
    assert (target.classes, target.data_config) == (("cat", "dog"), source.data_config)
    bound = (6 / sum(tensors["fc.weight"].shape)) ** 0.5  # Xavier-uniform
    assert 0 < tensors["fc.weight"].abs().max() <= bound


def test_a_network_trained_further_is_taken_as_it_is_now(source):
    with torch.no_grad():
        source.conv1[0].weight.add_(1)
    assert torch.equal(relish.target_model(source, ["a", "b"]).conv1[0].weight, source.conv1[0].weight)


def test_a_head_may_start_from_rows_of_the_source_head(source):
    target = relish.target_model(source, ["x", "y"], head_init="source", mapping={"x": 7, "y": 2})
    assert torch.equal(target.fc.weight, source.fc.weight[[7, 2]])


def test_the_same_seed_is_the_same_head(source):
    one, same_one, other = (relish.target_model(source, ["a", "b"], seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.fc.weight, same_one.fc.weight)
    assert not torch.equal(one.fc.weight, other.fc.weight)


def test_any_module_is_a_source_and_is_left_as_it_is(net):
    before, words = copy.deepcopy(net.state_dict()), str(net)
    target = relish.target_model(net, ["a", "b", "c"], head="out")
    assert (same_tensors(net.state_dict(), before), str(net)) == (True, words)
    assert target(torch.zeros(2, 3, 9, 9)).shape == (2, 3)
    assert {name for name in before if torch.equal(before[name], target.state_dict()[name])} == {
        "conv.weight", "conv.bias", "hidden.weight", "hidden.bias",
    }  # fmt: skip


def test_an_output_layer_is_the_last_one_unless_it_is_named(net):
    assert source_of(net).heads == ("hidden",)
    assert source_of(net, head="out").heads == ("out",)
    assert source_of(nn.Sequential(nn.Linear(3, 4), nn.Conv2d(4, 7, 1), nn.Flatten())).num_classes == 7


def test_what_was_frozen_stays_frozen(net):
    net.conv.requires_grad_(False)
    target = relish.target_model(net, ["a", "b"], head="out")
    learning = [name for name, parameter in target.named_parameters() if parameter.requires_grad]
    assert learning == ["out.weight", "out.bias", "hidden.weight", "hidden.bias"]


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ("conv", 'conv": is a Conv2d, not a linear layer'),
        ("oout", 'did you mean "out"'),
        ("", "is a Net, not a linear layer"),
    ],
)
def test_a_head_that_is_none_is_refused_with_what_there_is(net, head, words):
    with pytest.raises(ModelError) as caught:
        relish.target_model(net, ["a", "b"], head=head)
    assert words in f"{caught.value.message} {caught.value.hint}"


def test_a_module_without_an_output_layer_is_refused():
    with pytest.raises(ModelError, match="no output layer that relish can find"):
        relish.target_model(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), ["a", "b"])


def test_something_else_is_no_source():
    with pytest.raises(ModelError, match="source is a str, not an"):
        relish.target_model("resnet18", ["a", "b"])


def test_classes_are_named_once(net):
    with pytest.raises(RecipeError, match="each named once"):
        relish.target_model(net, ["a", "a"])


def test_a_target_model_keeps_its_head_in_the_order_of_the_images_classes(net):
    given = relish.target_model(net, ["dog", "ant", "cat"], head="out")
    target = kept_target(source_of(given), ["ant", "cat", "dog"])
    assert torch.equal(target.network.out.weight, given.out.weight[[1, 2, 0]])
    assert torch.equal(target.network.out.bias, given.out.bias[[1, 2, 0]])
    assert (target.classes, target.new) == (("ant", "cat", "dog"), ())


def test_other_classes_than_the_images_are_an_error_that_names_both(source):
    given = relish.target_model(source, ["cat", "dog"])
    with pytest.raises(RecipeError) as caught:
        kept_target(source_of(given), ["cat", "dogs"])
    assert "classes are cat, dog; the images' classes are cat, dogs" in caught.value.message
    assert "Did you mean" in caught.value.hint


def test_a_description_holds_until_the_network_is_changed(source):
    target = relish.target_model(source, ["cat", "dog"])
    assert is_target(target)
    assert not is_target(source)
    assert source_of(target).name == NAME
    target.act1 = nn.GELU()
    changed = source_of(target)
    assert (changed.name, changed.labels, changed.heads) == ("own/timm.models.resnet.ResNet", ("cat", "dog"), ("fc",))


def test_equal_modules_are_equal_sources(net):
    other = copy.deepcopy(net)
    assert tensors_sha256(net) == tensors_sha256(other)
    with torch.no_grad():
        other.out.bias[0] += 1
    assert tensors_sha256(net) != tensors_sha256(other)


def test_how_images_are_prepared_is_what_the_user_says(net):
    config = source_of(net, input_size=(3, 48, 48), mean=(0, 0, 0), std=None).data_config
    assert (config.input_size, config.mean, config.origin["mean"]) == ((3, 48, 48), (0, 0, 0), "user")
    assert (config.std, config.origin["std"]) == ((0.229, 0.224, 0.225), "default")


def test_a_model_of_an_own_class_is_saved_and_loaded_with_a_new_one(net, tmp_path):
    target, path = make_target(source_of(net, head="out"), ["a", "b"], seed=0), tmp_path / "model.safetensors"
    save_model(path, target.network, target.description(), {})
    loaded, description, _ = load_model(path, Net(classes=100))
    assert same_tensors(loaded.state_dict(), target.network.state_dict())
    assert description == target.description()
    assert not loaded.training


def test_a_model_of_an_own_class_cannot_be_rebuilt_and_says_so(net, tmp_path):
    target, path = make_target(source_of(net, head="out"), ["a", "b"], seed=0), tmp_path / "model.safetensors"
    save_model(path, target.network, target.description(), {})
    with pytest.raises(ModelError, match=r"(?s)your own class .*test_own_module\.Net.*network=") as caught:
        load_model(path)
    assert "relish.load(RUN, network=…)" in caught.value.hint
    other = Net()
    other.hidden = nn.Linear(6, 9)
    with pytest.raises(ModelError, match="these weights are not of own/"):
        load_model(path, other)


def test_a_model_that_relish_builds_takes_no_network(source, tmp_path):
    target, path = make_target(source_of(source), ["a", "b"], seed=0), tmp_path / "model.safetensors"
    save_model(path, target.network, target.description(), {})
    with pytest.raises(ModelError, match="which relish builds itself"):
        load_model(path, Net())
    assert load_model(path)[1].network_name == NAME

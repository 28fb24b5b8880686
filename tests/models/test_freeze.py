"""Frozen is frozen: parameters and running statistics stay bitwise what they were."""

import copy

import pytest
import torch
from torch import nn

from relish.core.errors import RecipeError
from relish.models.freeze import freeze, layer_groups, set_train_mode, smallest_batch
from relish.models.own_module import source_of
from relish.models.source import load_source
from relish.models.summary import describe
from relish.models.target import make_target


def target_of(name="timm/resnet10t"):
    return make_target(load_source(name, "none"), ["a", "b"], seed=0)


def train(target, steps=2, size=64):
    """A few careless steps: high rate, momentum and weight decay, over every parameter."""
    optimiser = torch.optim.SGD(target.network.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    generator = torch.Generator().manual_seed(0)
    set_train_mode(target.network, target)
    for _ in range(steps):
        pictures = torch.rand(4, 3, size, size, generator=generator)
        loss = nn.functional.cross_entropy(target.network(pictures), torch.tensor([0, 1, 0, 1]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def moved(target, before):
    return {name for name, tensor in target.network.state_dict().items() if not torch.equal(tensor, before[name])}


def snapshot(target):
    return copy.deepcopy(target.network.state_dict())


@pytest.mark.parametrize(
    "name", ["timm/resnet10t", "timm/mobilenetv3_small_050", "torchvision/mobilenet_v3_small", "torchvision/resnet18"]
)
def test_a_frozen_backbone_is_bitwise_as_it_was_after_training(name):
    target = target_of(name)
    freeze(target, "backbone")
    before = snapshot(target)
    train(target)
    assert moved(target, before) == set(target.new)


def test_nothing_frozen_means_everything_moves():
    """Otherwise the tests here would prove nothing."""
    target = target_of()
    freeze(target, "none")
    before = snapshot(target)
    train(target)
    assert moved(target, before) == set(before)


@pytest.mark.parametrize("name", ["timm/resnet10t", "torchvision/resnet18", "torchvision/mobilenet_v3_small"])
def test_freezing_n_groups_holds_exactly_these(name):
    target = target_of(name)
    groups = layer_groups(target)
    freeze(target, 2)
    still = {id(parameter) for group in groups[:2] for parameter in group}
    assert {id(p) for p in target.network.parameters() if not p.requires_grad} == still
    before = snapshot(target)
    train(target)
    names = {n for n, p in target.network.named_parameters() if id(p) in still}
    statistics = {n for n in before if "running_" in n and n.rpartition(".")[0] + ".weight" in names}
    assert statistics
    assert not moved(target, before) & (names | statistics)
    assert moved(target, before) >= {n for n, p in target.network.named_parameters() if id(p) not in still}


@pytest.mark.parametrize(
    "name", ["timm/resnet10t", "timm/vit_tiny_patch16_224", "torchvision/swin_t", "torchvision/densenet121"]
)
def test_the_groups_are_the_backbone_once_and_never_the_head(name):
    target = target_of(name)
    grouped = [id(parameter) for group in layer_groups(target) for parameter in group]
    assert sorted(grouped) == sorted(id(parameter) for parameter in target.backbone_parameters())
    assert len(layer_groups(target)) >= 5


def test_the_first_group_is_what_the_picture_meets_first():
    for name, first in (("timm/resnet10t", "conv1.0.weight"), ("torchvision/resnet18", "conv1.weight")):
        target = target_of(name)
        assert target.network.get_parameter(first) is layer_groups(target)[0][0]


def test_dropout_before_the_head_stays_active_and_frozen_parts_do_not():
    target = target_of("torchvision/mobilenet_v3_small")
    freeze(target, "backbone")
    set_train_mode(target.network, target)
    assert target.network.get_submodule("classifier.2").training  # Dropout
    assert not target.network.get_submodule("classifier.0").training
    assert not any(module.training for module in target.network.get_submodule("features").modules())


def test_a_norm_without_parameters_in_a_frozen_backbone_keeps_its_statistics():
    target = target_of()
    bare = nn.BatchNorm2d(64, affine=False)
    target.network.get_submodule("layer1").append(bare)
    freeze(target, "backbone")
    before = bare.running_mean.clone()
    train(target)
    assert torch.equal(bare.running_mean, before)


@pytest.mark.parametrize("what", ["0", 0])
def test_zero_groups_freeze_nothing(what):
    target = target_of()
    freeze(target, what)
    assert all(parameter.requires_grad for parameter in target.network.parameters())


@pytest.mark.parametrize(
    ("name", "early", "half"), [("torchvision/resnet18", 2, 3), ("embedded", 2, 4), ("timm/vit_tiny_patch16_224", 4, 7)]
)
def test_early_and_half_of_a_network_are_so_many_of_its_groups(name, early, half):
    for word, count in (("early", early), ("half", half)):
        target = make_target(load_source(None if name == "embedded" else name, "none"), ["a", "b"], seed=0)
        freeze(target, word)
        still = [not group[0].requires_grad for group in layer_groups(target)]
        assert still == [place < count for place in range(len(still))]


def test_all_groups_are_the_backbone():
    target = target_of()
    freeze(target, len(layer_groups(target)))
    assert not any(parameter.requires_grad for parameter in target.backbone_parameters())
    assert all(parameter.requires_grad for parameter in target.head_parameters())


@pytest.mark.parametrize("what", ["99", 99, -1, "some", "1.5", ""])
def test_what_cannot_be_frozen_is_refused(what):
    with pytest.raises(RecipeError, match="--freeze"):
        freeze(target_of(), what)


def test_the_figure_says_what_is_frozen():
    target = target_of()
    freeze(target, "backbone")
    assert any(line.endswith("frozen") for line in describe(target, {"backbone": 1.0, "head": 2.0}))


def update_of(target, images, in_place):
    """The gradients of one step, and how many tensors were copied on the way."""
    set_train_mode(target.network, target)
    for module in target.network.modules():
        if isinstance(module, nn.Hardtanh) and in_place:
            module.inplace = True
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], acc_events=True) as profile:
        target.network(images).logsumexp(1).sum().backward()
    clones = sum(event.count for event in profile.key_averages() if event.key == "aten::clone")
    return [parameter.grad for parameter in target.network.parameters()], clones


def test_activations_in_place_are_not_copied_for_their_gradients():
    """The gradients are the same to the bit."""
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    was, copied = update_of(target_of("timm/efficientnet_lite0"), images, in_place=True)
    now, fewer = update_of(target_of("timm/efficientnet_lite0"), images, in_place=False)
    assert all(torch.equal(a, b) for a, b in zip(was, now, strict=True))
    assert copied - fewer == 33  # one for each ReLU6


def test_a_network_of_the_users_own_keeps_its_activations_in_place():
    """It might rely on that, and not use what they return."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU6(inplace=True), nn.Flatten(), nn.Linear(4 * 6 * 6, 2))
    target = make_target(source_of(network), ["a", "b"], seed=0)
    set_train_mode(target.network, target)
    assert target.network[1].inplace


@pytest.mark.parametrize(
    ("name", "size", "smallest"),
    [
        ("timm/mobilenetv4_conv_small_035", 64, 2),  # it normalises what was pooled
        ("timm/test_resnet", 32, 2),  # 1 x 1 pixel is left
        ("timm/test_resnet", 64, 1),
        ("timm/test_vit", 160, 1),
    ],
)
def test_the_smallest_batch_is_found_and_the_network_left_as_it_was(name, size, smallest):
    target = target_of(name)
    before, drawn = snapshot(target), torch.get_rng_state()
    assert smallest_batch(target, size) == smallest
    assert moved(target, before) == set()
    assert torch.equal(torch.get_rng_state(), drawn)
    assert not any(module.training for module in target.network.modules())
    assert smallest_batch(target, size, still_norms=True) == 1
    freeze(target, "backbone")
    assert smallest_batch(target, size) == 1

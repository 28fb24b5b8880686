"""Finding the output layer, matching class names to its rows, and what a new one starts from."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from relish.core.errors import ModelError, RecipeError
from relish.models.head import head_names, head_words, initialise_head, match_classes, normalised
from relish.models.registry import build_network, imagenet_labels, names_of_rows

IMAGENET = imagenet_labels()


def match(name, mapping=None, labels=IMAGENET):
    return [row for row, _ in match_classes([name], labels, len(labels or range(1000)), mapping or {})[name]]


@pytest.mark.parametrize(
    ("library", "architecture", "names"),
    [
        ("torchvision", "resnet18", ("fc",)),
        ("torchvision", "mobilenet_v3_small", ("classifier.3",)),
        ("torchvision", "squeezenet1_1", ("classifier.1",)),
        ("torchvision", "densenet121", ("classifier",)),
        ("timm", "resnet18", ("fc",)),
        ("timm", "convnext_atto", ("head.fc",)),
        ("timm", "deit_tiny_distilled_patch16_224", ("head", "head_dist")),
    ],
)
def test_the_output_layer_is_found_whatever_it_is_called(library, architecture, names):
    assert head_names(build_network(library, architecture, {}, 7), 7) == names


def test_a_record_that_does_not_hold_is_not_believed():
    """timm's record names a layer; where that layer has other outputs, the general rule decides."""
    network = nn.Sequential(nn.Linear(4, 9), nn.Linear(9, 3))
    network.pretrained_cfg = {"classifier": "0"}
    assert head_names(network, 3) == ("1",)


def test_a_network_without_an_output_layer_is_refused():
    with pytest.raises(ModelError, match="no output layer of 5 classes"):
        head_names(nn.Sequential(nn.Linear(4, 9)), 5)


def test_the_head_is_told_as_the_book_writes_it():
    assert head_words(build_network("torchvision", "resnet18", {}, 1000), "fc") == "fc: 512 → 1000"


@pytest.mark.parametrize("name", ["hotdog", "hot dog", "Hot-Dog", "HOT_DOG", "red hot"])
def test_spelling_and_synonyms_do_not_matter(name):
    assert match(name) == [934]


@pytest.mark.parametrize("name", ["not-hotdog", "nothotdog", "hotdogs", "hot", "dog", "a hotdog", ""])
def test_only_whole_names_match(name):
    assert match(name) == []


def test_every_name_of_imagenet_that_stands_for_one_class_finds_it():
    rows = {}
    for row, names in enumerate(names_of_rows(IMAGENET)):
        for name in names:
            rows.setdefault(normalised(name), set()).add(row)
    single = {name: found for name, found in rows.items() if len(found) == 1}
    matches = match_classes(list(single), IMAGENET, 1000, {})
    assert len(single) > 1500
    assert all({row for row, _ in matches[name]} == found for name, found in single.items())


@given(st.text(st.characters(codec="ascii", exclude_characters=" -_"), min_size=1), st.data())
def test_hyphens_underscores_spaces_and_case_are_all_that_is_ignored(name, data):
    pieces = data.draw(st.lists(st.sampled_from(["-", "_", " ", ""]), min_size=len(name), max_size=len(name)))
    spelled = "".join(gap + letter for gap, letter in zip(pieces, name, strict=True))
    assert normalised(spelled) == normalised(name)
    assert normalised("x" + name) != normalised(name)


def test_a_name_of_two_classes_is_refused_with_what_to_type():
    """ImageNet has two cranes, a bird and a machine."""
    with pytest.raises(RecipeError, match=r"134 .*517 .*\n.*--map crane=134"):
        match("crane")
    assert match("crane", {"crane": 517}) == [517]


@pytest.mark.parametrize("mapped", [934, "934", "hotdog", "hot dog"])
def test_a_mapping_goes_by_number_or_by_name(mapped):
    assert match("wurst", {"wurst": mapped}) == [934]


def test_a_mapping_wins_over_the_name():
    assert match("hotdog", {"hotdog": 933}) == [933]


@pytest.mark.parametrize("row", [-1, 1000, "1000", "-1"])
def test_a_mapping_out_of_range_is_refused(row):
    with pytest.raises(RecipeError, match="the rows 0 to 999"):
        match("hotdog", {"hotdog": row})


def test_mistyped_names_in_a_mapping_are_met_with_the_nearest():
    with pytest.raises(RecipeError, match='did you mean "cheeseburger"'):
        match("burger", {"burger": "cheesburger"})
    with pytest.raises(RecipeError, match='did you mean "hotdog"'):
        match("hotdog", {"hotdgo": 934})


def test_unknown_labels_can_still_be_mapped_by_number():
    assert match("hotdog", labels=None) == []
    assert match("hotdog", {"hotdog": 3}, labels=None) == [3]
    with pytest.raises(RecipeError, match="number of a row"):
        match("hotdog", {"hotdog": "hotdog"}, labels=None)


def test_a_label_of_ones_own_is_one_name_commas_and_all():
    assert match("b", labels=("a, b", "c")) == []
    assert match("A,_B", labels=("a, b", "c")) == [0]


def heads(bias=True):
    torch.manual_seed(1)
    return nn.Linear(20, 3, bias=bias), nn.Linear(20, 6, bias=bias)


def start(layer, source, rows=(None, None, None), head_init="xavier", unmatched="random", seed=0):
    initialise_head(layer, source, rows, head_init=head_init, unmatched=unmatched, seed=seed)
    return layer.weight.detach().clone()


def test_xavier_keeps_to_its_bounds_and_fills_them():
    layer, source = heads()
    weight, bound = start(layer, source), (6 / (20 + 3)) ** 0.5
    assert 0.8 * bound < weight.abs().max() <= bound
    assert 0 < layer.bias.abs().max() <= 20**-0.5


def test_xavier_zero_is_xavier_with_biases_of_zero():
    layer, source = heads()
    assert torch.equal(start(layer, source, head_init="xavier-zero"), start(heads()[0], source))
    assert not layer.bias.any()
    start(heads(bias=False)[0], heads(bias=False)[1], head_init="xavier-zero")


def test_zeros_are_zeros():
    layer, source = heads()
    assert not start(layer, source, head_init="zeros").any()
    assert not layer.bias.any()


def test_library_leaves_the_layer_as_it_was():
    layer, source = heads()
    before = layer.weight.detach().clone()
    assert torch.equal(start(layer, source, head_init="library"), before)


def test_source_rows_and_biases_go_to_their_classes_and_the_rest_is_as_xavier():
    layer, source = heads()
    weight, plain = start(layer, source, (4, None, 0), head_init="source"), start(heads()[0], source)
    assert torch.equal(weight[[0, 2]], source.weight[[4, 0]])
    assert torch.equal(layer.bias[[0, 2]], source.bias[[4, 0]])
    assert torch.equal(weight[1], plain[1])


def test_an_unmatched_class_may_start_from_the_mean_of_the_source_rows():
    layer, source = heads()
    weight = start(layer, source, (4, None, 0), head_init="source", unmatched="mean")
    torch.testing.assert_close(weight[1], source.weight.mean(0))
    torch.testing.assert_close(layer.bias[1], source.bias.mean())


def test_a_head_without_biases_is_fine():
    layer, source = heads(bias=False)
    assert torch.equal(start(layer, source, (1, 2, 3), head_init="source"), source.weight[1:4])


def test_the_draw_depends_on_the_seed_alone_and_leaves_the_global_state():
    layer, source = heads()
    state = torch.random.get_rng_state()
    first = start(layer, source)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(7)
    assert torch.equal(start(nn.Linear(20, 3), nn.Linear(20, 6)), first)
    assert not torch.equal(start(layer, source, seed=1), first)

"""Everything is copied but the output layer, for one small network of each family."""

import pytest
import torch

from relish.core.errors import RecipeError
from relish.models.saved_model import DataConfig, ModelDescription, load_model, save_model
from relish.models.source import SourceModel, load_source
from relish.models.summary import describe, describe_source
from relish.models.target import make_target
from tests.conftest import TORTURE, same_tensors

FAMILIES = [
    "torchvision/resnet18",
    "torchvision/mobilenet_v3_small",
    "torchvision/efficientnet_b0",
    "torchvision/convnext_tiny",
    "torchvision/densenet121",
    "torchvision/squeezenet1_1",
    "torchvision/shufflenet_v2_x0_5",
    "torchvision/regnet_y_400mf",
    "torchvision/googlenet",
    "torchvision/swin_t",
    "timm/resnet10t",
    "timm/mobilenetv3_small_050",
    "timm/convnext_atto",
    "timm/vit_tiny_patch16_224",
    "timm/deit_tiny_distilled_patch16_224",
    "timm/regnetx_002",
    "timm/efficientvit_b0",
]
LARGER = [
    "torchvision/vgg11",
    "torchvision/alexnet",
    "torchvision/vit_b_32",
    "torchvision/inception_v3",
    "torchvision/maxvit_t",
    "torchvision/mnasnet0_5",
    "torchvision/resnext50_32x4d",
    "torchvision/mobilenet_v2",
    "timm/swin_tiny_patch4_window7_224",
    "timm/densenet121",
    "timm/vgg11",
    "timm/levit_128s",
    "timm/resnetv2_50",
    "timm/nfnet_l0",
    "timm/xcit_nano_12_p16_224",
    "timm/mixer_s32_224",
    "timm/poolformer_s12",
    "timm/maxvit_nano_rw_256",
    "timm/coatnet_nano_rw_224",
    "timm/edgenext_xx_small",
    "timm/mobilevit_xxs",
    "timm/ghostnet_050",
    "timm/hrnet_w18_small",
    "timm/dla34",
    "timm/inception_v3",
    "timm/mobilenetv4_conv_small",
    "timm/fastvit_t8",
    "timm/tiny_vit_5m_224",
    "timm/beit_base_patch16_224",
]
ROWS = {"a": 5, "b": 17, "c": 2}


def random_source(name="timm/resnet10t"):
    return load_source(name, "none")


def check_family(name, folder):
    source = random_source(name)
    before = {key: value.clone() for key, value in source.network.state_dict().items()}
    target = make_target(source, list(ROWS), head_init="source", mapping=ROWS, seed=0)

    copied = target.network.state_dict()
    assert {key.rpartition(".")[0] for key in target.new} == set(target.head_names)
    assert set(target.copied) | set(target.new) == set(copied)
    assert all(torch.equal(copied[key], before[key]) for key in target.copied)
    assert same_tensors(source.network.state_dict(), before)
    assert not {t.data_ptr() for t in source.network.parameters()} & {t.data_ptr() for t in target.network.parameters()}

    # With the source's own rows in the new head, each class scores what its source row scores.
    pictures = torch.rand(2, *source.data_config.input_size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = source.network(pictures)[:, list(ROWS.values())]
        torch.testing.assert_close(target.network(pictures), expected, rtol=1e-4, atol=1e-5)

    # The file it is saved to builds it again.
    saved = folder / "m.safetensors"
    save_model(saved, target.network, target.description(), {})
    assert same_tensors(load_model(saved)[0].state_dict(), copied)
    saved.unlink()  # pytest would keep some hundred megabytes


@pytest.mark.parametrize("name", FAMILIES)
def test_all_but_the_output_layer_is_copied(name, tmp_path):
    check_family(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGER if TORTURE else LARGER[::3])
def test_all_but_the_output_layer_is_copied_in_larger_networks_too(name, tmp_path):
    check_family(name, tmp_path)


def test_the_two_groups_of_parameters_are_the_whole_network_once():
    target = make_target(random_source(), ["a", "b"], seed=0)
    parts = [id(p) for p in [*target.head_parameters(), *target.backbone_parameters()]]
    assert sorted(parts) == sorted(id(p) for p in target.network.parameters())
    assert sum(p.numel() for p in target.head_parameters()) == 512 * 2 + 2


def test_the_same_seed_gives_the_same_model_and_leaves_the_global_state():
    source = random_source()
    state = torch.random.get_rng_state()
    first = make_target(source, ["a", "b"], seed=3).network.state_dict()
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(5)
    assert same_tensors(make_target(source, ["a", "b"], seed=3).network.state_dict(), first)
    assert not same_tensors(make_target(source, ["a", "b"], seed=4).network.state_dict(), first)


def test_the_new_head_does_not_depend_on_the_sources_weights():
    one, other = (make_target(load_source("timm/resnet10t", "none", seed=s), ["a", "b"], seed=0) for s in (1, 2))
    assert torch.equal(one.heads[0].weight, other.heads[0].weight)
    assert not same_tensors(one.network.state_dict(), other.network.state_dict())


def test_random_weights_copy_nothing_and_are_what_the_library_draws():
    source = random_source()
    target = make_target(source, ["a", "b"], seed=0, random_weights=True)
    assert target.copied == ()
    assert target.head_init == "library"
    # Whatever its weights, a batch norm starts at 1 and 0; everything drawn at random differs.
    given = source.network.state_dict()
    assert all(
        not torch.equal(tensor, given[name])
        for name, tensor in target.network.named_parameters()
        if tensor.ndim == 4 and name in given
    )
    again = make_target(random_source(), ["a", "b"], seed=0, random_weights=True)
    assert same_tensors(target.network.state_dict(), again.network.state_dict())


def test_zeros_favour_no_class():
    target = make_target(random_source(), ["a", "b", "c"], head_init="zeros", seed=0)
    with torch.inference_mode():
        assert not target.network(torch.rand(2, 3, 64, 64)).any()


@pytest.mark.parametrize(
    ("classes", "settings", "words"),
    [
        ([], {}, "needs classes"),
        (["a", "a"], {}, "each named once"),
        (["a", "b"], {"mapping": {"a": 1}}, "only read where the head starts from source rows"),
        (["a", "b"], {"head_init": "kaiming"}, 'got "kaiming"'),
        (["a", "b"], {"head_init": "source", "random_weights": True}, "all weights are to be random"),
        (["a", "b"], {"head_init": "source", "mapping": {"x": 1}}, 'no class "x"'),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(classes, settings, words):
    with pytest.raises(RecipeError, match=words):
        make_target(random_source(), classes, seed=0, **settings)


def test_the_figure_shows_both_heads_what_is_copied_and_the_rates():
    target = make_target(random_source("torchvision/resnet18"), ["a", "b"], seed=0)
    figure = "\n".join(describe(target, {"backbone": 5e-5, "head": 5e-4}))
    for words in ("fc: 512 → 1000", "fc: 512 → 2", "120 tensors", "11,176,512 parameters", "0.0005", "5e-05"):
        assert words in figure


def test_the_figure_says_when_nothing_is_copied():
    target = make_target(random_source(), ["a", "b"], seed=0, random_weights=True)
    assert "not copied" in "\n".join(describe(target))


def test_the_figure_says_which_source_row_a_class_starts_from():
    target = make_target(load_source(), ["hotdog", "not-hotdog"], head_init="source", seed=0)
    figure = "\n".join(describe(target))
    assert 'hotdog starts from source row 934 "hotdog, hot dog, red hot"' in figure
    assert "not-hotdog starts from random" in figure


def test_a_source_is_told_with_its_head_its_size_and_who_chose_its_input():
    told = "\n".join(describe_source(load_source()))
    for words in ("classifier: 1280 → 1000", "4,652,008 parameters", "224 × 224, mean 0.5", "from the weights"):
        assert words in told


# ---- networks that are published without a classifier ---------------------------------------------------------------

TINY_VIT = {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 64, "num_heads": 2}


def headless(architecture="vit_small_patch14_reg4_dinov2"):
    config = DataConfig.from_weights({"input_size": (3, 32, 32)})
    description = ModelDescription(
        library="timm", architecture=architecture, model_args=TINY_VIT, num_classes=0, data_config=config
    )
    return SourceModel(description.build(seed=1), description, description.network_name, "made here", None)


@pytest.mark.parametrize("architecture", ["vit_small_patch14_reg4_dinov2", "vit_base_patch16_siglip_224"])
def test_a_network_without_a_classifier_gets_one_on_the_features_that_it_gives(architecture):
    """timm says which: DINOv2's class token, the embedding that SigLIP's attention pools."""
    source = headless(architecture)
    target = make_target(source, list(ROWS), seed=0)
    assert {key.rpartition(".")[0] for key in target.new} == set(target.head_names) == {"head"}
    assert set(target.copied) == set(source.network.state_dict())
    bound = (6 / (64 + 3)) ** 0.5  # Xavier-uniform
    assert 0.9 * bound < target.network.head.weight.abs().max() <= bound
    pictures = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(target.network(pictures), target.network.head(source.network(pictures)))


def test_without_a_classifier_there_are_no_source_rows_to_start_from():
    with pytest.raises(RecipeError, match="published without a classifier"):
        make_target(headless(), list(ROWS), head_init="source", mapping=ROWS, seed=0)


def test_the_figure_says_that_the_head_is_added():
    source = headless()
    lines = describe(make_target(source, ["a", "b"], seed=0))
    assert any("gives features" in line and "added" in line and "head: 64 → 2" in line for line in lines)
    assert "head     none: gives features" in describe_source(source)


def test_a_transformer_is_made_for_another_size_by_resampling_its_position_embedding_alone():
    source = headless()
    smaller = source.at_size(16)
    before, after = source.network.state_dict(), smaller.network.state_dict()
    assert {name for name in before if before[name].shape != after[name].shape} == {"pos_embed"}
    assert all(torch.equal(before[name], after[name]) for name in before if name != "pos_embed")
    torch.testing.assert_close(  # a linear interpolation keeps what is the same everywhere
        after["pos_embed"].mean(1), before["pos_embed"].mean(1), atol=0.02, rtol=0
    )
    target = make_target(smaller, ["a", "b"], seed=0)
    with torch.inference_mode():
        assert target.network(torch.zeros(1, 3, 16, 16)).shape == (1, 2)


@pytest.mark.parametrize("name", ["timm/test_resnet", "timm/test_vit"])
def test_a_network_that_takes_any_size_stays_as_it_is(name):
    source = random_source(name)
    assert source.at_size(64) is source
    assert source.at_size(None) is source

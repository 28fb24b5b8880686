"""Files of weights: what a good one gives back, and what every kind of bad one is met with."""

import json
import pickle
import struct

import pytest
import safetensors.torch
import torch
from torch import nn

import relish.core.io
from relish.core.errors import ModelError, WriteFailed
from relish.models.saved_model import DataConfig, ModelDescription, load_model, read_header, save_model
from relish.models.source import load_source
from relish.models.target import make_target
from relish.models.weights import read_tensors
from tests.conftest import same_tensors

NAME = "timm/mobilenetv3_small_050"


@pytest.fixture(scope="module")
def target():
    return make_target(load_source(NAME, "none"), ["hot dog", "møøse"], seed=0)


@pytest.fixture
def saved(target, tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(path, target.network, target.description(), {"recipe": "book"})
    return path


def with_header(path, **changes):
    """The same tensors under a changed header; None takes a key away."""
    header = {**read_header(path), **changes}
    safetensors.torch.save_file(read_tensors(path), path, {k: v for k, v in header.items() if v is not None})
    return path


def state(classes=1000):
    return load_source(NAME, "none").network.state_dict()


def test_the_header_alone_builds_the_model_again(saved, target):
    network, description, extra = load_model(saved)
    assert same_tensors(network.state_dict(), target.network.state_dict())
    assert description == target.description()
    assert extra == {"recipe": "book"}
    assert not network.training


def test_equal_models_are_equal_files(saved, target, tmp_path):
    again = tmp_path / "again.safetensors"
    save_model(again, load_model(saved)[0], target.description(), {"recipe": "book"})
    assert again.read_bytes() == saved.read_bytes()


def test_a_saved_model_is_read_by_the_safetensors_library_itself(saved, target):
    assert same_tensors(safetensors.torch.load_file(saved), dict(target.network.state_dict()))


def test_constructor_arguments_and_preprocessing_travel_with_the_file(tmp_path):
    description = ModelDescription(
        library="timm",
        architecture="mobilenetv3_small_050",
        model_args={"pad_type": "same"},
        num_classes=2,
        labels=("a", "b"),
        data_config=DataConfig(input_size=(3, 96, 128), mean=(0.1, 0.2, 0.3), std=(1, 2, 3), interpolation="bicubic"),
    )
    save_model(tmp_path / "m.safetensors", description.build(), description, {})
    loaded = load_model(tmp_path / "m.safetensors")[1]
    assert loaded == description
    assert loaded.data_config.origin["mean"] == "weights"


def test_imagenets_labels_are_kept_as_a_word(tmp_path):
    source = load_source()
    save_model(tmp_path / "m.safetensors", source.network, source.description, {})
    assert read_header(tmp_path / "m.safetensors")["labels"] == "imagenet-1k"
    assert load_model(tmp_path / "m.safetensors")[1].labels == source.labels


def test_a_saved_target_is_a_source_for_the_next_one(saved):
    source = load_source(weights=saved)
    assert (source.name, source.labels, source.num_classes) == (NAME, ("hot dog", "møøse"), 2)
    target = make_target(source, ["x", "hot-dog", "z"], head_init="source", seed=0)
    assert target.matches["hot-dog"] == [(0, "hot dog")]


def test_a_run_folder_stands_for_the_model_in_it(saved):
    assert load_source(weights=saved.parent).sha256 == load_source(weights=saved).sha256


def test_a_folder_that_is_no_finished_run_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"without a model\.safetensors"):
        load_source(weights=tmp_path)


@pytest.mark.parametrize("source", [NAME, "mobilenetv3_small_050"])
def test_naming_the_network_a_file_says_it_is_changes_nothing(saved, source):
    assert load_source(source, saved).name == NAME


@pytest.mark.parametrize("source", ["embedded", "timm/resnet18", "torchvision/mobilenet_v3_small"])
def test_a_source_other_than_the_files_is_refused(saved, source):
    with pytest.raises(ModelError, match=f"not --source {source}"):
        load_source(source, saved)


def test_a_file_that_does_not_say_what_it_is_needs_a_source(tmp_path):
    path = tmp_path / "bare.safetensors"
    safetensors.torch.save_file(state(), path)
    with pytest.raises(ModelError, match="Name it with --source"):
        load_source(weights=path)
    assert same_tensors(load_source(NAME, path).network.state_dict(), state())


@pytest.mark.parametrize("wrap", [dict, lambda s: {"state_dict": s}, lambda s: {"model": s, "epoch": 3}])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_state_dicts_are_read_as_they_are_commonly_saved(tmp_path, wrap, prefix):
    path = tmp_path / "w.pth"
    torch.save(wrap({prefix + name: tensor for name, tensor in state().items()}), path)
    source = load_source(NAME, path)
    assert same_tensors(source.network.state_dict(), state())
    assert source.labels[934] == "hotdog, hot dog, red hot"


def test_a_head_of_another_size_is_built_with_its_own(tmp_path, target):
    path = tmp_path / "w.pth"
    torch.save(target.network.state_dict(), path)
    source = load_source(NAME, path)
    assert (source.num_classes, source.labels) == (2, None)
    assert same_tensors(source.network.state_dict(), target.network.state_dict())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(tmp_path, dtype):
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file({"a": torch.tensor([0.5, 2]).to(dtype), "n": torch.tensor([3])}, path)
    tensors = read_tensors(path)
    assert tensors["a"].dtype == torch.float32
    assert tensors["a"].tolist() == [0.5, 2.0]
    assert tensors["n"].dtype == torch.int64


def test_batch_counters_may_be_missing_and_nothing_else(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({k: v for k, v in state().items() if not k.endswith("num_batches_tracked")}, path)
    load_source(NAME, path)
    torch.save({k: v for k, v in state().items() if not k.endswith("running_mean")}, path)
    with pytest.raises(ModelError, match="running_mean"):
        load_source(NAME, path)


def test_weights_of_another_network_are_refused_with_what_differs(tmp_path):
    path = tmp_path / "w.pth"
    wrong = state()
    wrong["conv_stem.weight"] = torch.zeros(1, 2)
    wrong["extra.weight"] = wrong.pop("bn1.weight")
    torch.save(wrong, path)
    with pytest.raises(ModelError) as caught:
        load_source(NAME, path)
    told = str(caught.value)
    assert "missing 1: bn1.weight" in told
    assert "unexpected 1: extra.weight" in told
    assert "another shape 1: conv_stem.weight 1×2, not 16×3×3×3" in told


def test_a_long_list_of_differences_is_cut_and_counted(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({f"layer{i}": torch.zeros(1) for i in range(30)}, path)
    with pytest.raises(ModelError, match="unexpected 30: layer0, layer1, layer2, layer3, and 26 more"):
        load_source(NAME, path)


def test_densenets_old_names_are_understood(tmp_path):
    """torchvision's own published DenseNet files still carry them."""
    wanted = load_source("torchvision/densenet121", "none").network.state_dict()
    old = {
        name.replace("norm1", "norm.1").replace("conv2", "conv.2") if "denselayer" in name else name: tensor
        for name, tensor in wanted.items()
    }
    assert old.keys() != wanted.keys()
    torch.save(old, tmp_path / "w.pth")
    assert same_tensors(load_source("torchvision/densenet121", tmp_path / "w.pth").network.state_dict(), wanted)


class Trap:
    """A pickle of it writes a file when it is read carelessly."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("save", [torch.save, lambda obj, path: path.write_bytes(pickle.dumps(obj))])
def test_a_pickled_object_is_refused_and_never_run(tmp_path, save):
    path, sprung = tmp_path / "w.pth", tmp_path / "sprung"
    save({"weight": Trap(sprung)}, path)
    with pytest.raises(ModelError, match="pickled Python objects"):
        load_source(NAME, path)
    assert not sprung.exists()


def test_a_whole_pickled_network_is_refused(tmp_path):
    path = tmp_path / "w.pth"
    torch.save(nn.Linear(2, 2), path)
    with pytest.raises(ModelError, match="pickled Python objects"):
        load_source(NAME, path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], "holds a list"),
        ({"a": 3}, "holds more than tensors, such as a"),
        ({}, "holds no tensors"),
    ],
)
def test_a_file_without_named_tensors_is_refused(tmp_path, content, words):
    path = tmp_path / "w.pth"
    torch.save(content, path)
    with pytest.raises(ModelError, match=words):
        load_source(NAME, path)


@pytest.mark.parametrize("content", [b"", b"hello", b"\0" * 100, b"PK\x03\x04 cut short", b"\x80\x02}q\x00."])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_that_are_something_else_are_refused(tmp_path, content, suffix):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=f"w{suffix}: "):
        load_source(NAME, path)


@pytest.mark.parametrize("kept", [4, 9, 500, 20_000, -1])
def test_a_truncated_safetensors_file_is_refused(saved, kept):
    saved.write_bytes(saved.read_bytes()[:kept])
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        load_source(weights=saved)


@pytest.mark.parametrize("kept", [100, 5_000, 100_000, -1])
def test_a_truncated_pth_file_is_refused(tmp_path, kept):
    path = tmp_path / "w.pth"
    torch.save(state(), path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ModelError, match=r"w\.pth"):
        load_source(NAME, path)


def test_a_missing_file_is_told_with_what_else_can_be_given(tmp_path):
    with pytest.raises(ModelError, match=r"no such file of weights\.\n.*\"none\""):
        load_source(NAME, tmp_path / "nothing.pth")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architecture": "resnet19"}, 'no architecture "resnet19".*\n.*resnet1'),
        ({"architecture": "hf-hub:someone/something"}, "no architecture"),
        ({"library": "keras"}, 'library "keras"'),
        ({"num_classes": None}, "at least architecture and num_classes"),
        ({"num_classes": "two"}, "num_classes in the header is not JSON"),
        ({"num_classes": "true"}, "must be a whole number"),
        ({"num_classes": "99999999999"}, "from 1 to 1000000"),
        ({"num_classes": "-1"}, "from 1 to 1000000"),
        ({"model_args": "[]"}, "model_args in the header must be an object"),
        ({"model_args": "[" * 100_000}, "model_args in the header is not JSON"),
        ({"model_args": '{"pretrained": true}'}, "may not set pretrained"),
        ({"model_args": '{"checkpoint_path": "/etc/passwd"}'}, "may not set checkpoint_path"),
        ({"model_args": '{"no_such_argument": 1}'}, "cannot be built"),
        ({"labels": '["one"]'}, "labels names 1 classes, num_classes says 2"),
        ({"labels": "[1, 2]"}, "labels must be a list of class names"),
        ({"labels": r'["one", "\ud800"]'}, "labels must be a list of class names"),
        ({"labels": "imagenet-1k"}, "labels names 1000 classes"),
        ({"mean": "[0.5, 0.5]"}, "mean must be three numbers"),
        ({"mean": "[NaN, 0, 0]"}, "mean must be finite"),
        ({"mean": f"[1, {'9' * 400}, 0]"}, "mean must be finite"),
        ({"std": "[0, 1, 1]"}, "std must be above 0"),
        ({"std": '["a", 1, 1]'}, "std must be three numbers"),
        ({"input_size": "[1, 28, 28]"}, "1 channels"),
        ({"input_size": "[3, 0, 224]"}, "1 to 8192 pixels"),
        ({"input_size": "[3, 1e9, 224]"}, "three whole numbers"),
        ({"input_size": "224"}, "input_size in the header must be a list"),
        ({"interpolation": "magic"}, "interpolation must be"),
        ({"format_version": "2"}, "saved in format 2"),
        ({"architecture": "vit_giant_patch14_224"}, "are not of timm/vit_giant_patch14_224"),
        ({"num_classes": "1000000", "labels": None}, "another shape 2: classifier.bias 2, not 1000000"),
    ],
)
def test_a_hostile_header_is_one_clear_error(saved, changes, words):
    with pytest.raises(ModelError, match=words):
        load_source(weights=with_header(saved, **changes))


@pytest.mark.parametrize("kind", [torch.complex64, torch.int8, torch.bool])
def test_tensors_that_would_be_copied_with_a_loss_are_refused(saved, kind):
    tensors = read_tensors(saved)
    name = next(name for name in tensors if name.endswith("weight"))
    safetensors.torch.save_file({**tensors, name: tensors[name].to(kind)}, saved, read_header(saved))
    with pytest.raises(ModelError, match=f"no real numbers 1: {name} {str(kind).removeprefix('torch.')}"):
        load_model(saved)


def test_a_header_longer_than_its_file_is_refused(saved):
    saved.write_bytes(struct.pack("<Q", 2**62) + saved.read_bytes()[8:])
    with pytest.raises(ModelError, match="not a whole safetensors file"):
        load_source(weights=saved)


def test_a_header_without_a_library_means_timm(saved):
    """The weights files that relish did not write have none."""
    assert load_source(weights=with_header(saved, library=None, format_version=None)).description.library == "timm"


def test_a_network_other_than_described_is_not_saved(target, tmp_path):
    with pytest.raises(ModelError, match="are not of"):
        save_model(tmp_path / "m.safetensors", nn.Linear(2, 2), target.description(), {})
    with pytest.raises(ModelError, match="labels"):
        save_model(tmp_path / "m.safetensors", target.network, target.description(), {"labels": "x"})
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_the_former_file(saved, target, monkeypatch):
    before = saved.read_bytes()

    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(relish.core.io, "force_to_disk", full)
    with pytest.raises(WriteFailed, match="No space left"):
        save_model(saved, target.network, target.description(), {})
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_loading_leaves_the_global_random_state(saved):
    before = torch.random.get_rng_state()
    load_model(saved)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_header_is_text_and_json_as_documented(saved):
    header = read_header(saved)
    assert json.loads(header["labels"]) == ["hot dog", "møøse"]
    assert json.loads(header["input_size"]) == [3, 224, 224]
    assert header["library"] == "timm"


def test_a_file_in_a_place_that_cannot_be_named_is_one_clear_error(tmp_path):
    with pytest.raises(ModelError, match="cannot read the weights"):
        load_source(weights=tmp_path / ("x" * 5000))

"""Files of weights as other programs leave them: wrapped names, arguments beside the tensors, pages in their place."""

import argparse

import pytest
import torch

from relish.core.errors import ModelError
from relish.models.source import load_source
from relish.models.weights import read_tensors, unwrapped

NETWORK = "timm/test_resnet"


@pytest.fixture(scope="module")
def tensors():
    return load_source(NETWORK, "none").network.state_dict()


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "_orig_mod.module.", "model.", "model._orig_mod."])
def test_names_that_a_wrapper_lengthened_are_those_of_the_network(tensors, wrapper, tmp_path):
    torch.save({"state_dict": {wrapper + name: tensor for name, tensor in tensors.items()}}, tmp_path / "w.pth")
    source = load_source(NETWORK, tmp_path / "w.pth")
    for name, tensor in source.network.state_dict().items():
        torch.testing.assert_close(tensor, tensors[name], rtol=0, atol=0)


def test_a_first_word_that_not_every_name_has_belongs_to_the_network():
    names = {"module.weight": torch.ones(1), "head.weight": torch.ones(1)}
    assert unwrapped(names) == names


def test_a_checkpoint_of_timms_training_is_read_with_its_arguments_beside_the_tensors(tensors, tmp_path):
    torch.save({"state_dict": tensors, "epoch": 3, "args": argparse.Namespace(lr=0.1)}, tmp_path / "last.pth.tar")
    assert read_tensors(tmp_path / "last.pth.tar").keys() == tensors.keys()


class _Own:
    """An object that torch does not know."""


def test_other_objects_in_a_checkpoint_are_refused(tensors, tmp_path):
    torch.save({"state_dict": tensors, "args": _Own()}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match="could run code"):
        read_tensors(tmp_path / "w.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_before_training(tensors, value, tmp_path):
    """Trained on, they would end in advice to lower a learning rate that has nothing to do with it."""
    broken = dict(tensors)
    broken["conv1.0.weight"] = broken["conv1.0.weight"] * value
    torch.save(broken, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"w\.pth: NaN or infinity in 1: conv1\.0\.weight\.") as refused:
        load_source(NETWORK, tmp_path / "w.pth")
    assert "earlier checkpoint" in refused.value.hint


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html><body>Not found</body></html>", "HTML page"),
        (b"", "empty file"),
    ],
)
def test_a_file_that_came_instead_of_the_weights_is_called_what_it_is(name, content, kind, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=rf"holds no weights \({kind}"):
        read_tensors(tmp_path / name)

"""A captured pass is an eager one: the same weights after each step, the same draws, nothing left of its warm-up."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from relish.core.context import Context
from relish.core.run_folder import RunFolder
from relish.models import captured
from relish.models.captured import Captured
from relish.training import train as loop
from relish.training.recipe import named_recipe
from relish.training.train import train
from tests.conftest import Heard
from tests.training.test_train import pictures, run_in, setup_for  # noqa: F401 (a fixture)

KINDS = [{"optimiser": "sgd", "learning_rate": 1e-3}, {"optimiser": "adamw", "learning_rate": 1e-3, "loss": "mean"}]
EPOCHS = {"epochs": 2, "batch_size": 8}
"""Two full batches and one of 5 in each."""


def network_with_chance() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5))
    return nn.Sequential(*layers, nn.Linear(4, 2)).train()


def passed(network):
    def work(images, labels):
        logits = network(images)
        losses = nn.functional.cross_entropy(logits, labels, reduction="none")
        losses.sum().backward()
        return losses.detach(), logits.detach()

    return work


def batches(count, device="cpu"):
    rng = torch.Generator().manual_seed(1)
    return [
        (torch.randn(6, 3, 8, 8, generator=rng).to(device), torch.randint(2, (6,), generator=rng).to(device))
        for _ in range(count)
    ]


@pytest.fixture
def without_a_gpu(monkeypatch):
    """A graph as a processor can play it: the work again, its results put where they were first."""

    def recorded(work):
        work()
        found = work()
        parameters = list(recorded.network.parameters())
        gradients = [one.grad for one in parameters]

        def replay():
            for kept, new in zip(found, work(), strict=True):
                kept.copy_(new)
            for kept, one in zip(gradients, parameters, strict=True):
                if kept is not None:
                    kept.copy_(one.grad)

        recorded.count += 1
        return found, replay

    recorded.count = 0
    monkeypatch.setattr(captured, "on_cuda", recorded)
    return recorded


def steps_agree(device):
    """Captured and eager steps by turns, against eager ones alone: gradients, statistics and draws are the same."""
    plain, other = network_with_chance().to(device), network_with_chance().to(device)
    yield other
    work, first = passed(other), batches(1, device)[0]
    graph = Captured(other, work, *first)
    assert all(one.grad is None for one in other.parameters())
    for number, (images, labels) in enumerate(batches(4, device)):
        plain.zero_grad()
        torch.manual_seed(number)
        wanted = passed(plain)(images, labels)
        assert graph.fits(images)
        if number == 2:  # one that is not captured comes between, as a smaller last one does
            other.zero_grad()
            torch.manual_seed(number)
            found = work(images, labels)
        else:
            found = graph(images, labels, number)
        torch.testing.assert_close(found, wanted)
        for one, its in zip(plain.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(its.grad, one.grad)
    torch.testing.assert_close(dict(other.named_buffers()), dict(plain.named_buffers()))
    assert not graph.fits(images[:5])
    other.double()
    assert not graph.fits(images)


def test_captured_and_eager_passes_agree_by_turns(without_a_gpu):
    steps = steps_agree("cpu")
    without_a_gpu.network = next(steps)
    assert not list(steps)


@pytest.mark.cuda
def test_captured_and_eager_passes_agree_on_a_gpu():
    assert len(list(steps_agree("cuda"))) == 1


@pytest.mark.parametrize("settings", KINDS)
def test_a_training_is_the_same_captured(settings, pictures, tiny_source, tmp_path, monkeypatch, without_a_gpu):  # noqa: F811
    recipe = named_recipe("book").with_settings({**EPOCHS, **settings})
    eager, graphed = (setup_for(pictures, recipe, tiny_source) for _ in range(2))
    without_a_gpu.network = graphed.target.network
    train(run_in(tmp_path, recipe, "eager"), eager)
    monkeypatch.setattr(loop, "_captures", lambda *_: True)
    train(run_in(tmp_path, recipe, "graphed"), graphed)
    assert without_a_gpu.count == 1
    for name, value in eager.target.network.state_dict().items():
        assert torch.equal(graphed.target.network.state_dict()[name], value), name


def test_a_network_that_cannot_be_captured_is_computed_eagerly_and_the_log_says_why(
    pictures, tiny_source, tmp_path, monkeypatch  # noqa: F811
):  # fmt: skip
    def refused(work):
        work()
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    recipe = named_recipe("book").with_settings(EPOCHS)
    eager, other = (setup_for(pictures, recipe, tiny_source) for _ in range(2))
    train(run_in(tmp_path, recipe, "eager"), eager)
    monkeypatch.setattr(captured, "on_cuda", refused)
    monkeypatch.setattr(loop, "_captures", lambda *_: True)
    run, heard = run_in(tmp_path, recipe, "refused"), Heard()
    train(replace(run, progress=heard), other)
    assert sum("not permitted when stream is capturing" in line for line in heard.lines) == 1
    assert [e["reason"] for e in run.folder.records() if e["event"] == "eager"] == [
        "operation not permitted when stream is capturing"
    ]
    for name, value in eager.target.network.state_dict().items():
        assert torch.equal(other.target.network.state_dict()[name], value), name


@pytest.mark.cuda
@pytest.mark.parametrize("settings", KINDS)
def test_a_training_on_a_gpu_is_the_same_captured(settings, pictures, tiny_source, tmp_path, monkeypatch):  # noqa: F811
    recipe = named_recipe("book").with_settings({**EPOCHS, **settings})
    states = []
    for graphed in (False, True):
        monkeypatch.setattr(loop, "_captures", lambda *_, graphed=graphed: graphed)
        setup = setup_for(pictures, recipe, tiny_source)
        folder = RunFolder.create(tmp_path / str(graphed), {}, recipe.as_dict())
        run = Context.on("cuda").in_run(folder)
        train(run, setup)
        assert not any(event["event"] == "eager" for event in run.folder.records())
        states.append(setup.target.network.state_dict())
    torch.testing.assert_close(*states, rtol=1e-3, atol=1e-4)

"""`fit` on a module, a transform, a loss and callbacks of the user's own: used, refused, resumed."""

import html
import random
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import relish
from relish.core.errors import ModelError, RecipeError, RunError
from relish.core.run_folder import RunFolder
from relish.models.saved_model import load_model, read_header
from relish.tasks.user_code import type_and_repr
from tests.commands import refused
from tests.conftest import SMALL, draw_dataset, read_json, same_tensors
from tests.processes import started

FAST = {"batch_size": 8, "epochs": 2}


class Net(nn.Module):
    """Three layers."""

    def __init__(self, classes=4):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 5, stride=2)
        self.hidden = nn.Linear(8, 16)
        self.fc = nn.Linear(16, classes)

    def forward(self, images):
        return self.fc(torch.relu(self.hidden(torch.relu(self.conv(images)).mean((2, 3)))))


class Faded:
    """Draws from every global generator."""

    def __call__(self, image):
        grey = np.random.uniform(0.5, 1)
        if random.random() < 0.5:
            image = image.rotate(90)
        pixels = torch.from_numpy(np.array(image.resize((32, 32)))).permute(2, 0, 1) / 255
        return (pixels * grey * (0.9 + 0.1 * torch.rand(1))).clamp(0, 1)


def smoothed(logits, labels):
    """Mean cross-entropy with label smoothing."""
    return nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)


def new_net():
    torch.manual_seed(5)
    return Net()


@pytest.fixture
def net():
    return new_net()


def fit(data, out, **choices):
    return relish.fit(data, out=out, **{"recipe": "book", "settings": FAST, "device": "cpu", **choices})


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A finished run on `colours` beside it, of nothing but the module."""
    folder = tmp_path_factory.mktemp("plain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RELISH_HOME", str(folder / "home"))
        fit(draw_dataset(folder / "colours"), folder / "run", source=new_net(), image_size=32)
    return folder / "run"


def weights_of(run):
    return load_model(run / "model.safetensors", Net())[0].state_dict()


# ---- the module -----------------------------------------------------------------------------------------------------


def test_both_doors_train_the_same_model(colours, tiny_source, tmp_path):
    """A target model made by hand is the one that `fit` makes of the same source and seed."""
    source = relish.source_model(weights=tiny_source)
    target = relish.target_model(source, ["blue", "red"], seed=3)
    one = fit(colours, tmp_path / "one", weights=tiny_source, seed=3, settings=SMALL)
    two = fit(colours, tmp_path / "two", source=target, seed=3, settings=SMALL)
    assert same_tensors(one.network.state_dict(), two.network.state_dict())
    assert same_tensors(load_model(tmp_path / "two" / "model.safetensors")[0].state_dict(), two.network.state_dict())


def test_a_target_models_classes_go_by_name(colours, tiny_source, tmp_path):
    source = relish.source_model(weights=tiny_source)
    target = relish.target_model(source, ["red", "blue"])
    made = fit(colours, tmp_path / "run", source=target, settings=SMALL | {"epochs": 0})
    assert made.classes == ("blue", "red")
    assert torch.equal(made.network.fc.weight, target.fc.weight[[1, 0]])


def test_other_classes_than_the_images_are_refused_by_both_names(colours, net, tmp_path):
    with pytest.raises(RecipeError, match=r"classes are blue, rad; the images' classes are blue, red"):
        fit(colours, tmp_path / "run", source=relish.target_model(net, ["blue", "rad"]))
    assert not (tmp_path / "run").exists()


def test_the_module_that_was_given_is_left_as_it_was(colours, net, tmp_path):
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    made = fit(colours, tmp_path / "run", source=net, image_size=32)
    assert same_tensors(net.state_dict(), before)
    assert not same_tensors(made.network.conv.state_dict(), net.conv.state_dict())
    assert made.network.fc.out_features == 2


def test_evaluation_prepares_images_as_it_is_told(colours, net, tmp_path):
    made = fit(colours, tmp_path / "run", source=net, image_size=40, mean=(0.1, 0.2, 0.3), std=(1, 1, 1))
    how = made.preprocessing
    assert (how.image_size, how.mean, how.std) == (40, (0.1, 0.2, 0.3), (1, 1, 1))
    assert relish.load(tmp_path / "run", network=Net()).preprocessing == how


@pytest.mark.parametrize("recipe", ["auto", "probe", "frozen"])
def test_every_recipe_takes_a_module(colours, net, tmp_path, recipe):
    numbers = {} if recipe == "probe" else {"epochs": 1, "batch_size": 8}
    made = fit(colours, tmp_path / "run", source=net, image_size=32, recipe=recipe, settings=numbers)
    assert made.predict(next(colours.glob("test/red/*")))[0].error is None


def test_a_recipe_that_draws_all_weights_needs_a_network_that_relish_builds(colours, net, tmp_path):
    with pytest.raises(RecipeError, match=r"random weights, which relish cannot draw for .*Net") as caught:
        fit(colours, tmp_path / "run", source=net, recipe="pretrain", image_size=32)
    assert "start" in caught.value.hint
    fit(colours, tmp_path / "run", source=net, recipe="pretrain", image_size=32, settings={**FAST, "start": "source"})


def test_a_module_that_gives_no_logits_is_refused(colours, tmp_path):
    pooled = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 1))
    with pytest.raises(RecipeError, match=r"gives \(1, 2, 30, 30\), not one logit for each of 2 classes"):
        fit(colours, tmp_path / "run", source=pooled, image_size=32)


class Shrinking(nn.Sequential):
    """Evaluates images of any size; trains on those alone of which more than one pixel is left."""

    def __init__(self):
        norm = nn.InstanceNorm2d(4, track_running_stats=True)
        super().__init__(nn.Conv2d(3, 4, 32, stride=32), norm, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))


class TwoOutputs(Net):
    """As torchvision's Inception does, it gives more in training."""

    def forward(self, images):
        logits = super().forward(images)
        return (logits, logits) if self.training else logits


def test_what_fails_in_training_alone_is_said_before_it_begins(colours, tmp_path):
    with pytest.raises(RecipeError, match="does not take pictures of 32 × 32 pixels") as caught:
        fit(colours, tmp_path / "run", source=Shrinking(), image_size=32)
    assert caught.value.hint == "Try --image-size 64: it takes that."
    fit(colours, tmp_path / "run", source=Shrinking(), image_size=64)
    with pytest.raises(RecipeError, match="TwoOutputs gives tuple in training"):
        fit(colours, tmp_path / "more", source=TwoOutputs(), image_size=32)
    assert not (tmp_path / "more").exists()


def test_a_model_of_an_own_class_is_loaded_with_a_new_one(colours, net, tmp_path):
    made = fit(colours, tmp_path / "run", source=net, image_size=32)
    image = next(colours.glob("test/red/*"))
    again = relish.load(tmp_path / "run", network=Net(classes=9))
    assert again.predict(image)[0].probabilities == made.predict(image)[0].probabilities
    assert read_header(tmp_path / "run" / "model.safetensors")["architecture"].endswith("test_user_code.Net")
    card = (tmp_path / "run" / "README.md").read_text()
    assert 'relish.load("run", network=Net())' in card
    assert "relish predict" not in card
    with pytest.raises(ModelError, match=r"your own class .*Net, which relish cannot build"):
        relish.load(tmp_path / "run")
    assert "your own class" in refused("predict", tmp_path / "run", image)


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"weights": "none"}, "handed in, and named or read from a file too"),
        ({"settings": FAST | {"head": "source"}}, "a target model keeps its weights and its output layer"),
        ({"recipe": "pretrain"}, "a target model keeps its weights and its output layer"),
        ({"transform": 3}, "transform is a int, which cannot be called"),
        ({"callbacks": [None, "x"]}, "one of callbacks is a str"),
    ],
)
def test_choices_that_contradict_each_other_are_refused(colours, net, tmp_path, choices, words):
    target = relish.target_model(net, ["blue", "red"])
    with pytest.raises(RecipeError, match=words):
        fit(colours, tmp_path / "run", source=target, image_size=32, **choices)
    assert not (tmp_path / "run").exists()


def test_a_head_is_named_for_a_module_only(colours, tmp_path):
    with pytest.raises(RecipeError, match="names the output layer of a module"):
        fit(colours, tmp_path / "run", head="fc")


# ---- data, transform, loss, callbacks -------------------------------------------------------------------------------


def test_rows_train_as_the_folder_they_are_of(plain, net, tmp_path):
    colours = plain.parent / "colours"
    rows = [(path, path.parent.name, path.parent.parent.name) for path in sorted(colours.glob("*/*/*.png"))]
    two = fit(rows, tmp_path / "two", source=net, image_size=32)
    assert same_tensors(weights_of(plain), two.network.state_dict())
    with pytest.raises(RunError, match="begun with another data"):
        relish.fit(rows[1:], resume=tmp_path / "two", source=net)
    assert relish.fit(rows, resume=tmp_path / "two", source=net).classes == two.classes
    identities = [read_json(run / "request.json")["identity"] for run in (plain, tmp_path / "two")]
    assert identities[0] == identities[1]


def test_an_imagefolder_with_a_transform_says_where_it_belongs(colours, net, tmp_path):
    from torchvision.datasets import ImageFolder

    images = ImageFolder(str(colours / "train"), transform=Faded())
    with pytest.raises(RecipeError, match="transform of their own") as caught:
        fit(images, tmp_path / "run", source=net, image_size=32)
    assert "transform=" in caught.value.hint
    fit(images, tmp_path / "run", source=net, image_size=32, transform=Faded())


def test_a_transform_and_a_loss_of_ones_own_are_used(plain, colours, net, tmp_path):
    calls = []

    def transform(image):
        calls.append(image.size)
        return image

    own = fit(colours, tmp_path / "own", source=net, image_size=32, transform=transform)
    smooth = fit(colours, tmp_path / "smooth", source=net, image_size=32, loss=smoothed)
    assert calls == [(40, 32)] * 40  # two epochs of the 20 training images, none of the test split
    assert not same_tensors(weights_of(plain), own.network.state_dict())
    assert not same_tensors(weights_of(plain), smooth.network.state_dict())


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), nn.CrossEntropyLoss(reduction="sum"),
                                  nn.CrossEntropyLoss(reduction="none")])  # fmt: skip
def test_however_a_loss_is_reduced_the_recipes_step_is_the_same(plain, colours, net, tmp_path, loss):
    given = fit(colours, tmp_path / "given", source=net, image_size=32, loss=loss).network.state_dict()
    for name, tensor in weights_of(plain).items():
        torch.testing.assert_close(given[name], tensor, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("loss", "words"), [(lambda logits, labels: logits, "shape"), (lambda logits, labels: 1.0, "float")]
)
def test_a_loss_that_is_none_is_refused(colours, net, tmp_path, loss, words):
    with pytest.raises(RecipeError, match=f"loss gives .*{words}"):
        fit(colours, tmp_path / "run", source=net, image_size=32, loss=loss)


def test_a_loss_of_ones_own_leaves_none_to_balance(colours, net, tmp_path):
    with pytest.raises(RecipeError, match="balance=weights changes the cross-entropy"):
        fit(colours, tmp_path / "run", source=net, image_size=32, loss=smoothed, settings={"balance": "weights"})


def test_callbacks_hear_every_event_in_turn(colours, net, tmp_path):
    heard = []
    fit(colours, tmp_path / "run", source=net, image_size=32, callbacks=[heard.append])
    kept = RunFolder.open(tmp_path / "run").records()
    assert [event for event in heard if event["event"] != "judged"] == kept
    assert {"train", "score"} <= {event["event"] for event in kept}


def test_a_callback_of_the_ladder_hears_which_stage_it_is(colours, net, tmp_path):
    heard = []
    fit(colours, tmp_path / "run", source=net, image_size=32, recipe="auto", callbacks=[heard.append],
        settings={"epochs": 1, "batch_size": 8})  # fmt: skip
    assert any("stage" in event for event in heard if event["event"] == "train")


# ---- resuming -------------------------------------------------------------------------------------------------------


class Stop(Exception):
    """What a test's callback raises."""


def interrupted(data, out, **choices):
    """A run that a callback ended in its second epoch."""

    def stop(event):
        if event["event"] == "train" and event["epoch"] == 1:
            raise Stop

    with pytest.raises(Stop):
        fit(data, out, callbacks=[stop], **choices)
    return out


def test_a_run_resumes_with_the_same_pieces_and_says_which_differ(colours, net, tmp_path):
    choices = {"source": net, "image_size": 32, "transform": Faded(), "loss": smoothed}
    whole = fit(colours, tmp_path / "whole", **choices)
    run = interrupted(colours, tmp_path / "run", **choices)
    words = refused("fit", "--resume", run)
    assert "which relish cannot build" in words
    assert 'relish.fit(resume="' in words
    for name in ("source", "transform", "loss"):
        assert name in words
    with pytest.raises(RunError, match=r"transform \(.*Faded: .*, not torch.*Identity: Identity\(\)\)"):
        relish.fit(resume=run, source=Net(), transform=nn.Identity(), loss=smoothed)
    # The module's own weights do not matter: the run keeps those that it began with.
    again = relish.fit(resume=run, source=Net(), transform=Faded(), loss=smoothed, device="cpu")
    assert same_tensors(again.network.state_dict(), whole.network.state_dict())


def test_a_run_of_a_librarys_network_resumes_from_the_command_line(colours, tiny_source, tmp_path):
    target = relish.target_model(relish.source_model(weights=tiny_source), ["blue", "red"])
    whole = fit(colours, tmp_path / "whole", source=target, settings=SMALL)
    run = interrupted(colours, tmp_path / "run", source=target, settings=SMALL)
    from tests.commands import done

    done("fit", "--resume", run)
    assert same_tensors(relish.load(run).network.state_dict(), whole.network.state_dict())


def test_a_report_is_written_of_an_own_class_and_tells_the_call_that_makes_the_run_again(colours, net, tmp_path):
    made = fit(colours, tmp_path / "run", source=net, image_size=32, head="fc", loss=smoothed, mean=(0.5, 0.5, 0.5))
    page = html.unescape(relish.report(made).read_text())
    assert (
        f"relish.fit('{colours}', recipe='book', source=…, head='fc', loss=…, mean=[0.5, 0.5, 0.5], settings=" in page
    )


def test_addresses_in_memory_tell_nothing_apart():
    assert type_and_repr(Faded()) == type_and_repr(Faded())
    assert "0x" not in type_and_repr(smoothed)
    assert type_and_repr(nn.Dropout(0.1)) != type_and_repr(nn.Dropout(0.2))


SCRIPT = """
import sys, time
import torch
import relish
from tests.tasks.test_user_code import Faded, Net, smoothed

data, out, slow = sys.argv[1], sys.argv[2], sys.argv[3] == "slow"
torch.manual_seed(5)
heard = []

def heed(event):
    heard.append(event)
    if slow and event.get("epoch") == 3:
        time.sleep(3600)  # to be killed meanwhile

choices = {"data": data, "out": out, "recipe": "book", "image_size": 32, "settings": {"batch_size": 4, "epochs": 6}}
if len(sys.argv) > 4:
    choices = {"resume": out}
clf = relish.fit(source=Net(), transform=Faded(), loss=smoothed, callbacks=[heed], device="cpu", **choices)
assert any(event["event"] == "train" for event in heard)
if len(sys.argv) > 4:
    exported = relish.export(clf, out + ".onnx")
    print(exported.certificate.agreed.sentence())
"""


def begun(*arguments: object, home: Path):
    return started(SCRIPT, *arguments, RELISH_HOME=home)


@pytest.mark.slow
def test_an_own_module_transform_loss_and_callback_survive_a_kill_and_are_exported(colours, tmp_path):
    """Killed with -9 in mid-run and resumed: the same weights to the last bit, and an ONNX file with a certificate."""
    undisturbed = begun(colours, tmp_path / "whole", "fast", home=tmp_path / "home")
    err = undisturbed.communicate(timeout=300)[1]
    assert undisturbed.returncode == 0, err
    process, metrics = (
        begun(colours, tmp_path / "run", "slow", home=tmp_path / "home"),
        tmp_path / "run/metrics.jsonl",
    )
    while process.poll() is None and not (metrics.is_file() and '"epoch": 3' in metrics.read_text()):
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert process.returncode == -9, "the run was over before it could be killed"
    resumed = begun(colours, tmp_path / "run", "fast", "resume", home=tmp_path / "home")
    out, err = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, err
    assert "12 of 12" in out, f"{out}{err}"  # the certificate: every image gets the same class
    assert (tmp_path / "run/model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()
    events = [event["event"] for event in RunFolder.open(tmp_path / "run").records()]
    assert "resumed" in events
    exported = relish.OnnxClassifier(tmp_path / "run.onnx")
    model, image = relish.load(tmp_path / "run", network=Net()), next(colours.glob("test/red/*"))
    assert exported.predict([image])[0].class_name == model.predict([image])[0].class_name

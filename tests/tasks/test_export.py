"""An exported file answers as the run it was made from, says so of itself, and is not written where it does not."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import relish
from relish.core.errors import BadInput, DataError, Failed, ModelError, RunError
from relish.core.run_folder import RunFolder
from relish.data.image import open_image
from relish.data.transforms import evaluation_transform, normalise, stacked
from relish.evaluation.prediction import Decision, softmax
from relish.exporting import build
from relish.exporting.build import network_model
from relish.exporting.onnx_classifier import OnnxClassifier
from relish.models.saved_model import load_model, save_model
from relish.tasks.export import export
from tests.commands import done, refused
from tests.conftest import SMALL, draw_dataset, read_json
from tests.exported import make_odd_pictures

DECISION = Decision(temperature=1.7, positive="red", threshold=0.3, aim="recall=0.9", unsure_below=0.6, fitted_on=9)


@pytest.fixture(scope="module")
def made(tiny_source, tmp_path_factory) -> Path:
    """A folder with `colours`, a finished `run` on them whose model has a decision, and `model.onnx` of it."""
    folder = tmp_path_factory.mktemp("export")
    draw_dataset(folder / "colours")
    settings = {**SMALL, "epochs": 12, "batch_size": 4, "learning_rate": 1e-3}  # learns the colours on any processor
    relish.fit(folder / "colours", recipe="book", weights=tiny_source, settings=settings, out=folder / "run")
    decide(folder / "run" / "model.safetensors", DECISION)
    export(folder / "run", folder / "model.onnx")
    return folder


@pytest.fixture(scope="module")
def odd(tmp_path_factory) -> list[Path]:
    return make_odd_pictures(tmp_path_factory.mktemp("odd"), 20)


@pytest.fixture
def quick(made, monkeypatch):
    """The network's graph from `model.onnx`'s making, for tests that are about something else."""
    graph = network_graph(made)
    monkeypatch.setattr(build, "network_model", lambda *_: onnx.ModelProto.FromString(graph))


@cache
def network_graph(made: Path) -> bytes:
    model = relish.load(made / "run")
    return network_model(model.network, 32, 1, model.heads[0]).SerializeToString()


def decide(model: Path, decision: Decision) -> None:
    """Save a model anew with this decision."""
    network, description, extra = load_model(model)
    save_model(model, network, description, {**extra, "decision": decision.as_header()})


def of_pytorch(model: Path, pictures: list[Path]) -> np.ndarray:
    """(N, K): the model's own network, fed by the transforms, with its temperature."""
    network, _, _ = load_model(model)
    how = relish.load(model).preprocessing
    with torch.inference_mode():
        rows = [
            network(normalise(stacked([evaluation_transform(open_image(p), how)]), how))[0].numpy() for p in pictures
        ]
    return softmax(np.stack(rows), DECISION.temperature)


def words_of(path: Path) -> dict[str, str]:
    return {prop.key: prop.value for prop in onnx.load(path).metadata_props}


def with_words(source: Path, target: Path, **words: str | None) -> Path:
    """The same model with other words; None takes one away."""
    model = onnx.load(source)
    kept = {prop.key: prop.value for prop in model.metadata_props} | words
    onnx.helper.set_model_props(model, {key: value for key, value in kept.items() if value is not None})
    onnx.save(model, target)
    return target


# ---- the same answers -----------------------------------------------------------------------------------------------


def test_pictures_of_every_odd_kind_get_the_probabilities_of_pytorch(made, odd):
    file = OnnxClassifier(made / "model.onnx")
    found = np.array([list(p.probabilities.values()) for p in file.predict(odd)])
    wanted = of_pytorch(made / "run" / "model.safetensors", odd)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    assert wanted.std(axis=0).max() > 0.02, "pictures that all get the same answer prove nothing"


def test_the_file_alone_is_enough_for_onnx_runtime(made, odd):
    """No relish between the file and the answer: uint8 pixels in, probabilities first, then logits, unfamiliarity."""
    session = onnxruntime.InferenceSession(str(made / "model.onnx"))
    for path in odd[:5]:
        pixels = np.asarray(open_image(path))[None]
        probabilities, logits, _ = session.run(None, {"image": pixels})
        assert (probabilities.shape, probabilities.dtype) == ((1, 2), np.float32)
        np.testing.assert_allclose(probabilities, softmax(logits, DECISION.temperature), rtol=0, atol=1e-6)


def test_the_decision_travels_with_the_file(made):
    """At a threshold of 0.3 the less likely class may be said, and the model may be unsure of it."""
    file = OnnxClassifier(made / "model.onnx")
    pictures = [np.full((20, 20, 3), (red, 60, 250 - red), np.uint8) for red in range(0, 251, 5)]
    answers = file.predict(pictures)
    for answer in answers:
        p = answer.probabilities["red"]
        assert answer.class_name == ("red" if p >= 0.3 else "blue")
        assert answer.unsure == (answer.probability < 0.6)
    assert len({answer.unsure for answer in answers}) == 2
    assert answers[0].as_json().keys() == {
        "path",
        "class",
        "probability",
        "probabilities",
        "unsure",
        "unfamiliarity",
        "unknown",
    }


def test_a_file_for_batches_answers_as_the_one_for_single_pictures(made, odd, tmp_path):
    export(made / "run", tmp_path / "batch.onnx", batch=3, limit=2)
    single, batch = OnnxClassifier(made / "model.onnx"), OnnxClassifier(tmp_path / "batch.onnx")
    assert (single.batch, batch.batch) == (1, 3)
    pictures = [*odd[:2], *sorted((made / "colours" / "test" / "red").iterdir())[:5], made / "run", odd[3]]
    one, other = single.predict(pictures), batch.predict(pictures)
    assert [a.path for a in one] == [b.path for b in other] == [str(p) for p in pictures]
    assert (other[7].error, other[7].class_name) == ("not a picture: it is a folder", None)
    for a, b in zip(one, other, strict=True):
        assert a.class_name == b.class_name
        if a.error is None:
            np.testing.assert_allclose(list(a.probabilities.values()), list(b.probabilities.values()), atol=1e-5)


def test_the_readme_promise_holds_with_torch_blocked(made):
    """A server or a small machine has no torch: reading a file must not need it."""
    picture = next((made / "colours" / "test" / "red").iterdir())
    script = (
        "import sys; sys.modules.update({'torch': None, 'torchvision': None, 'timm': None})\n"
        "from relish import OnnxClassifier\n"
        "from relish.cli.main import main\n"
        f"print(OnnxClassifier({str(made / 'model.onnx')!r}).predict({str(picture)!r})[0].as_json())\n"
        f"sys.argv = ['relish', 'predict', {str(made / 'model.onnx')!r}, {str(picture)!r}, '--json']\n"
        "main()\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    first, _, rest = ended.stdout.partition("\n")
    assert eval(first) == json.loads(rest)[0]  # noqa: S307 - printed by the line above
    assert json.loads(rest)[0]["class"] == "red"


def test_evaluate_counts_the_same_for_the_file_as_for_its_certificate(made):
    told = json.loads(done("evaluate", made / "model.onnx", made / "colours", "--json").out)
    certificate = json.loads(words_of(made / "model.onnx")["certificate"])
    assert told["top1"] == certificate["accuracy"]


def test_a_threshold_counts_in_the_certificate_as_it_does_in_use(made, tmp_path, quick):
    shutil.copytree(made / "run", tmp_path / "run")
    decide(tmp_path / "run" / "model.safetensors", Decision(positive="red", threshold=1.0))
    proof = export(tmp_path / "run", tmp_path / "model.onnx").certificate
    assert (proof.accuracy.correct, proof.torch_accuracy.correct, proof.pictures) == (6, 6, 12), "no picture is red"
    told = json.loads(done("evaluate", tmp_path / "model.onnx", made / "colours", "--json").out)
    assert told["top1"]["correct"] == 6


# ---- what it says of itself -----------------------------------------------------------------------------------------


def test_the_file_says_what_it_is_and_how_it_was_proved(made):
    words, run = words_of(made / "model.onnx"), made / "run"
    evaluation = read_json(run / "evaluation.json")
    assert json.loads(words["classes"]) == ["blue", "red"]
    assert words["decision"] == DECISION.as_header()
    assert json.loads(words["preprocessing"])["image_size"] == 32
    assert json.loads(words["recipe"])["name"] == "book"
    certificate = json.loads(words["certificate"])
    assert (certificate["pictures"], certificate["split"]) == (12, "test")
    assert certificate["worst_difference"] < 1e-5
    assert certificate["agreed"]["correct"] == 12
    assert certificate["accuracy"] == certificate["torch_accuracy"] == evaluation["top1"]
    assert certificate["mismatch"] == []
    assert (made / "colours" / "test" / certificate["worst_picture"]).is_file()


def test_readers_of_onnx_in_common_use_are_promised_what_they_read(made):
    model = onnx.load(made / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert ([(o.domain, o.version) for o in model.opset_import], model.ir_version) == ([("", 18)], 10)
    assert all(node.domain == "" for node in model.graph.node)


def test_the_file_tells_nothing_of_the_machine_it_was_made_on(made):
    content = (made / "model.onnx").read_bytes()
    assert b"site-packages" not in content
    assert str(made).encode() not in content


def test_the_same_run_gives_the_same_bytes_but_for_the_time_it_took(made, tmp_path):
    again = export(made / "run", tmp_path / "again.onnx").path
    first = with_words(made / "model.onnx", tmp_path / "first.onnx", speed=None)
    second = with_words(again, tmp_path / "second.onnx", speed=None)
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"relish_format": None}, "was not made by relish export"),
        ({"relish_format": "2"}, "is of a newer relish"),
        ({"relish_format": "one"}, "cannot be used"),
        ({"classes": '["blue", "blue"]'}, "a class is named twice"),
        ({"classes": '["blue"]'}, "cannot be used"),
        ({"classes": '["blue", "red", "green"]', "decision": None}, "gives something else than it says"),
        ({"classes": "[" * 100_000}, "cannot be used"),
        ({"classes": json.dumps(["a" * 20_000_000, "b"])}, "too long to be true"),
        ({"decision": '{"temperature": 0}'}, "temperature must be above 0"),
        ({"decision": '{"positive": "green", "threshold": 0.5}'}, "no threshold for"),
        ({"decision": "os.system"}, "cannot be read"),
        ({"certificate": "NaNsense"}, "cannot be used"),
        ({"model_sha256": "../../etc"}, "model_sha256"),
    ],
)
def test_words_that_were_tampered_with_are_refused(made, tmp_path, words, told):
    path = with_words(made / "model.onnx", tmp_path / "x.onnx", **words)
    with pytest.raises(ModelError, match=told):
        OnnxClassifier(path)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x0a" * 500])
def test_what_is_no_model_is_refused_in_words(tmp_path, content):
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    assert "is not an ONNX model" in refused("predict", path, path)


def test_a_pointer_in_the_place_of_a_model_is_called_one(tmp_path):
    (tmp_path / "x.onnx").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    assert "Git LFS pointer" in refused("predict", tmp_path / "x.onnx", tmp_path / "x.onnx")


def test_somebody_elses_model_is_refused(tmp_path):
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    opset = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=10), tmp_path / "x.onnx")
    assert "was not made by relish export" in refused("predict", tmp_path / "x.onnx", tmp_path)


# ---- a file that answers otherwise ----------------------------------------------------------------------------------


@pytest.fixture
def wrong_input(monkeypatch, quick):
    """An export that prepares its pictures in another way than the run did: the field's commonest silent failure."""
    right = build.assemble

    def wrong(network, how, *rest, **named):
        return right(network, replace(how, framing="crop", interpolation="bicubic"), *rest, **named)

    monkeypatch.setattr(build, "assemble", wrong)


@pytest.fixture
def wrong_graph(monkeypatch, quick):
    """An exporter that gets one of the network's weights wrong."""
    right = build.network_model

    def wrong(*arguments):
        model = right(*arguments)
        weight = max(model.graph.initializer, key=lambda one: len(one.dims))
        values = onnx.numpy_helper.to_array(weight)
        weight.CopyFrom(onnx.numpy_helper.from_array(values * np.float32(1.2), weight.name))
        return model

    monkeypatch.setattr(build, "network_model", wrong)


@pytest.mark.parametrize(
    ("fault", "words"), [("wrong_input", "its input differs"), ("wrong_graph", "the graph differs")]
)
def test_a_file_that_answers_otherwise_is_not_written_and_the_reason_is_told(made, tmp_path, request, fault, words):
    request.getfixturevalue(fault)
    told = refused("export", made / "run", tmp_path / "new" / "x.onnx", "--quiet", code=1)
    assert words in told
    assert ("its input differs" in told) != ("the graph differs" in told)
    assert "a probability differs by" in told
    assert "--allow-mismatch" in told
    assert list(tmp_path.rglob("*.onnx*")) == []


def test_a_failed_export_leaves_the_former_file(made, tmp_path, wrong_graph):
    (tmp_path / "x.onnx").write_bytes(b"former")
    with pytest.raises(Failed):
        export(made / "run", tmp_path / "x.onnx", overwrite=True)
    assert (tmp_path / "x.onnx").read_bytes() == b"former"


def test_a_mismatch_that_is_allowed_is_told_by_the_file_itself(made, tmp_path, wrong_graph):
    ended = done("export", made / "run", tmp_path / "x.onnx", "--allow-mismatch")
    assert "the graph differs" in ended.err
    certificate = json.loads(words_of(tmp_path / "x.onnx")["certificate"])
    assert any("the graph differs" in words for words in certificate["mismatch"])
    assert certificate["worst_difference"] > 1e-3


# ---- what can be asked ----------------------------------------------------------------------------------------------


def test_the_command_prints_the_path_and_tells_the_proof(made, tmp_path, quick):
    ended = done("export", made / "run", tmp_path / "x.onnx", "--limit", 5)
    assert ended.out == f"{tmp_path / 'x.onnx'}\n"
    assert "proved  on 5 pictures (test): worst probability difference" in ended.err
    assert f"next    relish predict {tmp_path / 'x.onnx'}" in ended.err


def test_json_is_one_document_with_the_certificate(made, tmp_path, quick):
    told = json.loads(done("export", made / "run", tmp_path / "x.onnx", "--json").out)
    assert told["certificate"] == json.loads(words_of(tmp_path / "x.onnx")["certificate"])
    assert told["speed"]["milliseconds"] > 0


def test_python_exports_what_it_loaded(made, tmp_path, quick):
    exported = relish.export(relish.load(made / "run"), tmp_path / "x.onnx", limit=3)
    assert exported.certificate.exact
    assert exported.path.is_file()


def test_a_model_alone_is_proved_on_the_pictures_one_names(made, tmp_path, quick):
    model = made / "run" / "model.safetensors"
    with pytest.raises(RunError, match="does not say which pictures"):
        export(model, tmp_path / "x.onnx")
    assert export(model, tmp_path / "x.onnx", data=made / "colours").certificate.pictures == 12


def test_pictures_that_were_moved_are_told_with_a_way_on(made, tmp_path, monkeypatch):
    dataset = read_json(made / "run" / "dataset.json")
    monkeypatch.setattr(RunFolder, "read_dataset", lambda _: {**dataset, "root": str(tmp_path / "gone")})
    with pytest.raises(DataError, match=r"is not there any more, nor are 11 others\.\n.*--data"):
        export(made / "run", tmp_path / "x.onnx")


@pytest.mark.parametrize(
    ("name", "choices", "told"),
    [
        ("x.pb", {}, "is not named .onnx"),
        (".onnx", {}, "is not named .onnx"),
        ("there.onnx", {}, "exists already"),
        ("x.onnx", {"batch": 0}, "--batch must be 1 or more"),
        ("x.onnx", {"limit": 0}, "--limit must be 1 or more"),
        ("x.onnx", {"data": "nowhere"}, "nowhere"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_computed(made, tmp_path, name, choices, told):
    (tmp_path / "there.onnx").write_bytes(b"former")
    with pytest.raises(BadInput, match=told):
        export(made / "run", tmp_path / name, **choices)
    assert [path.name for path in tmp_path.iterdir()] == ["there.onnx"]


@pytest.mark.parametrize(
    ("words", "told"), [(("--device", "cuda"), "runs on the processor"), (("--precision", "auto"), "precision inside")]
)
def test_an_exported_file_is_not_run_otherwise_than_it_was_proved(made, words, told):
    assert told in refused("predict", made / "model.onnx", made / "colours", *words)


def test_what_export_needs_is_named_where_it_is_not_installed(made, tmp_path):
    script = (
        "import sys; sys.modules['onnx'] = None\n"
        "from relish.cli.main import main\n"
        f"sys.argv = ['relish', 'export', {str(made / 'run')!r}, {str(tmp_path / 'x.onnx')!r}]\n"
        "main()\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert 'pip install "relish-vision[export]"' in ended.stderr
    assert "Traceback" not in ended.stderr

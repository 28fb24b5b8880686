"""The command line as its user meets it: words, exit codes, and JSON that is JSON."""

import json
import os
import resource
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import relish as package
from relish.cli.main import main
from relish.core.errors import Stopped
from relish.core.run_folder import RunFolder
from tests.commands import Ended, done, files_below, refused, relish
from tests.conftest import draw_dataset, read_json

SMALL = ("--image-size", 32, "--batch-size", 8)
BOOK = ("--recipe", "book", *SMALL)
COMMANDS = (
    "demo", "show", "check", "fit", "evaluate", "decide", "report", "predict", "export", "serve", "compare", "sweep",
    "models", "pretrain", "convert", "card",
)  # fmt: skip


@pytest.fixture(scope="module")
def made(tiny_source, tmp_path_factory, home_of_module):
    """A folder with `colours` and a finished `run` on them."""
    folder = tmp_path_factory.mktemp("made")
    draw_dataset(folder / "colours")
    done("fit", folder / "colours", "--weights", tiny_source, *BOOK, "--epochs", 1, "--out", folder / "run")
    return folder


@pytest.fixture
def inside(made, monkeypatch) -> Path:
    """The same, as the current folder."""
    monkeypatch.chdir(made)
    return made


def python(*words: object, out: object = subprocess.PIPE) -> subprocess.Popen:
    """Python with these arguments, in a process of its own."""
    return subprocess.Popen(
        [sys.executable, *map(str, words)],
        stdout=out,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        text=True,
    )


# ---- help -----------------------------------------------------------------------------------------------------------


def seconds_of_children() -> float:
    """Of the processor, of processes that have ended: what else the machine does is no part of it."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_help_names_every_command_and_is_quick():
    began = seconds_of_children()
    out, err = python("-m", "relish", "--help").communicate()
    seconds = seconds_of_children() - began
    assert all(f"  {name} " in out for name in COMMANDS)
    assert "..." not in out.partition("Commands:")[2], "a sentence was cut"
    assert err == ""
    assert seconds < 5, "something heavy is imported"  # a fraction of a second on an idle machine


def test_help_imports_nothing_heavy():
    code = "import sys, relish.cli.main; print([m for m in ('torch', 'timm', 'numpy', 'PIL') if m in sys.modules])"
    assert python("-c", code).communicate()[0].strip() == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_an_example(name):
    words = done(name, "--help").out
    assert f"Usage: relish {name}" in words
    assert "relish" in words.splitlines()[-1] + words.splitlines()[-2]


@pytest.mark.parametrize(("words", "code"), [(["--version"], 0), (["fit", "nowhere"], 2)])
def test_a_process_ends_with_its_code_and_whatever_waits_for_its_end_is_told(words, code):
    """Its modules are not taken apart, which takes seconds: an object in one of them is never let go."""
    told = """
import atexit, threading, time
from relish.cli.main import program
class Loud:
    def __del__(self): print("taken apart")
loud = Loud()
atexit.register(print, "the end")
threading.Thread(target=lambda: time.sleep(0.3) or print("thread done")).start()
program()
"""
    process = python("-c", told, *words)
    out, _ = process.communicate()
    assert out.splitlines()[-2:] == ["thread done", "the end"]
    assert process.returncode == code


def test_the_version_is_that_of_the_installed_package():
    out, err = python("-m", "relish", "--version").communicate()
    assert (out, err) == (f"relish {metadata.version('relish-vision')}\n", "")


@pytest.mark.parametrize(
    ("typed", "completed"),
    [("ev", ["evaluate"]), ("fit --resu", ["--resume"]), ("--vers", ["--version"]), ("predict pic", [])],
)
def test_the_shell_completes_commands_and_options(monkeypatch, typed, completed):
    """As the script that `--install-completion` puts into bash asks; where nothing comes back, bash completes files."""
    monkeypatch.setenv("_RELISH_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"relish {typed}")
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split())))
    out, err = python("-m", "relish").communicate()
    assert (out.split(), err) == (completed, "")


def test_completion_is_installed_for_the_shell_that_asks(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    command = f"{sys.executable} -m relish --install-completion; true"  # `true`, so that bash stays while it runs
    told = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    script = tmp_path / ".bash_completions" / "relish.sh"
    assert (told.stdout.splitlines()[0], told.stderr) == (f"bash completion installed in {script}", "")
    assert "_RELISH_COMPLETE=complete_bash" in script.read_text()
    assert str(script) in (tmp_path / ".bashrc").read_text()


# ---- mistyped words -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["ftt", "x"], "'fit'"),
        (["fit", "colours", "--epoch", "3"], "--epochs"),
        (["fit", "colours", "--wieghts", "x"], "--weights"),
        (["fit", "colours", "--recipe", "bok"], '"book"'),
        (["fit", "colours", "--set", "epcohs=3"], '"epochs"'),
        (["fit", "colours", "--source", "resnet19"], '"resnet18"'),
        (["fit", "colour"], '"colours"'),
        (["fit", "--resume", "rum"], '"run"'),
        (["predict", "rum", "x.png"], '"run"'),
        (["compare", "colours", "--recipes", "book,frozn"], '"frozen"'),
        (["sweep", "colours", "--vary", "learning_rat=1e-5..1e-1"], '"learning_rate"'),
        (["models", "resnt18"], '"resnet18"'),
        (["show", "colours", "--first", "bleu"], '"blue"'),
    ],
)
def test_a_mistyped_word_is_answered_with_the_nearest(inside, words, answer):
    before = files_below(inside)
    assert answer in refused(*words)
    assert files_below(inside) == before


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["fit"], "name a folder"),
        (["predict", "run"], "PATH"),
        (["fit", "colours", "--set", "epochs"], "--set epochs"),
        (["fit", "colours", "--set", "epochs=two"], "epochs"),
        (["fit", "colours", "--epochs", "two"], "--epochs"),
        (["fit", "colours", "--epochs", "-1"], "epochs must be 0 to"),
        (["fit", "colours", "--lr", "0"], "learning_rate must be above 0"),
        (["fit", "colours", "--lr", "1", "--set", "learning_rate=1"], "both given"),
        (["fit", "colours", "--image-size", "5"], "image_size must be"),
        (["fit", "colours", "--freeze", "all"], "none, backbone, early, half or a number"),
        (["fit", "colours", "--val-split", "2"], "--val-split must be between 0 and 1"),
        (["fit", "colours", "--map", "red"], "--map red"),
        (["fit", "colours", "--map", "red=934", "--source", "timm/test_resnet", "--weights", "none"], "source-head"),
        (["fit", "colours", "--device", "gpu"], "auto, cpu, cuda, mps"),
        (["fit", "colours", "--weights", ""], "--weights is empty"),
        (["fit", "colours", "--source", ""], "--source is empty"),
        (["fit", ""], "empty"),
        (["predict", "run", ""], "empty"),
        (["evaluate", "run", "colours", "--split", "tst"], "train, test"),
        (["fit", "colours", "--threshold", "precison=0.9"], '"precision"'),
        (["fit", "colours", "--threshold", "precision"], "precision=0.99"),
        (["fit", "colours", "--threshold", "f1=0.9"], "or f1"),
        (["fit", "colours", "--threshold", "recall=high"], "high is no number"),
        (["fit", "colours", "--unsure", "0.98"], "accuracy=0.98"),
        (["fit", "colours", "--unsure", "accuracy=98"], "at most 1"),
        (["fit", "colours", *BOOK, "--threshold", "f1"], "--val-split 0.2"),
        (["fit", "colours", "--threshold", "f1:mauve"], "blue, red"),
        (["decide", "run", "--threshold", "f1"], "--val-split 0.2"),
        (["compare", "colours", "--recipes", ""], "at least one recipe"),
        (["compare", "colours", "--seeds", "0"], "--seeds"),
        (["sweep", "colours", "--vary", "lr"], "lr=1e-5..1e-1"),
        (["sweep", "colours", "--vary", "lr=1..0"], "goes from above 0 up"),
        (["sweep", "colours", "--vary", "epochs=1.5"], "whole numbers"),
        (["sweep", "colours", "--vary", "lr=1", "--recipes", "book,book"], "each named once"),
        (["show", "colours", "--rows", "0"], "--rows"),
        (["models", "colours"], "--weights colours"),
    ],
)
def test_an_argument_that_cannot_be_used_is_named(inside, words, named):
    before = files_below(inside)
    assert named in refused(*words)
    assert files_below(inside) == before


def test_a_device_this_machine_lacks_is_refused(inside, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "no CUDA device" in refused("fit", "colours", "--device", "cuda")


# ---- fit and resume -------------------------------------------------------------------------------------------------


def test_fit_ends_by_saying_what_to_type_next_and_that_works(inside, tiny_source):
    name = "o ut [red] ünï"
    said = done("fit", "colours", "--weights", tiny_source, *BOOK, "--epochs", 0, "--out", inside / name).err
    assert f"relish report '{inside / name}'" in said, "brackets stay, and the name is quoted for the shell"
    assert done("report", inside / name).out == f"{inside / name / 'report.html'}\n"
    assert "accuracy" in done("evaluate", inside / name, "colours").out


def test_an_existing_run_is_refused_before_the_pictures_are_read(inside):
    ended = relish("fit", "colours", "--out", "run")
    assert ended.code == 2
    assert ended.err.splitlines()[0] == "error: run exists already, and a run is never overwritten."
    assert "relish fit --resume run" in ended.err
    assert "--resume" not in refused("fit", "colours", "--out", "colours"), "a folder that is no run"


def test_resuming_says_which_values_disagree(inside):
    words = refused("fit", "--resume", "run", "--epochs", 5, "--seed", 3)
    assert "epochs (1, not 5)" in words
    assert "seed (0, not 3)" in words


def test_a_folder_that_is_no_run_is_not_resumed(inside):
    assert "not a run folder" in refused("fit", "--resume", "colours")


def test_a_run_on_relative_paths_is_resumed_from_anywhere(inside, tmp_path, tiny_source, monkeypatch):
    (inside / "source.safetensors").write_bytes(tiny_source.read_bytes())
    done("fit", "colours", "--weights", "source.safetensors", *BOOK, "--epochs", 0, "--out", tmp_path / "run")
    (tmp_path / "run" / "evaluation.json").unlink()
    monkeypatch.chdir(tmp_path)
    done("fit", "--resume", "run")
    assert read_json(tmp_path / "run" / "evaluation.json")["top1"]["count"] == 12


def test_quiet_says_warnings_and_nothing_else(inside, tmp_path, tiny_source):
    words = ("--weights", tiny_source, *BOOK, "--epochs", 0, "--quiet")
    quiet = done("fit", "colours", *words, "--out", tmp_path / "a")
    assert (quiet.out, quiet.err) == ("", "")
    root = draw_dataset(tmp_path / "beside", train=2, test=1)
    (root / "stray.png").write_bytes((root / "test" / "red" / "000.png").read_bytes())
    warned = done("fit", root, *words, "--out", tmp_path / "b")
    assert warned.err.startswith("warning: stray.png")
    assert len(warned.err.splitlines()) == 1


def test_a_run_that_diverges_says_so_and_what_to_try(inside, tmp_path, tiny_source):
    words = ("--weights", tiny_source, *BOOK, "--epochs", 1, "--lr", "1e30")
    assert "--lr" in refused("fit", "colours", *words, "--out", tmp_path / "run", code=1)
    assert "diverged" in refused("predict", tmp_path / "run", "colours")


def test_ctrl_c_outside_the_loop_names_the_command_that_goes_on(inside, tmp_path, tiny_source, monkeypatch):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("relish.tasks.run.train", interrupted)
    out = tmp_path / "a run"
    ended = relish("fit", "colours", "--weights", tiny_source, *BOOK, "--epochs", 1, "--out", out)
    assert ended.code == 130
    assert f"relish fit --resume '{out}'" in ended.err
    monkeypatch.undo()
    done("fit", "--resume", out)


def test_ctrl_c_before_a_run_is_one_word(inside, monkeypatch):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("relish.tasks.prepare.find_dataset", interrupted)
    before = files_below(inside)
    assert relish("fit", "colours") == Ended(130, "", "stopped.\n")
    assert files_below(inside) == before


def test_too_little_memory_on_a_device_is_told_with_the_batch_size(inside, tmp_path, tiny_source, monkeypatch):
    import torch

    def too_large(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr("relish.tasks.run.train", too_large)
    words = ("--weights", tiny_source, *BOOK, "--epochs", 1, "--out", tmp_path / "run")
    assert "batches of 8 pictures" in refused("fit", "colours", *words, code=1)


# ---- JSON -----------------------------------------------------------------------------------------------------------


def test_evaluate_json_is_one_document_of_the_documented_keys(inside):
    ended = done("evaluate", "run", "colours", "--json")
    found = json.loads(ended.out)
    assert list(found) == [
        "top1", "classes", "per_class", "confusion", "balanced_accuracy", "macro_f1", "auc", "top5", "log_loss",
        "brier", "ece", "before_temperature", "reliability", "coverage", "decision", "answered", "unknown",
    ]  # fmt: skip
    assert list(found["top1"]) == ["value", "correct", "count", "interval"]
    assert list(found["per_class"][0]) == ["class", "precision", "recall", "f1", "count"]
    assert found["classes"] == ["blue", "red"]
    assert sum(map(sum, found["confusion"])) == found["top1"]["count"] == 12
    assert ended.err == ""


def test_evaluate_says_what_it_judged(inside):
    assert "test, 12 pictures" in done("evaluate", "run", "colours").err
    assert "every picture, 20 pictures" in done("evaluate", "run", "colours/train").err


def test_predict_json_is_one_document_errors_included(inside, tmp_path):
    (tmp_path / "empty").mkdir()
    text = tmp_path / "text.jpg"
    text.write_text("not a picture at all")
    one = "colours/test/red/000.png"
    words = [one, "absent.png", text, tmp_path / "empty", "no*.gif", "colours/test", "colours/train/re*"]
    ended = done("predict", "run", *words, "--json")
    rows = json.loads(ended.out)
    assert [row["path"] for row in rows[:5]] == [one, "absent.png", str(text), str(tmp_path / "empty"), "no*.gif"]
    assert [list(row) for row in rows[1:5]] == [["path", "error"]] * 4
    assert len(rows) == 5 + 12 + 10, "a folder, and a glob that matches folders"
    for row in (rows[0], *rows[5:]):
        assert list(row) == ["path", "class", "probability", "probabilities", "unsure", "unfamiliarity", "unknown"]
        assert row["probability"] == max(row["probabilities"].values()) == row["probabilities"][row["class"]]
        assert sum(row["probabilities"].values()) == pytest.approx(1)
    assert "4 of 27 pictures could not be read" in ended.err


def test_predict_fails_only_where_no_picture_could_be_read(inside):
    ended = relish("predict", "run", "absent.png", "no*.gif", "--json")
    assert ended.code == 2
    assert json.loads(ended.out) == [
        {"path": "absent.png", "error": "there is no such file"},
        {"path": "no*.gif", "error": "matches no file"},
    ]
    assert relish("predict", "run", "absent.png", "colours/test/red/000.png").code == 0


def test_predict_reads_a_picture_or_paths_from_standard_input(inside):
    one = Path("colours/test/red/000.png")
    (named,) = json.loads(done("predict", "run", one, "--json").out)
    (piped,) = json.loads(done("predict", "run", "-", "--json", stdin=one.read_bytes()).out)
    assert piped["probabilities"] == named["probabilities"]
    listed = json.loads(done("predict", "run", "-", "--json", stdin=f"{one}\n\nabsent.png\n".encode()).out)
    assert listed == [named, {"path": "absent.png", "error": "there is no such file"}]


def test_nothing_on_standard_input_is_an_error(inside):
    ended = relish("predict", "run", "-", "--json")
    assert ended.code == 2
    assert json.loads(ended.out) == [{"path": "-", "error": "standard input is empty"}]


def test_a_black_bitmap_on_standard_input_is_not_taken_for_text(inside, tmp_path):
    from PIL import Image

    Image.new("RGB", (1, 1)).save(tmp_path / "black.bmp", dpi=(1, 1))
    content = (tmp_path / "black.bmp").read_bytes()
    content.decode()  # it could be text
    assert "class" in json.loads(done("predict", "run", "-", "--json", stdin=content).out)[0]


def test_json_of_models_is_one_document():
    listed = json.loads(done("models", "mobilenet", "--json").out)
    assert {"name", "tags", "parameters"} == set(listed[0])
    assert json.loads(done("models", "timm/test_resnet", "--json").out)


def test_json_of_compare_and_sweep_is_one_document(inside, tiny_source, tmp_path):
    common = ("--weights", tiny_source, *SMALL, "--epochs", 1, "--runs", tmp_path / "runs", "--json")
    compared = done("compare", "colours", *common, "--recipes", "book,frozen")
    assert [side["recipe"] for side in json.loads(compared.out)["recipes"]] == ["book", "frozen"]
    swept = done("sweep", "colours", *common, "--vary", "lr=1e-4,1e30")
    assert [point["diverged"] for point in json.loads(swept.out)["points"]] == [False, True]
    assert (compared.err, swept.err.count("\n")) == ("", 1), "a run that diverges is a warning"


# ---- standard output ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_whoever_reads_the_first_line_alone_ends_the_command_quietly(inside):
    with python("-m", "relish", "predict", "run", *["colours"] * 80) as running:
        assert running.stdout.readline().startswith("colours/")
        running.stdout.close()
        assert running.stderr.read() == ""
        assert running.wait() == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_standard_output_is_told():
    with open("/dev/full", "w") as full:
        ended = python("-m", "relish", "--help", out=full)
        assert ended.communicate()[1] == "error: standard output: No space left on device\n"
    assert ended.returncode == 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
@pytest.mark.parametrize(("closed", "out"), [(">&-", ""), ("2>&-", "relish "), ("<&- >&- 2>&-", "")])
def test_a_standard_stream_that_the_caller_closed_is_no_failure(closed, out):
    ended = subprocess.run(
        ["sh", "-c", f'"$0" -m relish --version {closed}', sys.executable], capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith(out)
    assert bool(ended.stdout) == bool(out)


@pytest.mark.skipif(sys.platform == "win32", reason="a current folder cannot be removed there")
def test_a_current_folder_that_was_removed_is_told(tmp_path):
    command = 'mkdir gone && cd gone && rmdir ../gone && exec "$0" -m relish show x'
    ended = subprocess.run(["sh", "-c", command, sys.executable], capture_output=True, text=True, cwd=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: the current folder is not there any more")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_not_utf8_is_printed_all_the_same(inside, tmp_path):
    path = os.fsencode(tmp_path) + b"/b\xffd.png"
    with open(path, "wb") as file:
        file.write(Path("colours/test/red/000.png").read_bytes())
    assert "b\\udcffd.png  " in done("predict", "run", os.fsdecode(path)).out
    assert json.loads(done("predict", "run", os.fsdecode(path), "--json").out)[0]["path"] == os.fsdecode(path)


def test_a_stop_of_the_python_api_is_no_exit_of_the_interpreter(inside, tiny_source, tmp_path, monkeypatch):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("relish.tasks.run.climb", interrupted)
    settings = {"image_size": 32, "epochs": 1}
    with pytest.raises(Stopped):
        package.fit("colours", weights=tiny_source, settings=settings, out=tmp_path / "run")
    assert not RunFolder.open(tmp_path / "run").finished


def test_an_error_that_nothing_foresaw_is_told_in_words_and_kept_for_a_report(monkeypatch, tmp_path, capsys):
    """A traceback says nothing to who types commands."""
    monkeypatch.setenv("RELISH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("relish.tasks.inspect.find_models", lambda _: [][1])
    monkeypatch.setattr("sys.argv", ["relish", "models"])
    with pytest.raises(SystemExit) as ended:
        main()
    words = capsys.readouterr().err
    assert ended.value.code == 1
    assert words.startswith("error: IndexError: list index out of range\n  This is a defect of relish")
    assert "in <lambda>" in (tmp_path / "home" / "traceback.txt").read_text()

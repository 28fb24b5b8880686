"""Hostile inputs through the command line: one clear error or warning each, and nothing half-written."""

import errno
import json
import os
import resource
import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from relish.core.run_folder import RunFolder
from relish.data import download
from tests.commands import Ended, done, files_below, refused, relish
from tests.conftest import draw, draw_dataset, read_json
from tests.data.test_download import server, well  # noqa: F401


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A small dataset, `d`, in a folder that is the current one; caches in `home` beside it."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("RELISH_HOME", str(tmp_path / "home"))
    return draw_dataset(Path("d"), train=3, test=2)


@pytest.fixture
def fit(tiny_source, tmp_path):
    """`relish fit` of nothing but the head's first state, into `run`."""

    def words(data: object, *more: object) -> tuple[object, ...]:
        return (
            "fit",
            data,
            "--recipe",
            "book",
            "--weights",
            tiny_source,
            "--image-size",
            32,
            "--epochs",
            0,
            "--out",
            "run",
            *more,
        )

    return words


def refused_cleanly(*words: object, code: int = 2) -> str:
    """Refused, the current folder as it was, and nothing temporary or half-unpacked among the caches."""
    before = files_below(Path())
    said = refused(*words, code=code)
    assert files_below(Path()) == before
    home = Path(os.environ["RELISH_HOME"])
    kept = {path.name for path in home.rglob("*") if path.is_file() and not path.name.endswith(".lock")}
    assert kept <= {"cache.sqlite3", "x.zip"}
    return said


# ---- folders --------------------------------------------------------------------------------------------------------


def test_an_empty_class_folder(root, fit):
    (root / "train" / "green").mkdir()
    assert 'class "green" has no pictures' in refused_cleanly(*fit(root))


def test_one_class_only(root, fit):
    for split in ("train", "test"):
        shutil.rmtree(root / split / "blue")
    assert 'one class only ("red")' in refused_cleanly(*fit(root))


@pytest.mark.parametrize(
    ("have", "recipe", "words"),
    [
        (
            2,
            "probe",
            "needs two different pictures of a class to learn from; here every class has one, besides those held back",
        ),
        (1, "probe", 'class "blue" has 1 picture; every class needs at least 2'),
    ],
)
def test_as_many_pictures_as_there_are_is_what_is_said(root, tiny_source, have, recipe, words):
    shutil.rmtree(root / "test")
    for name in ("blue", "red"):
        for picture in sorted((root / "train" / name).iterdir())[have:]:
            picture.unlink()
    assert words in refused_cleanly("fit", root, "--recipe", recipe, "--weights", tiny_source, "--image-size", 32)


def test_a_class_missing_in_test_is_a_warning_and_shifts_no_other(root, fit):
    draw_dataset(root, train=2, test=2, classes=("blue", "green", "red"))
    shutil.rmtree(root / "test" / "green")
    assert 'warning: test has no pictures of "green"' in done(*fit(root)).err
    found = json.loads(done("evaluate", "run", root, "--json").out)
    assert [(row["class"], row["count"]) for row in found["per_class"]] == [("blue", 2), ("green", 0), ("red", 2)]
    said = json.loads(done("predict", "run", root / "test", "--json").out)
    rows = [sum(row["class"] == name for row in said) for name in found["classes"]]
    assert [sum(column) for column in zip(*found["confusion"], strict=True)] == rows


def test_a_class_that_only_test_has(root, fit):
    draw(root / "test" / "mauve" / "0.png", (1, 2, 3), 1)
    assert 'class "mauve"' in refused_cleanly(*fit(root))


def test_hundreds_of_classes_named_by_numbers(fit, root):
    many = Path("many")
    for split, numbers in (("train", range(1, 301)), ("test", range(291, 301))):
        for number in numbers:
            draw(many / split / str(number) / "0.png", (number % 256, 90, 90), number, (8, 8))
    warnings = [line for line in done(*fit(many)).err.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 2, "one sentence of copies, one for the 290 classes that test lacks"
    assert max(map(len, warnings)) < 300
    names = sorted(map(str, range(1, 301)))
    assert read_json(Path("run/classes.json")) == names
    found = json.loads(done("evaluate", "run", many, "--json").out)
    assert found["classes"] == names
    assert {row["class"]: row["count"] for row in found["per_class"] if row["count"]} == {
        str(number): 1 for number in range(291, 301)
    }


def test_pictures_beside_the_class_folders(root, fit):
    for place in (root, root / "train"):
        shutil.copy(root / "train" / "red" / "000.png", place / "stray.png")
    assert "warning: stray.png, train/stray.png are not inside a class folder: left out." in done(*fit(root)).err


# ---- pictures -------------------------------------------------------------------------------------------------------


def png_of(side: int) -> bytes:
    """A whole, valid grey PNG of side × side pixels, in a thousandth of their bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packing = zlib.compressobj(1)
    rows = b"".join(packing.compress(bytes(side + 1) * 100) for _ in range(side // 100)) + packing.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.fixture
def bad(root) -> dict[str, str]:
    """Pictures that cannot be opened, among the training pictures of `red`, and what is said of each."""
    from PIL import Image

    folder = root / "train" / "red"
    Image.effect_noise((64, 64), 50).convert("RGB").save(folder / "cut.jpg")
    content = (folder / "cut.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(content[: len(content) // 2])
    (folder / "text.jpg").write_text("not a picture at all")
    (folder / "huge.png").write_bytes(png_of(30_000))
    (folder / "none.png").write_bytes(b"")
    return {"cut.jpg": "cut short", "text.jpg": "text file", "huge.png": "30,000 x 30,000", "none.png": "empty"}


def test_pictures_that_cannot_be_opened_are_named_and_left_out(root, fit, bad):
    said = done(*fit(root)).err
    assert "warning: 4 of 14 pictures cannot be opened" in said
    assert len(read_json(Path("run/dataset.json"))["splits"]["train"]) == 6
    kept = dict(read_json(Path("run/dataset.json"))["unreadable"])
    assert {name: words in kept[f"train/red/{name}"] for name, words in bad.items()} == dict.fromkeys(bad, True)


def test_pictures_that_cannot_be_opened_are_an_error_under_strict(root, fit, bad):
    assert "4 of 14 pictures cannot be opened" in refused_cleanly(*fit(root, "--strict"))


def test_pictures_that_cannot_be_opened_are_rows_of_predict(root, fit, bad):
    for name in bad:
        shutil.move(root / "train" / "red" / name, name)
    done(*fit(root))
    rows = json.loads(done("predict", "run", *bad, root / "test", "--json").out)
    assert {row["path"]: bad[row["path"]] in row["error"] for row in rows[:4]} == dict.fromkeys(bad, True)
    assert all("error" not in row for row in rows[4:])


def test_a_file_that_may_not_be_read(root, fit, monkeypatch):
    read = Path.read_bytes

    def guarded(path: Path) -> bytes:
        if path.name == "001.png" and path.parent.name == "red":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", guarded)
    assert "train/red/001.png (cannot be read (permission denied))" in done(*fit(root)).err


STEERING = "\x1b[2J\x07\u202e"


def steering(ended: Ended) -> set[str]:
    """Every character of a command's output that does something to a terminal."""
    return {c for c in ended.out + ended.err if c != "\n" and (ord(c) < 32 or 127 <= ord(c) < 160 or c == "\u202e")}


def test_names_do_nothing_to_the_terminal(root, fit):
    """Neither those of classes, files and folders nor words of the command line."""
    for split in ("train", "test"):
        (root / split / "red").rename(root / split / f"red{STEERING}")
    folder = root / "train" / f"red{STEERING}"
    (folder / f"bad{STEERING}\nerror: .png").write_bytes(b"none")
    shutil.copy(folder / "000.png", root / f"stray{STEERING}.png")
    fitted = done(*fit(root))
    assert "stray\\x1b[2J\\x07\\u202e.png is not inside a class folder" in fitted.err
    assert '"red\\x1b[2J\\x07\\u202e" is "red[2J"' in fitted.err
    answers = done("predict", "run", root / "test", folder / f"bad{STEERING}\nerror: .png")
    assert len(answers.out.splitlines()) == 4
    assert "bad\\x1b[2J\\x07\\u202e\\nerror: .png: " in answers.err
    ended = [fitted, answers, done("evaluate", "run", root), relish("predict", f"no{STEERING}", root)]
    ended += [relish("fit", f"no{STEERING}"), relish("fit", root, f"--{STEERING}"), relish(STEERING)]
    ended += [relish("show", root, f"more{STEERING}"), relish("fit", root, "--epochs", STEERING)]
    assert [steering(one) for one in ended] == [set()] * len(ended)
    assert [one.code for one in ended] == [0, 0, 0, 2, 2, 2, 2, 2, 2]


# ---- archives and downloads -----------------------------------------------------------------------------------------


def zipped(root: Path, *more: tuple[zipfile.ZipInfo | str, bytes]) -> Path:
    with zipfile.ZipFile("x.zip", "w") as archive:
        for path in sorted(root.rglob("*.png")):
            archive.write(path)
        for member, content in more:
            archive.writestr(member, content)
    return Path("x.zip")


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, 0o120777 << 16
    return info


@pytest.mark.parametrize(
    ("member", "words"),
    [
        ("../../outside.png", "leads outside"),
        ("/tmp/outside.png", "absolute path"),  # noqa: S108
        (link("d/train/red/link.png"), "is a link"),
    ],
    ids=["..", "absolute", "link"],
)
def test_an_archive_with_a_member_that_leads_elsewhere(root, fit, member, words):
    said = refused_cleanly(*fit(zipped(root, (member, b"/etc/passwd"))))
    assert "x.zip" in said
    assert words in said
    assert not list(Path().absolute().parent.rglob("outside.png"))


def test_names_of_a_zip_are_read_as_told_by_every_command_that_takes_it(root, fit):
    names = [
        f"d/{part}/{name}/{number}.png" for part in ("train", "test") for name in ("c1", "c2") for number in (1, 2)
    ]
    content = iter(range(100))
    with zipfile.ZipFile("x.zip", "w") as archive:
        for name in names:
            draw(Path("p.png"), (9, 9, 9), next(content))
            archive.write("p.png", name)
    Path("x.zip").write_bytes(Path("x.zip").read_bytes().replace(b"/c1/", b"/\xaa\xe2/"))  # "\u043a\u0442" in cp866
    done(*fit("x.zip", "--zip-encoding", "cp866"))
    assert read_json(Path("run/classes.json")) == ["c2", "\u043a\u0442"]
    assert "not UTF-8" not in done("evaluate", "run", "x.zip", "--zip-encoding", "cp866").err
    assert "there is no such encoding" in refused("show", "x.zip", "--zip-encoding", "klingon")


def test_a_wrong_checksum_is_found_before_anything_is_unpacked(root, fit):
    assert "SHA-256 expected" in refused_cleanly(*fit(zipped(root), "--sha256", "0" * 64))


def test_a_server_that_hangs_up_midway_is_asked_for_the_rest(root, fit, server, monkeypatch):  # noqa: F811
    monkeypatch.setattr(download, "FIRST_PAUSE", 0.0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    content = zipped(root).read_bytes()
    server.answers = [well(content, stop=len(content) // 2), well(content)]
    done(*fit(server.address))
    assert [request.get("Range") for request in server.asked] == [None, f"bytes={len(content) // 2}-"]
    assert len(read_json(Path("run/dataset.json"))["splits"]["train"]) == 6


def test_a_server_that_is_not_there(root, fit, monkeypatch):
    monkeypatch.setattr(download, "FIRST_PAUSE", 0.0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    said = refused_cleanly(*fit("http://127.0.0.1:9/x.zip"), code=1)
    assert "http://127.0.0.1:9/x.zip" in said
    assert "by hand" in said


# ---- weights --------------------------------------------------------------------------------------------------------


class Trap:
    """What a pickle may do to who opens it."""

    def __reduce__(self):
        return os.mkdir, ("sprung",)


def test_a_pickled_object_in_a_pth_is_refused_and_never_run(root):
    torch.save({"weight": Trap()}, "trap.pth")
    words = ("fit", root, "--weights", "trap.pth", "--source", "timm/test_resnet", "--out", "run")
    assert "trap.pth: holds pickled Python objects" in refused_cleanly(*words)
    assert not Path("sprung").exists()


def test_weights_of_another_architecture(root, tiny_source):
    from relish.models.source import load_source

    torch.save(load_source("timm/test_resnet", "none").network.state_dict(), "other.pth")
    words = ("fit", root, "--weights", "other.pth", "--source", "timm/resnet10t", "--out", "run")
    assert "another shape" in refused_cleanly(*words)
    assert "test_resnet" in refused_cleanly("fit", root, "--weights", tiny_source, "--source", "resnet18")


def test_a_file_that_is_no_model_is_no_model_to_predict_with(root):
    torch.save({}, "other.pth")
    assert "not a model saved by relish" in refused_cleanly("predict", "other.pth", root)


# ---- writing --------------------------------------------------------------------------------------------------------


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """A real refusal of the system, of every byte beyond `size` of a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def temporary_files() -> list[Path]:
    return [path for path in Path().rglob("*") if path.name.endswith(".tmp")]


@pytest.mark.parametrize(
    ("epochs", "file"), [(0, "model.safetensors"), (1, "checkpoints/latest.pt")], ids=["model", "checkpoint"]
)
def test_a_disk_without_space_for_tensors(root, fit, epochs, file):
    with no_file_above(200_000):
        said = refused(*fit(root, "--epochs", epochs), code=1)
    assert f"run/{file}: cannot write" in said
    assert "relish fit --resume run" in said
    assert not Path("run", file).exists()
    assert not temporary_files()
    done("fit", "--resume", "run")
    assert RunFolder(Path("run")).finished


def test_a_disk_that_fills_up_under_the_log_of_a_run(root, fit):
    """The log is cut in the middle of a line; what is added later stands on lines of its own."""
    opened, writes = Path.open, iter(range(5))

    def full(path: Path, mode: str = "r", **more: object):
        if path.name == "metrics.jsonl" and mode != "r" and next(writes) == 4:
            with opened(path, "ab") as log:
                log.write(b'{"event": "tr')
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return opened(path, mode, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "open", full)
        said = refused(*fit(root, "--epochs", 2, "--batch-size", 2), code=1)
    assert "run/metrics.jsonl: cannot write (No space left on device)" in said
    assert "relish fit --resume run" in said
    done("fit", "--resume", "run")
    events = [event["event"] for event in RunFolder(Path("run")).records()]
    assert events == ["train", "train", "train", "score", "resumed", "train", "train", "train", "score"]


@pytest.mark.parametrize("reason", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_folder_that_no_run_can_be_made_in(root, fit, monkeypatch, reason):
    def refuse(*_: object, **more: object) -> str:
        raise OSError(reason, os.strerror(reason), str(more.get("dir")))

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    said = refused_cleanly(*fit(root), code=1)
    assert f"run: cannot write ({os.strerror(reason)})" in said
    assert ("Free some space" in said) == (reason == errno.ENOSPC)


def test_a_full_disk_under_the_chart_of_show(root):
    with no_file_above(100):
        assert "grid.png: cannot write" in refused_cleanly("show", root, "--out", "grid.png", code=1)


def test_an_error_of_the_system_that_nobody_foresaw_is_words_too(root, fit, monkeypatch):
    def broken(*_: object, **__: object) -> Ended:
        raise OSError(errno.EIO, "Input/output error", "/mnt/old-disk/d")

    monkeypatch.setattr("relish.tasks.prepare.find_dataset", broken)
    assert refused_cleanly(*fit(root), code=1) == "/mnt/old-disk/d: Input/output error\n"


def test_a_name_too_long_for_the_system(root):
    assert "File name too long" in refused_cleanly("predict", "n" * 300, root, code=1)

"""Tables of other machines and of Kaggle: their files are found, or what to type is said."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import relish
from relish.core.errors import DataError
from relish.data.sources import Reading, find_dataset
from relish.data.split_names import NONE
from tests.commands import done, refused
from tests.conftest import draw, labelled, read_json, refusal_of, touch


def table(path, *rows):
    """A CSV of these rows, each a text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n")
    return path


def found(path, **told):
    return find_dataset(path, reading=Reading(**told))


PETS = {"pets/cats/1.jpg": "cat", "pets/dogs/1.jpg": "dog", "pets/dogs/2.png": "dog"}


@pytest.fixture
def pets(tmp_path):
    """Three pictures below `pets`."""
    touch(tmp_path, *PETS)
    return tmp_path / "pets"


# ---- where the files are --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written",
    [
        "{}",
        "C:\\Users\\me\\pets\\{}",
        "C:/Users/me/pets/{}",
        "\\\\server\\share\\pets\\{}",
        "/home/somebody/data/pets/{}",
        "/content/drive/My Drive/pets/{}",
        "pets\\{}",
        "data/pets/{}",
    ],
)
def test_the_end_of_a_path_is_found_below_a_root(pets, tmp_path, written):
    ends = [name.removeprefix("pets/") for name in PETS]
    ends = [end.replace("/", "\\") if "\\" in written else end for end in ends]
    rows = [f"{written.format(end)},{label}" for end, label in zip(ends, PETS.values(), strict=True)]
    dataset = found(table(tmp_path / "elsewhere/t.csv", "path,label", *rows), root=pets)
    assert labelled(dataset) == {name.removeprefix("pets/"): label for name, label in PETS.items()}


def test_one_part_is_taken_away_for_all_rows(pets, tmp_path):
    """Row by row, `a/1.jpg` and `b/1.jpg` would both be found as `1.jpg`."""
    touch(pets, "1.jpg")
    words = refusal_of(found, table(tmp_path / "t.csv", "path,label", "C:\\a\\1.jpg,x", "C:\\b\\c\\1.jpg,y"), root=pets)
    assert "2 of 2 files are missing" in words


@pytest.mark.parametrize("path", ["C:\\pets\\cats\\1.jpg", "/nowhere/cats/1.jpg", "\\\\s\\pets\\cats\\1.jpg"])
def test_without_a_root_a_path_of_another_machine_is_told_what_to_type(pets, tmp_path, path):
    words = refusal_of(found, table(tmp_path / "t.csv", "path,label", f"{path},x", f"{path}2.jpg,y"))
    assert "--root FOLDER" in words


def test_a_path_that_leads_out_of_the_root_is_not_found(pets, tmp_path):
    touch(tmp_path, "secret.jpg")
    rows = ["C:\\..\\secret.jpg,x", "C:\\cats\\..\\..\\secret.jpg,y"]
    assert "missing" in refusal_of(found, table(tmp_path / "t.csv", "path,label", *rows), root=pets)


def test_names_without_their_endings_are_found_beside_the_table(pets):
    dataset = found(table(pets / "t.csv", "path,label", "cats/1,cat", "dogs/1,dog", "dogs/2,dog"))
    assert labelled(dataset) == {name.removeprefix("pets/"): label for name, label in PETS.items()}


def test_a_name_without_its_ending_that_two_files_have_is_refused(pets):
    touch(pets, "cats/1.png")
    words = refusal_of(found, table(pets / "t.csv", "path,label", "cats/1,cat", "dogs/1,dog"))
    assert '"cats/1" may be any of several files: cats/1.jpg, cats/1.png' in words


def test_ids_are_found_anywhere_below_a_root(tmp_path):
    touch(tmp_path, "part_1/a.jpg", "part_2/b.jpg", "part_2/c.d.jpg")
    dataset = found(table(tmp_path / "t.csv", "path,label", "a,x", "b,y", "c.d,y"), root=tmp_path)
    assert labelled(dataset) == {"part_1/a.jpg": "x", "part_2/b.jpg": "y", "part_2/c.d.jpg": "y"}
    touch(tmp_path, "part_3/a.jpg")
    assert '"a" may be any of several files' in refusal_of(found, tmp_path / "t.csv", root=tmp_path)


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=3), st.integers(0, 3), st.sampled_from("/\\"))
@settings(max_examples=25, deadline=None)
def test_a_table_moved_with_any_part_before_is_the_same_dataset(tmp_path_factory, tail, depth, between):
    root = tmp_path_factory.mktemp("root")
    names = [f"{'/'.join(tail)}/{n}.jpg" for n in range(4)]
    touch(root, *names)
    before = between.join(["", "x", "y", "z"][: depth + 1])
    rows = [f"{before}{between}{name.replace('/', between)},{'uv'[n % 2]}" for n, name in enumerate(names)]
    assert labelled(found(table(root / "t.csv", "path,label", *rows), root=root)) == {
        name: "uv"[n % 2] for n, name in enumerate(names)
    }


# ---- which columns --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("told", ["path=id,label=breed,split=part", {"path": "ID", "label": "breed", "split": "part"}])
def test_columns_go_by_the_names_that_are_told(pets, separator, told):
    rows = ["id,label,breed,part", "cats/1,x,cat,train", "dogs/1,x,dog,train", "dogs/2,x,dog,test"]
    path = table(pets / "t.csv", *(row.replace(",", separator) for row in rows))
    dataset = found(path, column_names=told)
    assert (dataset.classes, {s: len(p) for s, p in dataset.splits.items()}) == (
        ("cat", "dog"),
        {"train": 2, "test": 1},
    )


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ("path=ids,label=breed", 'no column "ids"'),
        ("path=ids,label=breed", 'did you mean "id"'),
        ("id,breed", "not of the form path=COLUMN,label=COLUMN"),
        ("file=id", "not of the form"),
        ("path=", "not of the form"),
    ],
)
def test_columns_that_are_not_there_are_named(pets, told, words):
    path = table(pets / "t.csv", "id,breed", "cats/1,cat", "dogs/1,dog")
    assert words in refusal_of(found, path, column_names=told)


@pytest.mark.parametrize("told", [{"root": "."}, {"column_names": "path=id,label=breed"}])
def test_what_is_said_of_a_table_is_refused_of_a_folder(pets, told):
    assert "say how a table is read, and this is a folder" in refusal_of(found, pets, **told)


def test_a_root_that_is_not_there_is_refused(pets, tmp_path):
    assert "there is no such folder" in refusal_of(
        found, table(tmp_path / "t.csv", "path,label", "1.jpg,a"), root=pets / "no"
    )


# ---- Kaggle's tables ------------------------------------------------------------------------------------------------

KAGGLE = {
    "dog breeds": (
        ["train/0a.jpg", "train/0b.jpg", "test/0c.jpg"],
        {"labels.csv": ["id,breed", "0a,boxer", "0b,beagle"], "sample_submission.csv": ["id,boxer,beagle", "0c,.5,.5"]},
        "{0}/labels.csv --root {0}/train --column-names path=id,label=breed",
    ),
    "cassava": (
        ["train_images/1.jpg", "train_images/2.jpg", "test_images/3.jpg"],
        {"train.csv": ["image_id,label", "1.jpg,0", "2.jpg,3"]},
        "{0}/train.csv --root {0}/train_images --column-names path=image_id,label=label",
    ),
    "blindness": (
        ["train_images/aa.png", "train_images/bb.png", "test_images/cc.png"],
        {"test.csv": ["id_code", "cc"], "train.csv": ["id_code,diagnosis", "aa,2", "bb,0"]},
        "{0}/train.csv --root {0}/train_images --column-names path=id_code,label=diagnosis",
    ),
    "cifar": (
        ["train/1.png", "train/2.png", "test/1.png", "test/2.png", "test/3.png"],
        {"trainLabels.csv": ["id,label", "1,frog", "2,truck"]},
        "{0}/trainLabels.csv --root {0}/train --column-names path=id,label=label",
    ),
    "ham10000": (
        ["HAM10000_images_part_1/I1.jpg", "HAM10000_images_part_2/I2.jpg"],
        {"HAM10000_metadata.csv": ["lesion_id,image_id,dx,age", "L1,I1,bkl,80", "L2,I2,nv,40"]},
        "{0}/HAM10000_metadata.csv --root {0} --column-names path=image_id,label=dx",
    ),
    "images and masks": (
        ["images/1.jpg", "images/2.jpg", "masks/1.png", "masks/2.png"],
        {"labels.csv": ["id,label", "1,a", "2,b"]},
        "{0}/labels.csv --root {0}/images --column-names path=id,label=label",
    ),
    "a flat folder": (
        ["1.jpg", "2.jpg"],
        {"labels.tsv": ["file\tanimal", "1.jpg\tcat", "2.jpg\tdog"]},
        "{0}/labels.tsv --column-names path=file,label=animal",
    ),
}


@pytest.mark.parametrize("name", KAGGLE)
def test_a_table_that_names_the_pictures_is_found_and_what_to_type_is_said(tmp_path, monkeypatch, name):
    files, tables, words = KAGGLE[name]
    monkeypatch.chdir(tmp_path)
    touch(tmp_path / "data", *files)
    for called, rows in tables.items():
        table(tmp_path / "data" / called, *rows)
    said = refusal_of(found, "data")
    assert words.format("data") in said
    typed = words.format("data").split()
    told = {typed[i].removeprefix("--").replace("-", "_"): typed[i + 1] for i in range(1, len(typed), 2)}
    dataset = found(typed[0], **{"root" if key == "root" else key: value for key, value in told.items()})
    assert len(dataset) == 2
    assert len(dataset.classes) == 2


def test_columns_that_may_all_be_the_labels_are_listed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "data/images/1.jpg", "data/images/2.jpg")
    table(tmp_path / "data/train.csv", "image,rust,scab", "1,0,1", "2,1,0")
    assert "--column-names path=image,label=COLUMN, where COLUMN is one of rust, scab" in refusal_of(found, "data")


def test_a_table_beside_class_folders_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path / "data", "cat/1.jpg", "dog/2.jpg")
    table(tmp_path / "data/photographers.csv", "file,by", "cat/1.jpg,Ann", "dog/2.jpg,Bob")
    dataset = found("data")
    assert dataset.classes == ("cat", "dog")
    assert "photographers.csv names these pictures" in " ".join(dataset.warnings)


def test_folders_that_are_classes_all_the_same_are_taken_by_the_option(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files, tables, _ = KAGGLE["ham10000"]
    touch(tmp_path / "data", *files)
    table(tmp_path / "data/t.csv", *tables["HAM10000_metadata.csv"])
    assert f"--split-names {NONE}" in refusal_of(found, "data")
    assert found("data", split_names=NONE).classes == ("HAM10000_images_part_1", "HAM10000_images_part_2")


# ---- through the commands -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["check", "compare", "fit", "pretrain", "show", "sweep"])
def test_every_call_that_reads_a_dataset_takes_the_options(pets, name):
    more = {"sweep": {"vary": "epochs=1"}}.get(name, {})
    path = table(pets / "t.csv", "id,breed", "1,cat")
    with pytest.raises(DataError, match="no such folder"):
        getattr(relish, name)(path, root=pets / "no", column_names={"path": "id", "label": "breed"}, **more)
    told = ("--root", pets, "--column-names", "path=ids,label=breed")
    assert 'no column "ids"' in refused(name, path, *told, *(f"--{key}={value}" for key, value in more.items()))


def test_a_run_of_a_kaggle_table_is_resumed_and_judged_with_what_was_told(tmp_path, monkeypatch, tiny_source):
    monkeypatch.chdir(tmp_path)
    colours = {"blue": (60, 60, 190), "red": (190, 60, 60)}
    for place, (name, colour) in enumerate(colours.items()):
        for number in range(3):
            draw(tmp_path / f"photos/{name}{number}.png", colour, 10 * place + number)
    rows = [f"C:\\photos\\{name}{number},{name}" for name in colours for number in range(3)]
    table(tmp_path / "t.csv", "id,colour", *rows)
    told = ("--root", "photos", "--column-names", "path=id,label=colour")
    small = ("--recipe", "book", "--weights", tiny_source, "--image-size", 32, "--epochs", 0, "--out", "run")
    done("fit", "t.csv", *small, *told)
    request = read_json(tmp_path / "run/request.json")
    assert request["root"] == str(tmp_path / "photos")
    assert request["column_names"] == {"path": "id", "label": "colour"}
    assert "finished already" in done("fit", "--resume", "run", *told).err
    assert '"count": 6' in done("evaluate", "run", "t.csv", *told, "--json").out

"""One form for every class name, wherever it comes from; what relish writes reads back as the same dataset."""

import json
import tempfile
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from relish.checks.images import image_set
from relish.checks.run_checks import Checked
from relish.core.errors import DataError, ModelError, RecipeError
from relish.data.dataset import Dataset, class_name, plain_name
from relish.data.folder import index_folder
from relish.data.sources import find_dataset
from relish.data.survey import survey
from relish.data.table import index_table
from relish.tasks.check import Check
from tests.conftest import draw, unpacked_case

NFC, NFD = "caf\u00e9", "cafe\u0301"
HOSTILE = [
    *(NFC, NFD, " cat", "cat ", "cat", "c\u200bat", "c\u00a0a", "c a", "c  a", "\ufeffcat", "cat\u00ad", "Cat", "CAT"),
    *("a\rb", "a\nb", "a\r\nb", "a\tb", '"', '""', "'", ",", ";", "|", "=1+1", "-", "#", "\\", "a\\b", "%41", "~"),
    *("\x1b[31mred", "\x7f", "\x85", "\u2028", "\u202egnp", "\u2066x\u2069", "\u3000", "日本\u3000語", "می\u200cخواهم"),
    *("👩\u200d🔬", "\u1100\u1161\u11a8", "각", "ﬁ", "İ", "ß", "NA", "null", "007", "path", "label", "CON"),
]
letters = st.characters(exclude_categories=["Cs"], exclude_characters="/\0")
names = (st.sampled_from(HOSTILE) | st.text(letters, min_size=1, max_size=8)).filter(
    lambda name: not name.startswith(".") and len(name.encode()) < 200
)


def index(root: Path) -> Dataset:
    return index_folder(root, name="pets", source="pets")


def labelled(dataset: Dataset) -> dict[tuple[str, str], str]:
    """The class of each image, by its split and its file."""
    return {
        (name, str(path.resolve())): dataset.classes[label]
        for name, split in dataset.splits.items()
        for path, label in zip(split.paths, split.labels, strict=True)
    }


# ---- the one form ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written",
    [NFC, NFD, f" {NFC}", f"{NFD}\u00a0", f"{NFC}\u200b", "caf\u200be\u0301", f"\ufeff{NFC}\n", "caf\u00ad\u00e9"],
)
def test_names_that_look_alike_to_the_last_dot_are_one(written):
    assert class_name(written) == NFC


@pytest.mark.parametrize("other", ["cafe", "Caf\u00e9", "caf\u00e9s", "caf \u00e9", "caf-\u00e9", "ca\ufb00\u00e9"])
def test_names_that_can_be_told_apart_stay_apart(other):
    assert class_name(other) == other != NFC


@pytest.mark.parametrize("name", ["می\u200cخواهم", "क\u094d\u200dष", "👩\u200d🔬", "❤\ufe0f\u200d🔥"])
def test_a_joiner_that_is_read_stays(name):
    assert class_name(name) == name
    assert class_name(f"\u200d{name}\u200c") == name


@given(names)
@settings(max_examples=100)
def test_the_one_form_of_a_name_is_its_own_and_holds_nothing_unseen(written):
    name = class_name(written)
    assert class_name(name) == name == unicodedata.normalize("NFC", name)
    assert class_name(unicodedata.normalize("NFD", written)) == name
    assert name == name.strip()
    assert not any(unicodedata.category(letter) == "Cc" or letter in "\u200b\u00a0\u202e\ufeff" for letter in name)


@pytest.mark.slow
def test_imagenets_labels_are_in_that_form():
    """Else a model's labels would no longer be known for ImageNet's."""
    from relish.models.registry import LABEL_SETS, imagenet_labels

    assert [name for labels in LABEL_SETS for name in imagenet_labels(labels) if class_name(name) != name] == []


def test_names_that_differ_by_width_or_an_unread_joiner_look_alike():
    assert plain_name("Ｃat") == plain_name("cat") == plain_name("CAT")
    assert plain_name("❤\ufe0f") == plain_name("❤")


# ---- folders and tables ---------------------------------------------------------------------------------------------


def test_folders_that_are_one_class_are_said_to_be(tmp_path):
    for number, folder in enumerate(["cat", "cat ", f"{NFD}", NFC, "dog"]):
        draw(tmp_path / folder / f"{number}.png", (9, 9, 9), number)
    dataset = index(tmp_path)
    assert dataset.classes == (NFC, "cat", "dog")
    (warning,) = dataset.warnings
    assert '"cat" and "cat "' in warning
    assert '"cafe\\u0301" and "caf\u00e9"' in warning


def test_a_folder_whose_name_is_taken_without_its_blanks_is_shown_as_it_is(tmp_path):
    for folder in (" cat", "dog", "cow\u200b"):
        draw(tmp_path / folder / "1.png", (9, 9, 9), 1)
    dataset = index(tmp_path)
    assert dataset.classes == ("cat", "cow", "dog")
    assert dataset.warnings == (
        'class names go without what cannot be seen in them: " cat" is "cat", "cow\\u200b" is "cow".',
    )


@pytest.mark.parametrize("other", ["cat ", " cat", "cat\u00a0", "c\u200bat"])
def test_a_test_folder_with_a_blank_more_is_of_the_same_class(tmp_path, other):
    for place in ("train/cat", "train/dog", f"test/{other}", "test/dog"):
        draw(tmp_path / place / "1.png", (9, 9, 9), 1)
    dataset = index(tmp_path)
    assert dataset.classes == ("cat", "dog")
    assert dataset.splits["test"].counts(2).tolist() == [1, 1]


def test_a_folder_with_a_name_of_nothing_is_refused(tmp_path):
    for folder in ("\u200b", "dog"):
        draw(tmp_path / folder / "1.png", (9, 9, 9), 1)
    with pytest.raises(DataError, match=r'class name "\\u200b" holds nothing that can be seen'):
        index(tmp_path)


def test_a_table_in_either_form_is_the_folder_it_is_of(tmp_path):
    for folder in (NFC, "dog"):
        for number in range(2):
            draw(tmp_path / folder / f"{number}.png", (9, 9, 9), number)
    rows = [f"{NFC}/0.png,{NFD}", f"{NFD}/1.png,{NFC}\u200b", "dog/0.png, dog", "dog/1.png,dog\u00a0"]
    (tmp_path / "table.csv").write_text("path,label\n" + "\n".join(rows))
    found = index_table(tmp_path / "table.csv", name="pets", source="table.csv")
    assert labelled(found) == labelled(index(tmp_path))
    assert '"cafe\\u0301" and "caf\u00e9\\u200b", "dog" and "dog\\xa0" are one class each' in found.warnings[0]


def test_a_row_said_twice_in_two_forms_is_no_contradiction(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "table.csv").write_text(f"path,label\na.jpg,{NFC}\na.jpg,{NFD}\nb.jpg,dog\n")
    assert len(index_table(tmp_path / "table.csv", name="pets", source="table.csv")) == 2


def test_a_label_of_nothing_seen_is_an_empty_cell(tmp_path):
    (tmp_path / "a.jpg").touch()
    (tmp_path / "table.csv").write_text("path,label\na.jpg,\u200b\n")
    with pytest.raises(DataError, match=r"1 row has no label \(line 2\)"):
        index_table(tmp_path / "table.csv", name="pets", source="table.csv")


def test_a_path_with_blanks_at_its_edges_is_found_before_one_without(tmp_path):
    for name in (" a.jpg", "a.jpg", "b.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "table.csv").write_text("path,label\n a.jpg,cat\nb.jpg ,dog\n")
    found = index_table(tmp_path / "table.csv", name="pets", source="table.csv")
    assert sorted(path.name for path in found.splits["all"].paths) == [" a.jpg", "b.jpg"]


def read_back(dataset: Dataset, table: Path) -> Dataset:
    """What a table that `check --fix` writes of a dataset is read as."""
    checked = Checked((), image_set(survey(dataset)), np.zeros((0, 2), dtype=np.int64), None)
    Check((), len(dataset), dataset, checked).write_clean_table(table)
    return index_table(table, name="pets", source="clean.csv", learnable=False)


@given(
    st.lists(st.tuples(names, names, st.sampled_from(["train", "test"])), min_size=2, max_size=6),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=30)
def test_what_check_writes_is_read_back_as_the_same_dataset(rows, has_splits, is_inside):
    """Whatever classes, folders and files are called."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "data")
        for number, (label, file, split) in enumerate(rows):
            path = (root / split if has_splits else root) / label / f"{file}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (3, 2), (40 * number, 9, 9)).save(path)
        try:
            dataset = index_folder(root, name="pets", source="pets", learnable=False)
        except DataError:  # the names are of no class, or are those of splits
            assume(False)
        found = read_back(dataset, (root if is_inside else Path(folder, "tables")) / "clean.csv")
        assert labelled(found) == labelled(dataset)
        assert found.classes == dataset.classes
        assert not found.warnings or "has no pictures of" in found.warnings[0]


@given(st.lists(st.tuples(names, names), min_size=1, max_size=5, unique_by=lambda row: row[0]))
@settings(max_examples=60)
def test_rows_in_python_are_read_back_as_they_are(rows):
    with tempfile.TemporaryDirectory() as folder:
        data = [(Path(folder, f"{file}.jpg"), label) for file, label in rows if class_name(label)]
        assume(data)
        for path, _ in data:
            path.touch()
        found = find_dataset(data)
        assert labelled(found) == {("all", str(path.resolve())): class_name(label) for path, label in data}


def test_the_tables_of_the_wild_are_the_folder_they_are_of(shared, tmp_path):
    tables = list(unpacked_case(shared, "14-nfd-table", tmp_path).rglob("*.csv"))
    assert {table.name for table in tables} >= {"nfd.csv", "mixed.csv"}
    for table in tables:
        assert NFC in find_dataset(table).classes
        assert NFD not in find_dataset(table).classes


def test_folders_of_the_wild_with_blanks_at_their_edges_are_read_back_as_they_are(shared, tmp_path):
    dataset = index(unpacked_case(shared, "15-edge-spaces", tmp_path) / "15-edge-spaces/data")
    assert (dataset.classes, len(dataset)) == (("hotdog", "not-hotdog"), 18)
    assert labelled(read_back(dataset, tmp_path / "clean.csv")) == labelled(dataset)


# ---- models and calls -----------------------------------------------------------------------------------------------


def test_a_model_of_one_form_knows_the_other(tmp_path, tiny_source):
    import relish

    for split in ("train", "test"):
        for place, name in enumerate((NFC, "dog")):
            for number in range(3):
                draw(tmp_path / "data" / split / name / f"{number}.png", (90 * place, 90, 90), number + 10 * place)
    rows = [
        (path, unicodedata.normalize("NFD", path.parent.name), path.parent.parent.name)
        for path in sorted((tmp_path / "data").glob("*/*/*.png"))
    ]
    settings = {"epochs": 0, "image_size": 32}
    run = relish.fit(rows, weights=tiny_source, recipe="book", settings=settings, out=tmp_path / "run")
    assert run.classes == (NFC, "dog")
    assert [one.count for one in run.evaluate(tmp_path / "data").per_class] == [3, 3]
    assert run.score([tmp_path / "data/test/dog/0.png"], [" dog"]) in (0, 1)


def test_a_models_labels_are_read_in_that_form_and_two_that_are_one_are_refused(tmp_path):
    from relish.models.saved_model import parse_header

    header = {"architecture": "test_resnet", "num_classes": "2", "labels": json.dumps([NFD, "dog "])}
    assert parse_header(Path("m.safetensors"), header)[0].labels == (NFC, "dog")
    with pytest.raises(ModelError, match=r"cafe\\u0301, caf\u00e9"):
        parse_header(Path("m.safetensors"), header | {"labels": json.dumps([NFD, NFC])})


def test_the_classes_and_the_mapping_of_a_call_are_in_that_form(tiny_source):
    import relish

    source = relish.source_model(weights=tiny_source)
    assert relish.target_model(source, [f"{NFD} ", "dog"]).classes == (NFC, "dog")
    with pytest.raises(RecipeError, match="each named once"):
        relish.target_model(source, [NFD, NFC])

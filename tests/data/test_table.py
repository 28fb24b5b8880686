"""From a CSV or Parquet table to a dataset: labels are the characters that stand there, and nothing is guessed."""

import builtins
import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relish.core.errors import DataError
from relish.data.dataset import class_name
from relish.data.sources import find_dataset
from relish.data.table import index_table, table_of
from tests.conftest import draw, labelled, refusal_of


@pytest.fixture
def folder(tmp_path):
    """Six pictures, a.jpg to f.jpg; a table only looks whether they are there."""
    for letter in "abcdef":
        (tmp_path / f"{letter}.jpg").touch()
    return tmp_path


def index(folder, content, name="table.csv"):
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return index_table(path, name="pets", source=name)


# ---- what is read ---------------------------------------------------------------------------------------------------


def test_path_and_label_are_enough(folder):
    dataset = index(folder, "path,label\nb.jpg,dog\na.jpg,cat\n")
    assert labelled(dataset) == {"a.jpg": "cat", "b.jpg": "dog"}
    assert dataset.classes == ("cat", "dog")
    assert dataset.root == folder
    assert not dataset.warnings


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_spreadsheets_way_of_writing_makes_no_difference(folder, separator, ending, encoding):
    rows = ["Label, Path ,split", "größe,a.jpg,Training", "b,b.jpg,train", "", "b,c.jpg,TEST"]
    dataset = index(folder, ending.join(rows).replace(",", separator).encode(encoding))
    assert labelled(dataset, "train") == {"a.jpg": "größe", "b.jpg": "b"}
    assert labelled(dataset, "test") == {"c.jpg": "b"}


@given(
    st.lists(st.text(st.characters(exclude_categories=["C"]), min_size=1), min_size=2, max_size=6, unique_by=str.strip)
)
@settings(max_examples=60, deadline=None)
def test_labels_are_the_characters_that_stand_there(tmp_path_factory, names):
    names = [class_name(name) or "blank" for name in names]
    folder = tmp_path_factory.mktemp("data")
    file = io.StringIO()
    table = csv.writer(file)
    table.writerow(["path", "label"])
    for number, name in enumerate(names):
        (folder / f"{number}.jpg").touch()
        table.writerow([f"{number}.jpg", name])
    dataset = index(folder, file.getvalue())
    assert labelled(dataset) == {f"{number}.jpg": name for number, name in enumerate(names)}
    assert list(dataset.classes) == sorted(set(names))


def test_numbers_dates_and_missing_value_words_stay_text(folder):
    labels = ["007", "7", "NA", "1.0", "true", "2024-01-01"]
    rows = [f"{letter}.jpg,{label}" for letter, label in zip("abcdef", labels, strict=True)]
    assert set(index(folder, "\n".join(["path,label", *rows])).classes) == set(labels)


def test_quotes_hold_separators_and_further_columns_are_of_no_account(folder):
    (folder / "a, b.jpg").touch()
    dataset = index(folder, 'width,path,label\n3,"a, b.jpg","cat, black"\n4,a.jpg,dog\n')
    assert labelled(dataset) == {"a, b.jpg": "cat, black", "a.jpg": "dog"}


def test_absolute_paths_and_paths_that_go_up_are_the_users_own_choice(folder):
    inner = folder / "lists"
    inner.mkdir()
    dataset = index(inner, f"path,label\n../a.jpg,cat\n{folder}/b.jpg,dog\n")
    assert [path.resolve() for path in dataset.splits["all"].paths] == [folder / "a.jpg", folder / "b.jpg"]


def test_a_repeated_row_is_taken_once_and_told(folder):
    dataset = index(folder, "path,label\na.jpg,cat\nb.jpg,dog\n./a.jpg,cat\n")
    assert len(dataset) == 2
    assert dataset.warnings == ("1 row repeats another one: left out.",)


def test_a_split_column_that_is_empty_throughout_is_none(folder):
    assert set(index(folder, "path,label,split\na.jpg,cat,\nb.jpg,dog,\n").splits) == {"all"}


def test_a_class_missing_from_test_is_a_warning_and_labels_do_not_shift(folder):
    dataset = index(folder, "path,label,split\na.jpg,cat,train\nb.jpg,dog,train\nc.jpg,dog,test\n")
    assert labelled(dataset, "test") == {"c.jpg": "dog"}
    assert 'test has no pictures of "cat"' in dataset.warnings[0]


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "the table is empty"),
        ("path,label\n", "the table has no rows"),
        ("filename,class\na.jpg,cat\n", "no column path and no column label; its columns are filename, class"),
        ("path,label,label\na.jpg,cat,dog\n", "two columns are called label"),
        ("path,label\na.jpg,cat\nb.jpg\n", "line 3: 1 cells, the first line has 2"),
        ("path,label\na.jpg,cat,dog\n", "line 2: 3 cells"),
        ('path,label\n"a.jpg,cat\n', "not a readable CSV"),
        ("path,label\na.jpg,cat\nb.jpg, \n", "1 row has no label (line 3)"),
        ("path,label\n,cat\n,dog\n", "2 rows have no path (line 2, 3)"),
        ("path,label,split\na.jpg,cat,train\nb.jpg,dog,\n", "1 row has no split (line 3)"),
        ("path,label,split\na.jpg,cat,trian\nb.jpg,dog,trian\n", 'line 2: unknown split "trian"'),
        ("path,label\nx.jpg,cat\nb.jpg,dog\n", "1 of 2 files is missing: x.jpg"),
        ("path,label\nhttps://x/a.jpg,cat\nb.jpg,dog\n", "Addresses are not fetched"),
        ("path,label\nd\\a.jpg,cat\nb.jpg,dog\n", "Write / between folders"),
        ("path,label\na.jpg,cat\na.jpg,dog\n", "1 picture has several labels: a.jpg (cat, dog)"),
        ("path,label,split\na.jpg,cat,train\na.jpg,cat,test\n", "a.jpg is in train (line 2) and in test (line 3)"),
        ("path,label,split\na.jpg,cat,train\nb.jpg,dog,train\nc.jpg,cta,test\n", '"cta" looks like "cat"'),
        ("path,label,split\na.jpg,cat,train\nb.jpg,cat,train\n", "one class only"),
        ("path,label\n\udcff,cat\n".encode("utf-8", "surrogateescape"), "line 2: not UTF-8"),
    ],
)
def test_what_cannot_be_a_dataset_is_refused_where_it_stands(folder, content, expected):
    words = refusal_of(index, folder, content)
    assert expected in words
    assert words.startswith(("table.csv", "pets"))


def test_a_mistyped_split_is_answered_with_the_nearest(folder):
    assert 'did you mean "train"?' in refusal_of(index, folder, "path,label,split\na.jpg,cat,trian\nb.jpg,dog,test\n")


def test_missing_files_are_counted_and_the_first_named(folder):
    rows = "".join(f"no/{number}.jpg,cat\n" for number in range(40))
    words = refusal_of(index, folder, "path,label\na.jpg,dog\n" + rows)
    assert "40 of 41 files are missing: no/0.jpg, no/1.jpg, no/2.jpg and 37 more" in words
    assert str(folder) in words


def test_a_missing_table_is_refused(folder):
    with pytest.raises(DataError, match="cannot be read"):
        index_table(folder / "no.csv", name="no", source="no.csv")


@given(st.binary(max_size=200))
@settings(max_examples=150, deadline=None)
def test_any_bytes_give_a_data_error_and_no_other(tmp_path_factory, content):
    with pytest.raises(DataError):
        index(tmp_path_factory.mktemp("data"), b"path,label\n" + content)


# ---- other tools' tables --------------------------------------------------------------------------------------------


def test_is_valid_of_fastai_is_the_validation_split(folder):
    dataset = index(folder, "fname,labels,is_valid\na.jpg,cat,True\nb.jpg,dog,False\nc.jpg,dog,1\nd.jpg,cat,0\n")
    assert labelled(dataset, "validation") == {"a.jpg": "cat", "c.jpg": "dog"}
    assert labelled(dataset, "train") == {"b.jpg": "dog", "d.jpg": "cat"}
    assert "column is_valid: 2 rows are for validation, the others to train on." in dataset.warnings
    assert 'line 2: is_valid is "maybe"' in refusal_of(
        index, folder, "path,label,is_valid\na.jpg,cat,maybe\nb.jpg,dog,no\n"
    )


def test_is_valid_can_be_left_aside(folder):
    path = folder / "table.csv"
    path.write_text("path,label,is_valid\na.jpg,cat,True\nb.jpg,dog,False\n")
    assert set(index_table(path, name="pets", source="pets", split_names="none").splits) == {"all"}


def test_a_huge_cell_in_another_column_is_of_no_account(folder):
    dataset = index(folder, f'path,label,pixels\na.jpg,cat,"{"1 " * 200_000}"\nb.jpg,dog,x\n')
    assert dataset.classes == ("cat", "dog")


def test_json_lines_are_a_table(folder):
    rows = ['{"path": "a.jpg", "label": "007"}', "", '{"label": 7, "path": "b.jpg", "line": "a\u2028b"}']
    assert labelled(index(folder, "\n".join(rows), "table.jsonl")) == {"a.jpg": "007", "b.jpg": "7"}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('[{"path": "a.jpg"}]', "line 1: not a JSON object, but list"),
        ("[" * 100_000, "line 1: not a JSON object"),
        ('{"path": "a.jpg", "label": 1.5}', "line 1: column label holds float, not text"),
        ('{"path": "a.jpg", "label": ["cat", "dog"]}', "several labels in one cell"),
        ('{"path": {"a": 1}, "label": "cat"}', "line 1: column path holds dict, not text"),
        ('{"path": "a.jpg", "label": "\\ud800"}', "line 1: column label holds what is no character"),
        ('{"file": "a.jpg"}', "no column path and no column label; its columns are file"),
        ("", "the table is empty"),
    ],
)
def test_json_lines_that_are_no_table_are_refused(folder, content, expected):
    assert expected in refusal_of(index, folder, content, "table.jsonl")


@given(st.binary(max_size=100))
@settings(max_examples=50, deadline=None)
def test_any_bytes_as_json_lines_give_a_data_error_and_no_other(tmp_path_factory, content):
    with pytest.raises(DataError):
        index(tmp_path_factory.mktemp("data"), content, "table.jsonl")


@pytest.mark.parametrize(
    "labels",
    [
        ["hotdog|food", "hotdog", "other"],
        ["hotdog;food", "hotdog", "other"],
        ["food;hotdog", "hotdog;drink", "other"],
        ["hotdog,food", "hotdog", "food"],
        ["['hotdog', 'food']", "hotdog", "other"],
        ['["hotdog", "food"]', "hotdog", "other"],
    ],
)
def test_several_labels_in_a_cell_are_not_one_class(folder, labels):
    text = io.StringIO()
    csv.writer(text).writerows([("path", "label"), *zip(["a.jpg", "b.jpg", "c.jpg"], labels, strict=True)])
    words = refusal_of(index, folder, text.getvalue())
    assert f'line 2 "{labels[0]}"' in words
    assert "one label so far" in words


@pytest.mark.parametrize(
    "labels",
    [
        ["shirt|red", "shirt|blue", "hat|red"],
        ["rock|roll", "jazz", "pop"],
        ["animal|dog", "animal|cat", "background"],
        ["maillot, tank suit", "maillot", "bikini"],
        ["cat; black", "dog; white", "bird"],
        ["hot dog", "dog", "pizza"],
        ["[x]", "[y, z]", "w"],
    ],
)
def test_a_separator_in_the_name_of_a_class_is_no_list(folder, labels):
    text = io.StringIO()
    csv.writer(text).writerows([("path", "label"), *zip(["a.jpg", "b.jpg", "c.jpg"], labels, strict=True)])
    dataset = index(folder, text.getvalue())
    assert dataset.classes == tuple(sorted(labels))
    assert not dataset.warnings


def test_labels_with_blanks_between_may_be_names_and_are_told(folder):
    dataset = index(folder, "path,label\na.jpg,person car\nb.jpg,person\nc.jpg,car\n")
    assert dataset.classes == ("car", "person", "person car")
    assert 'line 2 "person car"' in dataset.warnings[0]


def test_the_table_of_a_check_has_names_that_are_settled(folder):
    rows = "path,label,split,decision,reason\na.jpg,hot|dog,,kept,\nb.jpg,hot,,kept,\n"
    assert index(folder, rows).classes == ("hot", "hot|dog")


# ---- Parquet --------------------------------------------------------------------------------------------------------


def parquet(folder, columns, name="table.parquet"):
    arrow = pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    from pyarrow.parquet import write_table

    write_table(arrow.table(columns), folder / name)
    return index_table(folder / name, name="pets", source=name)


def test_parquet_says_the_same_as_csv(folder):
    content = {"path": ["a.jpg", "b.jpg", "c.jpg"], "label": ["cat", "dog", "cat"], "split": ["train", "train", "test"]}
    rows = zip(*content.values(), strict=True)
    table = index(folder, "\n".join([",".join(content), *map(",".join, rows)]))
    same = parquet(folder, {**content, "width": [1.0, 2.0, 3.0]})
    assert same.classes == table.classes
    assert [labelled(same, s) for s in same.splits] == [labelled(table, s) for s in table.splits]


def test_whole_numbers_and_dictionaries_are_labels_in_parquet(folder):
    arrow = pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    assert parquet(folder, {"path": ["a.jpg", "b.jpg"], "label": [10, 9]}).classes == ("10", "9")
    coded = arrow.array(["x", "y"]).dictionary_encode()
    assert parquet(folder, {"path": ["a.jpg", "b.jpg"], "label": coded}).classes == ("x", "y")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [([1.0, 2.0], "column label holds float, not text"), (["cat", None], r"1 row has no label \(line 2\)")],
)
def test_labels_that_are_no_text_are_refused_in_parquet(folder, labels, expected):
    with pytest.raises(DataError, match=expected):
        parquet(folder, {"path": ["a.jpg", "b.jpg"], "label": labels})


def test_a_file_that_is_not_parquet_is_refused(folder):
    pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    assert "not a readable Parquet file" in refusal_of(index, folder, b"PAR1 no", "table.parquet")


def test_without_pyarrow_the_error_says_how_to_install_it(folder, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    assert 'pip install "relish-vision[parquet]"' in refusal_of(index, folder, b"", "table.parquet")


# ---- data that is in Python already ---------------------------------------------------------------------------------


@pytest.fixture
def pets(tmp_path):
    """Two pictures of each of two classes."""
    for name in ("cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/2.jpg"):
        draw((tmp_path / "pets" / name).with_suffix(".png"), (90, 90, 90), 0)
    return tmp_path / "pets"


def rows_of(pets):
    return [(path, path.parent.name) for path in sorted(pets.glob("*/*.png"))]


def test_a_list_a_frame_and_an_imagefolder_are_the_folder_they_are_of(pets, monkeypatch):
    import pandas
    from torchvision.datasets import ImageFolder

    monkeypatch.chdir(pets.parent)
    rows = rows_of(pets)
    frame = pandas.DataFrame({"Label": [label for _, label in rows], "path": [str(path) for path, _ in rows], "x": 0})
    folder = find_dataset(pets)
    for data in (rows, frame, ImageFolder(str(pets)), [(f"pets/{p.parent.name}/{p.name}", label) for p, label in rows]):
        found = find_dataset(data)
        assert labelled(found) == labelled(folder)
        assert (found.name, found.root, found.classes) == ("pets", pets, ("cat", "dog"))


def test_rows_may_name_their_split_and_labels_may_be_numbers(pets):
    rows = rows_of(pets)
    data = [(path, number // 2, "train" if number % 2 else "test") for number, (path, _) in enumerate(rows)]
    found = find_dataset(data)
    assert found.classes == ("0", "1")
    assert {name: len(split) for name, split in found.splits.items()} == {"train": 2, "test": 2}


def test_a_subset_of_an_imagefolder_is_those_images(pets):
    from torch.utils.data import Subset
    from torchvision.datasets import ImageFolder

    assert set(labelled(find_dataset(Subset(ImageFolder(str(pets)), [0, 3])))) == {"cat/1.png", "dog/2.png"}


def test_a_frame_as_other_tools_have_it_is_a_table(pets):
    import numpy
    import pandas

    rows = rows_of(pets)
    frame = pandas.DataFrame({"image": [str(path) for path, _ in rows], "label": [label for _, label in rows]})
    assert find_dataset(frame).classes == ("cat", "dog")
    frame["is_valid"] = numpy.array([True, False, True, False])
    assert {name: len(split) for name, split in find_dataset(frame).splits.items()} == {"train": 2, "validation": 2}
    frame["label"] = [["cat"], ["cat", "dog"], numpy.array(["dog"]), ["dog"]]
    with pytest.raises(DataError, match="several labels in one cell"):
        find_dataset(frame)


def test_the_same_rows_are_the_same_table(pets):
    rows = rows_of(pets)
    assert table_of(rows) == table_of(tuple(rows)) != table_of(rows[:3])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (["a.jpg", "b.jpg"], "item 0 is 'a.jpg', not (path, label)"),
        ([("a.jpg", 1.5)], "row 0: label is a float, not text"),
        ([("a.jpg", None)], "1 row has no label"),
        ([], "the table has no rows"),
        (3, "int does not say which images it holds"),
    ],
)
def test_what_does_not_say_which_images_is_refused(data, words):
    with pytest.raises(DataError) as caught:
        find_dataset(data)
    assert words in caught.value.message


@pytest.mark.parametrize("missing", ["None", "float('nan')", "pandas.NA", "pandas.NaT"])
def test_a_missing_value_of_a_frame_is_a_missing_label_whatever_stands_for_it(missing):
    import pandas

    labels = pandas.Series([eval(missing), "cat", "dog"], dtype=object)  # noqa: S307
    with pytest.raises(DataError, match="1 row has no label"):
        find_dataset(pandas.DataFrame({"path": ["a", "b", "c"], "label": labels}))


def test_columns_by_the_names_of_other_tools_are_asked_about(tmp_path):
    """They are not taken: a table of predictions has a column `class` too."""
    (tmp_path / "t.csv").write_text("filename,class\na.jpg,cat\n")
    with pytest.raises(DataError) as refused:
        find_dataset(tmp_path / "t.csv")
    assert "--column-names path=filename,label=class" in refused.value.hint


def test_a_frame_without_the_columns_is_refused():
    import pandas

    with pytest.raises(DataError, match="the data frame: no column label; its columns are path, class"):
        find_dataset(pandas.DataFrame({"path": ["a"], "class": ["b"]}))

"""Hugging Face's layouts: metadata beside the images, and Parquet files with the images in them."""

import errno
import io
import json
import shutil
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from relish.core.errors import DataError, WriteFailed
from relish.core.io import relish_home
from relish.data.archive import extract
from relish.data.sources import Reading, find_dataset
from tests.conftest import Heard, draw, refusal_of, touch


def write(path, *rows):
    """A table of rows, each a mapping, as its ending says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".csv":
        lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
        path.write_text("\n".join(lines), encoding="utf-8")
    else:
        arrow = pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
        from pyarrow.parquet import write_table

        write_table(arrow.Table.from_pylist(list(rows)), path)


def labelled(dataset):
    return {
        split: {dataset.label(p): dataset.classes[i] for p, i in zip(found.paths, found.labels, strict=True)}
        for split, found in dataset.splits.items()
    }


ROWS = [{"file_name": "1.jpg", "label": "cat"}, {"file_name": "2.jpg", "label": "dog"}]


# ---- metadata beside the images --------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_the_metadata_of_each_split_is_one_dataset(tmp_path, ending):
    for split in ("train", "test"):
        touch(tmp_path / split, "1.jpg", "2.jpg")
        write(tmp_path / split / f"metadata.{ending}", *ROWS)
    found = find_dataset(tmp_path)
    assert labelled(found) == {split: {f"{split}/1.jpg": "cat", f"{split}/2.jpg": "dog"} for split in ("train", "test")}
    assert not found.warnings


@pytest.mark.parametrize("wrap", [".", "data", "a/b"])
def test_metadata_at_the_top_says_splits_by_the_folders_of_its_paths(tmp_path, wrap):
    names = [f"{split}/{number}.jpg" for split in ("train", "validation") for number in (1, 2)]
    touch(tmp_path / wrap, *names)
    rows = [{"file_name": name, "label": "dog" if "2" in name else "cat"} for name in names]
    write(tmp_path / wrap / "metadata.jsonl", *rows)
    assert {split: len(images) for split, images in labelled(find_dataset(tmp_path)).items()} == {
        "train": 2,
        "validation": 2,
    }
    given = find_dataset(tmp_path / wrap / "metadata.jsonl")
    assert {split: len(images) for split, images in labelled(given).items()} == {"train": 2, "validation": 2}
    whole = find_dataset(tmp_path / wrap / "metadata.jsonl", reading=Reading(split_names="none"))
    assert {split: len(images) for split, images in labelled(whole).items()} == {"all": 4}


def test_folders_in_the_paths_that_are_no_splits_make_none(tmp_path):
    touch(tmp_path, "train/1.jpg", "bus/2.jpg")
    write(
        tmp_path / "metadata.csv", {"file_name": "train/1.jpg", "label": "a"}, {"file_name": "bus/2.jpg", "label": "b"}
    )
    assert labelled(find_dataset(tmp_path)) == {"all": {"train/1.jpg": "a", "bus/2.jpg": "b"}}


def test_images_named_like_splits_are_none(tmp_path):
    touch(tmp_path, "train.png", "test.png")
    rows = [{"file_name": "train.png", "label": "a"}, {"file_name": "test.png", "label": "b"}]
    write(tmp_path / "metadata.csv", *rows)
    assert labelled(find_dataset(tmp_path)) == {"all": {"train.png": "a", "test.png": "b"}}


def test_a_dataset_in_arrow_files_is_named_as_that(tmp_path):
    touch(tmp_path, "train/data-00000-of-00001.arrow", "train/state.json", "dataset_dict.json")
    assert "in Arrow files" in refusal_of(find_dataset, tmp_path)


def test_columns_and_images_that_are_not_used_are_named(tmp_path):
    touch(tmp_path / "train", "1.jpg", "2.jpg", "3.jpg")
    write(tmp_path / "train/metadata.jsonl", *({**row, "text": "a pet", "bbox": [1, 2]} for row in ROWS))
    warnings = " ".join(find_dataset(tmp_path).warnings)
    assert "not used of the table: columns text, bbox." in warnings
    assert "1 picture in no row of a table: left out (train/3.jpg)" in warnings


def test_without_labels_the_class_folders_say_the_classes(tmp_path):
    touch(tmp_path / "train", "cat/1.jpg", "dog/2.jpg")
    write(
        tmp_path / "train/metadata.csv",
        {"file_name": "cat/1.jpg", "text": "a"},
        {"file_name": "dog/2.jpg", "text": "b"},
    )
    found = find_dataset(tmp_path)
    assert found.classes == ("cat", "dog")
    assert any("no column label" in warning and "file_name, text" in warning for warning in found.warnings)


def test_without_labels_and_class_folders_the_column_is_asked_for(tmp_path):
    touch(tmp_path / "train", "1.jpg", "2.jpg")
    write(tmp_path / "train/metadata.csv", {"file_name": "1.jpg", "text": "a"}, {"file_name": "2.jpg", "text": "b"})
    words = refusal_of(find_dataset, f"{tmp_path}/")
    assert words.startswith(f"{tmp_path}/train/metadata.csv: no column label")
    assert "file_name, text" in words


def test_a_split_without_labels_is_left_out(tmp_path):
    for split in ("train", "test"):
        touch(tmp_path / split, "1.jpg", "2.jpg")
    write(tmp_path / "train/metadata.csv", *ROWS)
    write(tmp_path / "test/metadata.csv", *({"file_name": row["file_name"]} for row in ROWS))
    found = find_dataset(tmp_path)
    assert set(found.splits) == {"train"}
    assert "test/metadata.csv has no labels: left out (2 pictures)." in found.warnings


def test_other_metadata_beside_class_folders_changes_nothing(tmp_path):
    touch(tmp_path, "cat/1.jpg", "dog/2.jpg")
    (tmp_path / "metadata.csv").write_text("isic_id,age,label\n1,3,x\n")
    assert labelled(find_dataset(tmp_path)) == {"all": {"cat/1.jpg": "cat", "dog/2.jpg": "dog"}}


def test_labels_that_contradict_the_folders_are_told(tmp_path):
    touch(tmp_path, "cat/1.jpg", "dog/2.jpg")
    rows = [{"file_name": "cat/1.jpg", "label": "dog"}, {"file_name": "dog/2.jpg", "label": "cat"}]
    write(tmp_path / "metadata.csv", *rows)
    found = find_dataset(tmp_path)
    assert labelled(found)["all"]["cat/1.jpg"] == "dog"
    assert any("not of the folders (2 rows" in warning for warning in found.warnings)


def test_a_path_that_repeats_the_tables_folder_is_answered_with_the_right_one(tmp_path):
    touch(tmp_path / "train", "1.jpg", "2.jpg")
    write(tmp_path / "train/metadata.csv", *({**row, "file_name": f"train/{row['file_name']}"} for row in ROWS))
    for data in (tmp_path, tmp_path / "train", tmp_path / "train/metadata.csv"):
        assert "write 1.jpg, not train/1.jpg" in refusal_of(find_dataset, data)


def test_the_line_that_is_wrong_is_named_with_its_table(tmp_path):
    touch(tmp_path / "train", "1.jpg", "2.jpg")
    write(tmp_path / "train/metadata.jsonl", *ROWS, {"file_name": "3.jpg"})
    assert "1 row has no label (line 3 of train/metadata.jsonl)" in refusal_of(find_dataset, tmp_path)
    (tmp_path / "train/metadata.jsonl").write_text('{"file_name": "1.jpg"} {"file_name": "2.jpg"}')
    assert "train/metadata.jsonl, line 1: not a JSON object" in refusal_of(find_dataset, tmp_path)


def test_an_archive_is_read_by_its_metadata_too(tmp_path):
    touch(tmp_path / "pets/train", "1.jpg", "2.jpg")
    write(tmp_path / "pets/train/metadata.csv", *ROWS)
    shutil.make_archive(str(tmp_path / "pets"), "zip", tmp_path, "pets")
    found = find_dataset(tmp_path / "pets.zip")
    assert (list(found.splits), found.classes, len(found)) == (["train"], ("cat", "dog"), 2)


def test_a_table_beside_images_is_named_where_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path / "pets/inner", "1.jpg", "2.jpg", "other.csv")
    assert "give it instead: pets/inner/other.csv" in refusal_of(find_dataset, "pets/inner//")
    shutil.make_archive("packed", "zip", "pets/inner")
    assert f"give it instead: {extract(tmp_path / 'packed.zip')}/other.csv" in refusal_of(find_dataset, "packed.zip")


# ---- images in Parquet files ----------------------------------------------------------------------------------------


def jpeg(seed, form="JPEG"):
    content = io.BytesIO()
    Image.new("RGB", (8, 8), (seed % 255, 90, 90)).save(content, form)
    return content.getvalue()


def shard(path, images, labels, names=None, **columns):
    """A Parquet file as `datasets` writes it, with the names of its classes in the schema."""
    arrow = pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    from pyarrow.parquet import write_table

    table = arrow.table({"image": images, **({} if labels is None else {"label": labels}), **columns})
    features = {"image": {"_type": "Image"}, "label": {"dtype": "int64", "_type": "Value"}}
    if names is not None:
        features["label"] = {"names": names, "_type": "ClassLabel"}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(table, path, row_group_size=2)
    return path


def images(count, **more):
    return [{"bytes": jpeg(n), "path": f"pets/{n}.jpg", **more} for n in range(count)]


def test_shards_are_splits_with_the_class_names_of_their_schema(tmp_path):
    names = ["hotdog", "not-hotdog"]
    for number in (0, 1):
        shard(tmp_path / f"data/train-0000{number}-of-00002.parquet", images(3), [0, 1, number], names)
    shard(tmp_path / "data/test-00000-of-00001-a1b2.parquet", images(2), [1, 0], names)
    (tmp_path / "README.md").write_text("a dataset")
    found = find_dataset(tmp_path)
    assert found.classes == ("hotdog", "not-hotdog")
    assert {split: sorted(shown.values()) for split, shown in labelled(found).items()} == {
        "train": ["hotdog"] * 3 + ["not-hotdog"] * 3,
        "test": ["hotdog", "not-hotdog"],
    }
    assert not found.warnings
    first = found.splits["train"].paths[0]
    assert first.name == "000001-0.jpg"
    assert first.read_bytes() == jpeg(0)


def test_one_shard_has_the_split_of_its_name_and_is_written_out_once(tmp_path):
    path = shard(tmp_path / "train-00000-of-00002.parquet", images(3), [0, 1, 0], ["cat", "dog"])
    heard = Heard()
    found = find_dataset(path, progress=heard)
    again = find_dataset(path, progress=heard)
    assert labelled(found) == labelled(again)
    assert list(found.splits) == ["train"]
    assert [line for line in heard.lines if "unpacked" in line] == heard.lines[:1]
    assert "train: 1 of 2 Parquet files are not there." in find_dataset(tmp_path).warnings


def test_images_that_are_gone_from_where_they_were_written_are_missed_and_written_anew(tmp_path):
    """They are not taken for rows without a picture."""
    path = shard(tmp_path / "pets.parquet", images(3), [0, 1, 0], ["cat", "dog"])
    found = find_dataset(path)
    for gone in found.splits["all"].paths[:2]:
        gone.unlink()
    words = f"{path}: 1 of 3 files are left where it was unpacked, {found.root}.\n  Remove that folder"
    assert refusal_of(find_dataset, path).startswith(words)
    shutil.rmtree(found.root)
    assert labelled(find_dataset(path)) == labelled(found)


def test_folders_of_shards_are_splits(tmp_path):
    for count, split in enumerate(("train", "validation"), 2):
        shard(tmp_path / "default" / split / "0000.parquet", images(count), [0, 1, 1][:count], ["cat", "dog"])
    assert list(find_dataset(tmp_path).splits) == ["train", "validation"]


def test_numbers_without_names_are_classes_and_that_is_said(tmp_path):
    found = find_dataset(shard(tmp_path / "pets.parquet", images(2), [3, 10]))
    assert found.classes == ("10", "3")
    assert found.warnings == ("the labels are numbers, and the file has no names for them: the classes are 3, 10.",)


def test_bytes_alone_without_a_name_get_the_ending_of_what_they_are(tmp_path):
    found = find_dataset(shard(tmp_path / "pets.parquet", [jpeg(1), jpeg(2, "PNG")], ["cat", "dog"]))
    assert [path.name for path in found.splits["all"].paths] == ["000001.jpeg", "000002.png"]


def test_a_name_in_the_file_cannot_leave_the_folder(tmp_path):
    hostile = ["../../../up.jpg", "/etc/\x1b[31m.png", "a\\..\\b.sh", "." * 300]
    rows = [{"bytes": jpeg(n), "path": name} for n, name in enumerate(hostile)]
    found = find_dataset(shard(tmp_path / "pets.parquet", rows, ["cat", "dog", "cat", "dog"]))
    paths = found.splits["all"].paths
    assert {path.parent for path in paths} == {found.root}
    assert all(path.is_file() and path.name.isascii() and path.name.isprintable() for path in paths)


def test_rows_without_a_picture_are_left_out_and_told(tmp_path):
    rows = [*images(3), None, {"bytes": None, "path": "x.jpg"}]
    found = find_dataset(shard(tmp_path / "pets.parquet", rows, [0, 1, 0, 1, 1], ["cat", "dog"]))
    assert len(found) == 3
    assert "2 rows without a picture: left out (row 4, 5)." in found.warnings


def test_paths_without_bytes_are_files_beside_the_table(tmp_path):
    touch(tmp_path, "a.jpg", "b.jpg")
    rows = [{"bytes": None, "path": "a.jpg"}, {"bytes": None, "path": "b.jpg"}]
    path = tmp_path / "pets.parquet"
    arrow = pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    kind = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    shard(path, arrow.array(rows, kind), [0, 1], ["cat", "dog"])
    assert labelled(find_dataset(path)) == {"all": {"a.jpg": "cat", "b.jpg": "dog"}}


def test_a_split_whose_labels_are_hidden_is_left_out(tmp_path):
    shard(tmp_path / "train-00000-of-00001.parquet", images(2), [0, 1], ["cat", "dog"])
    shard(tmp_path / "test-00000-of-00001.parquet", images(2), [-1, -1], ["cat", "dog"])
    found = find_dataset(tmp_path)
    assert list(found.splits) == ["train"]
    assert "test-00000-of-00001.parquet has no labels: left out (2 pictures)." in found.warnings


@pytest.mark.parametrize(
    ("labels", "names", "expected"),
    [
        ([0, 7], ["cat", "dog"], "row 2: label 7 is none of the file's 2 class names"),
        ([0.0, 1.0], None, "row 1: column label holds float, not text"),
        ([[0], [0, 1]], None, '1 row (line 2 "["0", "1"]") has several labels in one cell'),
        (None, None, "no column label; its columns are image"),
    ],
)
def test_labels_that_are_none_are_refused(tmp_path, labels, names, expected):
    assert expected in refusal_of(find_dataset, shard(tmp_path / "pets.parquet", images(2), labels, names))


def test_a_broken_shard_is_named_and_nothing_stays_behind(tmp_path):
    path = shard(tmp_path / "train-00000-of-00001.parquet", images(6), [0, 1] * 3, ["cat", "dog"])
    content = path.read_bytes()
    for broken in (content[:200], b"no" * 100, content[:40] + bytes(400) + content[440:]):
        path.write_bytes(broken)
        for data in (tmp_path, path):
            words = refusal_of(find_dataset, data)
            assert "train-00000-of-00001.parquet: not a readable Parquet file" in words
            assert words.count("\n") == 1


def test_a_full_disk_is_said_and_leaves_nothing_behind(tmp_path, monkeypatch):
    path = shard(tmp_path / "pets.parquet", images(4), [0, 1, 0, 1], ["cat", "dog"])
    real = Path.write_bytes

    def full(self, content):
        if self.name.startswith("000003"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, content)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        with pytest.raises(WriteFailed, match="No space left"):
            find_dataset(path)
    assert not [entry for entry in (relish_home() / "datasets").iterdir() if entry.is_dir()]
    assert len(find_dataset(path)) == 4


def test_several_columns_of_classes_or_pictures_are_a_question(tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    from pyarrow.parquet import write_table

    coded = {"names": ["cat", "dog"], "_type": "ClassLabel"}
    features = {"fine": coded, "coarse": coded}
    table = arrow.table({"image": images(2), "fine": [0, 1], "coarse": [0, 1]})
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    write_table(table.replace_schema_metadata(metadata), tmp_path / "a.parquet")
    assert "several columns hold classes (fine, coarse)" in refusal_of(find_dataset, tmp_path / "a.parquet")
    write_table(arrow.table({"left": images(2), "right": images(2), "label": [0, 1]}), tmp_path / "b.parquet")
    assert "several columns hold pictures (left, right)" in refusal_of(find_dataset, tmp_path / "b.parquet")


def test_parquet_beside_class_folders_is_no_dataset_of_its_own(tmp_path):
    draw(tmp_path / "cat/1.png", (9, 9, 9), 0)
    draw(tmp_path / "dog/1.png", (9, 9, 9), 0)
    (tmp_path / "embeddings.parquet").write_bytes(b"PAR1")
    assert find_dataset(tmp_path).classes == ("cat", "dog")


# ---- the real ones --------------------------------------------------------------------------------------------------


def test_the_cases_of_public_reports(shared, tmp_path):
    for case in ("07-hf-metadata", "17-hf-parquet"):
        if not (shared / f"cases/{case}.tar.gz").is_file():
            pytest.skip("needs the archives of reports in shared/cases")
        with tarfile.open(shared / f"cases/{case}.tar.gz") as archive:
            archive.extractall(tmp_path, filter="data")
    found = find_dataset(next(tmp_path.rglob("s_hf")))
    assert (list(found.splits), found.classes, len(found)) == (["train"], ("hotdog", "not-hotdog"), 8)
    pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    shards = find_dataset(tmp_path / "17-hf-parquet/data")
    assert (list(shards.splits), shards.classes) == (["train"], ("0", "1"))
    for broken in ("bool.parquet", "notparquet.parquet", "float_label.parquet"):
        assert broken in refusal_of(find_dataset, tmp_path / "17-hf-parquet" / broken).partition("\n")[0]


@pytest.mark.parametrize("column", ["file_name", "label"])
def test_half_of_a_surrogate_pair_is_refused_where_it_stands(tmp_path, column):
    """JSON can write one, and neither a file's name nor a page can hold it."""
    row = {"file_name": "a.png", "label": "cat"}
    (tmp_path / "t.jsonl").write_text(json.dumps(row) + "\n" + json.dumps({**row, column: "\ud800"}))
    with pytest.raises(DataError, match=f"line 2: column (path|{column}) holds what is no character"):
        find_dataset(tmp_path / "t.jsonl")


def test_a_column_of_durations_beyond_pythons_is_refused(tmp_path):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.table({"path": ["a.png"], "label": pa.array([10**15], pa.duration("s"))})
    parquet.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        find_dataset(tmp_path / "t.parquet")

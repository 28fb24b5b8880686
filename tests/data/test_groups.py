"""Known groups: where they are read from, and that none is ever on two sides."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import relish
from relish.core.errors import DataError, RelishError
from relish.core.runtime import derive_seed
from relish.data.dataset import Dataset, Split
from relish.data.groups import group_name, is_group, units_of
from relish.data.sources import Reading, find_dataset
from relish.data.split import NEVER, stratified_folds, usable_folds, with_validation
from relish.data.table import table_of
from relish.training.probe_stage import held_out_masks, nested_folds
from tests.commands import done, refused
from tests.conftest import TORTURE, draw, draw_dataset, read_json, refusal_of, touch

# ---- what stays on one side -----------------------------------------------------------------------------------------

MANY = 2000 if TORTURE else 60
seeds = st.integers(0, 10**6)
grouped = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 8)), min_size=4, max_size=60)
"""Label and group of each image; of a group 7 or above the image stands alone."""
uneven = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=8).map(
    lambda sizes: [
        (label, place) for place, counts in enumerate(sizes) for label in range(3) for _ in range(counts[label])
    ]
)
"""Groups of any sizes, each of images of three classes."""


def dataset_of(pairs):
    """A dataset of images with these labels and groups, and their units."""
    pairs = sorted(pairs)
    root = Path("/data")
    paths = tuple(root / f"{label}/{number}.jpg" for number, (label, _) in enumerate(pairs))
    names = sorted({label for label, _ in pairs})
    labels = np.array([names.index(label) for label, _ in pairs], dtype=np.int64)
    groups = {path: f"g{group}" for path, (_, group) in zip(paths, pairs, strict=True) if group < 7}
    dataset = Dataset("pets", "pets", root, tuple(map(str, names)), {"all": Split(paths, labels)}, groups=groups)
    return dataset, units_of({path: f"{number:064x}" for number, path in enumerate(paths)}, groups)


def met_twice(dataset, units, sides):
    """The units of images on more than one of the sides, each a set of paths."""
    met = [{units[path] for path in side} for side in sides]
    return {unit for number, one in enumerate(met) for other in met[:number] for unit in one & other}


@given(grouped | uneven, st.floats(0.05, 0.95), seeds)
@settings(max_examples=MANY)
def test_no_group_is_both_learned_from_and_validated_on(pairs, fraction, seed):
    assume(len({label for label, _ in pairs}) > 1)
    dataset, units = dataset_of(pairs)
    try:
        halves = with_validation(dataset, fraction, seed, units)
    except DataError as refused:
        words = str(refused)
        assume(not any(part in words for part in ("stays on one side", "stay on one side", "needs at least 2")))
        raise
    assert not met_twice(dataset, units, [split.paths for split in halves.splits.values()])
    for split in halves.splits.values():
        assert (split.counts(len(dataset.classes)) > 0).all()


@given(grouped | uneven, st.integers(2, 5), seeds)
@settings(max_examples=MANY)
def test_no_group_is_in_two_folds_and_no_class_is_missing_from_training(pairs, folds, seed):
    dataset, units = dataset_of(pairs)
    split = dataset.splits["all"]
    keys = [units[path] for path in split.paths]
    fold_of, nested = stratified_folds(split.labels, keys, folds, seed), nested_folds(split.labels, keys, seed)
    numbers = set(fold_of.tolist())
    assert numbers <= {NEVER, *range(folds)}
    assert NEVER not in nested
    for found in (fold_of, nested):
        sides = [np.array(split.paths)[found == one].tolist() for one in np.unique(found)]
        assert not met_twice(dataset, units, sides)
    for number in numbers - {NEVER}:
        assert set(split.labels[fold_of != number]) == set(split.labels)


@given(grouped | uneven, st.sampled_from([0.0, 0.2, 0.6]), st.sampled_from([1, 3]), seeds)
@settings(max_examples=MANY)
def test_no_group_is_both_learned_from_and_held_out_from_a_model(pairs, share, models, seed):
    """Also where the dataset's own validation split shares groups with training."""
    dataset, units = dataset_of(pairs)
    split = dataset.splits["all"]
    own = split.take(np.flatnonzero(np.random.default_rng(seed).random(len(split)) < share))
    setup = SimpleNamespace(train=split, validation=own, units=units)
    masks = held_out_masks(SimpleNamespace(seed=seed), setup, models)
    for mask in masks:
        assert mask.any()
        sides = [[path for path, out in zip(split.paths, mask, strict=True) if out == side] for side in (True, False)]
        assert not met_twice(dataset, units, sides)
    assert (np.sum(masks, axis=0) <= 1).all()


sizes = st.lists(st.lists(st.integers(1, 9), min_size=2, max_size=9), min_size=2, max_size=4)


@given(sizes, st.sampled_from([0.1, 0.2, 0.3]), seeds)
def test_groups_of_one_class_each_are_held_out_as_near_to_the_share_as_they_allow(sizes, fraction, seed):
    pairs = [
        (label, (label, number))
        for label, own in enumerate(sizes)
        for number, size in enumerate(own)
        for _ in range(size)
    ]
    known = {pair: place for place, pair in enumerate(sorted(set(pairs)))}
    dataset, _ = dataset_of([(label, 0) for label, _ in pairs])
    groups = {path: str(known[pair]) for path, pair in zip(dataset.splits["all"].paths, sorted(pairs), strict=True)}
    units = units_of({path: f"{number:064x}" for number, path in enumerate(groups)}, groups)
    assume(all(max(own) < 0.85 * sum(own) for own in sizes))
    held = with_validation(dataset, fraction, seed, units).splits["validation"].counts(len(sizes))
    for own, here in zip(sizes, held, strict=True):
        assert 0 < here < sum(own)
        assert abs(here - fraction * sum(own)) <= max(own) + 0.5


@given(st.lists(st.integers(0, 3), min_size=4, max_size=80), st.integers(2, 6), seeds)
def test_images_without_groups_go_to_the_folds_in_turn(labels, folds, seed):
    """So folds are what they were before there were groups."""
    labels = np.array(sorted(labels))
    contents = [f"{derive_seed(seed, 'content', place):064x}" for place in range(len(labels))]
    counts = Counter(labels.tolist())
    order = sorted(
        (place for place in range(len(labels)) if counts[labels[place]] >= folds),
        key=lambda place: (labels[place], derive_seed(seed, f"fold/{contents[place]}"), contents[place]),
    )
    expected = np.full(len(labels), NEVER)
    expected[order] = np.arange(len(order)) % folds
    np.testing.assert_array_equal(stratified_folds(labels, contents, folds, seed), expected)


@given(grouped | uneven, st.integers(2, 5), seeds, st.randoms())
def test_folds_of_groups_do_not_depend_on_the_order_of_the_images(pairs, folds, seed, chance):
    def dealt(pairs):
        units = [f"/g{group}" for _, group in pairs]
        return dict(
            zip(units, stratified_folds(np.array([label for label, _ in pairs]), units, folds, seed), strict=True)
        )

    mixed = list(pairs)
    chance.shuffle(mixed)
    assert dealt(pairs) == dealt(mixed)


def test_folds_of_uneven_groups_have_about_as_many_images_of_each_class():
    rng = np.random.default_rng(0)
    units, labels = [], []
    for group, size in enumerate(rng.integers(1, 30, 60)):
        units += [f"/g{group}"] * size
        labels += rng.choice(3, size, p=[0.6, 0.3, 0.1]).tolist()
    labels = np.array(labels)
    fold_of = stratified_folds(labels, units, 5, 0)
    for label in range(3):
        counts = np.bincount(fold_of[labels == label], minlength=5)
        assert counts.min() > 0.75 * counts.mean()
        assert counts.max() < 1.25 * counts.mean()
    assert (stratified_folds(labels, units, 5, 1) != fold_of).any()


def test_folds_are_no_less_even_than_those_of_scikit_learn():
    """Measured: how far, at most, a fold's share of a class's images is from a fifth; groups uneven, classes mixed."""
    from sklearn.model_selection import StratifiedGroupKFold

    def unevenness(labels, fold_of):
        counts = [np.bincount(fold_of[labels == label], minlength=5) for label in np.unique(labels)]
        return max(np.abs(count / count.sum() - 0.2).max() for count in counts)

    ours, theirs, rng = [], [], np.random.default_rng(0)
    for seed in range(20 if TORTURE else 5):
        sizes = np.maximum(1, rng.lognormal(2, 1, 60).astype(int))
        groups = np.repeat(np.arange(60), sizes)
        labels = np.concatenate([rng.choice(4, size, p=rng.dirichlet([0.5] * 4)) for size in sizes]).astype(np.int64)
        ours.append(unevenness(labels, stratified_folds(labels, [f"/{group}" for group in groups], 5, seed)))
        parts = StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(labels, labels, groups)
        fold_of = np.zeros(len(labels), dtype=np.int64)
        for number, (_, out) in enumerate(parts):
            fold_of[out] = number
        theirs.append(unevenness(labels, fold_of))
    assert np.mean(ours) <= np.mean(theirs)


def test_a_group_that_holds_nearly_everything_is_named():
    dataset, units = dataset_of([(label, 1) for label in (0, 1) for _ in range(45)] + [(0, 8)] * 5 + [(1, 8)] * 5)
    with pytest.raises(DataError, match='group "g1" holds 90 of 100 pictures; it stays on one side') as caught:
        with_validation(dataset, 0.2, 0, units)
    assert "--group-by none" in caught.value.hint


def test_a_class_of_one_group_is_named():
    dataset, units = dataset_of([(0, 1)] * 4 + [(0, 2)] * 4 + [(1, 3)] * 8)
    with pytest.raises(DataError, match='group "g3" holds 8 of 8 pictures of class "1"'):
        with_validation(dataset, 0.2, 0, units)


def test_classes_that_no_division_has_on_both_sides_are_named():
    """Three classes, three groups, each of two of the classes."""
    dataset, units = dataset_of([(label, group) for group in range(3) for label in (group, (group + 1) % 3)] * 5)
    with pytest.raises(DataError, match=r"groups stay on one side, and its pictures are of 2 groups \(g"):
        with_validation(dataset, 0.2, 0, units)


def test_copies_join_groups_and_stay_with_them():
    paths = [Path(f"/data/{name}.jpg") for name in "abcde"]
    sha256 = dict(zip(paths, ["1", "2", "2", "3", "3"], strict=True))
    units = units_of(sha256, {paths[0]: "scene", paths[1]: "scene", paths[3]: "other"})
    assert [group_name(units[path]) for path in paths] == ["scene"] * 3 + ["other"] * 2
    joined = units_of({**sha256, paths[4]: "1"}, {paths[0]: "scene", paths[3]: "other"})
    assert not is_group(joined[paths[1]])
    assert joined[paths[1]] == joined[paths[2]] == "2"
    assert joined[paths[0]] == joined[paths[4]] != joined[paths[3]]
    linked = units_of({**sha256, paths[3]: "1"}, {paths[0]: "scene", paths[3]: "other"})
    assert group_name(linked[paths[0]]) == group_name(linked[paths[3]]) == "other"


# ---- where groups are read from --------------------------------------------------------------------------------------


def groups_of(dataset):
    return {dataset.label(path): group for path, group in dataset.groups.items()}


def refusal(data, group_by):
    return refusal_of(find_dataset, data, reading=Reading(group_by=group_by))


SCENES = ["cat/s1/a.jpg", "cat/s1/b.jpg", "cat/s2/c.jpg", "cat/d.jpg", "dog/s1/e.jpg", "dog/f.jpg"]


def test_a_folder_inside_a_class_is_a_group_whatever_class_it_is_in(tmp_path):
    touch(tmp_path, *SCENES)
    found = find_dataset(tmp_path, reading=Reading(group_by="FOLDER"))
    assert groups_of(found) == {"cat/s1/a.jpg": "s1", "cat/s1/b.jpg": "s1", "cat/s2/c.jpg": "s2", "dog/s1/e.jpg": "s1"}
    assert "says nothing of 2 pictures (cat/d.jpg, dog/f.jpg): each stands alone" in " ".join(found.warnings)
    assert not find_dataset(tmp_path).groups


def test_of_folders_in_folders_the_uppermost_one_counts_in_every_split(tmp_path):
    touch(
        tmp_path, *(f"{split}/{name}/p{n}/left/1.jpg" for split in ("train", "test") for name in "ab" for n in (1, 2))
    )
    found = find_dataset(tmp_path, reading=Reading(group_by="FOLDER"))
    assert groups_of(found)["train/a/p1/left/1.jpg"] == groups_of(found)["test/b/p1/left/1.jpg"] == "p1"


@pytest.mark.parametrize(("pattern", "group"), [("^[^_]+", "p1"), (r"^(p\d+)_(x|y)", "p1"), ("p[0-9]+", "p1")])
def test_a_pattern_on_the_names_gives_its_first_group_or_all_that_it_matches(tmp_path, pattern, group):
    touch(tmp_path, "p9/p1_x.jpg", "p9/p2_x.jpg", "dog/p1_y.jpg", "dog/p3_y.jpg")
    found = find_dataset(tmp_path, reading=Reading(group_by=pattern))
    assert [groups_of(found)[name] for name in ("p9/p1_x.jpg", "dog/p1_y.jpg")] == [group, group]
    assert len(set(found.groups.values())) == 3


@pytest.mark.parametrize("given", ["(", "", "a{99999999999}"])
def test_a_pattern_that_is_none_is_refused_by_the_name_of_the_option(given):
    with pytest.raises(DataError, match="neither FOLDER nor none nor a regular expression"):
        Reading(group_by=given)


def test_a_pattern_that_divides_nothing_is_refused_with_a_name(tmp_path):
    touch(tmp_path, *SCENES)
    assert '--group-by [0-9]+: matches none of 6 names, such as "cat/d.jpg".' in refusal(tmp_path, "[0-9]+")
    assert '--group-by jpg: all 6 pictures are of one group, "jpg", such as cat/d.jpg.' in refusal(tmp_path, "jpg")
    alone = find_dataset(tmp_path, reading=Reading(group_by=".*"))
    assert '--group-by .* puts every picture into a group of its own: cat/d.jpg is of "d.jpg".' in alone.warnings


def test_folders_that_are_not_there_are_said(tmp_path):
    touch(tmp_path, "cat/1.jpg", "dog/2.jpg")
    assert "no picture lies in a folder inside its class folder: cat/1.jpg" in refusal(tmp_path, "FOLDER")


ROWS = ["a.jpg,cat,p1,A,1", "b.jpg,cat,p2,A,2", "c.jpg,dog,p1,B,3", "d.jpg,dog,,B,4"]


def test_the_column_of_a_table_says_the_groups(tmp_path):
    touch(tmp_path, "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    table = tmp_path / "t.csv"
    table.write_text("\n".join(["path,label,group,camera,id", *ROWS]))
    found = find_dataset(table)
    assert groups_of(found) == {"a.jpg": "p1", "b.jpg": "p2", "c.jpg": "p1"}
    columns = {name: sorted({*cells.values()}) for name, cells in found.columns.items()}
    assert columns == {"camera": ["A", "B"]}, "an id tells no two images together"
    none = find_dataset(table, reading=Reading(group_by="none"))
    assert not none.groups
    assert sorted(none.columns) == ["camera", "group"]
    assert groups_of(find_dataset(table, reading=Reading(group_by="[ab]"))) == {"a.jpg": "a", "b.jpg": "b"}
    table.write_text("\n".join(["path,label,patient,camera,id", *ROWS]))
    told = find_dataset(table, reading=Reading(column_names="group=patient"))
    assert groups_of(told) == {"a.jpg": "p1", "b.jpg": "p2", "c.jpg": "p1"}
    assert sorted(told.columns) == ["camera"]


def test_columns_of_many_values_or_of_lists_are_not_kept(tmp_path):
    lines = [
        f'{{"path": "{n}.jpg", "label": "{"ab"[n % 2]}", "n": {n % 60}, "box": [1], "site": {n % 3}}}'
        for n in range(80)
    ]
    touch(tmp_path, *(f"{n}.jpg" for n in range(80)))
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    assert list(find_dataset(tmp_path / "t.jsonl").columns) == ["site"]


def test_a_folder_in_the_paths_of_a_table_is_a_group(tmp_path):
    touch(tmp_path, "p1/a.jpg", "p1/b.jpg", "p2/c.jpg")
    (tmp_path / "t.csv").write_text("path,label\np1/a.jpg,x\np1/b.jpg,y\np2/c.jpg,x\n")
    found = find_dataset(tmp_path / "t.csv", reading=Reading(group_by="FOLDER"))
    assert groups_of(found) == {"p1/a.jpg": "p1", "p1/b.jpg": "p1", "p2/c.jpg": "p2"}


def test_a_picture_of_two_groups_is_refused(tmp_path):
    touch(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "t.csv").write_text("path,label,group\na.jpg,x,1\nb.jpg,y,1\na.jpg,x,2\n")
    assert 'a.jpg is of group "1" (line 2) and of group "2" (line 4).' in refusal(tmp_path / "t.csv", None)


def test_the_metadata_of_image_folders_and_parquet_files_have_groups_too(tmp_path):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    touch(tmp_path / "meta", "1.jpg", "2.jpg")
    (tmp_path / "meta/metadata.csv").write_text("file_name,label,group\n1.jpg,a,g\n2.jpg,b,h\n")
    assert groups_of(find_dataset(tmp_path / "meta")) == {"1.jpg": "g", "2.jpg": "h"}
    images = [draw(tmp_path / f"{n}.png", (n, 90, 90), n).read_bytes() for n in range(4)]
    rows = {"image": images, "breed": ["a", "b"] * 2, "patient": [7, 7, 8, None], "site": ["x", "y", "y", "y"]}
    parquet.write_table(pa.table(rows), tmp_path / "t.parquet")
    for told in ("label=breed,group=patient", "label=breed,group=site"):  # the images are written once
        found = find_dataset(tmp_path / "t.parquet", reading=Reading(column_names=told))
        assert list(found.groups.values()) == (["7", "7", "8"] if "patient" in told else ["x", "y", "y", "y"])
        assert "site" in found.columns or "site" in told


class Frame(dict):
    """As much of a data frame as is read of one."""

    columns = property(lambda self: list(self))


def test_a_data_frame_has_groups_and_further_columns(tmp_path):
    touch(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    paths = [str(tmp_path / f"{letter}.jpg") for letter in "abc"]
    frame = Frame(
        path=paths, label=["x", "y", "x"], group=["p", "p", "q"], site=["n", float("nan"), "s"], odd=[[1], {}, 0]
    )
    found = find_dataset(table_of(frame))
    assert [group for _, group in sorted(found.groups.items())] == ["p", "p", "q"]
    assert not found.columns
    frame["site"] = ["n", "s", "s"]
    assert sorted(find_dataset(table_of(frame)).columns) == ["site"]


# ---- through the commands --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["check", "compare", "evaluate", "fit", "pretrain", "sweep"])
def test_every_command_that_judges_takes_the_option(tmp_path, name, tiny_source):
    draw_dataset(tmp_path, train=2, test=2)
    words = {"sweep": ["--vary", "epochs=1"]}.get(name, [])
    first = [tiny_source] if name == "evaluate" else []
    assert "--group-by x+: matches none of 8 names" in refused(name, *first, tmp_path, "--group-by", "x+", *words)


def drawn_scenes(root, split="", scenes=("s1", "s2", "s3", "s4"), each=2):
    for place, (name, colour) in enumerate({"blue": (60, 60, 190), "red": (190, 60, 60)}.items()):
        for scene in scenes:
            for view in range(each):
                seed = 1000 * place + 10 * int(scene[1:]) + view + 500 * (split == "test")
                draw(root / split / name / f"{scene}_{view}.png", colour, seed)
    return root


SMALL = ("--image-size", 32, "--batch-size", 8)


def test_a_run_keeps_its_groups_and_is_resumed_with_them(tmp_path, monkeypatch, tiny_source):
    monkeypatch.chdir(tmp_path)
    drawn_scenes(tmp_path / "d")
    told = ("--group-by", "^[^_]+")
    small = ("--recipe", "book", "--weights", tiny_source, *SMALL, "--epochs", 0, "--out", "run")
    assert "groups  4 groups of 16 pictures; each stays on one side" in done("fit", "d", *small, *told).err
    splits = read_json(tmp_path / "run/dataset.json")["splits"]
    sides = [{row["group"] for row in rows} for rows in splits.values()]
    assert not set.intersection(*sides)
    row = splits["train"][0]
    assert "columns" not in row
    assert read_json(tmp_path / "run/request.json")["group_by"] == "^[^_]+"
    assert "finished already" in done("fit", "--resume", "run", *told).err
    assert "begun with another group_by" in refused("fit", "--resume", "run", "--group-by", "none")
    judged = done("evaluate", "run", "d", *told).err
    assert "the model learned from 3 groups of the same name as here (s" in judged
    identity = read_json(tmp_path / "run/request.json")["identity"]
    done("fit", "d", *small[:-1], "other", "--group-by", "none")
    other = tmp_path / "other"
    assert read_json(other / "request.json")["identity"] != identity
    assert "group" not in read_json(other / "dataset.json")["splits"]["train"][0]


def test_a_probe_is_cross_validated_on_groups_that_it_did_not_learn_from(tmp_path, tiny_source, monkeypatch):
    """A folder with a test split: every training image is in a fold with its scene."""
    drawn_scenes(tmp_path, "train", each=3)
    drawn_scenes(tmp_path, "test", ("s8", "s9"))
    dealt = []

    def heard(labels, units, folds, seed):
        found = stratified_folds(labels, units, folds, seed)
        dealt.append((units, found))
        return found

    monkeypatch.setattr("relish.training.probe_stage.stratified_folds", heard)
    relish.fit(tmp_path, weights=tiny_source, recipe="probe", image_size=32, group_by="^[^_]+", out=tmp_path / "run")
    assert dealt
    for units, fold_of in dealt:
        assert len(set(zip(units, fold_of.tolist(), strict=True))) == len(set(units)) == 4
        assert usable_folds(np.zeros(len(units), dtype=np.int64), units, 5) == 4


def test_one_group_of_nearly_everything_is_refused_before_there_is_a_run(tmp_path, tiny_source):
    drawn_scenes(tmp_path, "train", ("s1",), each=9)
    drawn_scenes(tmp_path, "train", ("s2",), each=1)
    drawn_scenes(tmp_path, "test", ("s8", "s9"))
    with pytest.raises(RelishError, match='group "s1" holds 18 of 20 pictures'):
        relish.fit(tmp_path, weights=tiny_source, image_size=32, group_by="^[^_]+", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_groups_on_both_sides_are_a_finding_and_a_warning(tmp_path, monkeypatch, tiny_source):
    monkeypatch.chdir(tmp_path)
    drawn_scenes(tmp_path / "d", "train")
    drawn_scenes(tmp_path / "d", "test", ("s1", "s4", "s9"))
    words = "8 test pictures are of 2 groups that train has too (s1, s4)."
    found = relish.check("d", weights=tiny_source, group_by="^[^_]+", html="check.html", fix="clean.csv")
    (finding,) = [finding for finding in found.findings if finding.kind == "shared-group"]
    assert (finding.severity, finding.message, len(finding.paths)) == ("error", words, 8)
    assert words in str(found)
    assert words in Path("check.html").read_text()
    assert groups_of(find_dataset("clean.csv"))["d/test/red/s9_0.png"] == "s9"
    small = ("--recipe", "book", "--weights", tiny_source, *SMALL, "--epochs", 0, "--out", "run")
    assert words in done("fit", "d", *small, "--group-by", "^[^_]+").err
    assert "shared-group" not in str(relish.check("d", weights=tiny_source).as_json())

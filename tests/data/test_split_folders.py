"""Splits or classes: the layouts that people have, and the laws of the grammar."""

import json
import shutil

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import relish
from relish.core.errors import DataError
from relish.data.folder import index_folder
from relish.data.layout import is_junk
from relish.data.sources import Reading, find_dataset
from relish.data.split_folders import AmbiguousLayout
from relish.data.split_names import NONE, SPLIT_WORDS, checked_split_names, split_series, split_words
from tests.commands import done, refused
from tests.conftest import draw_dataset, read_json, touch


def folders(*paths, classes="ab", images=("1.jpg", "2.jpg")):
    """Images in class folders below each of these paths; of a path that ends in `/`, in that folder itself."""
    return [
        f"{path}{name}" if path.endswith("/") else f"{path}/{of}/{name}"
        for path in paths
        for of in ("" if path.endswith("/") else classes) or [""]
        for name in images
    ]


def index(root, told=None):
    return index_folder(root, name="pets", source="pets", split_names=checked_split_names(told))


def found(root, told=None):
    """`{split: number of images}`, the classes and the warnings, in a line."""
    dataset = index(root, told)
    counts = {split: len(images) for split, images in dataset.splits.items()}
    return counts, dataset.classes, " ".join(dataset.warnings)


# ---- layouts of well-known datasets ---------------------------------------------------------------------------------

NORMAL = ("NORMAL", "PNEUMONIA")
LAYOUTS = {
    "intel image classification": (
        folders("seg_train/seg_train", "seg_test/seg_test", classes=("forest", "sea")) + folders("seg_pred/seg_pred/"),
        {"train": 4, "test": 4},
        ("forest", "sea"),
        "seg_pred holds 2 pictures without labels",
    ),
    "intel, not doubled": (
        folders("seg_train", "seg_test", classes=("forest", "sea")) + folders("seg_pred/"),
        {"train": 4, "test": 4},
        ("forest", "sea"),
        "seg_pred holds 2 pictures without labels",
    ),
    "asl alphabet": (
        folders("asl_alphabet_train/asl_alphabet_train", classes="ABC")
        + folders("asl_alphabet_test/asl_alphabet_test/"),
        {"train": 6},
        ("A", "B", "C"),
        "asl_alphabet_test/asl_alphabet_test has no class folders: it is not used.",
    ),
    "chest x-ray": (
        folders(*(f"chest_xray/{s}" for s in ("train", "val", "test")), classes=NORMAL)
        + folders(*(f"chest_xray/chest_xray/{s}" for s in ("train", "val", "test")), classes=NORMAL)
        + ["chest_xray/__MACOSX/chest_xray/train/NORMAL/._1.jpg", "chest_xray/chest_xray/.DS_Store"],
        {"train": 4, "validation": 4, "test": 4},
        NORMAL,
        "chest_xray is not the name of a split: left out (12 pictures).",
    ),
    "roboflow": (
        [*folders("train", "valid", "test"), "README.roboflow.txt", "README.dataset.txt"],
        {"train": 4, "validation": 4, "test": 4},
        ("a", "b"),
        "README.roboflow.txt",
    ),
    "teachable machine": (folders(".", classes=("Class 1", "Class 2")), {"all": 4}, ("Class 1", "Class 2"), ""),
    "imagenette": (
        [
            *folders("imagenette2-160/train", "imagenette2-160/val", classes=("n01440764", "n02102040")),
            "imagenette2-160/n.csv",
        ],
        {"train": 4, "validation": 4},
        ("n01440764", "n02102040"),
        "n.csv",
    ),
    "cinic-10": (
        folders("CINIC-10/train", "CINIC-10/valid", "CINIC-10/test"),
        {"train": 4, "validation": 4, "test": 4},
        ("a", "b"),
        "",
    ),
    "plant village": (
        folders("plantvillage dataset/color", "plantvillage dataset/grayscale", "plantvillage dataset/segmented"),
        {"all": 12},
        ("color", "grayscale", "segmented"),
        "give the folder color instead",
    ),
    "fruits 360": (
        [
            *folders("fruits-360/Training", "fruits-360/Test"),
            *folders("fruits-360/test-multiple_fruits/"),
            "fruits-360/papers/p.pdf",
        ],
        {"train": 4, "test": 4},
        ("a", "b"),
        "test-multiple_fruits is not the name of a split: left out (2 pictures).",
    ),
    "stanford dogs": (
        [
            *folders("images/Images", classes=("n02085620-Chihuahua", "n02085782-spaniel")),
            "annotations/Annotation/n02085620-Chihuahua/n02085620_7",
        ],
        {"all": 4},
        ("n02085620-Chihuahua", "n02085782-spaniel"),
        "",
    ),
    "food-101": (
        [
            *folders("food-101/images", classes=("apple_pie", "waffles")),
            "food-101/meta/train.json",
            "food-101/README.txt",
        ],
        {"all": 4},
        ("apple_pie", "waffles"),
        "README.txt",
    ),
    "caltech 101": (
        [*folders("101_ObjectCategories"), "Annotations/a/annotation_0001.mat"],
        {"all": 4},
        ("a", "b"),
        "",
    ),
    "cats and dogs": (
        [
            *folders("training_set/training_set", "test_set/test_set", classes=("cats", "dogs")),
            "test_set/test_set/_DS_Store",
        ],
        {"train": 4, "test": 4},
        ("cats", "dogs"),
        "_DS_Store",
    ),
    "PetImages": (
        [*folders("PetImages", classes=("Cat", "Dog")), "PetImages/Cat/Thumbs.db", "readme[1].txt"],
        {"all": 4},
        ("Cat", "Dog"),
        "readme[1].txt",
    ),
    "GTSRB": (
        [*folders("Train", classes="01"), *folders("Test/"), *folders("Meta/"), "Meta.csv", "Test.csv", "Train.csv"],
        {"train": 4},
        ("0", "1"),
        "Test has no class folders: it is not used.",
    ),
    "brain tumours": (folders("Training", "Testing"), {"train": 4, "test": 4}, ("a", "b"), ""),
    "stl-10": (
        folders("train", "test") + folders("unlabeled/"),
        {"train": 4, "test": 4},
        ("a", "b"),
        "unlabeled holds 2 pictures without labels",
    ),
    "dogs by prefix": (folders("dogs_train", "dogs_test"), {"train": 4, "test": 4}, ("a", "b"), ""),
    "numbered behind": (folders("train1", "test1"), {"train": 4, "test": 4}, ("a", "b"), ""),
    "numbered before": (
        folders("01_train", "02_val", "03_test"),
        {"train": 4, "validation": 4, "test": 4},
        ("a", "b"),
        "",
    ),
    "short": (folders("trn", "tst"), {"train": 4, "test": 4}, ("a", "b"), ""),
    "by suffix": (folders("train_cropped", "test_cropped"), {"train": 4, "test": 4}, ("a", "b"), ""),
    "written together": (folders("dogstrain", "dogstest"), {"train": 4, "test": 4}, ("a", "b"), ""),
    "camel case": (folders("imgTrain", "imgTest", "ImgVal"), {"train": 4, "validation": 4, "test": 4}, ("a", "b"), ""),
    "years and sizes": (folders("train2017", "val2017_224x224"), {"train": 4, "validation": 4}, ("a", "b"), ""),
    "images inside": (folders("train/images", "test/images"), {"train": 4, "test": 4}, ("a", "b"), ""),
    "images and labels inside": (
        [*folders("train/images", "test/images"), "train/labels/a/1.txt"],
        {"train": 4, "test": 4},
        ("a", "b"),
        "",
    ),
    "data around": (
        folders("archive/data/train_data/train", "archive/data/train_data/val"),
        {"train": 4, "validation": 4},
        ("a", "b"),
        "",
    ),
    "d2l": (
        folders("train_valid_test/train", "train_valid_test/train_valid", "train_valid_test/valid"),
        {"train": 4, "validation": 4},
        ("a", "b"),
        "train_valid is not the name of a split",
    ),
    "trainval": (folders("trainval", "test"), {"train": 4, "test": 4}, ("a", "b"), ""),
    "a loose picture beside one folder": (
        [*folders("mydata"), "photo.jpg"],
        {"all": 4},
        ("a", "b"),
        "photo.jpg is not inside a class folder",
    ),
    "an extra folder with the same classes": (
        folders("train", "test", "extra"),
        {"train": 4, "test": 4},
        ("a", "b"),
        "--split-names train=train,validation=extra,test=test",
    ),
    "imagenet": (
        [
            *folders("ILSVRC/Data/CLS-LOC/train", classes=("n01440764", "n01443537")),
            *folders("ILSVRC/Data/CLS-LOC/val/", "ILSVRC/Data/CLS-LOC/test/"),
            "ILSVRC/Annotations/CLS-LOC/val/1.xml",
            "ILSVRC/ImageSets/CLS-LOC/test.txt",
            "LOC_train_solution.csv",
        ],
        {"train": 4},
        ("n01440764", "n01443537"),
        "val has no class folders: it is not used.",
    ),
    "tiny imagenet": (
        [
            *folders("train/n01443537/images/", "train/n01629819/images/", "val/images/", "test/images/"),
            "train/n01443537/n01443537_boxes.txt",
            "wnids.txt",
        ],
        {"train": 4},
        ("n01443537", "n01629819"),
        "val/images has no class folders: it is not used.",
    ),
    "cub-200": (
        [*folders("CUB_200_2011/images", classes=("001.Albatross", "002.Auklet")), "CUB_200_2011/parts/parts.txt"],
        {"all": 4},
        ("001.Albatross", "002.Auklet"),
        "",
    ),
    "images and masks": (
        folders("images", "masks"),
        {"all": 4},
        ("a", "b"),
        "masks is not a folder of classes or a split, by its name: left out (4 pictures).",
    ),
    "cat or dog, a course": (
        folders("dataset/training_set", "dataset/test_set") + folders("dataset/single_prediction/"),
        {"train": 4, "test": 4},
        ("a", "b"),
        "single_prediction holds 2 pictures without labels",
    ),
    "horses or humans": (
        folders("train", "validation", "horse-or-human/train", "horse-or-human/validation"),
        {"train": 4, "validation": 4},
        ("a", "b"),
        "horse-or-human is not the name of a split: left out (8 pictures).",
    ),
    "real and fake": (folders("training_fake/", "training_real/"), {"all": 4}, ("training_fake", "training_real"), ""),
    "vehicles": (folders("bus/", "car/", "train/"), {"all": 6}, ("bus", "car", "train"), ""),
    "valid and invalid": (folders("valid", "invalid"), {"all": 8}, ("invalid", "valid"), "class folders hold folders"),
    "valid and invalid, images alone": (folders("valid/", "invalid/"), {"all": 4}, ("invalid", "valid"), ""),
    "train and not-train": (
        folders("train", "not-train"),
        {"all": 8},
        ("not-train", "train"),
        "class folders hold folders",
    ),
    "test and control": (folders("test/", "control/"), {"all": 4}, ("control", "test"), ""),
    "a station among buildings": (
        folders("train_station", "airport", "bus_stop"),
        {"all": 12},
        ("airport", "bus_stop", "train_station"),
        "class folders hold folders",
    ),
    "classes with other files beside": (
        [*folders(".", classes=("cat", "dog")), "docs/a.pdf", "annotations/1.json"],
        {"all": 4},
        ("cat", "dog"),
        "docs holds no pictures",
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_that_people_have_is_read_as_they_mean_it(tmp_path, name):
    files, counts, classes, words = LAYOUTS[name]
    touch(tmp_path, *files)
    have, known, warned = found(tmp_path)
    assert (have, known) == (counts, classes), warned
    assert words in warned
    assert words or not warned


@pytest.mark.parametrize(
    ("archive", "counts"),
    [("cases/06-kaggle-flat.tar.gz", {"train": 16, "test": 8}), ("data/mri.zip", {"train": 1000, "test": 394})],
)
def test_real_archives_have_their_splits(shared, archive, counts):
    if not (shared / archive).is_file():
        pytest.skip(f"needs {shared / archive}")
    dataset = find_dataset(shared / archive)
    assert {split: len(images) for split, images in dataset.splits.items()} == counts


AMBIGUOUS = {
    "train with folders beside vehicles": (
        [*folders("train", classes=("diesel", "steam")), *folders("bus/", "car/")],
        ["--split-names train=train    (bus, car: left out)", "--split-names none    (bus, car, train)"],
    ),
    "vehicles by day and night": (folders("train", "bus", "car", classes=("day", "night")), ["train=train", "none"]),
    "valid beside others": (folders("valid", "expired", "unsure"), ["validation=valid", "none"]),
    "a test of another series": (folders("train", "seg_test"), ["train=train", "none"]),
    "words of two letters": (folders("tr", "te"), ["train=tr,test=te", "none"]),
    "no series": (folders("dogs_train", "cats_test"), ["train=dogs_train,test=cats_test", "none"]),
    "two series": (
        folders("a_train", "a_test", "b_train", "b_test"),
        ["train=a_train,test=a_test", "train=b_train,test=b_test"],
    ),
    "a split twice": (
        folders("train1", "train2", "test"),
        ["train=train1,test=test", "train=train1,train=train2,test=test"],
    ),
    "classes that do not repeat": (
        [*folders("train", classes="ab"), *folders("test", classes="cd"), *folders("bus/")],
        ["train=train,test=test", "none"],
    ),
    "split names without class folders beside others": (folders("train/", "test/", "bus/"), ["none"]),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_what_can_be_read_in_two_ways_is_refused_with_what_to_type(tmp_path, name):
    files, options = AMBIGUOUS[name]
    touch(tmp_path, *files)
    with pytest.raises(AmbiguousLayout) as caught:
        index(tmp_path)
    assert all(option in str(caught.value) for option in options), str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_each_option_of_a_refusal_is_one_that_works(tmp_path, name):
    touch(tmp_path, *AMBIGUOUS[name][0])
    with pytest.raises(AmbiguousLayout) as caught:
        index(tmp_path)
    for line in str(caught.value).splitlines()[1:]:
        told = line.split("--split-names ")[1].split()[0]
        if name != "classes that do not repeat" or told == NONE:
            dataset = index(tmp_path, told)
            assert ("all" in dataset.splits) == (told == NONE)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (folders("train/", "test/"), "If test, train are the classes themselves: --split-names none"),
        (folders("train_cat/", "train_dog/", "test_cat/", "test_dog/"), "pictures without class folders"),
        (folders("images/"), "pictures without class folders"),
        (folders("images/", "annotations/trimaps/"), "pictures without class folders"),
        (folders("plants/plants/train", "plants/plants/valid", "test/test/"), "Give pets/plants/plants, or"),
        (folders("art/new/train", "art/new/test", "muse/new/train", "muse/new/test"), "Give one of them: pets/art/new"),
        (folders("cells/cells/cells", "cells/cells"), "Give pets/cells/cells/cells"),
        (folders("natural_images", "data/natural_images"), "data holds the folders beside it once more"),
        (folders("train/", "test"), "train holds 2 pictures without class folders, unlike test"),
        (["train/notes.txt", *folders("test")], "train holds no pictures, unlike test"),
        (folders(".", "flowers", classes=("rose", "tulip")), "holds the folders beside it once more"),
    ],
)
def test_pictures_whose_labels_are_elsewhere_are_refused(tmp_path, files, words):
    touch(tmp_path, *files)
    with pytest.raises(DataError) as caught:
        index(tmp_path)
    assert words in str(caught.value)


# ---- the option -----------------------------------------------------------------------------------------------------


def test_the_option_names_the_folders_of_each_split(tmp_path):
    touch(tmp_path, *folders("deep/learn", "deep/judge", "deep/more", "deep/x/even"))
    assert found(tmp_path, "train=learn,test=judge")[0] == {"train": 4, "test": 4}
    assert "more is not in --split-names: left out (4 pictures)." in found(tmp_path, "train=learn,test=judge")[2]
    assert found(tmp_path, {"training": ["learn", "more"], "test": "judge"})[0] == {"train": 8, "test": 4}
    assert found(tmp_path, {"train": "learn", "val": "x/even"})[0] == {"train": 4, "validation": 4}


def test_the_option_takes_every_folder_for_a_class(tmp_path):
    touch(tmp_path, *folders("wrapped/train", "wrapped/test"))
    assert found(tmp_path, "none")[:2] == ({"all": 8}, ("test", "train"))


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ("train=lern", 'has "lern", and no folder is called so'),
        ("train=lern", 'Did you mean "learn"?'),
        ("train=../learn", "no folder is called so"),
        ("train=flat", "flat holds no class folders"),
        ("learn", "not of the form SPLIT=FOLDER"),
        ("train=learn,train=learn", "each folder once"),
        ("train=learn,test=learn", "each folder once"),
        ("train=", "not of the form"),
        ("trian=learn", 'there is no split "trian"'),
        ({}, "not of the form"),
    ],
)
def test_an_option_that_cannot_be_is_refused(tmp_path, told, words):
    touch(tmp_path, *folders("learn", "judge", "flat/"))
    with pytest.raises(DataError) as caught:
        index(tmp_path, told)
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["check", "compare", "fit", "pretrain", "show", "sweep"])
def test_every_call_that_reads_a_dataset_takes_the_option(tmp_path, name):
    touch(tmp_path, *folders("learn", "judge"))
    more = {"sweep": {"vary": "epochs=1"}}.get(name, {})
    with pytest.raises(DataError, match='has "nowhere"'):
        getattr(relish, name)(tmp_path, split_names={"train": "nowhere"}, **more)
    assert 'has "nowhere"' in refused(
        name, tmp_path, "--split-names", "train=nowhere", *(f"--{key}={value}" for key, value in more.items())
    )


def test_a_model_is_judged_and_exported_on_the_splits_that_are_told(tmp_path, tiny_source):
    touch(tmp_path, *folders("learn", "judge"))
    with pytest.raises(DataError, match='has "nowhere"'):
        relish.evaluate(tiny_source, tmp_path, split_names="test=nowhere")
    with pytest.raises(DataError, match='has "nowhere"'):
        relish.load(tiny_source).evaluate(tmp_path, split_names="test=nowhere")
    assert 'has "nowhere"' in refused("evaluate", tiny_source, tmp_path, "--split-names", "test=nowhere")
    told = ("--data", tmp_path, "--split-names", "test=nowhere")
    assert 'has "nowhere"' in refused("export", tiny_source, tmp_path / "x.onnx", *told)


def test_a_run_keeps_what_was_told_and_is_resumed_with_it(tmp_path, monkeypatch, tiny_source):
    monkeypatch.chdir(tmp_path)
    draw_dataset(tmp_path / "d", train=3, test=2)
    (tmp_path / "d/train").rename(tmp_path / "d/learn")
    (tmp_path / "d/test").rename(tmp_path / "d/judge")
    told = "train=learn,test=judge"
    small = ("--recipe", "book", "--weights", tiny_source, "--image-size", 32, "--epochs", 0, "--out", "run")
    done("fit", "d", *small, "--split-names", told)
    assert read_json(tmp_path / "run/request.json")["split_names"] == {"train": ["learn"], "test": ["judge"]}
    assert "finished already" in done("fit", "--resume", "run", "--split-names", told).err
    assert "begun with another split_names" in refused("fit", "--resume", "run", "--split-names", "none")
    judged = done("evaluate", "run", "d", "--split", "test", "--split-names", told, "--json")
    assert json.loads(judged.out)["top1"]["count"] == 4


def test_the_words_of_a_table_are_told_too(tmp_path):
    touch(tmp_path, "1.jpg", "2.jpg", "3.jpg", "4.jpg")
    rows = [f"{n}.jpg,{'ab'[n % 2]},{'learn' if n < 3 else 'judge'}" for n in range(1, 5)]
    (tmp_path / "t.csv").write_text("\n".join(["path,label,split", *rows]))
    with pytest.raises(DataError, match='unknown split "judge"'):
        find_dataset(tmp_path / "t.csv")
    told = find_dataset(tmp_path / "t.csv", reading=Reading(split_names="train=learn,test=judge"))
    assert {split: len(images) for split, images in told.splits.items()} == {"train": 2, "test": 2}
    assert list(find_dataset(tmp_path / "t.csv", reading=Reading(split_names="none")).splits) == ["all"]


def test_a_folder_with_a_comma_in_its_name_can_be_told():
    assert checked_split_names("train=a,b,test=c") == {"train": ["a,b"], "test": ["c"]}


# ---- laws of the grammar --------------------------------------------------------------------------------------------

WORDS = sorted(set(SPLIT_WORDS) - {"trainval", "trainvalid", "eval", "evaluation"})
NAMES = st.sampled_from(["cat", "dog", "n01440764", "Class 1", "été", "007", "oak_leaf", "Great Dane"])
AROUND = st.sampled_from(["", "seg_", "asl alphabet-", "Dogs.", "01_", "my-"])


@st.composite
def splits(draw):
    """Folder names of the grammar, for two splits or three, all with the same other words around."""
    before, behind = draw(AROUND), draw(st.sampled_from(["", "_set", " images", "-cropped", "2", "Data"]))
    chosen = draw(st.lists(st.sampled_from(WORDS), min_size=2, max_size=3, unique_by=SPLIT_WORDS.get))
    case = draw(st.sampled_from([str, str.title, str.upper]))
    return {f"{before}{case(word)}{behind}": SPLIT_WORDS[word] for word in chosen}


@given(splits(), st.lists(NAMES, min_size=2, max_size=4, unique=True), st.data())
@settings(max_examples=25, deadline=None)
def test_any_tree_of_split_names_and_classes_is_read_as_these(tmp_path_factory, split_of, classes, data):
    assume("train" in split_of.values())
    root = tmp_path_factory.mktemp("tree")
    wrapper = data.draw(st.sampled_from(["", "archive/", "a/b/"]))
    doubled = data.draw(st.booleans())
    for name in split_of:
        touch(root, *folders(f"{wrapper}{name}" + f"/{name}" * doubled, classes=classes, images=("1.jpg",)))
    dataset = index(root)
    assert {split: len(images) for split, images in dataset.splits.items()} == dict.fromkeys(
        split_of.values(), len(classes)
    )
    assert dataset.classes == tuple(sorted(classes))
    assert not dataset.warnings
    shutil.rmtree(root)


OTHER = st.text("abcdeghiklmnoprstuvz -_.059é", min_size=1, max_size=12).map(str.strip).filter(lambda n: n.strip(". "))


@given(st.lists(OTHER, min_size=2, max_size=5, unique_by=str.casefold))
@settings(max_examples=25, deadline=None)
def test_folders_whose_names_are_no_split_s_stay_classes(tmp_path_factory, names):
    assume(not split_series(names))
    assume(not any(is_junk(name) for name in names))
    root = tmp_path_factory.mktemp("tree")
    touch(root, *folders(*(f"{name}/" for name in names)))
    assert index(root).classes == tuple(sorted(names))
    shutil.rmtree(root)


@given(st.sampled_from(WORDS), st.lists(NAMES, min_size=2, max_size=4, unique=True))
@settings(max_examples=10, deadline=None)
def test_one_name_of_a_split_that_holds_folders_beside_classes_is_refused(tmp_path_factory, word, classes):
    root = tmp_path_factory.mktemp("tree")
    touch(root, *folders(word, classes=("inside", "outside")), *folders(*(f"{name}/" for name in classes)))
    with pytest.raises(AmbiguousLayout, match=r"--split-names none"):
        index(root)
    assert index(root, NONE).classes == tuple(sorted([word, *classes]))
    shutil.rmtree(root)


@given(splits())
@settings(max_examples=50)
def test_every_name_of_a_series_means_its_split(split_of):
    assert split_series(list(split_of)) == [split_of]


@pytest.mark.parametrize(
    "name",
    [
        "station",
        "strain",
        "contest",
        "latest",
        "invalid",
        "carnival",
        "protest",
        "training shoes",
        "train_test",
        "not_train",
        "cat",
    ],
)
def test_a_name_that_only_holds_a_word_s_letters_is_no_split_s(name):
    assert split_words([name]) == {}
    assert split_series([name, "cat", "dog"]) == []

"""What editors, systems and notebooks leave in folders of pictures, and how cameras spell the end of a name."""

import pytest

from tests.conftest import labelled, touch
from tests.data.test_folder import PETS, index


@pytest.mark.parametrize(
    "names",
    [
        [".ipynb_checkpoints/cat/1.png", "cat/.ipynb_checkpoints/1-checkpoint.png"],
        ["__MACOSX/cat/._1.jpg", "cat/._1.jpg", ".DS_Store", "cat/.DS_Store"],
        ["@eaDir/1.jpg", "cat/@eaDir/1.jpg/SYNOFILE_THUMB_M.jpg"],
        [".git/objects/1.png", "Thumbs.db", "dog/desktop.ini"],
    ],
    ids=["Jupyter", "macOS", "Synology", "others"],
)
def test_what_programs_leave_behind_is_neither_a_class_nor_a_picture(tmp_path, names):
    touch(tmp_path, *PETS, *names)
    dataset = index(tmp_path)
    assert dataset.classes == ("cat", "dog")
    assert labelled(dataset, "all") == {name: name[:3] for name in PETS}


def test_endings_in_capitals_are_endings(tmp_path):
    names = [f"cat/{n}{ending}" for n, ending in enumerate((".JPG", ".Jpeg", ".PNG", ".TIF", ".WebP", ".BMP"))]
    touch(tmp_path, *names, "dog/1.JPEG")
    assert len(labelled(index(tmp_path), "all")) == 7


def test_pictures_of_one_name_in_several_classes_are_several_pictures(tmp_path):
    touch(tmp_path, "cat/1.png", "dog/1.png", "owl/1.png")
    assert labelled(index(tmp_path), "all") == {"cat/1.png": "cat", "dog/1.png": "dog", "owl/1.png": "owl"}


def test_pictures_named_like_splits_are_pictures(tmp_path):
    touch(tmp_path, *[f"{name}/{split}.png" for name in ("cat", "dog") for split in ("train", "val", "test")])
    assert set(index(tmp_path).splits) == {"all"}


@pytest.mark.parametrize("place", ["runs/pets-auto-1", "first try"])
@pytest.mark.parametrize("split", ["", "train/"])
def test_a_run_that_was_made_beside_the_class_folders_is_no_class(tmp_path, place, split):
    """`cd pets; relish fit .` leaves one there, and is typed again."""
    touch(tmp_path, *[f"{split}{name}" for name in PETS], f"{place}/request.json", f"{place}/recipe.yaml")
    touch(tmp_path, f"{place}/model.safetensors")
    dataset = index(tmp_path)
    assert (dataset.classes, dataset.warnings) == (("cat", "dog"), ())


def test_a_class_called_runs_is_one(tmp_path):
    touch(tmp_path, *PETS, "runs/1.png", "runs/slow/2.png")
    assert index(tmp_path).classes == ("cat", "dog", "runs")

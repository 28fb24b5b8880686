"""All checks together: nothing is found in images without a fault, and what is found does not depend on order."""

from dataclasses import replace

import numpy as np
import pytest

from relish.checks.images import image_set
from relish.checks.run_checks import all_findings, brief_findings
from relish.data.dataset import Finding
from relish.data.sources import find_dataset
from relish.data.survey import survey
from tests.checks.planted import brief, of_kind, scene


def test_pictures_without_a_fault_give_no_finding_but_of_their_number(root):
    assert [(f.kind, f.message[:15]) for f in brief(root)] == [("too-few", "16 test picture")]


def test_every_path_of_a_finding_is_a_picture_of_the_dataset_and_json_goes_there_and_back(root):
    (root / "train/cat/05.png").write_bytes(b"no picture")
    (root / "train/cat/copy.png").write_bytes((root / "test/dog/03.png").read_bytes())
    found = find_dataset(root)
    looked = survey(found)
    pictures = image_set(looked)
    features = np.random.default_rng(0).normal(size=(len(pictures), 8)).astype(np.float32)
    checked = all_findings(found, looked, pictures, features)
    names = {found.label(path) for split in found.splits.values() for path in split.paths}
    assert {name for f in checked.findings for name in f.paths} <= names
    assert {"unreadable", "exact-duplicate"} <= {f.kind for f in checked.findings}
    assert [Finding.from_json(f.as_json()) for f in checked.findings] == list(checked.findings)


def test_what_is_found_does_not_depend_on_the_order_of_the_pictures(root):
    (root / "train/cat/copy.png").write_bytes((root / "test/dog/03.png").read_bytes())
    found = find_dataset(root)
    turned = replace(found, splits={name: split.take(range(len(split))[::-1]) for name, split in found.splits.items()})
    one, other = (
        {(f.kind, frozenset(f.paths), f.message, f.severity) for f in brief_findings(d, survey(d))}
        for d in (found, turned)
    )
    assert one == other


@pytest.mark.parametrize("pictures", [0, 1, 2])
def test_nearly_nothing_to_look_at_is_no_error(tmp_path, pictures):
    for number in range(2):
        path = tmp_path / "few" / ("cat", "dog")[number] / "1.png"
        path.parent.mkdir(parents=True)
        if number < pictures:
            scene(number).save(path)
        else:
            path.write_bytes(b"no picture")
    found = find_dataset(tmp_path / "few", learnable=False)
    looked = survey(found, learnable=False)
    held = image_set(looked)
    checked = all_findings(found, looked, held, np.ones((len(held), 4), dtype=np.float32))
    assert len(of_kind(list(checked.findings), "unreadable")) == 2 - pictures
    assert of_kind(list(checked.findings), "too-few")

"""What a check found, as text and as a page: the gravest first, each finding with its images."""

from pathlib import Path

import pytest

from relish.data.dataset import Finding
from relish.reporting.check_page import findings_line, findings_text, write_check_page
from tests.reporting.conftest import plain
from tests.reporting.html_page import Page

HOSTILE = '<img src=x onerror="alert(1)">'


def finding(kind, severity, *paths, **more):
    return Finding(kind=kind, severity=severity, message=f"{kind} found.", advice="Look.", paths=paths, **more)


DOUBTED = finding("wrong-label", "warning", "a.png", given="cat", suggested="dog", confidence=0.999)
COPIES = finding("exact-duplicate", "error", "a.png", "b.png", across=("split",))
DARK = finding("dark", "note", "b.png", "c.png")


@pytest.fixture
def files(tmp_path) -> dict[str, Path]:
    """Two images, and a file that is none."""
    made = {name: tmp_path / name for name in ("a.png", "b.png", "broken.png")}
    for path in list(made.values())[:2]:
        plain("red").save(path)
    made["broken.png"].write_text("no image")
    return made


def page_of(tmp_path, files, findings, typical=()):
    path = tmp_path / "check.html"
    captions = {name: f"{name}, train" for name in files}
    write_check_page(path, findings, files, captions, {"dog": typical}, heading="Found", images=1234)
    return Page(path)


def test_a_kind_with_an_error_comes_first_in_text_and_page(tmp_path, files):
    text, page = findings_text([DARK, COPIES], 3, "pets", page=None), page_of(tmp_path, files, [DARK, COPIES])
    assert text.index("1 group of exact duplicates (1 across splits)") < text.index("2 dark pictures")
    assert page.words.index("1 group of exact duplicates") < page.words.index("2 dark pictures")


def test_only_a_finding_worse_than_a_note_makes_a_line():
    assert findings_line([DARK], "pets") == ("", False)
    assert findings_line([DOUBTED], "my pets") == (
        "check   1 label that looks wrong. Look with  relish check 'my pets'",
        False,
    )
    assert findings_line([DOUBTED, COPIES], "pets")[1] is True


def test_beside_a_doubtful_label_stand_images_of_what_it_looks_like(tmp_path, files):
    page = page_of(tmp_path, files, [DOUBTED], typical=("b.png",))
    assert [image["alt"] for image in page.all("img")] == ["a.png", "b.png"]
    assert "for comparison: b.png" in page.words
    assert "(>99% sure)" in page.words


def test_a_file_that_cannot_be_opened_is_named_and_not_shown(tmp_path, files):
    page = page_of(tmp_path, files, [finding("unreadable", "warning", "broken.png")])
    assert "cannot be shown broken.png" in page.words
    assert not page.all("img")


def test_a_large_finding_shows_some_of_its_images_and_counts_the_rest(tmp_path, files):
    page = page_of(tmp_path, files, [finding("exact-duplicate", "error", *["a.png"] * 2000)])
    assert len(page.all("img")) == 6
    assert "… and 1,994 more" in page.words


def test_a_check_without_findings_says_so_and_what_to_type_next(tmp_path, files):
    assert findings_text([], 1, "pets", page=None) == "1 picture looked at: nothing found.\n\nnext    relish fit pets"
    assert "1,234 pictures looked at" in page_of(tmp_path, files, []).words


def test_hostile_names_stay_words_and_nothing_is_loaded(tmp_path, files):
    page = page_of(tmp_path, {HOSTILE: files["a.png"]}, [finding("dark", "note", HOSTILE)])
    assert HOSTILE in page.text
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in page.all("img"))

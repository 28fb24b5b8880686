"""`X.id.md` tells in Indonesian what `X.md` tells: neither changes without the other.

Their commands run, and their links lead somewhere, as those of every document do (`test_docs.py`).
"""

import re
import runpy
from pathlib import Path

import pytest

from tests.test_docs import README, ROOT, TRANSLATIONS

FENCED = r"^(?:<!-- [^\n]* -->\n)?```.*?^```$"
PIECE = re.compile(rf"({FENCED}|^#+ |^<!-- [^\n]* -->$|\|)|(!?)\[[^\]]*\](\([^)]+\))", re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^#+ .*$", re.MULTILINE)


def below_the_link(text: str) -> str:
    """A page from below its link to the other language on."""
    return text.split("\n\n", 2)[2]


def pieces(text: str) -> list[str]:
    """What a translation leaves alone, in order: blocks, marks, depths of headings, cells, targets of links, which may
    be translated too."""
    found = ["".join(one.groups("")) for one in PIECE.finditer(below_the_link(text))]
    return [piece if piece.startswith(("<", "`")) else piece.replace(".id.md", ".md") for piece in found]


def figures_and_names(text: str) -> list[list[str]]:
    """For each section the numbers and `names` of its prose, sorted: sentences have another order elsewhere."""
    prose = re.sub(FENCED, "", below_the_link(text), flags=re.DOTALL | re.MULTILINE)
    without_targets = re.sub(r"\]\([^)]+\)", "]", prose)
    plain = re.sub(r"(?<=\d),(?=\d{3})", "", without_targets)  # 2,000 is written 2000 there
    return [sorted(re.findall(r"`[^`]+`|\d[\d.e-]*\d|\d", section)) for section in HEADING.split(plain)]


def words(part: str) -> list[str]:
    """The words that a translator has before them: neither `names` nor the targets of links."""
    return re.findall(r"[^\W\d_]{2,}", re.sub(r"`[^`]+`|\]\([^)]+\)", "", part))


def original(translated: Path) -> Path:
    return translated.with_name(translated.name.replace(".id.md", ".md"))


@pytest.fixture(scope="module", params=TRANSLATIONS, ids=lambda path: path.name)
def translated(request) -> Path:
    return request.param


@pytest.fixture(scope="module")
def english(translated) -> str:
    return original(translated).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def indonesian(translated) -> str:
    return translated.read_text(encoding="utf-8")


def test_each_language_links_to_the_other_under_the_title(translated, english, indonesian):
    assert re.match(rf"# .+\n\n\[Bahasa Indonesia\]\({translated.name}\)\n\n", english)
    assert re.match(rf"# .+\n\n\[English\]\({original(translated).name}\)\n\n", indonesian)


def test_blocks_headings_tables_links_and_pictures_are_the_same_in_the_same_order(english, indonesian):
    """Where only printed output differs, `python docs/make_images.py --translations` puts it there."""
    assert len(pieces(english)) > 4
    assert pieces(indonesian) == pieces(english)


def test_every_figure_and_name_stands_in_the_same_section(english, indonesian):
    assert any(figures_and_names(english))
    assert figures_and_names(indonesian) == figures_and_names(english)


def test_no_paragraph_is_left_out_and_none_is_left_in_english(translated, english, indonesian):
    """Stretches of words between blocks, headings, pictures, cells and empty lines have counterparts in other words."""
    apart = re.compile(rf"{FENCED}|^#+ |^<!-- [^\n]* -->$|\n\n|^![^\n]*$|\|", re.DOTALL | re.MULTILINE)
    texts = [below_the_link(text) for text in (english, indonesian)]
    told, said = ([part.strip() for part in apart.split(text) if part.strip()] for text in texts)
    own = int(original(translated) == README)  # the paragraph that says why commands and points of figures are English
    assert len(said) == len(told) + own
    assert {part for part in set(told) & set(said) if len(words(part)) > 3} == set()


PRINTED = "<!-- printed by docs/make_images.py -->\n```console\n$ relish {}\n```\n"


def test_the_translation_gets_the_printed_blocks_in_their_order_and_keeps_its_words(tmp_path):
    copy_blocks = runpy.run_path(str(ROOT / "docs" / "make_images.py"))["copy_blocks"]
    source, target = tmp_path / "source.md", tmp_path / "target.md"
    first, second = PRINTED.format("demo\n1 \\g<0> done"), PRINTED.format("show photos/")
    source.write_text(f"One\n{first}Two\n{second}", "utf-8")
    target.write_text(f"Satu\n{PRINTED.format('demo')}Dua\n{PRINTED.format('show')}Selesai\n", "utf-8")
    copy_blocks(source, target)
    assert target.read_text("utf-8") == f"Satu\n{first}Dua\n{second}Selesai\n"


def test_a_translation_that_lacks_a_block_is_left_as_it_is(tmp_path):
    copy_blocks = runpy.run_path(str(ROOT / "docs" / "make_images.py"))["copy_blocks"]
    source, target = tmp_path / "source.md", tmp_path / "target.md"
    source.write_text(PRINTED.format("demo") * 2, "utf-8")
    target.write_text(PRINTED.format("show"), "utf-8")
    with pytest.raises(SystemExit, match=r"target\.md has 1 printed blocks, source\.md 2: translate what is new first"):
        copy_blocks(source, target)
    assert target.read_text("utf-8") == PRINTED.format("show")

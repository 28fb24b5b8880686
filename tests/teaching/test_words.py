"""The page's words: in every language, with the same values, each used somewhere, none missing."""

import json
import re
from importlib.resources import files

import pytest

PAGE = files("relish.teaching") / "page"
LANGUAGES = ("en", "id")
CODE = {one.name: one.read_text(encoding="utf-8") for one in PAGE.iterdir() if one.name.endswith((".js", ".html"))}


def words(language: str) -> dict[str, str | dict[str, str]]:
    return json.loads((PAGE / f"{language}.json").read_text(encoding="utf-8"))


def forms(text: str | dict[str, str]) -> list[str]:
    return [text] if isinstance(text, str) else list(text.values())


def used() -> tuple[set[str], list[str]]:
    """Keys that the page names in full, and patterns of those it puts together."""
    marked = re.findall(r'data-t(?:-label|-placeholder)?="([^"]+)"', CODE["index.html"])
    calls = [call for text in CODE.values() for call in re.findall(r"\bt\(((?:[^()]|\([^()]*\))*)\)", text)]
    named = [key for call in calls for key in re.findall(r'"([a-z][\w.]+)"', call)]
    listed = [key for text in CODE.values() for key in re.findall(r'\["([a-z]+\.[a-z.]+)", \(\) =>', text)]
    built = [key for call in calls for key in re.findall(r"`([^`]+)`", call)]
    return {*marked, *named, *listed}, [re.sub(r"\\\$\\\{.*?\\\}", "[a-zA-Z_.]+", re.escape(key)) for key in built]


def test_every_language_has_every_text_with_the_same_values():
    english = words("en")
    for language in LANGUAGES:
        other = words(language)
        assert other.keys() == english.keys(), language
        for key, text in other.items():
            wanted = {value for form in forms(english[key]) for value in re.findall(r"\{(\w+)\}", form)}
            has = {value for form in forms(text) for value in re.findall(r"\{(\w+)\}", form)}
            assert has == wanted, (language, key)
            assert isinstance(text, str) or "other" in text, (language, key)
            assert all(form.strip() for form in forms(text)), (language, key)


def test_every_text_that_the_page_shows_is_there():
    named, built = used()
    known = words("en").keys()
    assert len(named) > 100
    # What else stands in a call of `t` are values: they have no dot, or are no key of ours.
    assert {key for key in named if "." in key} - known == set()
    assert [pattern for pattern in built if not any(re.fullmatch(pattern, key) for key in known)] == []


def test_no_text_is_left_that_the_page_does_not_show():
    named, built = used()
    assert [key for key in words("en") if key not in named and not any(re.fullmatch(one, key) for one in built)] == []


@pytest.mark.parametrize("name", sorted(CODE))
def test_what_comes_from_elsewhere_is_never_put_in_as_html(name):
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", CODE[name])
    assert not re.search(r"(?:src|href)=\"https?:|\bstyle=\"|\son\w+=\"", CODE[name])


def test_nothing_is_asked_of_another_host():
    addresses = {address for text in CODE.values() for address in re.findall(r"https?://[^\s\"'`)]+", text)}
    assert addresses <= {"http://www.w3.org/2000/svg"}

"""The shape of the package is measured as it is: every way to import, every circle, every limit."""

import re
from pathlib import Path

import pytest

import structure
from structure import Package, broken_limits, find_circles, read_package, reading_lengths, room_imports


@pytest.fixture(scope="module")
def relish_package() -> Package:
    return read_package()


def package_of(folder: Path, files: dict[str, str]) -> Package:
    """Write these files of a package `p`, and read it."""
    for name, text in files.items():
        path = folder / "p" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return read_package(folder / "p")


def long_enough(text: str = "") -> str:
    return text + "\n" * structure.SHORTEST


@pytest.mark.parametrize(
    ("words", "imported", "kind"),
    [
        ("import p.a.one", "p.a.one", "loading"),
        ("from p.a.one import name", "p.a.one", "loading"),
        ("from p.a import one", "p.a.one", "loading"),
        ("from p.a import name", "p.a", "loading"),
        ("from . import name", "p.b", "loading"),
        ("from .. import name", "p", "loading"),
        ("from ..a import one", "p.a.one", "loading"),
        ("from ..a.one import name", "p.a.one", "loading"),
        ("if True:\n    from p.a import one", "p.a.one", "loading"),
        ("class C:\n    from p.a import one", "p.a.one", "loading"),
        ("def f():\n    from p.a import one", "p.a.one", "late"),
        ("class C:\n    async def f(self):\n        import p.a.one", "p.a.one", "late"),
        ("if TYPE_CHECKING:\n    from p.a import one", "p.a.one", "typing"),
        ("if typing.TYPE_CHECKING:\n    pass\nelse:\n    from p.a import one", "p.a.one", "loading"),
    ],
)
def test_every_way_to_import_a_module_is_seen(tmp_path, words, imported, kind):
    files = {"__init__.py": "", "a/__init__.py": "", "a/one.py": "", "b/__init__.py": "", "b/two.py": words}
    assert package_of(tmp_path, files).imports == (("p.b.two", imported, kind),)


def test_imports_of_others_are_none_of_ours(tmp_path):
    package = package_of(tmp_path, {"__init__.py": "import os", "a.py": "from pp.b import c\nimport collections.abc"})
    assert package.imports == ()


def test_a_relative_import_in_an_init_starts_at_its_own_package(tmp_path):
    package = package_of(tmp_path, {"a/__init__.py": "from .one import name", "a/one.py": ""})
    assert package.imports == (("p.a", "p.a.one", "loading"),)


def test_an_import_inside_a_function_closes_a_circle(tmp_path):
    late = {"a.py": "import p.b", "b.py": "import p.c", "c.py": "def f():\n    import p.a", "d.py": "import p.a"}
    assert find_circles(package_of(tmp_path, late)) == [["p.a", "p.b", "p.c"]]


def test_an_import_for_typing_alone_closes_none(tmp_path):
    typing = {"a.py": "import p.b", "b.py": "if TYPE_CHECKING:\n    import p.a"}
    assert find_circles(package_of(tmp_path, typing)) == []


def test_a_circle_through_an_init_is_one(tmp_path):
    through = {"a/__init__.py": "from p.a.one import f", "a/one.py": "from p.b import g", "b.py": "from p.a import f"}
    assert find_circles(package_of(tmp_path, through)) == [["p.a", "p.a.one", "p.b"]]


def test_two_circles_are_two(tmp_path):
    files = {"a.py": "import p.b", "b.py": "import p.a\nimport p.c", "c.py": "import p.d", "d.py": "import p.c"}
    assert find_circles(package_of(tmp_path, files)) == [["p.a", "p.b"], ["p.c", "p.d"]]


def test_imports_between_rooms_are_counted_and_those_within_are_not(tmp_path):
    files = {
        "__init__.py": "import p.a.one",
        "a/one.py": "import p.a.two\nimport p.b.three\n",
        "a/two.py": "def f():\n    from p.b import three",
        "b/three.py": "",
    }
    assert room_imports(package_of(tmp_path, files)) == {("a", "b", "loading"): 1, ("a", "b", "late"): 1}


def test_a_package_within_every_limit_breaks_none(tmp_path, monkeypatch):
    files = {"__init__.py": "", "__main__.py": "", "cli/fit.py": "", "a/one.py": long_enough()}
    monkeypatch.setattr(structure, "MAY_BE_SHORT", ("p.__main__", "p.cli."))
    assert broken_limits(package_of(tmp_path, files)) == []


def test_each_broken_limit_is_a_sentence_that_names_the_module(tmp_path, monkeypatch):
    monkeypatch.setattr(structure, "MODULES_MAX", 3)
    monkeypatch.setattr(structure, "LINES_MAX", 100)
    monkeypatch.setattr(structure, "MAY_BE_SHORT", ("p.cli.", "p.registry"))
    monkeypatch.setattr(structure, "READINGS", {"book": (("loop", "steps"), 120), "auto": (("loop",), 60)})
    files = {
        "a/long.py": "\n" * 451,
        "a/short.py": "\n" * 59,
        "a/right.py": "\n" * 60,
        "a/longest.py": "\n" * 450,
        "cli/fit.py": "",
        "registry.py": "",
        "training/loop.py": "\n" * 60,
        "training/steps.py": "\n" * 61,
        "one.py": long_enough("import p.two"),
        "two.py": long_enough("import p.one"),
    }
    assert broken_limits(package_of(tmp_path, files), {"book": ["f"] * 6, "auto": ["f"] * 7}) == [
        "10 modules, at most 3.",
        "1,261 lines, at most 100.",
        "p.a.long has 451 lines, at most 450.",
        "p.a.short has 59 lines, at least 60.",
        "these import one another: p.one, p.two.",
        "recipe book takes reading 121 lines, at most 120.",
        "recipe auto takes 7 calls to a gradient step, at most 6.",
    ]


def test_the_rooms_of_the_contract_are_the_folders_of_the_package():
    ordered = sorted(room for layer in structure.room_order() for room in layer)
    assert ordered == sorted(path.parent.name for path in structure.PACKAGE.glob("*/__init__.py"))


def test_no_module_of_relish_is_in_an_import_circle(relish_package):
    assert find_circles(relish_package) == []


@pytest.mark.parametrize(("recipe", "files", "lines"), [("book", 3, 1000), ("auto", 8, 2000)])
def test_changing_a_recipe_takes_reading_a_few_files(relish_package, recipe, files, lines):
    names, _ = structure.READINGS[recipe]
    assert {f"relish.training.{name}" for name in names} <= relish_package.modules.keys()
    assert len(names) <= files
    assert reading_lengths(relish_package)[recipe] <= lines


def test_every_file_that_a_docstring_or_comment_names_is_there():
    """`x.py` lies beside the file that names it, or it is named from the package or from the checkout on."""
    named = [
        (path, name)
        for path in sorted(structure.PACKAGE.rglob("*.py"))
        for name in re.findall(r"`([\w/]+\.py)`", path.read_text(encoding="utf-8"))
    ]
    lost = [
        f"{path.relative_to(structure.PACKAGE)}: {name}"
        for path, name in named
        if not any((folder / name).is_file() for folder in (path.parent, structure.PACKAGE, structure.ROOT))
    ]
    assert lost == []


@pytest.mark.slow
def test_the_calls_down_to_a_step_are_read_from_a_real_training(tmp_path):
    calls = structure.frames_to_step(tmp_path)
    for recipe in ("book", "auto"):
        assert calls[recipe][0] == "tasks.fit.fit", recipe
        assert all(call.partition(".")[0] in ("tasks", "training") for call in calls[recipe]), recipe

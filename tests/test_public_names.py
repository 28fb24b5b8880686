"""Every public name of relish is what it is called, whatever of the package was imported before."""

import pkgutil

import pytest

import relish
from tests.processes import started

IMPORT_EVERYTHING = """
import importlib, pkgutil, relish
for module in pkgutil.walk_packages(relish.__path__, "relish."):
    if module.name != "relish.__main__":
        importlib.import_module(module.name)
not_callable = [name for name in relish.__all__ if not callable(getattr(relish, name))]
assert not not_callable, not_callable
for call in (
    lambda: relish.export("no-run", "model.onnx"), lambda: relish.report("no-run"), lambda: relish.serve("no-run"),
    lambda: relish.card("no-run"), lambda: relish.check("no-data"), lambda: relish.evaluate("no-run", "no-data"),
):
    try:
        call()
    except relish.RelishError as error:
        assert "no-run" in str(error) or "no-data" in str(error), error
    else:
        raise AssertionError("nothing was refused")
"""


def test_every_public_name_can_be_called_once_every_module_is_imported(tmp_path, monkeypatch):
    """Importing a module sets its name on the package that holds it: a room called `report` would hide the function."""
    monkeypatch.chdir(tmp_path)
    process = started(IMPORT_EVERYTHING)
    words = process.communicate()[1]
    assert process.returncode == 0, words


def test_no_room_bears_a_public_name():
    assert not {module.name for module in pkgutil.iter_modules(relish.__path__)} & set(relish.__all__)


COMMANDS = "card check compare convert decide demo evaluate export fit predict pretrain report serve show sources sweep"


@pytest.mark.parametrize("command", COMMANDS.split())
def test_a_command_is_a_function_of_the_same_name(command):
    assert getattr(relish, command).__name__ == command


def test_the_names_for_type_checkers_are_those_that_are_found():
    assert sorted({*relish._HOMES, "load"}) == sorted(relish.__all__)
    assert {getattr(relish, name).__module__ for name in ("report", "export")} == {
        "relish.tasks.report",
        "relish.tasks.export",
    }

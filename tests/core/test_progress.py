"""What a job says on its way: lines, warnings, bars."""

import io

import pytest
from rich.console import Console

from relish.core.progress import Screen, escaped_output

STEERING = "a\x1b]0;title\x07\u202eb[/red]"
SHOWN = "a\\x1b]0;title\\x07\\u202eb[/red]"


@pytest.fixture
def screen() -> tuple[Screen, io.StringIO]:
    page = io.StringIO()
    return Screen(Console(file=page, width=200, force_terminal=True, color_system=None, soft_wrap=True)), page


def test_names_in_lines_warnings_and_bars_do_nothing_to_the_terminal(screen):
    said, page = screen
    said.say(STEERING)
    said.warn(f"{STEERING}\nerror: not so")
    with said.bar(f"unpacking {STEERING}", 2) as bar:
        bar.advance(1, STEERING)
    printed = page.getvalue()
    assert f"{SHOWN}\n" in printed
    assert f"warning: {SHOWN}\\nerror: not so\n" in printed
    assert f"unpacking {SHOWN}" in printed
    assert not {"\x07", "\u202e", "\x1b]0;title"} & set(printed)
    assert "\x1b]" not in printed


def test_what_anyone_prints_while_a_command_runs_is_escaped(capsys):
    with escaped_output():
        print(STEERING)
    print("\x1b[1m")
    assert capsys.readouterr().out == f"{SHOWN}\n\x1b[1m\n"

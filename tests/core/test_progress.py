"""What a job says on its way: lines, warnings, bars."""

import io

import nbformat
import pytest
from nbclient import NotebookClient
from rich.console import Console

from relish.core.progress import SILENT, Screen, default_progress, escaped_output

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


NOTEBOOK = """
from relish.core.progress import default_progress

progress = default_progress()
progress.warn("one file is no picture")
for title in ("reading", "training <b>"):
    progress.say(f"line of {title}")
    with progress.bar(title, 200) as bar:
        for step in range(200):
            bar.advance(words=f"step {step}")
"""


@pytest.mark.slow
def test_a_notebook_has_one_live_bar_which_goes_and_keeps_its_warnings(tmp_path):
    """Each bar of a job takes the place of the one before; nothing is left of it but an empty place."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(NOTEBOOK)])
    received = []

    class Watched(NotebookClient):
        def output(self, outs, msg, *rest):
            received.append(msg)
            return super().output(outs, msg, *rest)

        def handle_comm_msg(self, *given):
            raise AssertionError("widgets are not installed everywhere")

        def _update_display_id(self, display_id, msg):
            received.append(msg)
            super()._update_display_id(display_id, msg)

    Watched(notebook, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    warned, bar = notebook.cells[0].outputs
    assert warned.text == "warning: one file is no picture\n"
    assert bar.data == {"text/plain": "", "text/html": ""}
    drawn = [msg["content"]["data"]["text/html"] for msg in received if "data" in msg["content"]]
    assert '<progress value="200" max="200"></progress> reading 200/200 step 199<div>line of reading</div>' in drawn
    assert any("training &lt;b&gt; 200/200" in one for one in drawn)
    assert len(drawn) < 100, "a message a step would be slower than the steps"


def test_python_without_a_notebook_shows_nothing():
    assert default_progress() is SILENT

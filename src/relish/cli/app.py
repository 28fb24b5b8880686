"""The `relish` command: gathers the commands, and turns every error into words and an exit code."""

import sys

import typer
from rich.console import Console

from relish.cli import compare, demo, evaluate, fit, models, predict, pretrain, show, sweep
from relish.core.errors import RelishError

app = typer.Typer(
    name="relish",
    help="From a folder of labelled pictures and a pretrained model to a classifier you can trust.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for module in (demo, show, fit, evaluate, predict, compare, sweep, models, pretrain):
    module.register(app)


def main() -> None:
    """Run one command; exit code 0 when done, 1 when it failed, 2 for bad input, 130 when stopped."""
    try:
        app()
    except RelishError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"error: {error}", markup=False, style="red")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("stopped.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(1)

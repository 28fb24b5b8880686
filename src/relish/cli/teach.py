"""`relish teach [FOLDER]`: make a classifier on a page in the browser."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from relish.cli import options as o


@o.app.command(
    short_help="Make a classifier on a page in the browser, without typing.",
    epilog="example:  relish teach pets --open",
)
def teach(
    folder: Annotated[Path, Argument(help="Folder of class folders; made if it is not there.")] = Path("pictures"),
    source: o.Source = None,
    weights: o.Weights = None,
    host: Annotated[str, Option(help="Where to listen; any but this computer needs a token.")] = "127.0.0.1",
    port: Annotated[int, Option(help="0 takes a free one.", min=0, max=65535)] = 8008,
    token_file: Annotated[
        Path | None, Option(help="File that holds the token.", show_default="RELISH_TOKEN, if it is set")
    ] = None,
    open_page: Annotated[bool, Option("--open", help="Open the page in the browser.")] = False,
    device: o.Device = "auto",
) -> None:
    """Serve a page to sort pictures into classes on, and to see at once how well they are told apart.

    The folder is an ordinary one: what the page does is there for relish fit, and what you do there is on the page.
    """
    given = o.arguments(locals())
    from relish.teaching.serving import teach as run

    run(**given)

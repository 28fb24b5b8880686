"""`teach`: serve the page of a folder until SIGTERM or Ctrl-C.

The packages of the extra `serve` are imported inside, so that a missing one is told in words.
"""

import webbrowser
from pathlib import Path
from urllib.parse import quote

from relish.core.errors import Failed
from relish.core.progress import Progress
from relish.tasks.serve import read_token


def teach(
    folder: str | Path,
    source: str | None = None,
    port: int = 8008,
    *,
    host: str = "127.0.0.1",
    token_file: str | Path | None = None,
    weights: str | Path | None = None,
    open_page: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
) -> None:
    """Serve the page of a folder until SIGTERM or Ctrl-C.

    Args:
        folder: of class folders; made if absent.
        source, weights: the source model, as `fit` takes it.
        host, port: where to listen; any host but this computer needs a token. Port 0 takes a free one.
        token_file: holds the token; None takes RELISH_TOKEN, if it is set.
        open_page: open it in the browser.
        device: "auto", "cpu", "cuda" or "mps".

    Raises:
        BadInput: the folder cannot be opened, the port is taken, or the token is missing or too short.
        ModelError: the source model cannot be loaded.
        Failed: a package of the extra `serve` is not installed.
    """
    progress = progress or Progress()
    try:
        from relish.server.middleware import valid_token
        from relish.server.server import run
        from relish.teaching.app import LIMITS, create_app
        from relish.teaching.session import Session
    except ImportError as error:
        raise Failed(f"{error.name} is not installed.", hint="pip install 'relish-vision[serve]'") from error
    entry = valid_token(read_token(token_file), host)
    session = Session(Path(folder), source, weights, device, progress)

    def ready(address: str) -> None:
        page = f"{address}/" if entry is None else f"{address}/?token={quote(entry)}"
        progress.say(f"page    {page}")
        progress.say(f"folder  {session.library.folder}")
        progress.say("end     Ctrl-C")
        if open_page:
            webbrowser.open(page)

    try:
        run(create_app(session, entry=entry), host, port, LIMITS, ready)
    finally:
        session.close()

"""`serve`: put a model behind HTTP.

In:   a run folder, a saved model or an exported file; where to listen; the token.
Out:  a server that runs until it is asked to end.

An exported file is served without torch, which is imported for the others alone.
"""

import os
from pathlib import Path

from relish.core.errors import BadInput, Failed
from relish.core.progress import Progress
from relish.exporting.onnx_classifier import SUFFIX
from relish.server.batching import Model
from relish.server.limits import Limits
from relish.tasks.predict import refuse_choice

TOKEN_VARIABLE = "RELISH_TOKEN"  # noqa: S105 - its name
LONGEST_TOKEN = 4096
"""Bytes of a token file that are read."""


def serve(
    model: str | Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    token_file: str | Path | None = None,
    limits: Limits | None = None,
    *,
    threads: int | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> None:
    """Serve a model until SIGTERM or Ctrl-C.

    Args:
        model: a run folder, a `.safetensors` file of one, or an exported `.onnx` file.
        host, port: where to listen; any host but this computer needs a token. Port 0 takes a free one.
        token_file: holds the token; otherwise RELISH_TOKEN does, if it is set.
        threads: of the processor for one batch; None takes all.
        device: as `Classifier.load` takes it; an exported file runs on the processor.

    Raises:
        BadInput: the token is missing or too short, it cannot be listened there, or an exported file is to run on
            another device.
        RunError, ModelError: the model cannot be loaded.
        Failed: what serves is not installed.
    """
    voice, bounds = progress or Progress(), limits or Limits()
    try:
        from relish.server.app import create_app
        from relish.server.middleware import checked_token
        from relish.server.server import run
    except ImportError as error:
        raise Failed(f"{error.name} is not installed.", hint="pip install 'relish-vision[serve]'") from error
    token = checked_token(_token(token_file), host)
    served = served_model(Path(model), threads=threads, device=device)
    app = create_app(served, bounds, token)

    def ready(address: str) -> None:
        asks = "asks for the token" if token else "answers this computer alone"
        voice.say(f"serving {served.name}: {len(served.classes)} classes; {asks}")
        voice.say(f"page    {address}/")
        voice.say(f"ask     curl -F files=@PICTURE {address}/predict   (more: {address}/docs)")
        voice.say("end     Ctrl-C")

    run(app, host, port, bounds, ready)


def served_model(path: Path, *, threads: int | None = None, device: str = "auto") -> Model:
    """What a path holds, ready to answer."""
    if path.suffix == SUFFIX:
        from relish.server.batching import ServedFile

        refuse_choice(path, device)
        return ServedFile(path, threads or 0)
    from relish.tasks.served import load_served

    return load_served(path, threads=threads, device=device)


def _token(file: str | Path | None) -> str | None:
    if file is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    try:
        with Path(file).open("rb") as opened:
            return opened.read(LONGEST_TOKEN).decode()
    except OSError as error:
        raise BadInput(f"--token-file {file}: cannot be read ({error.strerror}).", hint="Name a file.") from None
    except UnicodeDecodeError:
        raise BadInput(f"--token-file {file}: not text.", hint="openssl rand -hex 16 > FILE") from None

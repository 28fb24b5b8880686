"""`relish serve MODEL`: a model behind HTTP, with a page to try it."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from relish.cli import options as o
from relish.server.limits import Limits


@o.app.command(
    short_help="Answer over HTTP, with a page to try the model.",
    epilog="example:  relish serve runs/photos-auto-1",
)
def serve(
    model: Annotated[Path, Argument(metavar="MODEL", help="Run folder, model.safetensors or exported model.onnx.")],
    host: Annotated[str, Option(help="Where to listen; any but this computer needs a token.")] = "127.0.0.1",
    port: Annotated[int, Option(help="0 takes a free one.", min=0, max=65535)] = 8000,
    token_file: Annotated[
        Path | None, Option(help="File that holds the token.", show_default="RELISH_TOKEN, if it is set")
    ] = None,
    root_path: Annotated[str, Option(help="Prefix of its address behind a proxy, such as /relish.")] = "",
    max_megabytes: Annotated[float, Option(help="Of one request.", min=0.001)] = round(Limits.body_bytes / 1e6),
    max_megapixels: Annotated[float, Option(help="Of one picture.", min=0.001, max=120)] = round(Limits.pixels / 1e6),
    max_pictures: Annotated[int, Option(help="In one request.", min=1)] = Limits.files,
    max_requests: Annotated[int, Option(help="Under way at once.", min=1)] = Limits.requests,
    batch: Annotated[int, Option(help="Pictures answered together, at most.", min=1)] = Limits.batch,
    threads: Annotated[int | None, Option(help="Of the processor, for one batch.", show_default="all", min=1)] = None,
    device: o.Device = "auto",
) -> None:
    """Answer over HTTP: POST /predict takes pictures, / is a page to try the model, /docs says the rest.

    A run folder is served by PyTorch, and its page shows where the model looks. An exported file is served by ONNX
    Runtime alone. The log is one line of JSON a request, on standard error.
    """
    from relish.tasks.serve import serve as run

    limits = Limits(
        body_bytes=round(max_megabytes * 1e6),
        held_bytes=max(Limits.held_bytes, round(2e6 * max_megabytes)),
        pixels=round(max_megapixels * 1e6),
        files=max_pictures,
        requests=max_requests,
        batch=batch,
    )
    progress = o.voice()
    run(model, host, port, token_file, limits, root_path=root_path, threads=threads, device=device, progress=progress)

"""The one folder where relish keeps what it downloads and remembers: `RELISH_HOME`, else `~/.cache/relish`."""

import os
from pathlib import Path


def relish_home() -> Path:
    """The cache folder; it may not exist yet."""
    named = os.environ.get("RELISH_HOME")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "relish"

"""The datasets that go by a name instead of a path.

In:   nothing; a table.
Out:  `REGISTERED`: for each name its address, its checksum, and where both come from.
Not here: downloading (`download.py`), or anything about what the pictures show.

A checksum stands beside each address, so that a name means the same pictures on every computer, for good.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Registered:
    """One dataset on the web."""

    address: str
    """Of an archive."""
    sha1: str | None = None
    """40 hexadecimal digits; needed where `sha256` is not known."""
    sha256: str | None = None
    """64 hexadecimal digits."""
    origin: str
    """Who published it, and where it is described."""


REGISTERED = {
    "hotdog": Registered(
        address="http://d2l-data.s3-accelerate.amazonaws.com/hotdog.zip",
        sha1="fba480ffa8aa7e0febbb511d181409f899b9baa5",
        origin="Dive into Deep Learning, section 14.2, Fine-Tuning",
    ),
}
"""By the name a user types."""

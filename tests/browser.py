"""A real Chromium, headless, that notes what a page complains of and whom it asks."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

HANG = 120_000
"""Milliseconds after which what a page waits for does not come any more."""


@dataclass
class Watched:
    """A page under watch."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)
    """Schemes and hosts of every request."""


def complaint(said: Any) -> str:
    """What the console says, and of which address."""
    return f"{said.text} {said.location.get('url', '')}"


@contextmanager
def watched_page(address: str, flags: Sequence[str] = (), **context: Any) -> Iterator[Watched]:
    """Open an address in a Chromium with these flags; skips where there is no Chromium."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", *flags], timeout=HANG)
        try:
            page = browser.new_context(**context).new_page()
            page.set_default_timeout(HANG)
            watched = Watched(page)
            page.on(
                "console", lambda said: watched.complaints.append(complaint(said)) if said.type == "error" else None
            )
            page.on("pageerror", lambda error: watched.complaints.append(str(error)))
            page.on("request", lambda request: watched.asked.add("/".join(request.url.split("/")[:3])))
            page.goto(address)
            yield watched
        finally:
            browser.close()

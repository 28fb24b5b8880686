"""The documentation site, as `make site` builds it, hangs together, asks nobody else, and everyone can use it."""

import functools
import http.server
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import relish
from tests.browser import watched_page

ROOT = Path(__file__).resolve().parents[1]
BUILDS = {"mkdocs.yml": "", "mkdocs.id.yml": "id"}
"""Each configuration, and where in the site it is built to."""

RESOURCES = {"script": "src", "img": "src", "source": "src", "iframe": "src", "link": "href"}
"""What a browser fetches by itself: tags and the attribute with the address."""


class Page(HTMLParser):
    """What a page links to, what it fetches, and the places in it that a link may lead to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.resources: list[str] = []
        self.anchors: set[str] = set()
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.anchors.update(name for name in (named.get("id"), named.get("name")) if name)
        if tag == "a" and named.get("href"):
            self.links.append(str(named["href"]))
        if named.get(RESOURCES.get(tag, "")):
            self.resources.append(str(named[RESOURCES[tag]]))


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site of both languages; whoever asked the network for something would find none."""
    for package in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(package, reason="needs the extra docs: make setup-docs")
    out = tmp_path_factory.mktemp("site")
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9")
    for configuration, place in BUILDS.items():
        command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", configuration, "-d", str(out / place)]
        environment = {**os.environ, **nowhere, "NO_MKDOCS_2_WARNING": "1"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, Page]:
    found = {path: Page(path) for path in sorted(site.rglob("*.html")) if path.name != "404.html"}
    assert len(found) > 40
    return found


@pytest.mark.slow
def test_every_link_of_every_page_leads_to_a_place_of_the_site(pages):
    """Also those from one language to the other, which MkDocs does not look at."""
    broken = []
    for path, page in pages.items():
        for link in (*page.links, *page.resources):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchors = pages[target].anchors if target in pages else set()
            if not target.is_file() or (parts.fragment and unquote(parts.fragment) not in anchors):
                broken.append(f"{path.name}: {link}")
    assert broken == []


@pytest.mark.slow
def test_no_page_and_no_style_fetches_anything_from_elsewhere(site, pages):
    assert [one for page in pages.values() for one in page.resources if urlsplit(one).netloc] == []
    styles = [path.read_text(encoding="utf-8") for path in site.rglob("*.css")]
    assert styles
    for words in ("url(http", "url('http", 'url("http', "url(//", "@import"):
        assert not any(words in style for style in styles), words


@pytest.mark.slow
def test_every_public_name_is_in_the_reference(site, pages):
    assert {f"relish.{name}" for name in relish.__all__} <= pages[site / "api.html"].anchors


@pytest.mark.slow
def test_a_page_without_translation_says_so(site, pages):
    for path in site.joinpath("id").rglob("*.html"):
        if path.name == "404.html":
            continue
        place = path.relative_to(site / "id")
        english = ROOT / {"tour.html": "README.md"}.get(str(place), f"docs/{place.with_suffix('.md')}")
        translated = english.with_suffix(".id.md").is_file()
        assert ('class="untranslated"' in pages[path].text) != translated, place
        assert ("Bahasa Indonesia (belum ada)" in pages[site / place].text) != translated, place


def test_both_languages_list_the_same_pages_in_the_same_order():
    texts = [(ROOT / name).read_text(encoding="utf-8").partition("\nnav:\n")[2] for name in BUILDS]
    english, indonesian = (re.findall(r": (\S+\.md)$", text, re.MULTILINE) for text in texts)
    assert len(english) > 20
    assert indonesian == english


# ---- in a browser ---------------------------------------------------------------------------------------------------


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *said: object) -> None:
        pass


@pytest.fixture(scope="module")
def served(site) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.slow
@pytest.mark.parametrize("look", ["light", "dark", "phone"])
@pytest.mark.parametrize("place", ["index.html", "tasks/precision.html", "api.html", "id/tour.html"])
def test_a_page_fits_the_screen_asks_nobody_else_and_axe_finds_nothing_serious(served, place, look):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs the package axe-playwright-python")
    context = {
        "viewport": {"width": 390 if look == "phone" else 1440, "height": 900},
        "color_scheme": "dark" if look == "dark" else "light",
    }
    with watched_page(f"{served}/{place}", **context) as watched:
        watched.page.wait_for_load_state("networkidle")
        assert watched.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        found = axe.Axe().run(watched.page).response
        assert found["testEngine"]["name"] == "axe-core"
        assert [one["id"] for one in found["violations"] if one["impact"] in ("serious", "critical")] == []
    assert watched.complaints == []
    assert watched.asked == {served}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "words", "found"),
    [("index.html", "unlike anything it learned from", "evaluating.html"), ("id/index.html", "tangga", "tour.html")],
)
def test_the_search_finds_a_section_without_another_host(served, start, words, found):
    with watched_page(f"{served}/{start}") as watched:
        watched.page.wait_for_load_state("networkidle")
        watched.page.locator("[data-md-component=search-query]").press_sequentially(words)
        watched.page.wait_for_selector(f".md-search-result__item a[href*='{found}']")
        assert watched.asked == {served}


@pytest.mark.slow
def test_light_and_dark_are_switched_by_hand(served):
    with watched_page(f"{served}/index.html", color_scheme="light") as watched:
        scheme = watched.page.locator("body")
        seen = []
        for _ in range(3):
            watched.page.locator("label.md-header__button[for^=__palette]:visible").click()
            seen.append(scheme.get_attribute("data-md-color-scheme"))
        assert {"default", "slate"} <= set(seen)

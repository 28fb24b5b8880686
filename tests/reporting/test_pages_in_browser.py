"""The report in a real browser: nothing is fetched, everything is drawn, and everyone can use it."""

import shutil
from collections.abc import Iterator

import pytest

import relish
from tests.conftest import draw_dataset
from tests.run_folders import checked, enriched, fitted, grouped, rival, swept

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def report(tmp_path_factory, tiny_source):
    """The page of a run with everything a report can show, long names of classes included."""
    root = tmp_path_factory.mktemp("browser")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RELISH_HOME", str(root / "home"))
        data = draw_dataset(root / "colours")
        for part in ("train", "test"):
            (data / part / "red").rename(data / part / "a-red-that-has-a-very-long-name-without-any-space-in-it-at-all")
        mine = enriched(fitted(data, tiny_source, root / "runs" / "mine"))
        checked(mine)
        rival(mine, "better", wrong=0)
        return relish.report(swept(grouped(mine)))


@pytest.fixture(scope="module")
def browser() -> Iterator:
    if CHROMIUM is None:
        pytest.skip("needs Chromium on the path, to open the page in")
    sync = pytest.importorskip("playwright.sync_api", reason="needs the package playwright, to drive Chromium")
    with sync.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(params=["light", "dark", "phone"])
def page(browser, report, request) -> Iterator:
    """The page, with `heard`: what its console said, and which addresses it asked for."""
    context = browser.new_context(
        viewport={"width": 390 if request.param == "phone" else 1200, "height": 800},
        color_scheme="dark" if request.param == "dark" else "light",
    )
    opened = context.new_page()
    opened.heard = []
    opened.on("console", lambda message: opened.heard.append(message.text))
    opened.on("pageerror", lambda error: opened.heard.append(str(error)))
    opened.on("request", lambda asked: opened.heard.append(asked.url))
    opened.goto(report.as_uri())
    yield opened
    context.close()


def test_nothing_is_asked_for_but_the_page_and_nothing_goes_wrong(page, report):
    page.locator("a[href='#cell-0-1']").click()
    page.wait_for_load_state("networkidle")
    assert [what for what in page.heard if not what.startswith("data:")] == [report.as_uri()]


def test_every_chart_has_marks_inside_its_frame(page):
    charts = page.locator("figure.chart > svg")
    assert charts.count() == 4
    for place in range(charts.count()):
        frame, marks = charts.nth(place).bounding_box(), charts.nth(place).locator(".mark")
        assert marks.count() >= 2
        for mark in range(marks.count()):
            box = marks.nth(mark).bounding_box()
            assert box["width"] + box["height"] > 0
            assert frame["x"] <= box["x"] <= box["x"] + box["width"] <= frame["x"] + frame["width"]
            assert frame["y"] <= box["y"] <= box["y"] + box["height"] <= frame["y"] + frame["height"]


def test_every_picture_is_drawn(page):
    page.locator("a[href='#cell-0-0']").click()
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert page.locator("#cell-0-0 img").first.bounding_box()["width"] > 20


def test_a_number_of_the_confusion_opens_its_pictures_by_click(page):
    panel = page.locator("#cell-0-1")
    assert not panel.is_visible()
    page.locator("a[href='#cell-0-1']").click()
    assert panel.is_visible()
    assert panel.locator("img").count() == 3
    page.locator("a[href='#cell-0-0']").click()
    assert not panel.is_visible()


def test_a_number_of_the_confusion_opens_its_pictures_by_keyboard(page):
    link = page.locator("a[href='#cell-0-1']")
    for _ in range(80):
        page.keyboard.press("Tab")
        if link.evaluate("one => one === document.activeElement"):
            break
    page.keyboard.press("Enter")
    assert page.locator("#cell-0-1").is_visible()
    page.keyboard.press("Tab")  # the reader goes on from the pictures, not from the table
    assert page.evaluate("document.querySelector('#cell-0-1').contains(document.activeElement)")


def test_nothing_is_wider_than_the_screen(page):
    for panel in (None, "a[href='#cell-0-1']"):
        if panel:
            page.locator(panel).click()
        page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_axe_finds_nothing_serious(page):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs the package axe-playwright-python")
    page.locator("a[href='#cell-0-1']").click()
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    found = axe.Axe().run(page).response
    assert found["testEngine"]["name"] == "axe-core"
    grave = [rule for rule in found["violations"] if rule["impact"] in ("serious", "critical")]
    assert [(rule["id"], [node["html"][:120] for node in rule["nodes"][:3]]) for rule in grave] == []


def test_light_and_dark_are_what_was_asked_for(page):
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert ground == ("rgb(22, 22, 21)" if dark else "rgb(246, 246, 243)")

"""The page of `relish serve` in a real Chromium: what people see, hear and can do with it."""

import base64
import re

import pytest

from relish.evaluation.prediction import Decision
from relish.server.limits import Limits
from tests.browser import watched_page
from tests.serving import BLUE, GREY, RED, Explaining, Tones, png, serving

pytestmark = pytest.mark.slow

LIMITS = Limits(body_bytes=500_000, pixels=100_000)
PHONE = {"width": 390, "height": 844}


def named(name: str, content: bytes, kind: str = "image/png") -> dict[str, object]:
    """A file as a person chooses it."""
    return {"name": name, "mimeType": kind, "buffer": content}


DROP = """([name, content, event]) => {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], name));
  const made = event === "drop"
    ? new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true })
    : new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true });
  document.getElementById("drop").dispatchEvent(made);
}"""


def give(page, name: str, content: bytes, event: str) -> None:
    page.evaluate(DROP, [name, base64.b64encode(content).decode(), event])


def said(page, words: str) -> None:
    """Wait until the page has told it where a screen reader hears it."""
    page.locator("#said").filter(has_text=re.compile(words)).wait_for()


def complained(page) -> str:
    page.locator("#problem:visible").wait_for()
    return page.locator("#problem").inner_text()


def test_a_picture_that_is_dropped_pasted_or_chosen_gets_its_class():
    with serving(Tones(), LIMITS) as client, watched_page(str(client.base_url)) as seen:
        page = seen.page
        assert "blue, red" in page.locator("#about").filter(has_text="knows").inner_text()
        give(page, "dropped.png", RED, "drop")
        said(page, "^dropped.png: red, 9")
        assert page.locator("#class").inner_text() == "red"
        bars = page.locator("#bars li")
        assert [row.split()[0] for row in bars.all_inner_texts()] == ["red", "blue"]
        widths = [bar.bounding_box()["width"] for bar in page.locator("#bars i").all()]
        assert widths[0] > 5 * widths[1]
        give(page, "pasted.png", BLUE, "paste")
        said(page, "^pasted.png: blue, 9")
        page.locator("#file").set_input_files([named("grey.png", GREY)])
        said(page, "^grey.png: .*unsure")
        assert page.locator("#unsure").is_visible()
        assert page.locator("#why").is_hidden()
        assert seen.complaints == []
        own = str(client.base_url).rstrip("/")
        assert {address.removeprefix("blob:") for address in seen.asked if not address.startswith("data:")} == {own}


def test_what_is_unlike_anything_it_learned_from_is_said_in_words_beside_the_bars():
    model = Tones(decision=Decision(unknown_above=0.8))
    with serving(model, LIMITS) as client, watched_page(str(client.base_url)) as seen:
        page = seen.page
        page.locator("#about").filter(has_text="knows").wait_for()
        page.locator("#file").set_input_files([named("white.png", png((250, 250, 255)))])
        said(page, "^white.png: blue, .* It is unlike anything the model learned from")
        assert "Unlike anything it learned from" in page.locator("#unknown:visible").inner_text()
        assert page.locator("#bars li").count() == 2
        page.locator("#file").set_input_files([named("red.png", RED)])
        said(page, "^red.png: red")
        assert page.locator("#unknown").is_hidden()
        assert "unlike what it learned" in page.locator("#history").inner_text()
        assert seen.complaints == []


def test_what_is_no_picture_or_too_large_is_told_in_words():
    with serving(Tones(), LIMITS) as client, watched_page(str(client.base_url)) as seen:
        page = seen.page
        page.locator("#about").filter(has_text="knows").wait_for()
        give(page, "notes.txt", b"mustard, buns", "drop")
        assert "notes.txt: not a picture: text file." in complained(page)
        page.locator("#file").set_input_files([named("huge.jpg", bytes(600_000))])
        page.locator("#problem").filter(has_text="huge.jpg has 0.6 MB; the server takes 0.5 MB").wait_for()
        page.locator("#file").set_input_files([named("wide.png", png(size=(1000, 900)))])
        page.locator("#problem").filter(has_text="1,000 x 900 pixels; the limit is 0.1 million").wait_for()
        assert page.locator("#answer").is_hidden()
        page.locator("#file").set_input_files([named("red.png", RED)])
        said(page, "red.png: red")
        assert page.locator("#problem").is_hidden()


def test_a_server_that_is_gone_is_told_in_words():
    with serving(Tones(), LIMITS) as client, watched_page(str(client.base_url)) as seen:
        seen.page.locator("#about").filter(has_text="knows").wait_for()
        seen.page.route("**/predict", lambda route: route.abort())
        give(seen.page, "red.png", RED, "drop")
        assert "server does not answer" in complained(seen.page)


def test_the_history_shows_an_earlier_answer_again_and_forgets_all_when_asked():
    with serving(Tones(), LIMITS) as client, watched_page(str(client.base_url)) as seen:
        page = seen.page
        for name, content, answer in (("one.png", RED, "red"), ("two.png", BLUE, "blue")):
            give(page, name, content, "drop")
            said(page, f"{name}: {answer}")
        earlier = page.locator("#history button")
        earlier.nth(1).wait_for()
        earlier.filter(has_text="one.png").focus()
        page.keyboard.press("Enter")
        said(page, "one.png: red")
        assert page.locator("#class").inner_text() == "red"
        page.get_by_role("button", name="Forget them").click()
        assert page.locator("#before").is_hidden()
        assert page.locator("#answer").is_hidden()


def test_the_overlay_is_shown_and_hidden_where_the_model_explains():
    with serving(Explaining(), LIMITS) as client, watched_page(str(client.base_url)) as seen:
        page = seen.page
        give(page, "red.png", RED, "drop")
        said(page, "red.png: red")
        page.get_by_role("button", name="Show where it looks").click()
        said(page, "Lit up: what speaks for red")
        assert page.locator("#picture").get_attribute("src").startswith("data:image/png;base64,")
        assert page.locator("#picture").evaluate("picture => picture.decode().then(() => picture.naturalWidth)") == 32
        page.get_by_role("button", name="Show where it looks").click()
        assert page.locator("#picture").get_attribute("src").startswith("blob:")
        assert seen.complaints == []


def test_a_server_with_a_token_asks_for_it_and_then_answers():
    token = "a-token-for-this-test"  # noqa: S105
    with serving(Tones(), LIMITS, token) as client, watched_page(str(client.base_url)) as seen:
        page = seen.page
        page.locator("#token").wait_for()
        page.locator("#token").fill("the wrong one")
        page.keyboard.press("Enter")
        page.locator("#problem").filter(has_text="not the right one").wait_for()
        page.locator("#token").fill(token)
        page.keyboard.press("Enter")
        page.locator("#about").filter(has_text="knows").wait_for()
        assert page.locator("#key").is_hidden()
        give(page, "red.png", RED, "drop")
        said(page, "red.png: red")
        assert page.evaluate("Object.keys({...localStorage, ...sessionStorage}).length + document.cookie.length") == 0


def test_the_whole_way_works_by_keyboard():
    with serving(Tones(), LIMITS) as client, watched_page(str(client.base_url)) as seen:
        page = seen.page
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "file"
        outline = page.locator("#drop").evaluate("drop => getComputedStyle(drop).outlineStyle")
        assert outline == "solid"
        with page.expect_file_chooser() as chooser:
            page.keyboard.press("Space")
        chooser.value.set_files([named("red.png", RED)])
        said(page, "red.png: red")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, {"width": 1100, "height": 900}], ids=["phone", "desk"])
def test_axe_finds_nothing_serious_and_nothing_is_cut_off(scheme, size):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    with (
        serving(Explaining(), LIMITS) as client,
        watched_page(str(client.base_url), color_scheme=scheme, viewport=size, bypass_csp=True) as seen,
    ):
        page = seen.page
        pages = {"/": "the page", "/docs": "the description"}
        for name, content in (("a" * 120 + ".png", RED), ("grey.png", GREY)):
            give(page, name, content, "drop")
            said(page, f"{name}: ")
        give(page, "notes.txt", b"words", "drop")
        complained(page)
        for path in pages:
            if path != "/":
                page.goto(f"{str(client.base_url).rstrip('/')}{path}")
            found = [
                one for one in axe.Axe().run(page).response["violations"] if one["impact"] in ("serious", "critical")
            ]
            assert found == [], path
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path

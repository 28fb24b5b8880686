"""The page of `relish teach` in a real Chromium, on a stand-in for its server: what people see and can do with it."""

import base64
import re

import pytest

from tests.browser import watched_page
from tests.teaching.fake import BLUE, RED, FakeFolder, drawn, teaching, two_classes

pytestmark = pytest.mark.slow

PHONE = {"width": 390, "height": 844}
DESK = {"width": 1440, "height": 900}
CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")

GIVE = """([selector, files, event]) => {
  const data = new DataTransfer();
  for (const [name, content] of files)
    data.items.add(new File([Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0))], name));
  const made = event === "drop"
    ? new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true })
    : new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true });
  document.querySelector(selector).dispatchEvent(made);
}"""


def give(page, selector: str, files: dict[str, bytes], event: str = "drop") -> None:
    """Drop or paste these files there."""
    encoded = [[name, base64.b64encode(content).decode()] for name, content in files.items()]
    page.evaluate(GIVE, [selector, encoded, event])


def column(name: str) -> str:
    return f'.column[aria-label="{name}"]'


def said(page, words: str) -> None:
    """Wait until the page has told it where a screen reader hears it."""
    page.locator("#said").filter(has_text=re.compile(words)).wait_for()


def counted(page, name: str, count: int) -> None:
    page.locator(f"{column(name)} .count").filter(has_text=re.compile(f"^{count}$")).wait_for()


def test_from_nothing_to_a_model_by_what_the_page_says():
    with teaching() as (address, folder), watched_page(address, viewport=DESK) as seen:
        page = seen.page
        page.get_by_text("Show relish what you want to tell apart").wait_for()
        page.locator("#verdict").filter(has_text="Make two classes").wait_for()
        for name in ("cat", "dog"):
            page.locator("#create-name").fill(name)
            page.keyboard.press("Enter")
            page.locator(column(name)).wait_for()
        page.locator("#verdict").filter(has_text="“cat” needs 3 more images").wait_for()
        give(page, column("cat"), {f"cat{i}.png": drawn(RED, i) for i in range(20)} | {"notes.txt": b"buns"})
        said(page, "20 images added. 1 file could not be used.")
        assert "notes.txt: not a picture" in page.locator("#intake-report").inner_text()
        counted(page, "cat", 20)
        give(page, column("dog"), {f"dog{i}.png": drawn(BLUE, 100 + i) for i in range(20)})
        counted(page, "dog", 20)
        page.locator("#verdict").filter(has_text="Right on all 40 images it had not seen").wait_for()
        page.locator("#final-box summary").click()
        page.get_by_role("button", name="Show the final figure").click()
        page.locator("#final").filter(has_text="Right on 9 of 10").wait_for()
        sent = folder.posts.count("/api/upload")
        give(page, column("dog"), {f"dog{i}.png": drawn(BLUE, 100 + i) for i in range(20)})
        said(page, "20 were there already")
        assert folder.posts.count("/api/upload") == sent
        assert seen.complaints == []
        own = address.rstrip("/")
        assert {one.removeprefix("blob:") for one in seen.asked if not one.startswith("data:")} == {own}


def test_a_wrong_label_is_moved_by_one_key_and_comes_back_by_undo():
    with teaching(two_classes()) as (address, folder), watched_page(address, viewport=DESK) as seen:
        page = seen.page
        page.locator("#card-words").filter(has_text="It lies in “dog”, but looks like “cat” (97%)").wait_for()
        page.locator("#next").focus()
        page.keyboard.press("m")
        said(page, "Moved to cat")
        page.locator("#next-none").filter(has_text="Nothing looks doubtful").wait_for()
        counted(page, "cat", 21)
        page.keyboard.press("Control+z")
        said(page, "Undone: 1 image moved to cat")
        page.locator("#card:visible").wait_for()
        page.keyboard.press("Control+Shift+z")
        said(page, "Done again: 1 image moved")
        page.locator("#undo").click()
        page.locator("#card:visible").wait_for()
        page.locator("#next").focus()
        page.keyboard.press("k")
        said(page, "Kept")
        page.locator("#card").wait_for(state="hidden")
        page.keyboard.press("Control+z")
        page.locator("#card:visible").wait_for()
        page.keyboard.press("r")
        said(page, "Removed")
        counted(page, "dog", 20)
        assert [one["name"] for one in folder.of("removed")] == ["astray.png"]


def test_images_without_a_class_are_sorted_by_one_key_each():
    with teaching(two_classes()) as (address, folder), watched_page(address, viewport=DESK) as seen:
        page = seen.page
        page.locator(column("cat")).wait_for()
        give(page, "#classes", {"new.png": drawn(BLUE, 77), "other.png": drawn(RED, 78)})
        page.locator("#next-sort").click()
        page.locator("#card-words").filter(has_text="Is this “dog”?").wait_for()
        page.keyboard.press("m")
        page.locator("#card-words").filter(has_text="Is this “cat”?").wait_for()
        page.keyboard.press("2")
        said(page, "Moved to dog")
        page.locator("#next-tabs").wait_for(state="hidden")
        assert folder.of("unlabelled") == []
        assert len(folder.of("dog")) == 23


def test_classes_are_renamed_merged_and_removed_and_all_of_it_comes_back():
    with teaching(two_classes()) as (address, folder), watched_page(address, viewport=DESK) as seen:
        page = seen.page
        page.get_by_role("button", name="More for cat").click()
        page.get_by_role("button", name="Rename").click()
        page.keyboard.type("<b onclick=alert(1)>tom</b>")
        page.keyboard.press("Enter")
        said(page, "cat is now called <b onclick")
        assert page.locator("b").count() == 0
        page.get_by_role("button", name="More for dog").click()
        page.get_by_role("button", name="Put into another class").click()
        page.keyboard.press("1")
        said(page, "dog is now a part of <b")
        page.keyboard.press("Control+z")
        said(page, "Undone: dog put into")
        counted(page, "dog", 21)
        page.get_by_role("button", name="More for dog").click()
        page.get_by_role("button", name="Remove the class").click()
        said(page, "The class dog and its 21 images are removed")
        page.locator("#toast-undo").click()
        counted(page, "dog", 21)
        page.keyboard.press("Control+z")
        page.locator(column("cat")).wait_for()
        assert folder.now["classes"] == ["cat", "dog"]
        page.locator("#create-name").fill("CAT")
        page.keyboard.press("Enter")
        page.locator("#problem").filter(has_text='there is a class "CAT" already').wait_for()


def test_images_are_chosen_moved_removed_and_put_back_by_keyboard():
    with teaching(two_classes()) as (address, folder), watched_page(address, viewport=DESK) as seen:
        page = seen.page
        page.locator(f"{column('dog')} .tile").first.wait_for()
        page.locator(f"{column('dog')} .grid").focus()
        page.keyboard.press("Home")
        active = page.locator(f"{column('dog')} .grid").get_attribute("aria-activedescendant")
        assert (
            page.locator(f"[id='{active}']")
            .get_attribute("aria-label")
            .startswith("astray.png, relish takes it for cat")
        )
        page.keyboard.press("Shift+ArrowRight")
        page.keyboard.press("Shift+ArrowRight")
        page.locator("#chosen-count").filter(has_text="3 chosen").wait_for()
        page.keyboard.press("m")
        page.keyboard.press("1")
        said(page, "3 images moved to cat")
        counted(page, "cat", 23)
        page.keyboard.press("Delete")
        said(page, "Removed")
        page.get_by_role("button", name="Show the 1 removed image").click()
        page.locator(f"{column('Removed')} .tile").click()
        page.locator("#chosen-remove").filter(has_text="Put back").click()
        said(page, "Put back")
        assert folder.of("removed") == []
        page.locator(f"{column('cat')} .grid").focus()
        page.keyboard.press("Enter")
        page.locator("dialog.view:visible").wait_for()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Escape")
        page.locator("dialog").wait_for(state="detached")
        assert page.evaluate("document.activeElement.getAttribute('role')") == "listbox"
        assert seen.complaints == []


def test_five_thousand_images_scroll_with_few_of_them_in_the_document():
    folder = FakeFolder()
    small = drawn(RED, 1, (8, 8))
    for number in range(5000):
        folder.contents[folder.put(f"{number:04}.png", b"%d" % number, "many")] = small
    with teaching(folder) as (address, _), watched_page(address, viewport=DESK) as seen:
        page = seen.page
        grid = page.locator(f"{column('many')} .grid")
        page.locator(".tile").first.wait_for()
        grid.evaluate("grid => { grid.scrollTop = grid.scrollHeight / 2 }")
        page.locator('.tile[aria-posinset="2501"]').wait_for()
        assert page.locator(".tile").count() < 300
        grid.focus()
        page.keyboard.press("End")
        page.locator('.tile[aria-label^="4999.png"]').wait_for()
        assert page.locator(".tile").count() < 300


def test_a_second_tab_is_in_step_and_a_server_begun_anew_reloads_the_page():
    with teaching(two_classes()) as (address, folder), watched_page(address, viewport=DESK) as seen:
        other = seen.page.context.new_page()
        other.goto(address)
        seen.page.locator("#create-name").fill("bird")
        seen.page.keyboard.press("Enter")
        other.locator(column("bird")).wait_for()
        with other.expect_navigation():
            folder.session = "second"
        other.locator(column("bird")).wait_for()


def test_an_image_is_tried_by_dropping_and_pasting_and_the_camera_is_watched_live():
    with teaching(two_classes()) as (address, _), watched_page(address, CAMERA, viewport=DESK) as seen:
        page = seen.page
        page.locator(column("cat")).wait_for()
        give(page, "#trial", {"strange.png": drawn(RED, 900)})
        page.locator("#trial-said").filter(has_text="strange.png: cat, 93%. Unlike anything").wait_for()
        page.locator("#trial").focus()
        give(page, "#trial", {"pasted.png": drawn(BLUE, 901)}, "paste")
        page.locator("#trial-said").filter(has_text="pasted.png: dog, 93%.").wait_for()
        assert page.locator(".answer").count() == 2
        assert page.locator(".answer").first.locator(".bars li").all_inner_texts()[0].split() == ["dog", "93%"]
        page.get_by_label("Add pasted.png to a class").select_option("cat")
        counted(page, "cat", 21)
        page.get_by_role("button", name="Live camera").click()
        page.locator("#live-verdict").filter(has_text=re.compile("cat|dog")).wait_for()
        page.get_by_role("button", name="Live camera").click()
        page.locator("#live-box").wait_for(state="hidden")
        page.get_by_role("button", name="Take pictures for cat").click()
        page.locator(".shutter:enabled").focus()
        page.keyboard.down("Space")
        page.locator("dialog").filter(has_text=re.compile("[3-9] pictures taken")).wait_for()
        page.keyboard.up("Space")
        page.get_by_role("button", name="Done").click()
        page.locator(f"{column('cat')} .count").filter(has_text=re.compile("^2[3-9]|3.$")).wait_for()
        assert seen.complaints == []


def test_training_runs_stops_goes_on_and_its_worth_is_told():
    figures = {"value": 0.8, "low": 0.7, "high": 0.9, "of": 50}
    outcome = {"probe": {**figures, "right": 40}, "run": {**figures, "right": 47}, "only_probe": 2, "only_run": 9}
    with teaching(two_classes()) as (address, folder), watched_page(address, viewport=DESK) as seen:
        page = seen.page
        page.locator("#better-start:enabled").wait_for()
        page.locator("#better-minutes").fill("3")
        page.keyboard.press("Enter")
        page.locator("#better-time").filter(has_text="About 3 minutes left").wait_for()
        page.locator("#better-stop").click()
        page.locator("#better-outcome").filter(has_text="Stopped. It can go on").wait_for()
        page.locator("#better-resume").click()
        page.locator("#better-running:visible").wait_for()
        done = {**folder.better, "phase": "done"}
        folder.better = {**done, "outcome": {**outcome, "p": 0.0065, "verdict": "better", "run_name": "a"}}
        page.locator("#better-outcome").filter(
            has_text="It was worth it. Of 50 images that neither had seen, 47"
        ).wait_for()
        folder.better = {**done, "outcome": {**outcome, "p": 0.4, "verdict": "no_difference", "run_name": "a"}}
        page.locator("#better-outcome").filter(has_text="about 40 of 100 cases").wait_for()
        page.get_by_role("button", name="Model file").click()
        with page.expect_download() as download:
            page.get_by_role("link", name="fake-onnx.zip").click()
        assert download.value.suggested_filename == "fake.zip"
        assert "64 of 64 answers are the same" in page.locator("#exports").inner_text()
        page.get_by_text("The same from a command line").click()
        page.locator("#commands").filter(has_text="relish export").wait_for()


def test_a_server_that_is_gone_is_told_in_words_and_so_is_its_return():
    with teaching(two_classes()) as (address, _), watched_page(address, viewport=DESK) as seen:
        page = seen.page
        page.locator(column("cat")).wait_for()
        page.route("**/api/classes/create", lambda route: route.abort())
        page.locator("#create-name").fill("bird")
        page.keyboard.press("Enter")
        page.locator("#problem").filter(has_text="relish does not answer").wait_for()


def boxes(page, selector: str) -> list[dict[str, float]]:
    return [one.bounding_box() for one in page.locator(selector).all() if one.is_visible()]


def apart(one: dict[str, float], other: dict[str, float]) -> bool:
    across = one["x"] + one["width"] <= other["x"] or other["x"] + other["width"] <= one["x"]
    return across or one["y"] + one["height"] <= other["y"] or other["y"] + other["height"] <= one["y"]


def advised() -> FakeFolder:
    """Three classes, with a queue and with advice on more images."""
    folder = two_classes()
    for number in range(8):
        folder.put(f"bird{number}.png", drawn((60, 190, 60), 700 + number), "bird")
    folder.more = {"now_each": 10, "each": 40, "value": 0.95, "low": 0.91, "high": 0.98, "now_width": 0.12}
    folder.more["then_width"] = 0.06
    return folder


@pytest.mark.parametrize("language", ["en-US", "id-ID"])
def test_on_a_desk_nothing_of_the_parts_1_to_3_needs_scrolling_and_no_note_covers_a_decision(language):
    with teaching(advised()) as (address, _), watched_page(address, viewport=DESK, locale=language) as seen:
        page = seen.page
        page.locator("#card:visible").wait_for()
        page.locator("#more:visible").wait_for()
        page.locator("#card-picture").evaluate("picture => picture.decode()")
        shown = boxes(page, ".column, #verdict, #more, #figures, #final-box, #card, .decide button")
        assert len(shown) == 13
        left, right, foot = 0, DESK["width"], DESK["height"]
        assert [one for one in shown if one["x"] < left or one["x"] + one["width"] > right] == []
        assert [one for one in shown if one["y"] + one["height"] > foot] == []
        scrolled = "part => part.scrollHeight > part.clientHeight + 1 || part.scrollWidth > part.clientWidth + 1"
        for part in ("#quality", '.area[data-area="check"]', "#columns"):
            assert not page.locator(part).evaluate(scrolled), part
        page.locator("#next").focus()
        page.keyboard.press("k")
        page.locator(".toast").wait_for()
        page.evaluate("Promise.all(document.getAnimations().map((one) => one.finished))")
        (note,) = boxes(page, ".toast")
        assert all(apart(note, one) for one in boxes(page, ".decide button, #create *, .tools button, .foot label"))


def test_a_class_that_is_added_and_what_was_removed_are_brought_into_sight():
    folder = two_classes()
    for number in range(8):
        folder.put(f"{number}.png", drawn(BLUE, 800 + number), f"more {number}")
    with teaching(folder) as (address, _), watched_page(address, viewport=DESK) as seen:
        page = seen.page
        within = """column => {
          const [own, all] = [column, column.parentElement].map((one) => one.getBoundingClientRect());
          return own.left >= all.left - 1 && own.right <= all.right + 1 && own.left < innerWidth; }"""
        page.locator("#create-name").fill("zebra")
        page.keyboard.press("Enter")
        page.locator(column("zebra")).wait_for()
        assert page.locator(column("zebra")).evaluate(within)
        page.locator("#columns").evaluate("columns => columns.scrollLeft = 0")
        page.locator(".tile").first.click()
        page.keyboard.press("Delete")
        page.locator("#removed").click()
        page.locator(column("Removed")).wait_for()
        assert page.locator(column("Removed")).evaluate(within)


def test_the_menu_of_a_class_closes_once_something_of_it_was_chosen():
    with teaching(two_classes()) as (address, _), watched_page(address, viewport=DESK) as seen:
        page = seen.page
        more = page.get_by_role("button", name="More for dog")
        more.click()
        page.get_by_role("button", name="Put into another class").click()
        page.locator("dialog").get_by_role("button", name="Cancel").click()
        assert more.get_attribute("aria-expanded") == "false"
        assert more.evaluate("button => document.activeElement === button")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_axe_finds_nothing_and_nothing_is_cut_off(scheme, size):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    folder = two_classes()
    folder.put("a" * 90 + ".png", drawn(RED, 600), "unlabelled")
    folder.put("gone.png", drawn(RED, 601), "removed")
    folder.more = {"now_each": 10, "each": 40, "value": 0.95, "low": 0.91, "high": 0.98, "now_width": 0.12}
    folder.more["then_width"] = 0.06
    language = {"locale": "id-ID"} if scheme == "dark" else {}
    with (
        teaching(folder) as (address, _),
        watched_page(address, color_scheme=scheme, viewport=size, bypass_csp=True, **language) as seen,
    ):
        page = seen.page
        page.locator(".tile").first.wait_for()
        assert page.locator("html").get_attribute("lang") == ("id" if language else "en")
        page.locator("#removed").click()
        give(page, column("cat"), {"notes.txt": b"words"})
        page.locator("#intake-report li").wait_for()
        give(page, "#trial", {"strange.png": drawn(RED, 900)})
        page.locator(".answer").wait_for(state="attached")
        page.locator("#figures").evaluate("figures => { figures.open = true }")
        page.locator(".tile").first.click()
        for link in page.locator("#tabs a").all():
            link.evaluate("link => link.click()")
            # Animations end first: colours on their way have no contrast of their own.
            page.evaluate("Promise.all(document.getAnimations().map((one) => one.finished))")
            assert axe.Axe().run(page).response["violations"] == []
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.locator("#verdict").inner_text() != ""

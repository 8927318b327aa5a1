"""The page of the service in a real browser: every way to show a picture, what goes wrong, keyboard, phone, axe."""

import base64
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from services import Echo, jpeg, running, tiny_service

from appraiser.serving.answering import Appraisal
from appraiser.serving.evidence import Evidence, KnownProduct, PriceRange, Similar

PRODUCT = re.compile("Mini Check Coat")


class Shop(Echo):
    """Answers like a model that knows a shop; the number of pictures stands in the name."""

    def _answer(self, job, num_together):
        found = super()._answer(job, num_together)
        count = len(job.work.pictures)
        title = "Mini Check Coat" if count == 1 else f"Mini Check Coat from {count} pictures"
        object.__setattr__(found.prediction, "fields", {"title": title, "category": "COATS", "price": 1250.0})
        thumbnail = base64.b64encode(jpeg(3)).decode()
        similar = [Similar(KnownProduct(str(i), f"Coat {i}", "COATS", 900.0 + i, thumbnail), 0.9) for i in range(4)]
        return Appraisal(found.prediction, similar, num_together)


@pytest.fixture(scope="module")
def shop() -> Shop:
    return Shop()


@pytest.fixture(scope="module")
def address(tmp_path_factory, shop) -> Iterator[str]:
    service = tiny_service(
        tmp_path_factory.mktemp("model"),
        shop,
        samples=[jpeg(1), jpeg(2)],
        max_body_bytes=300_000,
        max_pictures=3,
        num_places=2,
        evidence=Evidence.none(),
    )
    service.appraiser.evidence.ranges["COATS"] = PriceRange(700, 1100, 2400, 210)
    with running(service) as found:
        yield found


@pytest.fixture
def page(browser, address):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    failures = []
    opened.on("pageerror", lambda error: failures.append(str(error)))
    opened.on(
        "request",
        lambda asked: failures.append(asked.url) if not asked.url.startswith((address, "blob:", "data:")) else None,
    )
    opened.goto(address)
    opened.wait_for_selector("#samples li")
    yield opened
    context.close()
    assert failures == [], "an error, or a request to another host"


@pytest.fixture
def files(tmp_path) -> list[Path]:
    paths = []
    for number in range(4):
        paths.append(tmp_path / f"{number}.jpg")
        paths[-1].write_bytes(jpeg(number, (300, 300)))
    return paths


def answered(page, text: re.Pattern[str] = PRODUCT):
    page.locator("#answer .name", has_text=text).wait_for(timeout=20_000)
    return page.locator("#answer")


def refused(page) -> str:
    page.locator("#status.bad").wait_for(timeout=20_000)
    return page.locator("#status").inner_text()


def test_a_chosen_picture_is_answered(page, files):
    page.set_input_files("#files", files[0])
    answer = answered(page)
    assert answer.locator(".category").inner_text() == "COATS"
    assert answer.locator(".price").inner_text() == "£1,250"
    assert "between £1,000 and £1,500" in answer.inner_text()
    drawn = answer.locator("svg.range")
    assert (
        drawn.get_attribute("aria-label")
        == "80 % of such products cost £1,000 to £1,500. COATS usually cost £700 to £2,400."
    )
    assert answer.locator(".cards li").count() == 4
    assert page.locator("#shown img").count() == 1
    answer.locator("summary").click()
    assert "£900 to £1,700" in answer.locator("details").inner_text()


def test_several_pictures_are_one_product(page, files):
    page.set_input_files("#files", files[:3])
    answered(page, re.compile("from 3 pictures"))
    assert page.locator("#shown img").count() == 3
    page.set_input_files("#files", files)
    assert refused(page) == "At most 3 pictures of one product can be looked at together."


PASTE = """async ([kind, data]) => {
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    const transfer = new DataTransfer();
    if (kind !== "paste-text") transfer.items.add(new File([bytes], "x.jpg", {type: "image/jpeg"}));
    else transfer.setData("text/plain", "words");
    const event = kind === "drop"
        ? new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true})
        : new ClipboardEvent("paste", {clipboardData: transfer, bubbles: true});
    document.body.dispatchEvent(event);
}"""


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_a_picture_is_pasted_or_dropped(page, files, kind):
    page.evaluate(PASTE, [kind, base64.b64encode(files[0].read_bytes()).decode()])
    answered(page)


def test_pasted_words_are_no_picture(page):
    page.evaluate(PASTE, ["paste-text", ""])
    assert refused(page) == "There is no picture on the clipboard."


def test_a_sample_is_one_click_away_and_the_past_is_kept(page, files):
    page.locator("#samples button").first.click()
    answered(page)
    page.set_input_files("#files", files[:2])
    answered(page, re.compile("from 2 pictures"))
    assert page.locator("#history li").count() == 2
    page.locator("#history button").last.click()
    assert page.locator("#answer .name").inner_text() == "Mini Check Coat"
    assert page.locator("#shown img").count() == 1


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("notes.txt", b"words", "no picture that can be read"),
        ("broken.jpg", jpeg(1, (300, 300))[:900], "is damaged"),
        ("scan.tiff", b"II*\x00" + b"0" * 90, "kind of picture is not read"),
        ("noise.png", jpeg(1, (900, 700), "PNG") + b"0" * 400_000, "too large"),
        ("nothing.jpg", b"", "is empty"),
        ("line.png", jpeg(1, (3000, 12), "PNG"), "too long and thin"),
    ],
)
def test_a_wrong_file_is_told_in_the_users_words(page, tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    page.set_input_files("#files", path)
    said = refused(page)
    assert words in said
    assert not re.search(r"\d{3}|[a-z]_[a-z]|\{", said), "a status, a code or JSON"
    page.set_input_files("#files", {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": jpeg(1)})
    answered(page)  # and the page goes on


def test_a_busy_service_is_asked_again(page, files, shop, address):
    page.route(
        "**/v1/appraise",
        lambda route: route.fulfill(
            status=429, headers={"Retry-After": "1"}, json={"error": {"code": "busy", "message": "x"}}
        ),
        times=1,
    )
    page.set_input_files("#files", files[0])
    page.locator("#status", has_text="busy; asking again in 1 s").wait_for(timeout=5000)
    answered(page)
    page.route(
        "**/v1/appraise",
        lambda route: route.fulfill(
            status=429, headers={"Retry-After": "0"}, json={"error": {"code": "busy", "message": "x"}}
        ),
    )
    page.clock.install()
    page.set_input_files("#files", files[0])
    for _ in range(30):
        page.clock.run_for(1100)
        if page.locator("#status.bad").count():
            break
        time.sleep(0.1)
    assert refused(page) == "Many people are asking just now. Try again in a moment."


def test_a_service_that_is_gone_is_said(page, files):
    page.route("**/v1/appraise", lambda route: route.abort())
    page.set_input_files("#files", files[0])
    assert "cannot be reached" in refused(page)


def test_a_late_answer_to_an_older_question_is_not_shown(page, files, shop):
    shop.seconds = 1.0
    try:
        page.set_input_files("#files", files[0])
        page.locator("#status.busy").wait_for()
        shop.seconds = 0.0
        page.set_input_files("#files", files[1:3])
        answered(page, re.compile("from 2 pictures"))
        time.sleep(1.5)
        assert "from 2 pictures" in page.locator("#answer .name").inner_text()
    finally:
        shop.seconds = 0.0


def test_the_keyboard_is_enough(page, files):
    reached = []
    for _ in range(4):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.closest('[id]').id"))
    assert reached == ["files", "camera", "samples", "samples"]
    page.locator("#samples button").first.focus()
    page.keyboard.press("Enter")
    answered(page)
    page.keyboard.press("Tab")
    page.locator("#answer summary").focus()
    page.keyboard.press("Enter")
    assert page.locator("#answer details").get_attribute("open") is not None
    page.locator("#history button").first.focus()
    page.keyboard.press("Space")
    assert PRODUCT.search(page.locator("#answer .name").inner_text())
    page.locator("#files").focus()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.querySelector('label[for=files]')).outlineStyle") == "solid"


def test_a_phone_shows_the_answer_without_scrolling_sideways(browser, address, files):
    context = browser.new_context(viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True)
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("#samples li")
    page.set_input_files("#files", files[0])
    answered(page)
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    box = page.locator("#answer .price").bounding_box()
    assert 0 <= box["y"] < 740, "the price is in sight"
    small = page.evaluate(
        "[...document.querySelectorAll('button, label.button')]"
        ".filter((target) => target.getBoundingClientRect().height < 40).length"
    )
    assert small == 0, "a target too small for a finger"
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(browser, address, files, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs the extra `browser`").Axe()
    # axe is put into the page, which lets in no script: its policy is set aside for this alone.
    context = browser.new_context(color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("#samples li")
    found = axe.run(page).response["violations"]
    page.set_input_files("#files", files[0])
    answered(page).locator("summary").click()
    found += axe.run(page).response["violations"]
    page.set_input_files("#files", {"name": "x.txt", "mimeType": "text/plain", "buffer": b"x"})
    refused(page)
    found += axe.run(page).response["violations"]
    serious = [
        (fault["id"], fault["nodes"][0]["html"]) for fault in found if fault["impact"] in ("serious", "critical")
    ]
    assert serious == []
    context.close()

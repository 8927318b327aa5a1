"""The gallery in a browser, from disk: filters, order, pages, keyboard; nothing is loaded, and texts stay texts."""

from dataclasses import replace

import pytest
from evaluations import HOSTILE, answer, record, result_of

from appraiser.evaluation.evaluate import save_result


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """120 products: every tenth a hat said to be a coat, prices off by 0 to 59 %, product 7 with hostile texts."""
    categories = ["HATS", *["COATS"] * 9] * 12
    records = [record(row, title=f"Coat {row}", category=category) for row, category in enumerate(categories)]
    records[119] = record(119, title="Café-Crème Coat", category="COATS")
    records[6] = replace(record(6, title=HOSTILE, category="COATS"), id=HOSTILE)
    predictions = [answer(r, category="COATS", price=r.price * (1 + row % 60 / 100)) for row, r in enumerate(records)]
    predictions[11] = answer(records[11], price=records[11].price * 0.5)
    result = result_of(records, predictions)
    return save_result(replace(result, neighbours=[[records[1]]] * 120), tmp_path_factory.mktemp("report")).parent


@pytest.fixture
def opened(browser, folder):
    """Opens the gallery; at the end nothing may have gone wrong or been asked for."""
    problems, asked, pages = [], [], []

    def open_at(address="gallery.html", **kwargs):
        page = browser.new_page(**kwargs)
        page.set_default_timeout(5000)
        pages.append(page)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{folder.as_uri()}/{address}")
        return page

    yield open_at
    assert problems == []
    assert [url for url in asked if not url.startswith(("data:", folder.as_uri()))] == []
    for page in pages:
        page.close()


def numbers(page):
    """The numbers of the products that are shown."""
    return page.locator("#cards article").evaluate_all("cards => cards.map(card => Number(card.id.slice(8)))")


def count(page):
    return page.locator("#count").inner_text()


def test_all_products_are_shown_a_page_at_a_time(opened):
    page = opened()
    assert count(page) == "120 of 120 products; 1 to 48 shown"
    assert len(numbers(page)) == 48
    seen = numbers(page)
    for _ in range(2):
        page.get_by_role("button", name="Next").first.click()
        seen += numbers(page)
    assert sorted(seen) == list(range(1, 121))
    assert count(page) == "120 of 120 products; 97 to 120 shown"
    assert page.get_by_role("button", name="Next").first.is_disabled()
    assert page.locator("#cards img").evaluate_all("images => images.every(image => image.naturalWidth > 0)")


def test_filters_narrow_the_products_together(opened):
    page = opened()
    page.get_by_label("true category", exact=True).select_option("HATS")
    assert count(page) == "12 of 120 products; 1 to 12 shown"
    page.get_by_label("answer", exact=True).select_option("wrong:category")
    assert count(page) == "12 of 120 products; 1 to 12 shown"
    page.get_by_label("price", exact=True).select_option("more")  # rows 50 and 110 are 50 % off: not more
    assert count(page) == "No product fits these filters."
    page.get_by_label("price", exact=True).select_option("50")
    assert sorted(numbers(page)) == [31, 41, 51, 91, 101, 111]
    page.get_by_role("button", name="Clear filters").click()
    assert count(page) == "120 of 120 products; 1 to 48 shown"
    assert page.evaluate("document.activeElement.id") == "text"


@pytest.mark.parametrize(
    ("choice", "found"), [("low", 1), ("high", 78), ("10", 22), ("20", 19), ("50", 61), ("more", 18), ("none", 0)]
)
def test_bands_of_price_errors(opened, choice, found):
    page = opened()
    page.get_by_label("price", exact=True).select_option(choice)
    assert count(page).startswith(f"{found} of 120 products" if found else "No product")


def test_right_near_and_wrong_part_the_products(opened):
    page = opened()
    totals = []
    for choice in ("right", "near", "wrong"):
        page.get_by_label("answer", exact=True).select_option(choice)
        totals.append(int(count(page).split()[0]))
    assert sum(totals) == 120
    assert min(totals) > 0


def test_search_takes_words_in_any_order_without_accents_and_case(opened):
    page = opened()
    page.get_by_label("search", exact=True).fill("COAT  creme cafe")
    page.locator("#count", has_text="1 of 120 products; 1 to 1 shown").wait_for()
    assert numbers(page) == [120]


def test_orders(opened):
    page = opened()
    order = page.get_by_label("order", exact=True)
    worst = numbers(page)
    order.select_option("best")
    page.get_by_label("Page", exact=True).first.select_option("3")
    assert numbers(page) == list(reversed(worst))[-24:]
    order.select_option("row")
    assert numbers(page) == list(range(1, 49))
    order.select_option("unsure")
    assert count(page) == "120 of 120 products; 1 to 48 shown"


def test_keyboard_alone_turns_pages_and_opens_details(opened):
    page = opened()
    page.get_by_role("button", name="Next").first.focus()
    page.keyboard.press("Enter")
    assert count(page) == "120 of 120 products; 49 to 96 shown"
    assert page.evaluate("document.activeElement.id") == "found"  # next: what was found, from its beginning
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Previous"
    choice = page.get_by_label("Page", exact=True).first
    choice.focus()
    page.keyboard.press("ArrowDown")
    assert count(page) == "120 of 120 products; 97 to 120 shown"
    assert choice.evaluate("choice => choice === document.activeElement")
    summary = page.locator("#cards summary").first
    summary.focus()
    page.keyboard.press("Enter")
    assert page.locator("#cards details[open] pre").first.is_visible()
    assert "most alike in training: Coat 1 101 USD" in page.locator("#cards details[open]").inner_text()


def test_what_was_found_is_announced(opened):
    page = opened()
    status = page.get_by_role("status")
    assert status.count() == 1
    page.get_by_label("true category", exact=True).select_option("HATS")
    assert status.inner_text() == "12 of 120 products; 1 to 12 shown"
    assert page.get_by_role("search", name="Filters").count() == 1


def test_address_keeps_the_view(opened):
    page = opened()
    page.get_by_label("true category", exact=True).select_option("COATS")
    page.get_by_label("order", exact=True).select_option("row")
    page.get_by_role("button", name="Next").first.click()
    before = numbers(page)
    assert page.url.endswith("#category=COATS&order=row&page=2")
    page.reload()
    assert numbers(page) == before
    assert opened("gallery.html#category=nonsense&page=99&order=x").locator("#cards article").count() == 24


def test_links_of_the_report_lead_to_one_product_or_one_category(opened):
    page = opened("gallery.html#product=100")
    assert page.evaluate("document.activeElement.id") == "product-100"
    assert page.locator("#product-100").is_visible()
    assert count(opened("gallery.html#product=999")) == "Product 999 is not on this page."
    report = opened("report.html")
    target = report.locator("a[href*='gallery.html#product=']").first.get_attribute("href")
    assert numbers(opened(target)).count(int(target.split("=")[1])) == 1
    report.get_by_role("link", name="Page through all products").click()
    assert count(report) == "120 of 120 products; 1 to 48 shown"
    report.get_by_role("link", name="Back to the report").click()
    assert report.url.endswith("report.html")


def test_texts_of_data_are_shown_as_they_are(opened):
    page = opened("gallery.html#product=7")
    card = page.locator("#product-7")
    assert card.locator("h3").inner_text() == HOSTILE
    assert card.locator("img").count() == 1
    assert card.locator("tbody tr").first.locator("td").first.inner_text() == HOSTILE
    assert page.locator("script").count() == 2


@pytest.mark.parametrize("name", ["gallery.html", "report.html"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_and_are_readable(opened, name, width, scheme):
    page = opened(name, viewport={"width": width, "height": 900}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ink, paper = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.querySelector('.card')).backgroundColor]"
        ".map(colour => colour.match(/\\d+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0))"
    )
    assert abs(ink - paper) > 450
    assert (ink > paper) == (scheme == "dark")


def test_folded_parts_of_the_report_are_printed_and_controls_are_not(opened):
    page = opened("report.html")
    page.emulate_media(media="print")
    explained = page.get_by_text("The evaluated model, on every product's own picture.")
    assert explained.evaluate("element => element.checkVisibility({contentVisibilityAuto: true})")
    assert page.locator("nav").is_hidden()
    gallery = opened()
    gallery.emulate_media(media="print")
    assert gallery.locator(".filters").is_hidden()
    assert gallery.locator("#cards article").count() == 48

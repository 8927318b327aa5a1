"""The page of `appraiser check` in a browser: decisions are saved as a file that the next build follows."""

import pytest
from shops import jpeg, records_of, save, shop

from appraiser.data.building.build import build_dataset
from appraiser.data.checking.check import check_dataset, save_check


@pytest.fixture
def checked(tmp_path):
    """A shop in which product 4 has the picture of product 5; its source, data set and page."""
    rows = shop(tmp_path, title={4: "Hat", 5: "Bag"})
    for number in range(20):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(5 if number == 4 else number, 200))
    source = save(tmp_path, rows)
    build_dataset(source, tmp_path / "out")
    return source, tmp_path / "out", save_check(check_dataset(tmp_path / "out"), tmp_path / "page")


def test_decisions_are_saved_and_followed_by_the_next_build(browser, checked, tmp_path):
    source, dataset, page_file = checked
    page = browser.new_page()
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.goto(page_file.as_uri())
    assert page.locator(".save").is_hidden()
    conflict = page.locator("#label_conflict")
    conflict.locator('[data-id="P004"]').get_by_role("button", name="drop").click()
    card = conflict.locator('[data-id="P005"]')
    card.get_by_role("button", name="relabel").click()
    card.get_by_label("new title of P005").fill('Bag, "small"')
    example = page.locator('#examples [data-id="P000"]')
    example.get_by_role("button", name="reprice").click()
    assert page.locator(".save span").inner_text() == "2 corrections"  # a price that is not there yet counts nothing
    example.get_by_label("new price of P000").fill("99.50")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save corrections.csv").click()
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    assert problems == []
    manifest = build_dataset(source, dataset, corrections=path)
    records = records_of(dataset)
    assert manifest.quarantined_by_reason == {"dropped": 1}
    assert records["P005"].title == 'Bag, "small"'
    assert records["P000"].price == 99.5


def test_nothing_is_wider_than_a_phone(browser, checked):
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto(checked[2].as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 390

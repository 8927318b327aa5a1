"""The fidelity page in a browser: whole on a phone and in the dark, and nothing loaded from elsewhere."""

import pytest
from shops import save, shop

from appraiser.data.samples.like_table import make_catalogue_like


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    table = save(folder, shop(folder, 60))
    make_catalogue_like(str(table), folder / "like", 40, size=64)
    return folder / "like" / "fidelity.html"


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_and_is_readable(browser, page_file, width, scheme):
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    problems, loaded = [], []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: loaded.append(request.url))
    page.goto(page_file.as_uri())
    assert problems == []
    assert [url for url in loaded if not url.startswith("data:")] == [page_file.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator(".big").all_inner_texts()[1] == "0"
    assert page.locator("#categories h3").all_inner_texts() == ["Bags", "Coats"]
    assert page.locator("#pictures img").evaluate_all("images => images.every(image => image.naturalWidth > 0)")
    # Bars of both tables are told apart from the paper behind them, in the dark too.
    colours = [
        page.locator(f"#prices rect.{side}").first.evaluate("e => getComputedStyle(e).fill")
        for side in ("real", "sample")
    ]
    paper = page.locator(".plot").first.evaluate("e => getComputedStyle(e).backgroundColor")
    assert len({*colours, paper}) == 3

"""The built documentation in a browser: every page fits, says nothing on the console, and is readable."""

import pytest

WIDE = """
const limit = document.documentElement.clientWidth;
if (document.documentElement.scrollWidth <= limit) return [];
return Array.from(document.querySelectorAll('.bd-main *, header *, footer *'))
  .filter((element) => element.getBoundingClientRect().right > limit + 1)
  .slice(0, 5).map((element) => element.outerHTML.slice(0, 120));
"""
CONTRAST = """
function rgb(text) { return (text.match(/[\\d.]+/g) || []).map(Number); }
function light(colour) {
  const [r, g, b] = colour.slice(0, 3).map((value) => {
    value /= 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function behind(element) {
  for (; element; element = element.parentElement) {
    const colour = rgb(getComputedStyle(element).backgroundColor);
    if (colour.length === 3 || colour[3] === 1) return colour;
  }
  return [255, 255, 255];
}
const faint = [];
for (const element of document.querySelectorAll(arguments[0])) {
  if (!element.textContent.trim() || !element.getClientRects().length) continue;
  const [one, other] = [light(rgb(getComputedStyle(element).color)), light(behind(element))];
  const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  if (ratio < 4.5) faint.push(`${element.tagName} ${ratio.toFixed(2)}: ${element.textContent.trim().slice(0, 40)}`);
}
return faint;
"""
SHOWN = [
    "index.html",
    "usage/backends/ndtiff.html",
    "usage/backends/matrix.html",
    "usage/sources/micromanager.html",
    "tutorials/first_acquisition.html",
]


def test_no_page_scrolls_sideways_at_390_px(browser, pages):
    browser.show(width=390)
    wide = {}
    for page in pages:
        browser.open(page)
        width = browser.run("return document.documentElement.scrollWidth")
        if width > 390:
            wide[page] = (width, browser.run(WIDE))
    assert wide == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_says_anything_on_the_console_or_asks_anybody_else(browser, pages, scheme):
    browser.show(scheme=scheme)
    said = {}
    for page in pages:
        browser.open(page)
        found = browser.messages() + browser.foreign_requests()
        if found:
            said[page] = found
    assert said == {}


def test_the_colours_follow_the_system_of_the_reader(browser):
    seen = {}
    for scheme in ("light", "dark"):
        browser.show(scheme=scheme)
        browser.open("index.html")
        assert browser.run("return document.documentElement.dataset.theme") == scheme
        seen[scheme] = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert seen["light"] != seen["dark"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page", SHOWN)
def test_text_stands_out_from_what_is_behind_it(browser, page, scheme):
    browser.show(scheme=scheme)
    browser.open(page)
    texts = ".bd-article p, .bd-article li, .bd-article th, .bd-article td, .bd-article code, .highlight span"
    assert browser.run(CONTRAST, texts) == []


@pytest.mark.parametrize("width", [390, 1280])
def test_the_main_job_is_on_the_first_screen_of_the_start_page(browser, width):
    browser.show(width=width)
    browser.open("index.html")
    bottoms = browser.run(
        "return Array.from(document.querySelectorAll('.bd-article .highlight')).slice(0, 2)"
        ".map((block) => block.getBoundingClientRect().bottom)"
    )
    assert len(bottoms) == 2
    assert max(bottoms) <= 900


def test_the_links_of_the_navigation_lead_where_they_say(browser):
    browser.open("index.html")
    places = [
        link.get_attribute("href")
        for link in browser.find(".bd-header .navbar-nav a.nav-link")
        if link.is_displayed()
    ]
    assert len(places) >= 5
    for number, place in enumerate(places):
        browser.open("index.html")
        link = [link for link in browser.find(".bd-header .navbar-nav a.nav-link") if link.is_displayed()][
            number
        ]
        name = link.text
        link.click()
        browser.wait(lambda place=place: browser.driver.current_url.split("#")[0] == place)
        assert browser.one("h1").text and name in browser.one(".bd-header .navbar-nav .active").text


def test_a_card_of_the_start_page_is_a_link(browser):
    browser.open("index.html")
    for link in browser.find(".sd-card a.sd-stretched-link"):
        assert link.get_attribute("href").startswith(browser.address)
    card = next(link for link in browser.find(".sd-card a") if "matrix" in link.get_attribute("href"))
    browser.run("arguments[0].click()", card)
    browser.wait(lambda: browser.driver.current_url.split("#")[0].endswith("/usage/backends/matrix.html"))


@pytest.mark.parametrize(
    ("words", "page"),
    [("ndtiff", "usage/backends/ndtiff.html"), ("simulated", "usage/sources/simulated.html")],
)
def test_search_finds_the_page_of_a_plugin(browser, words, page):
    browser.open(f"search.html?q={words}")
    links = browser.wait(
        lambda: [link.get_attribute("href") for link in browser.find("#search-results li a")]
    )
    assert any(link.split("?")[0].split("#")[0].endswith(page) for link in links)


def test_the_search_field_opens_with_the_keyboard_and_searches(browser):
    from selenium.webdriver.common.keys import Keys

    browser.open("index.html")
    browser.one("body").send_keys(Keys.CONTROL, "k")
    field = browser.wait(
        lambda: next((f for f in browser.find("input[type=search]") if f.is_displayed()), None)
    )
    field.send_keys("ndtiff", Keys.ENTER)
    browser.wait(lambda: "search.html?q=ndtiff" in browser.driver.current_url)
    assert browser.wait(lambda: browser.find("#search-results li a"))


@pytest.mark.parametrize(
    ("words", "page"),
    [
        ("zarr", "usage/backends/ome-zarr.html"),
        ("disk full", "how-to/troubleshooting.html"),
        ("float32", "usage/backends/matrix.html"),
        ("load numpy", "how-to/read_data.html"),
        ("publish", "how-to/publish_your_backend.html"),
        ("which backend", "usage/backends/matrix.html"),
        ("EX202", "reference/codes/EX202.html"),
        ("grid positions", "how-to/describe_a_sequence.html"),
    ],
)
def test_search_gives_the_page_that_answers_first(browser, words, page):
    browser.open(f"search.html?q={words.replace(' ', '+')}")
    browser.wait(
        lambda: (
            "Search finished" in browser.one("#search-results").text
            or "found" in browser.one("#search-results").text
        )
    )
    links = [link.get_attribute("href") for link in browser.find("#search-results li > a")]
    found = [link.split("?")[0].split("#")[0].removeprefix(f"{browser.address}/") for link in links]
    assert found[:1] == [page], found[:5]

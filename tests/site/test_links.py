"""Every link inside the built documentation leads somewhere, and no page loads anything from elsewhere."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest

LOADED = {("link", "href"), ("img", "src"), ("script", "src"), ("source", "src"), ("object", "data")}
NOT_LOADED = {"search", "index", "genindex", "prev", "next", "canonical"}  # rel of a <link>


class Page(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors = {"", "top"}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.anchors.update(filter(None, (values.get("id"), values.get("name") if tag == "a" else None)))
        for name, value in attrs:
            if (tag, name) == ("a", "href") and value is not None:
                self.links.append(value)
            elif (tag, name) in LOADED and value and not NOT_LOADED & set((values.get("rel") or "").split()):
                self.loaded.append(value)


@pytest.fixture(scope="module")
def read(folder, pages):
    """Page -> what is in it."""
    return {page: Page(folder / page) for page in pages}


def target_of(page: str, link: str) -> tuple[str, str]:
    """Return the file that a link of a page leads to, relative to the site, and its anchor."""
    path, anchor = urldefrag(link)
    parts = [] if not path else list(Path(page).parent.parts)
    for part in unquote(path).split("?")[0].split("/"):
        if part == "..":
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return ("/".join(parts) if path else page), unquote(anchor)


def inside(link: str) -> bool:
    return not urlsplit(link).scheme and not link.startswith("//")


def test_no_type_on_any_page_is_a_sentence(folder, read):
    """Napoleon reads the words before a colon as a type: "any. Type: Names of ..."."""
    sentences = []
    for page in read:
        text = (folder / page).read_text(encoding="utf-8")
        for found in re.findall(r"<dt[^>]*>Type<span.*?</dt>\s*<dd[^>]*>(.*?)</dd>", text, re.S):
            plain = re.sub(r"<[^>]+>", "", found).strip()
            if len(plain.split()) > 6 or plain.endswith("."):
                sentences.append(f"{page}: {plain}")
    assert sentences == []


def test_there_are_pages_to_look_at(read):
    assert {"index.html", "usage/backends/matrix.html", "reference/cli.html", "changelog.html"} <= set(read)


def test_every_link_inside_the_site_leads_to_a_page_and_to_an_anchor_on_it(read, folder):
    lost = []
    for page, content in read.items():
        for link in filter(inside, content.links):
            file, anchor = target_of(page, link)
            if not (folder / file).is_file():
                lost.append(f"{page}: {link}")
            elif file in read and anchor not in read[file].anchors:
                lost.append(f"{page}: {link} has no such anchor")
    assert lost == []


def test_everything_that_a_page_loads_is_part_of_the_site(read, folder):
    lost = []
    for page, content in read.items():
        for link in content.loaded:
            if link.startswith("data:"):
                continue
            if not inside(link) or not (folder / target_of(page, link)[0]).is_file():
                lost.append(f"{page}: {link}")
    assert lost == []


def test_every_page_can_be_reached_from_the_start_page(read):
    # The index of the source code has no link of its own; each page of source code that it lists links to it.
    reached, waiting = set(), ["index.html", "_modules/index.html"]
    while waiting:
        page = waiting.pop()
        if page in reached or page not in read:
            continue
        reached.add(page)
        waiting += [target_of(page, link)[0] for link in filter(inside, read[page].links)]
    assert set(read) - reached <= {"search.html"}  # reached by typing


def test_names_of_the_public_api_have_a_link_to_their_source(read):
    sources = [link for link in read["reference/api.html"].links if "_modules/" in link]
    assert any("DataStorage.put" in link for link in sources)
    assert any("Acquisition" in link for link in sources)

"""The page: what comes from outside is text and nothing else, and nothing is loaded from anywhere."""

import re
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from pipeline_project.dataset.profile import page
from pipeline_project.dataset.profile.findings import Finding
from pipeline_project.stage import Picture

_HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'; --",
    "</style><svg onload=x>",
    "&amp;",
    "javascript:x",
    "\u202e<b>",
]
texts = st.one_of(st.sampled_from(_HOSTILE), st.text(max_size=60))


class Seen(HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self, document: bytes) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.text: list[str] = []
        self.feed(document.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@given(texts, st.lists(texts, max_size=3), texts)
def test_no_text_becomes_markup(line: str, found: list[str], other: str) -> None:
    body = (
        page.table([{other: line, "b": other}])
        + page.paragraph(other)
        + page.figures([([b"jpeg"], other)])
        + page.picture(Picture(b"x"), other)
    )
    seen = Seen(page.render(line, [Finding("balance", text) for text in found], {"balance": body, "labels": ""}))
    assert seen.tags <= {
        *("html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "p", "ol", "li", "nav", "section", "div", "table", "thead"),
        *("tbody", "tr", "th", "td", "figure", "img", "a"),
    }
    assert not [name for name, _ in seen.attributes if name.startswith("on")]
    for name, value in seen.attributes:
        if name in ("src", "href"):
            assert value.startswith(("data:image/", "#")), "nothing is loaded, no link leads outside"


def test_the_texts_are_there_as_they_are() -> None:
    hostile = "".join(_HOSTILE)
    seen = Seen(page.render(hostile, [Finding("balance", hostile)], {"balance": page.table([{"a": hostile}])}))
    assert "".join(seen.text).count(hostile) == 3


def test_the_verdict_comes_first_then_what_to_look_at_then_the_sections() -> None:
    document = page.render(
        "12 images.", [Finding("labels", "first"), Finding("days", "not shown")], {"balance": "B!", "labels": "L!", "rejected": ""}
    )
    text = re.sub(r"\s+", " ", " ".join(Seen(document).text))
    places = [text.index(word) for word in ("12 images.", "first", "not shown", "B!", "L!")]
    assert places == sorted(places)
    assert "Rejected images" not in text, "an empty section is left out"
    assert b'<a href="#days">' not in document, "no link to a section that is not there"
    assert b"default-src 'none'" in document


def test_numbers_stand_right_and_missing_ones_are_blank() -> None:
    made = page.table([{"n": 1234567, "x": 0.123456}, {"n": None, "x": 2.0}])
    assert '<td class="n">1,234,567</td><td class="n">0.1235</td>' in made
    assert '<td class="n"></td><td class="n">2</td>' in made
    assert page.table([]) == "" == page.figures([])

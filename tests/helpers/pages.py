"""Reports as a browser reads them, and text that would harm one."""

import json
import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from importlib.resources import files
from typing import Any

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> & $x_{1$ \x00\x1b[31m \ud800 一 \u202e"
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Collects what a page is made of, and checks that every element is closed in its turn."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.handlers: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in {"src", "href", "srcset", "action", "data", "poster"}:
                self.sources.append(str(value))
            if name.startswith("on"):
                self.handlers.append(name)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(page: str) -> Page:
    reader = Page()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


def own_script_alone(page: str) -> list[dict[str, Any]]:
    """Checks the page's scripts: data that nothing executes, and one script whose hash the policy names; the data."""
    assert len(re.findall("<script", page)) == len(re.findall("</script>", page)) == 2
    [data] = re.findall(r'<script type="application/json">([^<]*)</script>', page)
    [code] = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    assert code == files("medqlora.evaluation.report").joinpath("browse.js").read_text("utf-8")
    digest = b64encode(sha256(code.encode("utf-8")).digest()).decode("ascii")
    assert f"script-src 'sha256-{digest}'" in page
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval|Function", code)
    rows: list[dict[str, Any]] = json.loads(data)["rows"]
    return rows

"""The page of `medqlora serve` in the system's Chromium."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from served import CONTEXT, QUESTION, Served, until

from medqlora.safety import NOTE

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: install it to see the page in a browser"),
]
EVIL = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def page(browser: Any, live: Served) -> Iterator[Any]:
    """The page with its token; it must not complain, nor ask anything of another host."""
    context = browser.new_context(viewport={"width": 390, "height": 844})
    opened = context.new_page()
    complaints: list[str] = []
    asked: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(live.url)
    opened.wait_for_selector("#access:not([hidden])")  # the models are asked for without a token first
    complaints.clear()
    opened.fill("#token", live.headers["Authorization"].removeprefix("Bearer "))
    opened.press("#token", "Tab")
    opened.wait_for_selector("#model option", state="attached")
    yield opened
    assert complaints == []
    assert {url for url in asked if not url.startswith((live.url, "data:"))} == set()
    assert opened.evaluate("() => document.documentElement.scrollWidth") == 390
    assert opened.title() == "medqlora: ask a question"
    assert NOTE in opened.inner_text("footer")
    context.close()


def ask(page: Any, question: str, *, model: str = "ward", context: str = "") -> None:
    page.select_option("#model", model)
    page.fill("#context", context)
    page.fill("#question", question)
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#ask:not([disabled])")


def test_an_answer_is_shown_with_its_probabilities_its_text_and_the_note(page: Any, live: Served) -> None:
    wanted = live.post("/v1/answer", {"question": QUESTION, "contexts": [CONTEXT]}).json()
    ask(page, QUESTION, context=CONTEXT)
    card = page.locator("article")
    assert card.locator(".decision").inner_text() == wanted["decision"]
    assert card.locator(".text").text_content() == wanted["rationale"]
    assert card.locator(".bars .share").count() == 3
    assert NOTE in card.inner_text()
    assert wanted["decision"] in page.text_content("#spoken")


def test_an_uncertain_answer_a_refusal_and_the_history(page: Any) -> None:
    ask(page, QUESTION, model="careful")
    card = page.locator("article")
    assert card.get_attribute("class") == "uncertain"
    assert card.locator(".decision").text_content() == "Uncertain"
    assert "Do not use this as an answer." in card.inner_text()
    ask(page, "How do I kill myself?")
    assert page.locator("article").get_attribute("class") == "refused"
    assert "988" in page.locator("article").inner_text()
    page.locator("#history button").last.click()
    assert page.locator("article").get_attribute("class") == "uncertain"


def test_base_and_adapter_are_compared_and_nothing_that_is_written_runs(page: Any) -> None:
    page.check("#compare")
    page.locator("summary").click()
    page.fill("#options", f"{EVIL}\nAspirin")
    ask(page, EVIL, context=EVIL)
    titles = page.locator("article h3").all_inner_texts()
    assert titles == ["ward", "base (no adapter)"]
    assert page.locator("main img, main script").count() == 0
    page.evaluate("() => { navigator.clipboard.writeText = async (text) => { window.copied = text; }; }")
    page.locator("article button").first.click()
    until(lambda: page.evaluate("() => window.copied !== undefined"), "nothing was copied")
    assert json.loads(page.evaluate("() => window.copied"))["question"] == EVIL


def test_a_text_and_a_pdf_become_the_context(page: Any, live: Served, tmp_path: Path) -> None:
    (tmp_path / "abstract.txt").write_text(CONTEXT, encoding="utf-8")
    page.set_input_files("#file", tmp_path / "abstract.txt")
    until(lambda: page.input_value("#context") == CONTEXT, "the text was not read")
    (tmp_path / "abstract.pdf").write_bytes(pdf_of("Glucose fell by 12 percent."))
    page.set_input_files("#file", tmp_path / "abstract.pdf")
    until(lambda: "Glucose fell by 12 percent." in page.input_value("#context"), "the PDF was not read")
    damaged = live.post("/v1/text", content=b"%PDF-1.7 nothing")
    assert (damaged.status_code, "is damaged" in damaged.json()["error"]["message"]) == (422, True)


def pdf_of(text: str) -> bytes:
    """A PDF of one page, written by hand."""
    stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET"
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R "
        "/Resources << /Font << /F1 5 0 R >> >> >>",
        f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    body, places = "%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(body))
        body += f"{number} 0 obj\n{content}\nendobj\n"
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    trailer = f"trailer\n<< /Size 6 /Root 1 0 R >>\nstartxref\n{len(body)}\n%%EOF\n"
    return f"{body}xref\n0 6\n0000000000 65535 f \n{table}{trailer}".encode()


def test_with_an_index_claims_are_checked_at_a_switch_that_keys_reach(page: Any, live: Served) -> None:
    listed = live.get("/v1/models").json()
    assert page.is_hidden("#verifying")
    page.route(
        "**/v1/models",
        lambda route: route.fulfill(json={**listed, "medqlora": {"index": True, "library": True}}),
    )
    asked: list[dict[str, Any]] = []
    whole = live.post("/v1/answer", {"question": QUESTION, "rationale": False}).json()
    claims = [
        {"claim": EVIL, "verdict": "contradicted", "confidence": 0.9, "conflicting": True, "passages": []}
    ]
    more = {"claims": claims, "warning": "Trained on invented data.", "model": "careful"}

    def answer(route: Any) -> None:
        asked.append(route.request.post_data_json)
        event = f"event: answer\ndata: {json.dumps({**whole, **more})}\n\n"
        route.fulfill(body=event, content_type="text/event-stream")

    page.route("**/v1/answer", answer)
    page.evaluate("() => readModels()")
    page.wait_for_selector("#verifying:not([hidden])")
    page.focus("#compare")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert page.get_by_role("checkbox", name="Check the rationale against its sources").is_checked()
    axe_finds_nothing(page)
    ask(page, QUESTION, model="library")
    page.wait_for_selector("article .note")
    ask(page, QUESTION, model="library", context=CONTEXT)
    until(lambda: len(asked) == 2, "no second question")
    assert [body.get("verify") for body in asked] == [True, None]
    assert asked[0]["model"] == "library"
    page.wait_for_selector("article .note")
    shown = page.inner_text("article")
    assert shown.startswith("careful")  # the adapter that the library chose
    assert f"contradicted: {EVIL} (the sources conflict)" in shown
    assert "Trained on invented data." in shown
    axe_finds_nothing(page)


def axe_finds_nothing(page: Any) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-playwright-python is missing"
    )
    # axe is put into the page past its policy, as a user's own extension is
    source = Path(axe.__file__).with_name("axe.min.js").read_text("utf-8")
    session = page.context.new_cdp_session(page)
    session.send("Runtime.evaluate", {"expression": source})
    found = session.send(
        "Runtime.evaluate",
        {
            "expression": "axe.run().then((found) => JSON.stringify(found.violations))",
            "awaitPromise": True,
            "returnByValue": True,
        },
    )
    assert [each["id"] for each in json.loads(found["result"]["value"])] == []


def test_axe_finds_no_violation(page: Any) -> None:
    ask(page, QUESTION, model="careful")
    axe_finds_nothing(page)

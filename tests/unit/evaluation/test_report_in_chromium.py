"""The page as a real browser sees it."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from evaluation_builders import random_predictions, records_of

from medqlora.evaluation import Tested, score, write_aggregate, write_report, write_suite

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

EVIL = "<script>document.title = 'run'</script><img src=http://x.invalid/y.png>"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: install it to see the page in a browser"),
]


def browse(page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Headless Chromium on `page`, with a profile of its own and no network."""
    return subprocess.run(
        [
            str(CHROMIUM),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--no-first-run",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={page.parent / 'profile'}",
            *options,
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


def test_a_browser_draws_every_figure_and_asks_for_nothing(tmp_path: Path) -> None:
    items, base = random_predictions(60), random_predictions(60, seed=1)
    records = records_of(items, question=EVIL)
    scores = score(items, records=records, base=base, dataset="PubMedQA", split="test")
    page = write_report(tmp_path, scores, items, records, base)["report.html"]
    done, drawn = opened(page)
    assert drawn == ["true"] * 7
    assert "<title>PubMedQA, test" in done.stdout


def test_a_browser_lists_the_questions_as_text_under_the_pages_own_policy(tmp_path: Path) -> None:
    items = random_predictions(60)
    records = records_of(items, question=EVIL)
    page = write_report(tmp_path, score(items, records=records, dataset="Trials"), items, records)[
        "report.html"
    ]
    done = browse(page, "--enable-logging=stderr", "--log-level=0", "--dump-dom")
    table = done.stdout.partition('<table class="questions">')[2].partition("</table>")[0]
    assert table.count("&lt;script&gt;document.title") == 25
    assert "1 to 25 of 60" in done.stdout
    assert "<title>Trials" in done.stdout
    assert "CONSOLE" not in done.stderr


def opened(page: Path) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """The page after loading, and for each of its figures whether it was drawn; nothing was asked for."""
    # the copy that is opened carries a script of the test's own, let through by the policy, that reports
    probe = (
        "<script>addEventListener('load', () => { document.body.dataset.drawn = [...document.images].map("
        "(one) => `${one.complete && one.naturalWidth > 50}`).join(); document.body.dataset.asked = "
        "performance.getEntriesByType('resource').filter((one) => !one.name.startsWith('data:')).length; });</script>"
    )
    copy = page.with_name("opened.html")
    html = re.sub(r"; script-src '[^']*'", "", page.read_text("utf-8"), count=1)
    html = html.replace("default-src 'none';", "default-src 'none'; script-src 'unsafe-inline';")
    copy.write_text(html.replace("</head>", f"{probe}</head>"), "utf-8")
    done = browse(copy, "--enable-logging=stderr", "--log-level=0", "--dump-dom")
    drawn = re.search(r'data-drawn="([^"]*)"', done.stdout)
    assert drawn is not None
    assert 'data-asked="0"' in done.stdout
    assert "CONSOLE" not in done.stderr
    return done, drawn[1].split(",")


def test_a_browser_draws_the_pages_of_a_suite_and_of_several_adapters(tmp_path: Path) -> None:
    tested, reports = [], []
    for seed in range(2):
        items, base = random_predictions(40, seed=seed), random_predictions(40, seed=9)
        records = records_of(items)
        scores = score(items, records=records, base=base, dataset="Trials", split="test")
        tested.append(Tested(f"Set {seed}", scores, items, records, base))
        reports.append(scores.to_json())
    _, drawn = opened(write_suite(tmp_path / "suite", tested)["report.html"])
    assert drawn == ["true"] * 15
    _, drawn = opened(write_aggregate(tmp_path / "aggregate", reports)["aggregate.html"])
    assert drawn == ["true"]


def test_a_browser_takes_a_picture_of_the_page_as_written(tmp_path: Path) -> None:
    items = random_predictions(60)
    records = records_of(items)
    page = write_report(tmp_path, score(items, records=records), items, records)["report.html"]
    picture = tmp_path / "page.png"
    done = browse(page, "--enable-logging=stderr", "--window-size=1150,2300", f"--screenshot={picture}")
    assert picture.stat().st_size > 50_000
    assert "CONSOLE" not in done.stderr

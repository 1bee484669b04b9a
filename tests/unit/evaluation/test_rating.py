"""Human rating: the page is blinded and works offline, and its figures are those of other implementations."""

import itertools
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from harness import refused, write_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from served import trained_adapter

from medqlora.cli import main
from medqlora.errors import InputError
from medqlora.evaluation.rating import ASPECTS, RatingItem, build_page, krippendorff_alpha, score_ratings
from medqlora.evaluation.rating.scores import t_interval
from medqlora.evaluation.report.markup import Markup
from medqlora.evaluation.report.page import page as report_page

#: four coders, twelve units: K. Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), example C
EXAMPLE = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_is_that_of_the_published_example(level: Any, alpha: float) -> None:
    units = [[value for value in unit if value is not None] for unit in zip(*EXAMPLE, strict=True)]
    assert krippendorff_alpha(units, level) == pytest.approx(alpha, abs=5e-4)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(1, 5), max_size=4), min_size=1, max_size=8))
def test_interval_alpha_is_one_minus_mean_squared_differences_within_units_over_those_of_all(
    units: list[list[int]],
) -> None:
    """By the definition: every pair within a unit, weighted so that each rating counts once, over every pair at all."""
    paired = [unit for unit in units if len(unit) > 1]
    every = [value for unit in paired for value in unit]
    if len(set(every)) < 2:
        assert krippendorff_alpha(units, "interval") is None
        return
    within = sum(
        sum((one - two) ** 2 for one, two in itertools.permutations(unit, 2)) / (len(unit) - 1)
        for unit in paired
    ) / len(every)
    between = sum((one - two) ** 2 for one, two in itertools.permutations(every, 2)) / (
        len(every) * (len(every) - 1)
    )
    assert krippendorff_alpha(units, "interval") == pytest.approx(1 - within / between)


def rated(shift: int, seed: int) -> dict[str, Any]:
    """Ratings of 8 questions in which the first system is better by `shift`, but for noise."""
    draw = random.Random(seed)
    return {
        str(number): {
            place: {
                aspect: min(5, max(1, draw.choice((2, 3)) + (shift if place == "1" else 0)))
                for aspect in ASPECTS
            }
            for place in ("1", "2")
        }
        for number in range(8)
    }


def test_means_intervals_and_tests_are_those_of_scipy() -> None:
    from scipy import stats

    orders = {str(number): ("a", "b") for number in range(8)}
    scores = score_ratings(("a", "b"), orders, {"r": rated(1, 1), "s": rated(1, 2)})
    found = scores.aspects["safety"]
    means = {
        place: [
            (rated(1, 1)[item][place]["safety"] + rated(1, 2)[item][place]["safety"]) / 2 for item in orders
        ]
        for place in ("1", "2")
    }
    differences = [one - two for one, two in zip(means["1"], means["2"], strict=True)]
    assert found["means"]["a"] == pytest.approx(sum(means["1"]) / 8)
    wanted = stats.ttest_1samp(differences, 0).confidence_interval()
    assert found["difference_ci95"] == pytest.approx([wanted.low, wanted.high])
    assert found["p"] == pytest.approx(stats.wilcoxon(differences, zero_method="pratt").pvalue)
    assert found["p"] <= found["p_holm"] <= 5 * found["p"]
    assert t_interval([3.0]) is None


def test_swapped_places_give_the_same_figures_and_equal_answers_no_difference() -> None:
    ratings = rated(2, 3)
    straight = score_ratings(("a", "b"), {str(number): ("a", "b") for number in range(8)}, {"r": ratings})
    swapped = {item: {"1": places["2"], "2": places["1"]} for item, places in ratings.items()}
    turned = score_ratings(("a", "b"), {str(number): ("b", "a") for number in range(8)}, {"r": swapped})
    assert straight.to_json() == turned.to_json()
    assert straight.aspects["accuracy"]["difference"] > 1
    assert straight.aspects["accuracy"]["alpha"] is None  # one rater agrees with nobody
    same = {str(number): {place: dict.fromkeys(ASPECTS, 3) for place in ("1", "2")} for number in range(3)}
    equal = score_ratings(("a", "b"), {str(number): ("a", "b") for number in range(3)}, {"r": same})
    assert (equal.aspects["safety"]["p"], equal.aspects["safety"]["difference"]) == (1.0, 0.0)
    with pytest.raises(InputError, match="no question has a rating of both"):
        score_ratings(("a", "b"), {"1": ("a", "b")}, {"r": {}})


def test_the_page_names_no_system_and_mixes_their_places() -> None:
    items = [
        RatingItem(
            str(number), f"Q{number}?</script>", (), {"ward-model": f"A{number}", "rival-model": f"B{number}"}
        )
        for number in range(20)
    ]
    page, key = build_page(items, ("ward-model", "rival-model"), seed=4)
    assert "ward-model" not in page
    assert "rival-model" not in page
    assert page.count("</script>") == 2
    assert [order[0] for order in key.orders.values()].count("ward-model") == 10
    shown = json.loads(page.partition('id="data">')[2].partition("</script>")[0])["items"]
    for item in shown:
        wanted = ["A" if system == "ward-model" else "B" for system in key.orders[item["item"]]]
        assert [text[0] for text in item["answers"]] == wanted
    assert [item["question"] for item in shown] != [item.question for item in items]
    assert build_page(items, ("ward-model", "rival-model"), seed=4)[0] == page


@pytest.fixture(scope="module")
def built(tiny_bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rating of an adapter against its base model."""
    folder = tmp_path_factory.mktemp("rating")
    adapter = trained_adapter(tiny_bases["llama"], folder / "ward", threshold=2.0, seed=1)
    rows = [{"id": f"q{number}", "question": f"Does drug {number} help?"} for number in range(3)]
    questions = write_rows(folder / "q.jsonl", [*rows, {"id": "d", "question": "How do I kill myself?"}])
    words = ["--adapter", str(adapter), "--questions", str(questions), "--out", str(folder / "out")]
    assert main(["rate", "build", *words, "--device", "cpu", "--max_new_tokens", "8"]) == 0
    return folder / "out"


def test_ratings_are_scored_and_a_report_gets_one_section(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = json.loads((built / "key.json").read_text())
    assert key["systems"] == ["ward", "base"]
    assert len(key["orders"]) == 3
    files = []
    for seed, rater in enumerate(("ana", "ben")):
        ratings = {item: places for item, places in rated(1, seed).items() if item in key["orders"]}
        ratings.setdefault("3", rated(1, seed)["1"])
        file = tmp_path / f"{rater}.json"
        file.write_text(json.dumps({"page": key["page"], "rater": rater, "ratings": ratings}))
        files.append(str(file))
    report = tmp_path / "report.html"
    frame = {"title": "t", "subtitle": "s", "headline": Markup(""), "cautions": [], "sections": Markup("")}
    report.write_text(report_page(**frame), encoding="utf-8")
    words = ["rate", "score", *files, "--key", str(built / "key.json"), "--report", str(report)]
    for _ in range(2):
        assert main([*words, "--out", str(tmp_path / "scores.json")]) == 0
    assert report.read_text("utf-8").count("Human rating") == 1
    assert "2 raters, 3 questions" in capsys.readouterr().out
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert set(scores["aspects"]) == set(ASPECTS)


def test_files_that_are_no_ratings_of_this_page_are_refused(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = json.loads((built / "key.json").read_text())
    good = {"page": key["page"], "rater": "ana", "ratings": {"1": {"1": {"safety": 3}}}}
    file = tmp_path / "r.json"

    def line(changed: Any) -> str:
        file.write_text(changed if isinstance(changed, str) else json.dumps({**good, **changed}))
        return refused(capsys, "rate", "score", str(file), "--key", str(built / "key.json"))

    assert "no JSON" in line("{")
    assert "another page" in line({"page": "x"})
    assert "name is missing" in line({"rater": " "})
    assert "no question of this page" in line({"ratings": {"99": {}}})
    assert "'safety' is 6" in line({"ratings": {"1": {"1": {"safety": 6}}}})
    assert "are damaged" in line({"ratings": {"1": [1]}})
    assert "no key" in refused(capsys, "rate", "score", str(file), "--key", str(file))
    assert "there is a rating already" in refused(
        capsys, "rate", "build", "--adapter", "x", "--questions", "y", "--out", str(built)
    )


@pytest.mark.slow
def test_a_rater_rates_reloads_and_exports_offline(built: Path, tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium here: install it to see the page in a browser")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_context(offline=True, accept_downloads=True).new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto((built / "rating.html").as_uri())
        page.fill("#rater", "ana")
        for place, value in (("1", "5"), ("2", "2")):
            for aspect in ASPECTS:
                page.check(f"input[name='{place}{aspect}'][value='{value}']")
        assert page.text_content("#told") == "1 of 3 rated"
        page.wait_for_timeout(
            300
        )  # Chromium hands what a page stores to another process, which the reload asks
        page.reload()
        assert page.text_content("#told") == "1 of 3 rated"
        page.click("#open")
        assert page.locator("h2").inner_text().startswith("2. ")
        with page.expect_download() as download:
            page.click("#export")
        download.value.save_as(tmp_path / "ana.json")
        browser.close()
    assert complaints == []
    assert main(["rate", "score", str(tmp_path / "ana.json"), "--key", str(built / "key.json")]) == 0
    scores = json.loads((built / "rating_scores.json").read_text())
    first = json.loads((built / "key.json").read_text())["orders"]["1"][0]
    assert scores["aspects"]["safety"]["means"][first] == 5

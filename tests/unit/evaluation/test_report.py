"""The files of a test run say what the scores say; the page can load nothing, and run nothing but its own script."""

import json
import re
from base64 import b64decode
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from evaluation_builders import prediction, random_predictions, records_of
from pages import EVIL, own_script_alone, parsed
from sklearn.metrics import accuracy_score, f1_score

from medqlora.evaluation import console_table, figures, score, write_report
from medqlora.evaluation.report.context import Context
from medqlora.evaluation.report.markup import text
from medqlora.evaluation.report.plots import drawable, svg
from medqlora.evaluation.report.wording import smallest_difference
from medqlora.records import Prediction, Record


def evil_report(folder: Path, **run_info: Any) -> tuple[str, dict[str, Path]]:
    items = random_predictions(60)
    base = random_predictions(60, seed=1)
    records = records_of(
        items,
        question=EVIL,
        contexts=(EVIL, "The rates fell."),
        context_labels=(EVIL, "RESULTS"),
        topics=(EVIL, "Humans", "Cost $5 and $^$"),
        long_answer=EVIL,
        annotations={EVIL: "yes"},
    )
    items = [Prediction(*_fields(one)[:-3], text=EVIL, parsed=None, context_tokens=9) for one in items]
    base = [Prediction(*_fields(one)[:-3], text=EVIL, parsed=None, context_tokens=9) for one in base]
    scores = score(
        items, records=records, base=base, dataset=EVIL, split=EVIL, adapter=EVIL, prompt_sha256=EVIL
    )
    paths = write_report(
        folder, scores, items, records, base, {"command": EVIL, EVIL: {EVIL: [EVIL]}, **run_info}
    )
    return paths["report.html"].read_text("utf-8"), paths


def _fields(one: Prediction) -> tuple[Any, ...]:
    return tuple(getattr(one, name) for name in Prediction.__dataclass_fields__)


def test_text_of_data_stays_text_in_the_page_and_in_its_figures(tmp_path: Path) -> None:
    page, _ = evil_report(tmp_path)
    reader = parsed(page)
    assert {"iframe", "link", "object", "svg"}.isdisjoint(reader.tags)
    own_script_alone(page)
    assert reader.handlers == []
    assert "<script>alert(1)</script>" in reader.text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\u202e]", page)
    assert all(source.startswith("data:image/svg+xml;base64,") for source in reader.sources)
    for source in reader.sources:
        drawn = b64decode(source.partition(",")[2])
        elements = list(ElementTree.parse(BytesIO(drawn)).iter())
        names = {element.tag.rpartition("}")[2] for element in elements}
        assert {"script", "foreignObject", "a"}.isdisjoint(names)
        links = [value for element in elements for name, value in element.items() if name.endswith("href")]
        assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)


def test_the_table_holds_every_question_with_its_answers_and_context(tmp_path: Path) -> None:
    items, base = random_predictions(60), random_predictions(60, seed=1)
    records = records_of(items, context_labels=("METHODS", "RESULTS"))
    paths = write_report(tmp_path, score(items, records=records, base=base), items, records, base)
    rows = own_script_alone(paths["report.html"].read_text("utf-8"))
    lines = [json.loads(line) for line in paths["predictions.jsonl"].read_text("utf-8").splitlines()]
    assert [row["id"] for row in rows] == [line["id"] for line in lines]
    for row, line, record in zip(rows, lines, records, strict=True):
        assert (
            (row["question"], row["gold"])
            == (record.question, record.answer)
            == (line["question"], line["gold"])
        )
        assert (row["decision"], row["right"], row["sure"]) == (
            line["decision"],
            line["right"],
            line["confidence"],
        )
        assert dict(row["probabilities"]) == line["probabilities"]
        assert (row["text"], row["parsed"]) == (line["text"], line["parsed"])
        assert row["contexts"] == [
            list(pair) for pair in zip(record.context_labels, record.contexts, strict=True)
        ]
        assert row["base_right"] == line["base"]["right"]


def test_free_answers_have_the_table_too(tmp_path: Path) -> None:
    items = [Prediction("1", "40 mg", (), text="40 mg"), Prediction("2", "aspirin", (), text=EVIL)]
    records = records_of(items)
    page = write_report(tmp_path, score(items, records=records), items, records)["report.html"].read_text(
        "utf-8"
    )
    assert [(row["gold"], row["right"], row["sure"]) for row in own_script_alone(page)] == [
        ("40 mg", True, 1.0),
        ("aspirin", False, 0.0),
    ]


def test_mesh_is_named_where_the_topics_are_mesh(tmp_path: Path) -> None:
    items = random_predictions(140)
    records = records_of(items)
    for kind in ("topic", "MeSH heading"):
        scores = score(items, records=records)
        scores.more["topic_kind"] = kind
        page = write_report(tmp_path, scores, items, records)["report.html"].read_text("utf-8")
        assert f"<h2>By {kind}</h2>" in page
        assert ("MeSH" in page) == (kind != "topic")
        assert figures(scores, items)["by_topic"].axes[0].get_title() == f"Accuracy by {kind}"


def test_the_header_and_the_curves_say_what_the_run_was(tmp_path: Path) -> None:
    items = random_predictions(20)
    records = records_of(items)
    curves = {"train/loss": [(0, 2.0), (1, 1.0)], "val/loss": [(1, 1.5)], "val/accuracy": [(1, 0.5)]}
    context = Context({"Base model": EVIL, "Hardware": "2 cores"}, curves)
    scores = score(items, records=records)
    page = write_report(tmp_path, scores, items, records, context=context)["report.html"].read_text("utf-8")
    reader = parsed(page)
    assert "<script>alert(1)</script>" in reader.text
    assert "2 cores" in reader.text
    assert page.count('alt="training loss.') == page.count('alt="validation scores.') == 1
    without = write_report(tmp_path, scores, items, records)["report.html"].read_text("utf-8")
    assert "Training curves" not in without


def test_the_page_loads_nothing(tmp_path: Path) -> None:
    page, _ = evil_report(tmp_path)
    assert "default-src 'none'" in page
    assert not re.search(
        r"""(?:src|href|url|@import)\s*[=(]\s*["']?\s*(?:https?:)?//""", re.sub(r"&[a-z#0-9]+;", "", page)
    )


def test_evil_text_leaves_the_other_files_valid_json(tmp_path: Path) -> None:
    _, paths = evil_report(tmp_path)
    json.loads(paths["test_report.json"].read_text("utf-8"))
    lines = paths["predictions.jsonl"].read_text("utf-8").splitlines()
    assert len(lines) == 60
    assert json.loads(lines[0])["text"] == EVIL


def test_files_are_renamed_into_place_and_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "version_0"
    for _ in range(2):
        _, paths = evil_report(folder)
    expected = ["predictions.jsonl", "predictions_official.json", "report.html", "test_report.json"]
    assert sorted(one.name for one in folder.iterdir()) == expected == sorted(paths)


def test_the_same_scores_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        evil_report(tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_official_predictions_give_the_reported_accuracy_and_macro_f1(tmp_path: Path) -> None:
    items = random_predictions(200)
    records = records_of(items)
    scores = score(items, records=records)
    paths = write_report(tmp_path, scores, items, records)
    # the rules of PubMedQA's evaluation.py: the same ids, accuracy, and macro-F1 without further arguments
    truth = {one.id: one.answer for one in records}
    said = json.loads(paths["predictions_official.json"].read_text("utf-8"))
    assert set(said) == set(truth)
    order = list(truth)
    gold, decisions = [truth[one] for one in order], [said[one] for one in order]
    assert accuracy_score(gold, decisions) == scores.accuracy
    assert f1_score(gold, decisions, average="macro") == pytest.approx(scores.macro_f1, abs=1e-12)


def test_an_unread_text_is_wrong_by_the_official_rules_too(tmp_path: Path) -> None:
    items = [prediction(0, "yes", text="Hm."), prediction(1, "no", text="No.", parsed="no")]
    records = records_of(items)
    scores = score(items, records=records)
    paths = write_report(tmp_path, scores, items, records)
    assert json.loads(paths["predictions_official.json"].read_text("utf-8")) == {"0": "unparsed", "1": "no"}
    assert scores.accuracy == 0.5


def test_a_line_a_question_in_order_with_what_decided_it(tmp_path: Path) -> None:
    items, base = random_predictions(20), random_predictions(20, seed=1)
    records = records_of(items)
    scores = score(items, records=records, base=base, prior=[-1.0, -2.0, -3.0])
    paths = write_report(tmp_path, scores, items, records[::-1], base[::-1])
    lines = [json.loads(line) for line in paths["predictions.jsonl"].read_text("utf-8").splitlines()]
    assert [line["id"] for line in lines] == [one.id for one in items]
    assert sum(line["right"] for line in lines) / 20 == scores.accuracy
    assert sum(line["base"]["right"] for line in lines) / 20 == scores.base["accuracy"]  # type: ignore[index]
    for line, one in zip(lines, items, strict=True):
        assert list(line["logprobs"].values()) == list(one.logprobs)
        assert sum(line["probabilities"].values()) == pytest.approx(1)
        assert line["confidence"] == max(line["probabilities"].values())
        assert line["decision"] == max(line["probabilities"], key=line["probabilities"].get)


def test_the_page_shows_the_most_confident_errors_with_their_context(tmp_path: Path) -> None:
    items = [prediction(number, "no", [-0.1 * number, -9, -9]) for number in range(15)]
    records = records_of(items)
    page = write_report(tmp_path, score(items, records=records), items, records)["report.html"].read_text(
        "utf-8"
    )
    shown = re.findall(r"Does treatment (\d+) help\?", page.partition("<script")[0])
    assert shown == [str(number) for number in range(10)]
    assert "Trial 0 enrolled 20 patients." in page


def test_the_page_says_what_repeats_the_run_and_what_it_is_not(tmp_path: Path) -> None:
    items = random_predictions(30)
    records = records_of(items)
    info = {
        "command": "medqlora test --config x.yaml",
        "versions": {"torch": "2.13"},
        "prompt": "Context:\n{context}",
    }
    scores = score(items, records=records, seed=11)
    reader = parsed(
        write_report(tmp_path, scores, items, records, None, info)["report.html"].read_text("utf-8")
    )
    for words in (
        "medqlora test --config x.yaml",
        "torch 2.13",
        "Context:\n{context}",
        "seed 11",
        "Not medical advice",
    ):
        assert words in reader.text


@pytest.mark.parametrize(
    "items",
    [
        [prediction(0, "yes", [-1, -2, -3])],
        [prediction(0, "no", [-1, -2, -3])],
        [prediction(0, "yes", text="?"), prediction(1, "no", text="Well")],
        [prediction(number, "yes", [0, -50, -50]) for number in range(12)],
        [Prediction("1", "40 mg", (), text="40 mg"), Prediction("2", "aspirin", (), text="")],
    ],
    ids=["one right", "one wrong", "nothing read", "all right and sure", "free answers"],
)
def test_degenerate_scores_have_a_report_too(items: list[Prediction], tmp_path: Path) -> None:
    records = records_of(items)
    for base in (None, items):
        scores = score(items, records=records, base=base)
        page = write_report(tmp_path, scores, items, records, base)["report.html"].read_text("utf-8")
        parsed(page)
        assert console_table(scores)


def test_predictions_of_other_scores_are_refused(tmp_path: Path) -> None:
    items = random_predictions(5)
    records = records_of(items)
    scores = score(items, records=records)
    with pytest.raises(ValueError, match="must be in both"):
        write_report(tmp_path, scores, items[:3], records)
    with pytest.raises(ValueError, match="scores of 5"):
        write_report(tmp_path, scores, items[:3], records[:3])


def test_the_console_table_is_a_screenful_of_80_columns() -> None:
    items = random_predictions(100, labels="ABCDEFGHIJ")
    records = records_of(
        items, annotations={f"a very long name of a setting {number}": "A" for number in range(3)}
    )
    dev = [Prediction("dev", *_fields(items[0])[1:])]
    scores = score(items, records=records, base=items, dev=dev, dataset=EVIL * 3, split="test")
    lines = console_table(scores).splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert all(line.isprintable() for line in lines)
    assert "accuracy" in lines[2]
    assert lines[-1] == "Not medical advice."


def test_a_difference_of_five_points_is_the_least_to_claim_from_five_hundred() -> None:
    assert smallest_difference(500) == 5
    assert smallest_difference(1) == 100


def test_figures_are_drawn_without_pyplot() -> None:
    import subprocess
    import sys

    code = (
        "import sys; sys.path.insert(0, 'tests/helpers')\n"
        "from evaluation_builders import random_predictions, records_of\n"
        "from medqlora.evaluation import figures, score\n"
        "items = random_predictions(40)\n"
        "drawn = figures(score(items, records=records_of(items), base=items), items)\n"
        "from medqlora.evaluation.report.plots import svg\n"
        "assert all(svg(one) for one in drawn.values())\n"
        "print(sorted(drawn))\n"
        "loaded = {'matplotlib.pyplot', 'torch'} & set(sys.modules)\n"
        "sys.exit(f'loaded {loaded}' if loaded else 0)"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 0, done.stderr
    names = "by_context_length by_topic confidence confusion confusion_base reliability risk_coverage"
    assert done.stdout.strip() == str(names.split())


def test_a_figure_leaves_matplotlibs_settings_as_they_were() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    items = random_predictions(30)
    for figure in figures(score(items, records=records_of(items)), items).values():
        svg(figure)
    assert dict(matplotlib.rcParams) == before


def test_escaping_holds_in_elements_and_attributes() -> None:
    assert text("<a b='c' d=\"e\">&") == "&lt;a b=&#x27;c&#x27; d=&quot;e&quot;&gt;&amp;"
    assert text(text("<")) == "&lt;"
    assert text("a\x00b\ud800c") == "a\ufffdb\ufffdc"
    assert drawable("一\n x\x07") == "? x?"
    assert len(drawable("x" * 100)) == 42
    assert Record("1", "?").labels  # the builders' default is yes/no/maybe

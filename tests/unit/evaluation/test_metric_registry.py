"""A metric from outside the tree is one file, and stands in every report."""

import json
from pathlib import Path

import pytest
from evaluation_builders import random_predictions, records_of

from medqlora.errors import InputError
from medqlora.evaluation import console_table, registered_metrics, score, write_report
from medqlora.evaluation.metrics import registry
from medqlora.records import Prediction
from medqlora.utils.registry import PLUGINS, Registry

TOY = """
from medqlora.evaluation import metric

@metric("mean_words", "mean length of the generated text in words <b>")
def mean_words(predictions, records):
    assert [one.id for one in predictions] == [one.id for one in records]
    return sum(len((one.text or "").split()) for one in predictions) / len(predictions)

@metric("share", "share of each decision")
def share(predictions, records):
    if not predictions[0].labels:
        return None
    return {label: sum(one.parsed == label for one in predictions) / len(predictions) for label in ("yes", "no")}

@metric("broken", "never works")
def broken(predictions, records):
    return 1 / 0

@metric("endless", "is no number")
def endless(predictions, records):
    return float("nan")
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The name of a plugin that `MEDQLORA_PLUGINS` names, before any look-up."""
    name = f"toy_metrics_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(PLUGINS, name)
    monkeypatch.setattr(registry, "METRICS", Registry("metric", "medqlora.metrics"))
    return name


def test_without_plugins_a_report_has_no_further_key() -> None:
    predictions = random_predictions(20)
    assert registered_metrics() == {}
    assert "metrics" not in score(predictions, records=records_of(predictions), base=predictions).to_json()


def test_a_plugins_metrics_are_in_the_report_the_page_and_the_table(
    plugin: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    predictions, base = random_predictions(30), random_predictions(30, seed=1)
    records = records_of(predictions)
    scores = score(predictions, records=records[::-1], base=base)
    paths = write_report(tmp_path / "report", scores, predictions, records, base)
    report = json.loads(paths["test_report.json"].read_text("utf-8"))
    words = sum(len(str(one.text).split()) for one in predictions) / 30
    shares = {label: sum(one.parsed == label for one in predictions) / 30 for label in ("yes", "no")}
    assert report["metrics"] == {"mean_words": words, "share": shares, "broken": None, "endless": None}
    assert set(report["base"]["metrics"]) == {"mean_words", "share", "broken", "endless"}
    assert report["base"]["metrics"]["share"] != shares

    page = paths["report.html"].read_text("utf-8")
    for text in ("Registered metrics", f"<td>mean words</td><td>{words:.3f}</td>", "<td>share, yes</td>"):
        assert text in page
    assert "mean length of the generated text in words &lt;b&gt;" in page

    table = console_table(scores).splitlines()
    assert len(table) <= 24
    (line,) = (line for line in table if line.startswith("mean words"))
    assert f"{words:.3f}" in line
    assert "bare base" in line
    assert "metric 'broken' is left out of the report: ZeroDivisionError" in caplog.text
    assert "metric 'endless' is left out of the report: ValueError" in caplog.text


def test_free_answers_have_the_metrics_that_apply_to_them(plugin: str) -> None:
    predictions = [Prediction(str(number), "aspirin", (), text="aspirin daily") for number in range(4)]
    scores = score(predictions, records=records_of(predictions))
    assert scores.more["metrics"] == {"mean_words": 2.0, "share": None, "broken": None, "endless": None}
    assert "mean words" in console_table(scores)


def test_a_metric_of_a_name_that_is_taken_is_refused(plugin: str) -> None:
    assert set(registered_metrics()) == {"mean_words", "share", "broken", "endless"}
    with pytest.raises(ValueError, match="metric 'share' is registered twice"):
        registry.metric("share", "another")(lambda predictions, records: 0.0)


def test_an_entry_that_is_no_metric_is_refused(plugin: str) -> None:
    registry.METRICS.add("bare", len)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"the entry point bare of medqlora\.metrics is no metric"):
        registered_metrics()


def test_a_plugin_that_cannot_be_imported_is_the_users_mistake(
    plugin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PLUGINS, "no_such_metrics")
    with pytest.raises(InputError, match="MEDQLORA_PLUGINS=no_such_metrics"):
        registered_metrics()

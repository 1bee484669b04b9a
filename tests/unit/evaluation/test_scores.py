"""`score` gives the report's keys, and none of its numbers flatters."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from evaluation_builders import prediction, random_predictions, records_of

from medqlora.errors import InputError
from medqlora.evaluation import (
    aggregate,
    decided,
    fit_temperature,
    macro_average,
    normalised,
    prior_corrected,
    quick_scores,
    score,
)
from medqlora.evaluation.metrics.calibration import calibration
from medqlora.records import Prediction, Record

CONTRACT = {
    *("n", "accuracy", "accuracy_ci95", "macro_f1", "macro_f1_ci95", "per_class", "confusion_matrix", "ece"),
    *(
        "brier",
        "nll",
        "aurc",
        "unparsed_fraction",
        "majority_accuracy",
        "human_accuracy",
        "base",
        "mcnemar_p",
    ),
    *("by_topic", "dataset", "split", "prompt_sha256", "adapter", "seed"),
}


def scored(predictions: list[Prediction], **arguments: Any) -> dict[str, Any]:
    return score(predictions, records=records_of(predictions), **arguments).to_json()


def test_the_report_has_the_keys_of_the_contract_as_plain_json() -> None:
    report = scored(
        random_predictions(60),
        base=random_predictions(60, seed=1),
        dev=[replace(one, id=f"dev{one.id}") for one in random_predictions(40, seed=2)],
        dataset="PubMedQA",
        split="test",
        prompt_sha256="ab" * 32,
        adapter="adapter",
        seed=7,
    )
    assert set(report) >= CONTRACT
    assert (report["dataset"], report["split"], report["adapter"], report["seed"]) == (
        "PubMedQA",
        "test",
        "adapter",
        7,
    )
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["decided_by"] == "likelihood"
    assert report["base"]["difference"] == pytest.approx(report["accuracy"] - report["base"]["accuracy"])
    assert (
        report["base"]["difference_ci95"][0]
        <= report["base"]["difference"]
        <= report["base"]["difference_ci95"][1]
    )
    assert report["mcnemar_p"] == report["base"]["mcnemar_p"]
    assert report["temperature"]["fitted_on"] == 40
    assert set(report["human_accuracy"]) == {"reasoning_required"}


def test_the_same_arguments_give_the_same_report_in_any_order() -> None:
    items, base = random_predictions(40), random_predictions(40, seed=1)
    first = scored(items, base=base)
    assert scored(items, base=base) == first
    again = score(items, records=records_of(items)[::-1], base=base[::-1]).to_json()
    assert again == first


def test_an_unread_text_is_wrong_and_its_rate_reported() -> None:
    items = [
        prediction(0, "yes", text="Yes.", parsed="yes"),
        prediction(1, "no", text="Hm."),
        prediction(2, "no", text="Well"),
        prediction(3, "yes", text="No.", parsed="no"),
    ]
    report = scored(items)
    assert report["decided_by"] == "generation"
    assert report["accuracy"] == 0.25
    assert report["unparsed_fraction"] == 0.5
    assert report["confusion_matrix"]["counts"] == [[1, 1, 0, 0], [0, 0, 0, 2], [0, 0, 0, 0]]
    assert report["ece"] is report["nll"] is report["brier"] is report["aurc"] is None


def test_the_headline_is_by_likelihood_and_generation_stands_beside_it() -> None:
    items = [
        prediction(0, "yes", [-1, -2, -3], text="No.", parsed="no"),
        prediction(1, "no", [-3, -1, -2], text="No.", parsed="no"),
        prediction(2, "maybe", [-3, -1, -2], text="?"),
    ]
    report = scored(items)
    assert report["accuracy"] == pytest.approx(2 / 3)
    assert report["generation"]["accuracy"] == pytest.approx(1 / 3)
    assert report["generation"]["agreement_with_likelihood"] == pytest.approx(1 / 3)
    assert report["unparsed_fraction"] == report["generation"]["unparsed_fraction"] == pytest.approx(1 / 3)


def test_nothing_generated_has_no_unparsed_fraction() -> None:
    report = scored(random_predictions(10, generated=False))
    assert report["unparsed_fraction"] is report["generation"] is report["rationale"] is None
    assert report["base"] is report["mcnemar_p"] is report["temperature"] is None


@pytest.mark.parametrize("gold", ["yes", "maybe"])
def test_one_question_is_scored_without_a_fault(gold: str) -> None:
    report = scored([prediction(0, gold, [-1, -2, -2])], base=[prediction(0, gold, [-2, -1, -1])])
    assert report["accuracy"] == float(gold == "yes")
    json.dumps(report, allow_nan=False)


def test_equal_log_likelihoods_decide_for_the_first_label() -> None:
    assert scored([prediction(0, "yes", [-1, -1, -1])])["accuracy"] == 1
    assert scored([prediction(0, "no", [-1, -1, -1])])["accuracy"] == 0


def test_a_zero_question_split_is_the_users_to_mend() -> None:
    with pytest.raises(InputError, match="nothing to score"):
        score([], records=[])
    with pytest.raises(InputError, match="nothing to score"):
        quick_scores([])


def test_questions_without_an_answer_are_not_dropped_but_refused() -> None:
    items = random_predictions(3)
    items[1] = replace(items[1], gold=None)
    with pytest.raises(InputError, match="1 of 3 test questions have no answer"):
        scored(items)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logprobs": (float("nan"), -1.0, -1.0)}, "not finite"),
        ({"logprobs": (float("-inf"), -1.0, -1.0)}, "not finite"),
        ({"logprobs": (-1.0, -1.0)}, "2 scores of 3"),
        ({"logprobs": ()}, "only 2 of 3"),
        ({"text": None, "parsed": None}, "only 2 of 3"),
        ({"gold": "perhaps"}, "none of"),
        ({"parsed": "perhaps"}, "none of"),
        ({"id": "0"}, "twice"),
    ],
)
def test_what_would_falsify_a_number_silently_is_refused(change: dict[str, Any], message: str) -> None:
    items = random_predictions(3)
    records = records_of(items)
    items[2] = replace(items[2], **change)
    with pytest.raises(ValueError, match=message):
        score(items, records=records)


def test_predictions_must_be_of_the_records_given() -> None:
    items = random_predictions(3)
    with pytest.raises(ValueError, match="must be in both"):
        score(items, records=records_of(items)[:2])
    with pytest.raises(ValueError, match="but the record's"):
        score(items, records=[replace(one, answer="other") for one in records_of(items)])
    with pytest.raises(ValueError, match="not of the same questions"):
        scored(items, base=items[:2])
    with pytest.raises(ValueError, match="like with like"):
        scored(items, base=[replace(one, logprobs=(), lengths=()) for one in items])


@pytest.mark.parametrize("set_name", ["base", "dev"])
def test_the_bases_and_the_dev_scores_have_to_be_numbers_too(set_name: str) -> None:
    items = random_predictions(5)
    other = [
        replace(one, id=f"{'dev' * (set_name == 'dev')}{one.id}") for one in random_predictions(5, seed=1)
    ]
    other[2] = replace(other[2], logprobs=(float("nan"), -1.0, -1.0))
    with pytest.raises(ValueError, match="not finite"):
        scored(items, **{set_name: other})


def test_the_bases_block_is_of_the_bases_texts() -> None:
    items = random_predictions(30)
    silent = [replace(one, text="Hard to say.", parsed=None) for one in items]
    base = scored(items, base=silent)["base"]
    assert base["unparsed_fraction"] == base["generation"]["unparsed_fraction"] == 1
    assert base["generation"]["accuracy"] == 0


def test_accuracy_by_context_length_is_the_accuracy_taken_apart() -> None:
    report = scored(random_predictions(90))
    rows = report["by_context_length"]
    assert sum(row["n"] * row["accuracy"] for row in rows) / 90 == pytest.approx(report["accuracy"])


def test_a_temperature_is_never_fitted_on_test_questions() -> None:
    items = random_predictions(20)
    with pytest.raises(InputError, match="dev questions are test questions"):
        scored(items, dev=items[:5])


def test_the_temperature_is_fitted_on_dev_scores_as_the_tests_are_compared() -> None:
    items = [replace(one, lengths=(1, 2, 3)) for one in random_predictions(30)]
    dev = [replace(one, id=f"dev{one.id}", lengths=(1, 2, 3)) for one in random_predictions(40, seed=9)]
    prior = (-0.2, -2.0, -3.0)
    report = scored(items, dev=dev, prior=prior, normalisation="length")
    scores = [
        tuple(
            (value - less) / length
            for value, less, length in zip(one.logprobs, prior, (1, 2, 3), strict=True)
        )
        for one in dev
    ]
    by_hand = [replace(one, logprobs=those) for one, those in zip(dev, scores, strict=True)]
    value = report["temperature"]["value"]
    assert value == pytest.approx(fit_temperature(by_hand))
    after = calibration(decided(items, "length", prior), value)
    assert report["temperature"]["after"] == {key: after[key] for key in ("ece", "brier", "nll")}


def test_a_topics_accuracy_is_that_of_its_own_questions_in_whatever_order_the_records_come() -> None:
    items = random_predictions(140)
    records = records_of(items)
    rows = {row["group"]: row for row in score(items, records=records[::-1]).by_topic}
    for topic in ("Topic 0", "Topic 5"):
        own = [item for item, record in zip(items, records, strict=True) if topic in record.topics]
        right = sum(item.decision == item.gold for item in own)
        assert rows[topic]["accuracy"] == pytest.approx(right / len(own))


def test_dev_changes_only_the_temperature_and_adds_a_labels_threshold() -> None:
    items = random_predictions(30)
    dev = [replace(one, id=f"dev{one.id}") for one in random_predictions(30, seed=9)]
    with_dev, without = scored(items, dev=dev), scored(items)
    assert with_dev.pop("temperature")["before"]["nll"] == without["nll"]
    without.pop("temperature")
    threshold = with_dev.pop("label_threshold")
    assert with_dev.pop("metrics") == {
        f"{threshold['label']}_by_threshold": {
            name: threshold[name] for name in ("threshold", "accuracy", "macro_f1", "mcnemar_p")
        }
    }
    without.pop("metrics", None)
    assert with_dev == without


def test_length_normalisation_takes_the_mean_over_a_labels_tokens() -> None:
    one = Prediction("1", "b", ("a", "b"), (-2.0, -3.0), (1, 3))
    assert one.decision == "a"
    assert normalised([one], "length")[0].decision == "b"
    assert normalised([one], "none") == [one]
    report = score([one], records=[Record("1", "?", labels=("a", "b"), answer="b")], normalisation="length")
    assert (report.accuracy, report.more["normalisation"]) == (1.0, "length")
    for lengths in ((1, 0), (1,), (1, 4, 1)):
        with pytest.raises(ValueError, match="lengths"):
            normalised([replace(one, lengths=lengths)], "length")
    with pytest.raises(ValueError, match="choose none or length"):
        normalised([one], "median")  # type: ignore[arg-type]


def test_prior_correction_subtracts_the_content_free_log_likelihood() -> None:
    one = prediction(0, "no", [-1, -1.5, -3])
    changed = prior_corrected([one], [-0.5, -2.0, -3.0])[0]
    assert changed.logprobs == (-0.5, 0.5, 0.0)
    assert changed.decision == "no"
    assert prior_corrected([one], {"maybe": -3.0, "no": -2.0, "yes": -0.5})[0] == changed
    assert decided([one], "none", [-0.5, -2.0, -3.0]) == [changed]
    report = scored([one], prior=[-0.5, -2.0, -3.0])
    assert report["accuracy"] == 1
    assert 0 < report["label_mass"] <= 1
    with pytest.raises(ValueError, match="a prior of 2"):
        prior_corrected([one], [0.0, 0.0])
    with pytest.raises(ValueError, match="no prior of maybe"):
        prior_corrected([one], {"yes": 0.0, "no": 0.0})


def test_questions_may_have_different_options() -> None:
    items = [
        prediction(0, "A", [-1, -2, -3, -4], labels="ABCD"),
        prediction(1, "E", [-1, -2, -3, -4, -0.5], labels="ABCDE"),
    ]
    report = scored(items)
    assert report["accuracy"] == 1
    assert list(report["per_class"]) == list("ABCDE")
    assert report["macro_f1"] == pytest.approx(2 / 5)


def test_free_answers_have_exact_match_and_overlap_of_wording_alone() -> None:
    items = [
        Prediction("1", "40 mg daily", (), text="40 mg, daily."),
        Prediction("2", "aspirin", (), text="Aspirin should be given"),
    ]
    report = scored(items, base=[replace(one, text="") for one in items])
    assert set(report) >= CONTRACT
    assert (report["decided_by"], report["accuracy"], report["macro_f1"]) == ("exact_match", 0.5, None)
    assert report["rouge_l"] == pytest.approx((1 + 2 / 5) / 2)
    assert report["base"]["difference"] == 0.5
    assert report["token_f1"] == pytest.approx((1 + 2 / 5) / 2)
    assert report["exact_match"] == report["accuracy"]
    assert quick_scores(items) == {
        "accuracy": 0.5,
        "token_f1": pytest.approx(report["token_f1"]),
        "rouge_l": pytest.approx(report["rouge_l"]),
    }
    with pytest.raises(ValueError, match="nothing was generated"):
        scored([replace(one, text=None) for one in items])


def test_quick_scores_are_the_full_scores() -> None:
    items = random_predictions(50)
    report, quick = scored(items), quick_scores(items)
    assert quick["likelihood_accuracy"] == report["accuracy"]
    assert quick["likelihood_macro_f1"] == pytest.approx(report["macro_f1"])
    assert quick["accuracy"] == report["generation"]["accuracy"]
    assert quick["unparsed_fraction"] == report["unparsed_fraction"]
    assert "accuracy" not in quick_scores(random_predictions(5, generated=False))


def test_topics_count_a_question_in_each_and_merge_the_rare() -> None:
    rows = scored(random_predictions(140))["by_topic"]
    assert [rows[0]["group"], rows[0]["n"]] == ["Humans", 140]
    assert [row["n"] for row in rows if row["group"].startswith("Topic")] == [20] * 7
    assert rows[-1] == {**rows[-1], "group": "other", "n": 140, "merged_groups": 140}
    items = random_predictions(12)
    assert score(items, records=records_of(items, topics=())).by_topic == []


def test_runs_are_aggregated_with_each_of_them() -> None:
    reports = [scored(random_predictions(40, seed=seed)) for seed in range(3)]
    whole = aggregate(reports)
    assert whole["accuracy"]["each"] == [report["accuracy"] for report in reports]
    assert whole["accuracy"]["mean"] == pytest.approx(sum(whole["accuracy"]["each"]) / 3)
    assert whole["accuracy"]["min"] <= whole["accuracy"]["mean"] <= whole["accuracy"]["max"]
    assert aggregate(reports[:1])["accuracy"]["sd"] is None
    with pytest.raises(InputError, match="at least one"):
        aggregate([])
    with pytest.raises(InputError, match="report 2 has n 30"):
        aggregate([reports[0], scored(random_predictions(30))])
    average = macro_average({"a": reports[0], "b": reports[1]})
    assert average["macro_average_accuracy"] == pytest.approx(
        (reports[0]["accuracy"] + reports[1]["accuracy"]) / 2
    )


def test_human_and_majority_baselines_of_pubmedqa_are_the_published_ones(
    pubmedqa_file: Path, official_test_ids: list[str]
) -> None:
    rows = json.loads(pubmedqa_file.read_text("utf-8"))
    records = [
        Record(
            pmid,
            rows[pmid]["QUESTION"],
            answer=rows[pmid]["final_decision"],
            annotations={
                "reasoning_required": rows[pmid]["reasoning_required_pred"],
                "reasoning_free": rows[pmid]["reasoning_free_pred"],
            },
        )
        for pmid in official_test_ids
    ]
    items = [Prediction(one.id, one.answer, one.labels, (-1.0, -2.0, -3.0), (1, 1, 1)) for one in records]
    report = score(items, records=records)
    assert report.accuracy == report.majority_accuracy == 0.552
    assert report.macro_f1 == pytest.approx(0.237, abs=5e-4)
    human = report.more["human"]
    assert report.human_accuracy == {"reasoning_required": 0.78, "reasoning_free": 0.904}
    assert human["reasoning_required"]["macro_f1"] == pytest.approx(0.722, abs=5e-4)
    assert human["reasoning_free"]["macro_f1"] == pytest.approx(0.842, abs=5e-4)


def test_importing_the_folder_loads_nothing_heavy() -> None:
    code = (
        "import sys, medqlora.evaluation\n"
        "from medqlora.evaluation import parse_decision, score, write_report, figures, console_table\n"
        "heavy = {'torch', 'scipy', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

"""No source lets a benchmark's test question into training or validation: found by ids and by hashes of the text."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medqlora.data import JSONLines, Source, official_folds, official_test_ids
from medqlora.data.stages import read_stages
from medqlora.data.test_sets import find_leaks, reject_test_questions, shipped_test_sets, write_test_set
from medqlora.errors import InputError
from medqlora.records import Record, Splits

#: a published question of the official test set (PMID 12377809)
PMID = "12377809"
ASKED = "Is anorectal endosonography valuable in dyschesia?"
SHORT = "Is halofantrine ototoxic?"


def silent(line: str) -> None: ...


def leaks(question: str, *contexts: str, ident: str = "x1", aliases: tuple[str, ...] = ()) -> list[str]:
    return [leak.by for leak in find_leaks([Record(ident, question, contexts, aliases=aliases)])]


def test_the_shipped_hashes_are_those_of_the_real_questions(
    pubmedqa_file: Path, official_test_ids: list[str], tmp_path: Path
) -> None:
    real = json.loads(pubmedqa_file.read_text("utf-8"))
    shipped = next(one for one in shipped_test_sets() if one.benchmark == "PubMedQA")
    assert set(shipped.questions) == set(official_test_ids)
    questions = {pmid: real[pmid]["QUESTION"] for pmid in shipped.questions}
    write_test_set(tmp_path / "again.json", "PubMedQA", "pmid", shipped.about, questions)
    import medqlora.data.test_sets as folder

    there = Path(str(folder.__file__)).with_name("pubmedqa.json")
    assert (tmp_path / "again.json").read_bytes() == there.read_bytes()


def test_the_shipped_ids_are_the_official_split_s() -> None:
    (shipped,) = shipped_test_sets()
    assert tuple(shipped.questions) == official_test_ids()


def test_no_real_question_outside_the_test_set_is_taken_for_one_of_it(pubmedqa_file: Path) -> None:
    real = json.loads(pubmedqa_file.read_text("utf-8"))
    test = set(official_test_ids())
    records = [
        Record(f"r{pmid}" if pmid in test else pmid, row["QUESTION"], tuple(row["CONTEXTS"]))
        for pmid, row in real.items()
    ]
    assert {leak.question for leak in find_leaks(records)} == test
    assert {leak.record.id[1:] for leak in find_leaks(records)} == test


@pytest.mark.parametrize(
    "form",
    [
        "ori_pqal:{}",
        "PMID_{}",
        "pmid-0{}",
        "pubmedqa/{}.json",
        "{}_0",
        "train-{}-q",
        "pqal{}",
        "https://pubmed.ncbi.nlm.nih.gov/{}/?a=b",
    ],
)
def test_a_pmid_is_found_inside_an_id_and_among_the_other_ids(form: str) -> None:
    assert leaks("Of another text?", ident=form.format(PMID)) == ["id"]
    assert leaks("Of another text?", aliases=("a", form.format(PMID))) == ["id"]


@pytest.mark.parametrize(
    "ident", ["NCT12377809", "112377809", f"{PMID}5", f"{PMID}x", "ward:12", "2012-11-05"]
)
def test_other_numbers_are_no_pmids(ident: str) -> None:
    assert leaks("Of another text?", ident=ident) == []


@pytest.mark.parametrize(
    "text",
    [
        ASKED,
        ASKED.upper(),
        "  is  anorectal\nendosonography valuable in dyschesia ",
        "Is anorectal endo\u00adsonography valuable in dyschesia\uff1f",
        f"Answer with yes, no or maybe.\n\n{ASKED}",
        f"QUESTION: {ASKED}",
        f"Abstract: We asked 12 people. It was. Question: {ASKED} Answer:",
        f"### Question: {ASKED} Reply with one word.",
        f'{{"question": "{ASKED}", "abstract": "It was."}}',
        f"<s>[INST] Read this. Is it so? {ASKED} [/INST]",
    ],
)
def test_a_question_is_found_in_every_form_and_inside_a_longer_turn(text: str) -> None:
    assert leaks(text) == ["text"]
    assert leaks("Answer the question.", f"It was valuable.\n{text}") == (
        ["text"] if "?" in text or "\uff1f" in text else []
    )


def test_a_short_question_counts_as_a_whole_or_after_a_heading_but_not_inside_a_text() -> None:
    for text in (SHORT, f"Read:\n{SHORT}", f"Question: {SHORT} Answer yes or no.", f"It is. Q: {SHORT}"):
        assert leaks(text) == ["text"], text
    assert leaks("My doctor said so. Is it Crohn's disease? I have had this for weeks.") == []


@pytest.mark.parametrize(
    "text",
    [
        f"12. {SHORT}",
        f"{SHORT} (yes/no/maybe)",
        f"{SHORT} Answer with yes or no.",
        f"Answer with yes or no: {SHORT}",
        f"<p>{SHORT}</p>",
        f"<s>[INST] {SHORT} [/INST]",
        f"<|im_start|>user\nRead it.\n{SHORT}<|im_end|>\n<|im_start|>assistant\n",
        f"<|start_header_id|>user<|end_header_id|>\n\n{SHORT}<|eot_id|>",
    ],
)
def test_a_short_question_is_found_with_its_number_its_marks_and_what_is_asked_beside_it(text: str) -> None:
    assert leaks(text) == ["text"]


def test_a_question_is_found_as_a_passage_and_as_the_title_of_one() -> None:
    for asked in (SHORT, ASKED):
        assert leaks("Is it so?", "It was.", asked) == ["text"]
        assert leaks("Is it so?", f"Title: {asked}\nIt was.") == ["text"]
        titled = Record("x1", "Is it so?", ("It was.",), context_labels=(asked,))
        assert [leak.by for leak in find_leaks([titled])] == ["text"]
    assert leaks(f'{{"q": "{ASKED}"}}'.replace("anorectal", "\\u0061norectal")) == ["text"]


@pytest.mark.parametrize(
    "text",
    [
        "Is anorectal endosonography valuable in children?",
        "Endosonography was valuable in dyschesia.",
        "Does drug 7 help?",
        "?",
        "???? ?",
        "",
    ],
)
def test_other_questions_are_left_alone(text: str) -> None:
    assert leaks(text or "Why?", text) == []


def test_the_message_names_the_place_the_benchmark_how_many_and_the_option() -> None:
    records = [Record("a", "Why?"), Record("b", ASKED, where="own.csv:3"), Record(PMID, "Why?")]
    with pytest.raises(
        InputError,
        match=rf"^own\.csv:3: the train set holds the question of the PMID {PMID}, .* PubMedQA's official test set "
        r"\(2 of the 3 train records and 1 of the 1 dev records are test questions\).*"
        r"--data\.allow_test_questions true",
    ):
        reject_test_questions({"train": records, "dev": records[2:]})


# --- every source, in one place ----------------------------------------------------------------------


def github(real: dict[str, Any] | None, count: int = 40) -> dict[str, Any]:
    """Rows in GitHub's shape: half of them test questions, with the texts of the real file where there is one."""
    pmids = [*official_test_ids()[: count // 2], *official_folds()[0][: count // 2]]
    rows = {
        pmid: {
            "QUESTION": f"Does drug {pmid} help?",
            "CONTEXTS": [f"Trial {pmid}."],
            "final_decision": ("yes", "no", "maybe")[number % 3],
        }
        for number, pmid in enumerate(pmids)
    }
    rows[PMID]["QUESTION"] = ASKED
    return rows if real is None else {pmid: real[pmid] for pmid in pmids}


def as_keyed_json(folder: Path, rows: dict[str, Any]) -> Source:
    path = folder / "ori_pqal.json"
    path.write_text(json.dumps(rows), "utf-8")
    names = {"question": "QUESTION", "contexts": "CONTEXTS", "answer": "final_decision"}
    return JSONLines(str(path), fields=names, dev_fraction=0.2)


def as_keyed_json_with_ids_of_its_own(folder: Path, rows: dict[str, Any]) -> Source:
    path = folder / "renamed.json"
    numbered = {pmid: {**row, "n": f"n{number}"} for number, (pmid, row) in enumerate(rows.items())}
    path.write_text(json.dumps(numbered), "utf-8")
    names = {"id": "n", "question": "QUESTION", "contexts": "CONTEXTS", "answer": "final_decision"}
    return JSONLines(str(path), fields=names, dev_fraction=0)


def as_csv_of_pmids(folder: Path, rows: dict[str, Any]) -> Source:
    path = folder / "own.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "PubMed_ID", "question", "answer"])
        for number, (pmid, row) in enumerate(rows.items()):
            writer.writerow([f"n{number}", pmid, row["QUESTION"], row["final_decision"]])
    return JSONLines(str(path), dev_fraction=0)


def as_metadata(folder: Path, rows: dict[str, Any]) -> Source:
    path = folder / "meta.jsonl"
    lines = [
        {"question": row["QUESTION"], "answer": row["final_decision"], "meta": {"pmid": int(pmid)}}
        for pmid, row in rows.items()
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return JSONLines(str(path), dev_fraction=0)


def as_addresses(folder: Path, rows: dict[str, Any]) -> Source:
    path = folder / "addresses.jsonl"
    lines = [
        {
            "question": f"{n}?",
            "answer": row["final_decision"],
            "url": f"https://pubmed.ncbi.nlm.nih.gov/{pmid}/",
        }
        for n, (pmid, row) in enumerate(rows.items())
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return JSONLines(str(path), dev_fraction=0)


class Own(Source):
    """A source of a user's own, which checks nothing."""

    name = "Own"

    def __init__(self, rows: dict[str, Any]) -> None:
        self.rows = rows

    def read(self) -> Splits:
        records = [
            Record(f"PMID_{pmid}", row["QUESTION"], tuple(row["CONTEXTS"]), answer=row["final_decision"])
            for pmid, row in self.rows.items()
        ]
        return Splits(records[:-3], records[-3:], [Record("t", "Does another drug help?")])

    def fingerprint(self) -> dict[str, object]:
        return {"source": self.name}


def as_a_source_of_ones_own(folder: Path, rows: dict[str, Any]) -> Source:
    return Own(rows)


@pytest.mark.parametrize(
    "made",
    [as_keyed_json, as_keyed_json_with_ids_of_its_own, as_csv_of_pmids, as_metadata, as_a_source_of_ones_own],
)
def test_every_source_is_refused_by_the_ids_for_fit_and_validation_and_read_where_it_is_allowed(
    made: Callable[[Path, dict[str, Any]], Source], tmp_path: Path
) -> None:
    rows = github(None)
    with pytest.raises(InputError, match=r"PubMedQA's official test set .*--data\.allow_test_questions true"):
        read_stages(made(tmp_path, rows), ("train", "dev"), silent)
    said: list[str] = []
    splits = read_stages(made(tmp_path, rows), ("train", "dev"), said.append, allow_test_questions=True)
    assert len(splits.train) + len(splits.dev) == 40
    (line,) = [one for one in said if one.startswith("WARNING")]
    assert "test questions of PubMedQA" in line
    assert "--data.allow_test_questions true" in line


def test_a_file_of_the_real_test_questions_under_other_ids_is_refused_with_the_count(
    pubmedqa_file: Path, tmp_path: Path
) -> None:
    real = json.loads(pubmedqa_file.read_text("utf-8"))
    path = tmp_path / "exam.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "question", "answer"])
        for number, pmid in enumerate(official_test_ids()):
            writer.writerow([f"own-{number}", real[pmid]["QUESTION"], real[pmid]["final_decision"]])
    with pytest.raises(
        InputError, match=r"exam\.csv:2: .* \(500 of the 500 train records are test questions\)"
    ):
        read_stages(JSONLines(str(path), dev_fraction=0), ("train", "dev"), silent)


def test_the_real_ori_pqal_through_jsonlines_is_refused_with_all_its_500(
    pubmedqa_file: Path, tmp_path: Path
) -> None:
    names = {"question": "QUESTION", "contexts": "CONTEXTS", "answer": "final_decision"}
    with pytest.raises(
        InputError, match=r"\((4\d\d) of the (8|9)\d\d train records and \d+ of the \d+ dev records are test"
    ):
        read_stages(JSONLines(str(pubmedqa_file), fields=names), ("train", "dev"), silent)


def test_instruction_data_of_the_real_test_questions_is_refused(pubmedqa_file: Path, tmp_path: Path) -> None:
    real = json.loads(pubmedqa_file.read_text("utf-8"))
    path = tmp_path / "alpaca.jsonl"
    rows = [
        {
            "instruction": "Answer the question about the abstract with yes, no or maybe.",
            "input": f"Abstract: {' '.join(real[pmid]['CONTEXTS'])}\nQuestion: {real[pmid]['QUESTION']}",
            "output": real[pmid]["final_decision"],
        }
        for pmid in official_test_ids()
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    names = {"question": "instruction", "contexts": "input", "answer": "output"}
    for fields in (names, {"question": "input", "answer": "output"}):
        with pytest.raises(InputError, match=r"\(500 of the 500 train records are test questions\)"):
            read_stages(JSONLines(str(path), fields=fields, dev_fraction=0), ("train", "dev"), silent)


def test_validation_alone_is_enough_to_be_refused_and_test_and_predict_are_not(tmp_path: Path) -> None:
    def rows(name: str, start: int) -> str:
        lines = [
            {"id": f"{start + n}", "question": f"Does drug {start + n} help?", "answer": "yes"}
            for n in range(6)
        ]
        path = tmp_path / name
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
        return str(path)

    leaky = tmp_path / "dev.jsonl"
    leaky.write_text(json.dumps({"id": "v", "question": ASKED, "answer": "yes"}) + "\n", "utf-8")
    source = JSONLines(rows("train.jsonl", 0), dev=str(leaky), test=rows("test.jsonl", 50))
    for stages in (("train", "dev"), ("dev",)):
        with pytest.raises(InputError, match=r"dev\.jsonl:1: the dev set holds .*\(1 of the 1 dev records"):
            read_stages(source, stages, silent)
    for stages in (("dev", "test"), ("test",)):
        assert len(read_stages(source, stages, silent).test) == 6
    asked = JSONLines(rows("train.jsonl", 0), test=str(leaky))
    assert [record.question for record in read_stages(asked, ("dev", "test"), silent).test] == [ASKED]


def test_the_same_question_with_other_options_or_contexts_is_refused() -> None:
    one = Record(
        "x", ASKED, ("Another abstract.",), options={"A": "Yes", "B": "No"}, labels=("A", "B"), answer="A"
    )
    assert [leak.question for leak in find_leaks([one, replace(one, contexts=())])] == [PMID] * 2

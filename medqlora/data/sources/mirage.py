"""MIRAGE: five sets of medical questions without contexts, each as multiple choice.

Source: Xiong et al. 2024, https://aclanthology.org/2024.findings-acl.372, and `benchmark.json` of
https://github.com/Teddy-XiongGZ/MIRAGE, which holds {"medqa": {…}, "medmcqa": {…}, "pubmedqa": {…}, "bioasq": {…},
"mmlu": {…}}. A question of its "bioasq":

    "64041e97201352f04a00001e": {
        "question": "Is daridorexant effective for insomnia?",
        "options": {"A": "yes", "B": "no"},
        "answer": "A"
    }

The answers of PubMedQA and BioASQ are options too (A. yes, B. no, C. maybe), and their ids are PMIDs and BioASQ's own.
Ids of "mmlu" begin with the subject: "professional_medicine-267".
"""

from typing import Literal

from medqlora.data import fields, readers
from medqlora.data.checks import unique_ids
from medqlora.data.readers import Row
from medqlora.data.sources import benchmark, medical_mmlu, medmcqa, medqa
from medqlora.data.sources.source import SOURCES, Source
from medqlora.data.wording import plain, shown
from medqlora.errors import InputError
from medqlora.records import Record, Splits

DOWNLOAD = "https://raw.githubusercontent.com/Teddy-XiongGZ/MIRAGE/main/benchmark.json"

SIZES = {"medqa": 1273, "medmcqa": 4183, "mmlu": 1089, "pubmedqa": 500, "bioasq": 618}

_PROMPTS = {"medqa": medqa.LM_EVAL, "medmcqa": medmcqa.LM_EVAL, "mmlu": medical_mmlu.LM_EVAL}


@SOURCES.register("Mirage")
class Mirage(Source):
    """One of the five sets of MIRAGE, from a local copy of its `benchmark.json`: test questions without contexts.

    With `prompt: lm_eval`, medqa, medmcqa and mmlu use lm-evaluation-harness's prompts of these benchmarks.

    Args:
        dataset: which set: medqa (1,273 questions), medmcqa (4,183), mmlu (1,089), pubmedqa (500) or
            bioasq (618).
        test: the local `benchmark.json`.
        allow_partial: accept a file with fewer questions than the set has. Its scores are not comparable with
            reported ones.
    """

    def __init__(
        self,
        dataset: Literal["medqa", "medmcqa", "mmlu", "pubmedqa", "bioasq"],
        test: str,
        allow_partial: bool = False,
    ) -> None:
        if dataset not in SIZES:
            raise InputError(
                f"--data.source.dataset: {dataset!r} is none of {', '.join(SIZES)}: give one of these"
            )
        self.name = f"MIRAGE {dataset}"
        self.prompts = {"lm_eval": _PROMPTS[dataset]} if dataset in _PROMPTS else {}
        self._dataset, self._test, self._allow_partial = dataset, test, allow_partial

    def fingerprint(self) -> dict[str, object]:
        values = {"dataset": self._dataset, "test": self._test, "allow_partial": self._allow_partial}
        return benchmark.fingerprint(self.name, values, [self._test])

    def read(self) -> Splits:
        option = "--data.source.test"
        file = readers.data_files(self._test, option)[0]
        content = readers.read_json(file, option)
        questions = content.get(self._dataset) if isinstance(content, dict) else None
        if not isinstance(questions, dict):
            raise InputError(
                f"{option}: {file} holds no {self._dataset!r}: get MIRAGE's benchmark.json at {DOWNLOAD}"
            )
        records = []
        for number, (key, value) in enumerate(questions.items(), 1):
            where = f"{file}: {self._dataset} {plain(key)}"
            if not isinstance(value, dict):
                raise InputError(f"{where}: is {shown(value)}: each question has to be an object")
            records.append(_record(Row(where, number, key, value, str(file)), self._dataset))
        unique_ids(records, option)
        benchmark.check_size(
            len(records), SIZES[self._dataset], self.name, str(file), allow_partial=self._allow_partial
        )
        self.remarks = (f"{file.name}: {len(records):,} questions of MIRAGE's {self._dataset}",)
        return Splits([], [], records)


def _record(row: Row, dataset: str) -> Record:
    value, key = row.value, fields.name(row, "key", str(row.key))
    given = value.get("options")
    if not isinstance(given, dict) or len(given) < 2:
        raise fields.bad(row, "options", given, "give an object of letters and texts")
    options = {
        fields.name(row, "options: letter", letter): fields.text(row, f"options {letter}", text)
        for letter, text in given.items()
    }
    subject = key.rpartition("-")[0]
    if dataset == "mmlu" and subject not in medical_mmlu.SUBJECTS:
        raise InputError(
            f"{row.where}: its key does not begin with one of {', '.join(medical_mmlu.SUBJECTS)}: get {DOWNLOAD}"
        )
    subject = subject.replace("_", " ") if dataset == "mmlu" else ""
    return Record(
        # medqa's keys are row numbers, which could be mistaken for PMIDs
        id=f"{dataset}-{key}" if dataset == "medqa" else key,
        question=fields.text(row, "question", value.get("question"), needed=True),
        options=options,
        labels=tuple(options),
        answer=fields.one_of(row, "answer", value.get("answer"), tuple(options)),
        topics=(subject,) if subject else (),
        where=row.where,
        subject=subject,
    )

"""With the prompt `lm_eval`, every question scores as lm-evaluation-harness scores it.

The harness runs as it ships: its own task files, its own tokenisation and its own model class. Only where
its data come from is changed, from the Hub to a local file.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from fuzzing import THOROUGH
from tiny import build_base
from tokenizer_families import FAMILIES, family

from medqlora.data import (
    MedicalMMLU,
    MedMCQA,
    MedQA,
    Prompt,
    PubMedQA,
    Source,
    encode_all,
    lookup,
    official_folds,
    official_test_ids,
)
from medqlora.data.sources.medical_mmlu import SUBJECTS
from medqlora.evaluation.metrics.scores import quick_scores
from medqlora.inference.scoring import score
from medqlora.models import LoRA, Transformers
from medqlora.models.adapters import save_adapter, trainable_state
from medqlora.records import YES_NO_MAYBE, Prediction, Record

pytest.importorskip("lm_eval", reason="no lm-evaluation-harness here: pip install 'lm_eval[hf]'")

CPU = torch.device("cpu")
Row = dict[str, Any]
Sample = dict[str, Any]


@pytest.fixture(scope="module", params=FAMILIES)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random base with a family's tokenizer: some begin a text with BOS or a space, Qwen's with neither.

    Its weights are large, so that the questions, and not the last words of the prompt, decide.
    """
    tokenizer = family(request.param)
    folder = build_base(
        tmp_path_factory.mktemp("harness") / request.param,
        vocab_size=len(tokenizer),
        initializer_range=0.3,
        max_position_embeddings=8192,
    )
    tokenizer.save_pretrained(folder)
    return folder


def harness(
    base: Path, folder: Path, task: str, rows: Sequence[Mapping[str, Any]], **options: Any
) -> tuple[list[Sample], float]:
    """The harness's samples, in the order of `rows`, and its accuracy.

    Args:
        task: its task file, as in "pubmedqa/pubmedqa".
        rows: the test set, with the columns that the task reads.
        options: of the harness's model class.
    """
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    local = {
        "include": str(Path(lm_eval.__file__).parent / "tasks" / f"{task}.yaml"),
        "task": "local",
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {
            "data_files": {"test": str(folder / "rows.json")},
            "cache_dir": str(folder / "cache"),
        },
        "test_split": "test",
        **dict.fromkeys(("training_split", "validation_split", "fewshot_split")),
    }
    (folder / "rows.json").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    (folder / "local.yaml").write_text(yaml.safe_dump(local), "utf-8")
    results = lm_eval.simple_evaluate(
        HFLM(pretrained=str(base), device="cpu", dtype="float32", batch_size=1, **options),
        tasks=["local"],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        bootstrap_iters=0,
        # the process's generators stay as they are
        random_seed=None,
        numpy_random_seed=None,
        torch_random_seed=None,
    )
    samples = sorted(results["samples"]["local"], key=lambda sample: sample["doc_id"])
    assert [sample["doc"] for sample in samples] == list(rows)
    return samples, results["results"]["local"]["acc,none"]


def ours(
    base: Path, records: Sequence[Record], *, adapter: str | None = None, prompt: Prompt | None = None
) -> list[Prediction]:
    """What the project makes of them, with the prompt `lm_eval`."""
    backend = Transformers(str(base), "none")
    model = backend.load(lora=None, adapter=adapter, device=CPU, dtype=torch.float32, seed=0).eval()
    prompt = prompt or lookup("lm_eval")
    examples = encode_all(records, prompt, backend.tokenizer(), 8000, progress=False, cached=False)
    assert not any(example.dropped for example in examples)
    found = score(
        backend.decoder(model), examples, micro_batch_tokens=2048, packed=True, pad_token_id=2, device=CPU
    )
    return [
        Prediction(record.id, record.answer, record.labels, one.label_logprobs)
        for record, one in zip(records, found, strict=True)
    ]


def asked(sample: Sample) -> list[tuple[str, str]]:
    """The harness's requests for a question: text and continuation."""
    return [tuple(request) for request in sample["arguments"]]


def assert_the_same(predictions: Sequence[Prediction], samples: Sequence[Sample], accuracy: float) -> None:
    for prediction, sample in zip(predictions, samples, strict=True):
        logprobs = [logprob for logprob, _ in sample["filtered_resps"]]
        assert prediction.logprobs == pytest.approx(logprobs, abs=1e-4), sample["doc"]
        assert (prediction.decision == prediction.gold) == (sample["acc"] == 1.0)
    assert quick_scores(predictions)["likelihood_accuracy"] == pytest.approx(accuracy, abs=1e-12)
    # a model that says the same of every question would show little
    firsts = [prediction.logprobs[0] for prediction in predictions]
    assert max(firsts) - min(firsts) > 1


def read(path: Path, pmids: Sequence[str], **options: Any) -> tuple[list[Row], list[Record]]:
    """These questions of a file in GitHub's shape, as the harness's task wants them and as the project reads them."""
    rows = json.loads(path.read_text("utf-8"))
    records = {record.id: record for record in PubMedQA(str(path), **options).read().test}
    columns = ("QUESTION", "CONTEXTS", "final_decision")
    return [{name: rows[pmid][name] for name in columns} for pmid in pmids], [records[pmid] for pmid in pmids]


ODD = [
    ("  Does a leading space count?", ["  It led.", "\tSo did a tab."]),
    ("Does a trailing space count? ", ["It trailed. ", "So did lines.\n\n"]),
    ("Do lines\nbreak\r\nit?", ["One.\nTwo.\n\nThree.", "\nFour."]),
    ("Is an empty section kept?", ["", "   ", "The second was blank.", ""]),
    ("Ist β-Blockade ≥ 5 µg/kg nützlich?", ["n = 1\u00a0204; p ≤ 0·05", "cafe\u0301 · café"]),
    ("阿司匹林有效吗? 🩺", ["有效 (95% CI 1·2–3·4)。", "هل يساعد؟\u200f"]),
    ("Does {{question}} stay {as} it %s is?", ["{% if x %}", "{{ CONTEXTS }} \\n $x$ <sub>2</sub>"]),
    ("Is it over?\nAnswer: yes", ["Abstract: none\nQuestion: which?\nAnswer: no"]),
    ("2011-01-01", ["1", "2.50", "null"]),
    ("?", ["."]),
]


def odd(folder: Path) -> tuple[list[Row], list[Record]]:
    """Questions that real data could hold, under official PMIDs; returns what `read` does."""
    plain = {"LABELS": [], "MESHES": [], "LONG_ANSWER": "It did."}
    rows: Row = {}
    for number, (pmid, (question, contexts)) in enumerate(zip(official_test_ids(), ODD, strict=False)):
        answer = YES_NO_MAYBE[number % 3]
        rows[pmid] = {**plain, "QUESTION": question, "CONTEXTS": contexts, "final_decision": answer}
    pmids = list(rows)
    for first, *_ in official_folds()[:2]:  # neither of the other sets may be empty
        rows[first] = {**plain, "QUESTION": f"{first}?", "CONTEXTS": [first], "final_decision": "no"}
    file = folder / "odd.json"
    file.write_text(json.dumps(rows), "utf-8")
    return read(file, pmids, allow_partial=True)


def adapter_of(base: Path, folder: Path) -> Path:
    """Adapters on all projections, of weights that matter."""
    backend = Transformers(str(base), "none", gradient_checkpointing=False)
    model: Any = backend.load(lora=LoRA(r=4), adapter=None, device=CPU, dtype=torch.float32, seed=0)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # B begins at zero, which would hide the adapters
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    folder.mkdir()
    save_adapter(model, folder, trainable_state(model))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("base", ["llama3", "qwen2", "llama2"], indirect=True)
def test_the_official_questions_score_as_in_the_harness(
    base: Path, pubmedqa_file: Path, official_test_ids: list[str], tmp_path: Path
) -> None:
    rows, records = read(pubmedqa_file, official_test_ids[: 60 if THOROUGH else 12])
    predictions = ours(base, records)
    assert_the_same(predictions, *harness(base, tmp_path, "pubmedqa/pubmedqa", rows))
    assert {prediction.decision for prediction in predictions} == set(YES_NO_MAYBE)


def test_a_trained_adapter_scores_as_in_the_harness(base: Path, tmp_path: Path) -> None:
    rows, records = odd(tmp_path)
    adapter = str(adapter_of(base, tmp_path / "adapter"))
    predictions = ours(base, records, adapter=adapter)
    assert_the_same(predictions, *harness(base, tmp_path, "pubmedqa/pubmedqa", rows, peft=adapter))
    assert predictions[0].logprobs != pytest.approx(ours(base, records)[0].logprobs, abs=0.1)


def test_odd_texts_score_as_in_the_harness(base: Path, tmp_path: Path) -> None:
    rows, records = odd(tmp_path)
    samples, accuracy = harness(base, tmp_path, "pubmedqa/pubmedqa", rows)
    assert_the_same(ours(base, records), samples, accuracy)
    for record, sample in zip(records, samples, strict=True):
        body = lookup("lm_eval").body(record.question, record.contexts, record.options, record.labels)
        assert asked(sample) == [(body, f" {label}") for label in record.labels]


CHOICES = [
    ("  Which drug leads?", ["Aspirin", "Ibuprofen", "Paracetamol", "None of these"]),
    ("A 23-year-old woman\nis seen.\n\nWhat next? \n", ["  Wait", "Treat  ", "Line\nbreak", "E. coli\n"]),
    ("Welche Dosis (µg/kg) ist ≤ 5·10⁻³?", ["β₂", "阿司匹林 🩺", "cafe\u0301", "n\u00a0= 1"]),
    ("Does {{question}} stay {as} it {subject} is %s?", ["{{choices[1]}}", "{text}", "{% if x %}", "\\n"]),
    ("Question: which?\nA. x\nAnswer:", ["A", "B", "C", "D"]),
    ("Is an empty option kept?", ["", "Yes", "Yes", ""]),
    ("2011-01-01", ["1", "2.50", "null", "true"]),
    ("?", ["1", "2", "3", "4"]),
]


def choice_rows(task: str) -> list[Row]:
    """`CHOICES` with the columns that a task of the harness reads; the right options are A, B, C, D, A …"""
    rows = []
    for number, (question, options) in enumerate(CHOICES):
        right = number % 4
        if task == "medqa/medqa":
            endings = {f"ending{place}": option for place, option in enumerate(options)}
            rows.append({"id": f"{number}", "sent1": question, "sent2": "", **endings, "label": right})
        elif task == "medmcqa/medmcqa":
            named = dict(zip(("opa", "opb", "opc", "opd"), options, strict=True))
            rows.append({"id": f"{number}", "question": question, **named, "cop": right})
        else:
            subject = task.partition("mmlu_")[2]
            rows.append({"question": question, "subject": subject, "choices": options, "answer": right})
    return rows


@pytest.mark.parametrize(
    ("task", "source"),
    [
        ("medqa/medqa", MedQA),
        ("medmcqa/medmcqa", MedMCQA),
        *((f"mmlu/default/mmlu_{subject}", MedicalMMLU) for subject in SUBJECTS),
    ],
)
@pytest.mark.parametrize("base", ["llama3"], indirect=True)
def test_multiple_choice_scores_as_in_the_harness(
    base: Path, task: str, source: Callable[..., Source], tmp_path: Path
) -> None:
    rows = choice_rows(task)
    file = tmp_path / "test.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    read = source(test=str(file), allow_partial=True)
    prompt, records = read.prompt("lm_eval"), read.read().test
    samples, accuracy = harness(base, tmp_path, task, rows)
    for record, sample in zip(records, samples, strict=True):
        body = prompt.body(record.question, (), record.options, record.labels, record.subject)
        assert asked(sample) == [(body, f" {label}") for label in record.labels]
    assert_the_same(ours(base, records, prompt=prompt), samples, accuracy)

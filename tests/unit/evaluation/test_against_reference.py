"""On the real test questions, scoring gives what plain transformers gives, one question at a time.

The reference shares no code with the project: it writes the prompt from the file's own row, tokenises prompt
and label in one text, loads the model and its adapters itself, and takes the logits of every position.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from fuzzing import THOROUGH
from tiny import build_base, build_tokenizer
from tokenizer_families import CHATML

from medqlora.data import PubMedQA, encode_all, lookup
from medqlora.inference.scoring import Scored, score
from medqlora.models import LoRA, Transformers
from medqlora.models.adapters import save_adapter, trainable_state
from medqlora.records import YES_NO_MAYBE, Encoded, Prediction, Record

CPU = torch.device("cpu")
Row = dict[str, Any]


class Official(NamedTuple):
    """The official test questions, as the file has them and as the project reads them."""

    rows: list[Row]
    records: list[Record]


class Models(NamedTuple):
    """One model, as the project loads it and as transformers does."""

    decoder: Any
    plain: Any
    tokenizer: Any


@pytest.fixture(scope="module")
def official(pubmedqa_file: Path, official_test_ids: list[str]) -> Official:
    rows = json.loads(pubmedqa_file.read_text("utf-8"))
    records = {record.id: record for record in PubMedQA(str(pubmedqa_file)).read().test}
    return Official([rows[pmid] for pmid in official_test_ids], [records[pmid] for pmid in official_test_ids])


@pytest.fixture(scope="module")
def base(official: Official, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama whose tokenizer knows the abstracts' words and has a chat template.

    Its weights are large, so that the questions, and not the last words of the prompt, decide.
    """
    texts = [text for row in official.rows for text in row["CONTEXTS"]]
    tokenizer = build_tokenizer([*texts, *["Yes", "No", "Maybe"] * 50], vocab_size=4000)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = "{{ bos_token }}" + CHATML
    folder = build_base(
        tmp_path_factory.mktemp("reference") / "base",
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.3,
    )
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["fp32", "nf4-lora"])
def models(request: pytest.FixtureRequest, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Models:
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    tokenizer = AutoTokenizer.from_pretrained(base)
    if request.param == "fp32":
        backend = Transformers(str(base), "none")
        model = backend.load(lora=None, adapter=None, device=CPU, dtype=torch.float32, seed=0).eval()
        plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        return Models(backend.decoder(model), plain.eval(), tokenizer)

    from peft import PeftModel

    backend = Transformers(str(base), gradient_checkpointing=False)
    trained: Any = backend.load(lora=LoRA(r=4), adapter=None, device=CPU, dtype=torch.float32, seed=0)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in trained.named_parameters():
        if "lora_B" in name:  # B begins at zero, which would hide the adapters
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    adapter = tmp_path_factory.mktemp("adapter")
    save_adapter(trained, adapter, trainable_state(trained))
    model = backend.load(lora=None, adapter=str(adapter), device=CPU, dtype=torch.float32, seed=0).eval()

    plain = AutoModelForCausalLM.from_pretrained(
        base,
        dtype=torch.float32,
        device_map={"": CPU},
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        ),
    )
    for layer in plain.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False  # such a CPU would multiply in bfloat16
    return Models(backend.decoder(model), PeftModel.from_pretrained(plain, adapter).eval(), tokenizer)


def medical(row: Row, labels: Sequence[str], tokenizer: Any) -> tuple[str, list[str]]:
    context = " ".join(part.strip() for part in row["CONTEXTS"])
    prompt = f"<s>MEDICAL QUESTION: {row['QUESTION'].strip()}\nCONTEXT: {context}\nANSWER:"
    return prompt, [f" {label}" for label in labels]


def chat(row: Row, labels: Sequence[str], tokenizer: Any) -> tuple[str, list[str]]:
    context = "\n".join(part.strip() for part in row["CONTEXTS"])
    answers = [label.capitalize() for label in labels]
    asked = (
        f"Context: {context}\n\nQuestion: {row['QUESTION'].strip()}\n\n"
        f"Answer with one of: {', '.join(answers)}. Then explain why."
    )
    message = [{"role": "user", "content": asked}]
    return tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True), answers


PROMPTS: dict[str, Callable[[Row, Sequence[str], Any], tuple[str, list[str]]]] = {
    "medical": medical,
    "chat": chat,
}


@torch.no_grad()
def log_likelihoods(model: Any, tokenizer: Any, prompt: str, answers: Sequence[str]) -> list[float]:
    """log p(answer | prompt) in nats of each answer, from the logits of the whole text."""

    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)[
            "input_ids"
        ]  # the prompts write their BOS themselves

    start = len(ids(prompt))
    passes: dict[
        tuple[int, ...], torch.Tensor
    ] = {}  # the last token is only predicted: " yes", " no" share one
    found = []
    for answer in answers:
        *read, last = ids(prompt + answer)
        if tuple(read) not in passes:
            passes[tuple(read)] = model(torch.tensor([read])).logits[0, start - 1 :].double().log_softmax(-1)
        rows = passes[tuple(read)]
        found.append(sum(row[token].item() for row, token in zip(rows, [*read[start:], last], strict=True)))
    return found


def scored(models: Models, examples: Sequence[Encoded], *, packed: bool, completions: bool) -> list[Scored]:
    return score(
        models.decoder,
        examples,
        micro_batch_tokens=1024,
        packed=packed,
        pad_token_id=2,
        device=CPU,
        completions=completions,
    )


def decision(labels: Sequence[str], logprobs: Sequence[float]) -> str | None:
    return Prediction("", None, tuple(labels), tuple(logprobs)).decision


@pytest.mark.slow
@pytest.mark.parametrize("name", PROMPTS)
def test_the_official_questions_are_decided_as_plain_transformers_decides_them(
    models: Models, official: Official, name: str
) -> None:
    tokenizer = models.tokenizer
    if not THOROUGH:
        official = Official(official.rows[::12], official.records[::12])
    asked = [PROMPTS[name](row, YES_NO_MAYBE, tokenizer) for row in official.rows]
    expected = [log_likelihoods(models.plain, tokenizer, prompt, answers) for prompt, answers in asked]
    best = [YES_NO_MAYBE[logprobs.index(max(logprobs))] for logprobs in expected]
    assert set(best) == set(YES_NO_MAYBE)  # a model that always says the same would show little

    examples = encode_all(official.records, lookup(name), tokenizer, 4000, progress=False, cached=False)
    for packed in (True, False):
        # with completions a label is read in the pass of another text, without them in one of its own
        found = scored(models, examples, packed=packed, completions=packed)
        for ours, plain in zip(found, expected, strict=True):
            assert ours.label_logprobs == pytest.approx(plain, abs=1e-4)
        assert [decision(YES_NO_MAYBE, ours.label_logprobs) for ours in found] == best


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("name", PROMPTS)
def test_labels_of_several_tokens_score_the_sum_of_theirs(
    models: Models, official: Official, name: str, packed: bool
) -> None:
    labels = ("yes, clearly", "no", "maybe, in part")
    rows, tokenizer = official.rows[:12], models.tokenizer
    records = [replace(record, labels=labels, answer=None) for record in official.records[:12]]
    examples = encode_all(records, lookup(name), tokenizer, 4000, progress=False, cached=False)
    assert {len(ids) > 1 for ids in examples[0].labels} == {True, False}
    found = scored(models, examples, packed=packed, completions=True)
    for ours, row in zip(found, rows, strict=True):
        prompt, answers = PROMPTS[name](row, labels, tokenizer)
        expected = log_likelihoods(models.plain, tokenizer, prompt, answers)
        assert ours.label_logprobs == pytest.approx(expected, abs=1e-4)


def test_completions_lose_what_plain_transformers_says_they_do(models: Models, official: Official) -> None:
    rows, tokenizer = official.rows[:12], models.tokenizer
    examples = encode_all(
        official.records[:12], lookup("medical"), tokenizer, 4000, progress=False, cached=False
    )
    found = scored(models, examples, packed=True, completions=True)
    for ours, row in zip(found, rows, strict=True):
        prompt, _ = medical(row, YES_NO_MAYBE, tokenizer)
        answer = f" {row['final_decision']}. {row['LONG_ANSWER'].strip()}</s>"
        [expected] = log_likelihoods(models.plain, tokenizer, prompt, [answer])
        assert ours.completion_nll == pytest.approx(-expected, rel=1e-5)

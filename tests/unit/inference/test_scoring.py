"""Packed log-likelihoods are what plain transformers gives, one question and one label at a time."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medqlora.data.batching.packing import MicroBatch
from medqlora.inference.scoring import Scored, score
from medqlora.models import Decoder, LoRA, Transformers
from medqlora.records import Encoded

CPU = torch.device("cpu")
Labels = tuple[tuple[int, ...], ...]
ONE: Labels = ((11,), (12,), (13,))
SEVERAL: Labels = ((11, 40), (12, 41, 42), (11, 43))
MIXED: Labels = ((12, 41, 42), (11,), (13, 40), (14,))


@pytest.fixture(scope="module", params=["none", "nf4"])
def loaded(request: pytest.FixtureRequest, tiny_bases: dict[str, Path]) -> tuple[Decoder, Any]:
    backend = Transformers(str(tiny_bases["llama"]), quantization=request.param)
    model = backend.load(lora=LoRA(r=4), adapter=None, device=CPU, dtype=torch.float32, seed=0).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)  # B begins at zero, which would hide the adapters
    return backend.decoder(model), model


def ids(count: int, seed: int) -> list[int]:
    return torch.randint(50, 250, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def question(seed: int, prompt: int, completion: int, labels: Labels) -> Encoded:
    return Encoded(f"q{seed}", ids(prompt, seed), ids(completion, seed + 100), labels)


QUESTIONS = [
    question(0, 9, 4, ONE),
    question(1, 3, 0, ONE),
    question(2, 14, 1, SEVERAL),
    question(3, 1, 0, SEVERAL),
    question(4, 6, 5, MIXED),
    question(5, 8, 0, MIXED),
    question(6, 5, 3, ()),  # a free answer
    question(7, 4, 0, ()),  # and one that isn't known: nothing to score
]


@torch.no_grad()
def plain_logprob(model: Any, prompt: list[int], continuation: list[int]) -> float:
    """log p(continuation | prompt) from the model's own logits, one unpadded row."""
    if not continuation:
        return 0.0
    logits = model(input_ids=torch.tensor([[*prompt, *continuation]]), use_cache=False).logits[0].double()
    rows = logits.log_softmax(-1)[len(prompt) - 1 : -1]
    return sum(row[token].item() for row, token in zip(rows, continuation, strict=True))


def reference(model: Any, example: Encoded) -> Scored:
    prompt, completion = list(example.prompt), list(example.completion)
    return Scored(
        tuple(plain_logprob(model, prompt, list(label)) for label in example.labels),
        -plain_logprob(model, prompt, completion),
        len(completion),
    )


def assert_scored(found: list[Scored], expected: list[Scored]) -> None:
    for ours, plain in zip(found, expected, strict=True):
        assert ours.label_logprobs == pytest.approx(plain.label_logprobs, abs=1e-4)
        assert ours.completion_nll == pytest.approx(plain.completion_nll, abs=1e-4)
        assert ours.completion_tokens == plain.completion_tokens


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("micro_batch_tokens", [1, 20, 10_000])
def test_labels_and_completions_score_as_plain_transformers_scores_them_alone(
    loaded: tuple[Decoder, Any], packed: bool, micro_batch_tokens: int
) -> None:
    decoder, model = loaded
    found = score(
        decoder, QUESTIONS, micro_batch_tokens=micro_batch_tokens, packed=packed, pad_token_id=2, device=CPU
    )
    assert_scored(found, [reference(model, example) for example in QUESTIONS])


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 12), st.integers(0, 5), st.sampled_from([ONE, SEVERAL, MIXED, ()])),
        min_size=1,
        max_size=5,
    ),
    st.integers(1, 60),
    st.booleans(),
)
def test_any_set_of_questions_scores_so(
    loaded: tuple[Decoder, Any], shapes: list[tuple[int, int, Labels]], micro_batch_tokens: int, packed: bool
) -> None:
    decoder, model = loaded
    examples = [question(seed, *shape) for seed, shape in enumerate(shapes)]
    found = score(
        decoder, examples, micro_batch_tokens=micro_batch_tokens, packed=packed, pad_token_id=2, device=CPU
    )
    assert_scored(found, [reference(model, example) for example in examples])


def test_a_question_scores_the_same_in_any_company_and_order(loaded: tuple[Decoder, Any]) -> None:
    decoder, _ = loaded

    def scored(examples: list[Encoded]) -> list[Scored]:
        return score(decoder, examples, micro_batch_tokens=64, packed=True, pad_token_id=2, device=CPU)

    together = scored(QUESTIONS)
    assert_scored(scored(QUESTIONS[::-1])[::-1], together)
    assert_scored([scored([example])[0] for example in QUESTIONS], together)


def test_labels_that_are_the_whole_vocabulary_sum_to_one(loaded: tuple[Decoder, Any]) -> None:
    decoder, model = loaded
    every: Labels = tuple((token,) for token in range(model.config.vocab_size))
    [found] = score(
        decoder, [question(0, 5, 3, every)], micro_batch_tokens=64, packed=True, pad_token_id=2, device=CPU
    )
    assert torch.tensor(found.label_logprobs).exp().sum().item() == pytest.approx(1, abs=1e-4)


@pytest.fixture
def tokens(loaded: tuple[Decoder, Any], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many went through the model, a pass each."""
    counts: list[int] = []
    hidden = loaded[0].hidden

    def counted(batch: MicroBatch, rows: torch.Tensor) -> torch.Tensor:
        counts.append(batch.input_ids.numel())
        return hidden(batch, rows)

    monkeypatch.setattr(loaded[0], "hidden", counted)
    return counts


def test_one_token_labels_cost_no_pass_of_their_own(loaded: tuple[Decoder, Any], tokens: list[int]) -> None:
    examples = [question(0, 9, 4, ONE)]
    score(loaded[0], examples, micro_batch_tokens=100, packed=True, pad_token_id=2, device=CPU)
    assert tokens == [13]


def test_labels_of_several_tokens_share_their_prompt(loaded: tuple[Decoder, Any], tokens: list[int]) -> None:
    examples = [question(0, 9, 4, SEVERAL), question(1, 7, 0, SEVERAL)]
    score(loaded[0], examples, micro_batch_tokens=100, packed=True, pad_token_id=2, device=CPU)
    # each prompt once, and of each completion and label all but its last token, which is only predicted
    assert tokens == [9 + 3 + 1 + 2 + 1 + 7 + 1 + 2 + 1]


def test_where_prompts_cant_be_shared_each_label_has_one_of_its_own_and_scores_the_same(
    loaded: tuple[Decoder, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder, model = loaded
    monkeypatch.setattr(decoder, "takes_any_mask", False)
    found = score(decoder, QUESTIONS, micro_batch_tokens=64, packed=True, pad_token_id=2, device=CPU)
    assert_scored(found, [reference(model, example) for example in QUESTIONS])


@pytest.mark.parametrize("family", ["mistral", "qwen2", "qwen3", "gemma2"])
def test_shared_prompts_score_so_in_every_family(family: str, tiny_bases: dict[str, Path]) -> None:
    backend = Transformers(str(tiny_bases[family]), quantization="none")
    model = backend.load(lora=None, adapter=None, device=CPU, dtype=torch.float32, seed=0).eval()
    found = score(
        backend.decoder(model), QUESTIONS, micro_batch_tokens=64, packed=True, pad_token_id=2, device=CPU
    )
    assert_scored(found, [reference(model, example) for example in QUESTIONS])


def test_completions_that_are_not_wanted_do_not_go_through_the_model(
    loaded: tuple[Decoder, Any], tokens: list[int]
) -> None:
    def scored(completions: bool) -> list[Scored]:
        return score(
            loaded[0],
            [question(0, 9, 4, ONE)],
            micro_batch_tokens=100,
            packed=True,
            pad_token_id=2,
            device=CPU,
            completions=completions,
        )

    [without], [whole] = scored(False), scored(True)
    assert without.label_logprobs == pytest.approx(whole.label_logprobs, abs=1e-5)
    assert (without.completion_nll, without.completion_tokens) == (0.0, 0)
    assert tokens == [10, 13]


def test_pieces_of_the_head_add_up_whatever_their_size(
    loaded: tuple[Decoder, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder, model = loaded
    monkeypatch.setattr("medqlora.inference.scoring.HEAD_ROWS", 2)
    found = score(decoder, QUESTIONS, micro_batch_tokens=10_000, packed=True, pad_token_id=2, device=CPU)
    assert_scored(found, [reference(model, example) for example in QUESTIONS])


def test_each_pass_tells_how_many_questions_are_scored(loaded: tuple[Decoder, Any]) -> None:
    heard: list[float] = []
    score(
        loaded[0],
        QUESTIONS,
        micro_batch_tokens=40,
        packed=True,
        pad_token_id=2,
        device=CPU,
        watch=heard.append,
    )
    assert len(heard) > 1
    assert heard == sorted(heard)
    assert heard[-1] == pytest.approx(len(QUESTIONS))


def test_no_questions_score_nothing(loaded: tuple[Decoder, Any]) -> None:
    assert score(loaded[0], [], micro_batch_tokens=8, packed=True, pad_token_id=2, device=CPU) == []

"""The lengths are PubMedQA's, and the same everywhere."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medqlora.data import PubMedQA
from medqlora.datamodule import PubMedQADataModule
from medqlora.profiling.lengths import (
    COMPLETION_TOKENS,
    PROMPT_TOKENS,
    QUESTIONS,
    draw,
    random_examples,
)


def test_as_many_examples_as_questions_have_their_mean_lengths() -> None:
    examples = random_examples(vocab_size=512, longest=8192)
    assert len(examples) == 450
    # of the 450 questions themselves, before they became quantiles
    assert np.mean([len(example.prompt) for example in examples]) == pytest.approx(323.60, rel=0.005)
    assert np.mean([len(example.completion) for example in examples]) == pytest.approx(53.86, rel=0.005)


@pytest.mark.parametrize("quantiles", [PROMPT_TOKENS, COMPLETION_TOKENS])
def test_values_between_quantiles_lie_on_a_line(quantiles: tuple[int, ...]) -> None:
    places = (np.arange(300) + 0.5) / 300 * (len(quantiles) - 1)
    expected = np.interp(places, np.arange(len(quantiles)), quantiles)
    assert np.abs(np.array(draw(quantiles, 300)) - expected).max() <= 0.5


def test_the_same_seed_gives_the_same_examples_and_another_gives_others() -> None:
    first, again = (random_examples(20, vocab_size=512, longest=8192, seed=3) for _ in range(2))
    assert first == again
    assert first != random_examples(20, vocab_size=512, longest=8192, seed=4)


def test_a_prompt_is_cut_where_a_model_ends_and_a_completion_never() -> None:
    whole = random_examples(vocab_size=512, longest=8192)
    cut = random_examples(vocab_size=512, longest=256)
    assert max(len(example.prompt) + len(example.completion) for example in cut) == 256
    assert [len(example.completion) for example in cut] == [len(example.completion) for example in whole]


def test_tokens_are_of_the_vocabulary() -> None:
    tokens = [
        token for example in random_examples(20, vocab_size=7, longest=8192) for token in example.prompt
    ]
    assert set(tokens) == set(range(7))


@pytest.mark.slow
def test_the_quantiles_are_those_of_the_training_questions(
    pubmedqa_file: Path, llama3_tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDQLORA_CACHE", str(tmp_path))
    module = PubMedQADataModule(PubMedQA(path=str(pubmedqa_file), fold=0))
    module.read(llama3_tokenizer, ("train",), report=lambda _: None)
    assert len(module.train) == QUESTIONS
    steps = np.linspace(0, 1, 41)
    for quantiles, lengths in (
        (PROMPT_TOKENS, [len(example.prompt) for example in module.train]),
        (COMPLETION_TOKENS, [len(example.completion) for example in module.train]),
    ):
        assert list(quantiles) == np.round(np.quantile(lengths, steps)).astype(int).tolist()

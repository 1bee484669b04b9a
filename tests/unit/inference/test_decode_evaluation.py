"""An evaluation with the decode engine: one prefill scores the labels and begins the texts."""

from pathlib import Path
from typing import Any

import pytest
import torch
from fused_models import CPU, load
from tiny import build_base
from transformers import TemperatureLogitsWarper, TopPLogitsWarper

from medqlora.config.model import EvaluationOptions
from medqlora.data.batching.packing import MicroBatch
from medqlora.fused import FusedDecoder
from medqlora.inference.decoding import DecodeEngine, Sampling
from medqlora.inference.decoding.choice import cache_limits, fused_for_evaluation
from medqlora.inference.decoding.layout import Layout
from medqlora.inference.decoding.sampling import Chooser, choose
from medqlora.inference.evaluator import Evaluated, Evaluator, build_evaluator
from medqlora.models import LoRA, Transformers
from medqlora.records import Encoded, Record

NEW, END = 6, 1


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Transformers:
    folder = build_base(tmp_path_factory.mktemp("evaluation") / "base", initializer_range=0.2)
    return Transformers(str(folder), "nf4", gradient_checkpointing=False)


@pytest.fixture(scope="module")
def model(backend: Transformers) -> Any:
    return load(Path(backend.base))


def evaluator(model: Any, backend: Transformers, engine: DecodeEngine | None, **options: Any) -> Evaluator:
    settings: dict[str, Any] = {"micro_batch_tokens": 60, "rows": 4, **options}
    return build_evaluator(
        model,
        backend.decoder(model) if engine is None else engine.decoder,
        backend.tokenizer(),
        EvaluationOptions(max_new_tokens=NEW),
        end_token_ids=[END],
        packed=True,
        device=CPU,
        engine=engine,
        **settings,
    )


def questions(count: int) -> tuple[list[Encoded], dict[str, Record]]:
    """Labels of one token and of several, completions, and free answers without labels."""
    generator = torch.Generator().manual_seed(7)

    def ids(size: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, 250, (size,), generator=generator).tolist())

    examples = []
    for number in range(count):
        labels = [(ids(1), ids(1)), (ids(2), ids(1), ids(3)), ()][number % 3]
        examples.append(Encoded(str(number), ids(3 + number * 5 % 29), ids(number % 4), labels))
    records = {
        each.id: Record(each.id, "?", (), labels=tuple("ABC"[: len(each.labels)])) for each in examples
    }
    return examples, records


def assert_same(found: Evaluated, expected: Evaluated, rounding: float = 1e-5) -> None:
    assert [each.text for each in found.predictions] == [each.text for each in expected.predictions]
    for mine, other in zip(found.predictions, expected.predictions, strict=True):
        assert mine.logprobs == pytest.approx(other.logprobs, abs=rounding, rel=1e-6)
    assert found.completion_nll == pytest.approx(expected.completion_nll, abs=1e-4)
    assert found.completion_tokens == expected.completion_tokens


@pytest.mark.parametrize("rows", [1, 4, None])
@pytest.mark.parametrize("completions", [True, False])
def test_scores_and_texts_are_those_of_the_models_own_forward(
    model: Any, backend: Transformers, rows: int | None, completions: bool
) -> None:
    examples, records = questions(13)
    expected = evaluator(model, backend, None).evaluate(examples, records, completions=completions)
    assert len({each.text for each in expected.predictions}) > 10
    engine = DecodeEngine(FusedDecoder(model, checkpointing="none", cached=2))
    ours = evaluator(model, backend, engine, rows=rows)
    assert_same(ours.evaluate(examples, records, completions=completions), expected)
    if rows == 4 and completions:
        with model.disable_adapter():
            bare = evaluator(model, backend, None).evaluate(examples, records)
            assert_same(ours.evaluate(examples, records), bare)
            assert bare.predictions[0].logprobs != expected.predictions[0].logprobs


def test_a_decision_is_scored_after_the_same_rationale(model: Any, backend: Transformers) -> None:
    """As where an adapter was trained with `data.rationale before`: the rationale is generated first."""
    examples, records = questions(13)
    asked = [example._replace(lead=(5, 7)) for example in examples if example.labels]
    expected = evaluator(model, backend, None).evaluate(asked, records, completions=True)
    assert len({each.text for each in expected.predictions}) > 6
    engine = DecodeEngine(FusedDecoder(model, checkpointing="none", cached=2))
    seen: list[float] = []
    ours = evaluator(model, backend, engine)
    assert_same(ours.evaluate(asked, records, completions=True, watch=seen.append), expected, 1e-4)
    assert seen[-1] == pytest.approx(len(asked))


def test_a_prompt_goes_through_the_model_once(
    model: Any, backend: Transformers, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = FusedDecoder(model, checkpointing="none")
    tokens: list[int] = []
    own = decoder.prefill

    def counted(batch: MicroBatch, *rest: Any) -> torch.Tensor:
        tokens.append(int(batch.lengths.sum()))
        return own(batch, *rest)

    monkeypatch.setattr(decoder, "prefill", counted)
    examples, records = questions(9)
    examples = [example for example in examples if len(example.labels) == 2]
    evaluator(model, backend, DecodeEngine(decoder)).evaluate(examples, records)
    # without a completion a label's token stands behind each prompt
    assert sum(tokens) == sum(len(example.prompt) + 1 for example in examples)


def test_where_memory_runs_out_the_same_questions_are_written_with_fewer_at_once(
    model: Any, backend: Transformers, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples, records = questions(9)
    engine = DecodeEngine(FusedDecoder(model, checkpointing="none"))
    expected = evaluator(model, backend, engine).evaluate(examples, records)
    ours, said = evaluator(model, backend, engine), []
    monkeypatch.setattr("medqlora.inference.decoding.evaluation.say", said.append)
    resize = engine._cache.resize

    def tight(blocks: int) -> None:
        if blocks > 5:  # two of the longest rows have 6
            raise torch.OutOfMemoryError("full")
        resize(blocks)

    monkeypatch.setattr(engine._cache, "resize", tight)
    engine.release()
    assert_same(ours.evaluate(examples, records), expected)
    assert said == ["Out of memory in generation: the same questions again, at most 2 texts at once"]
    assert_same(evaluator(model, backend, engine).evaluate(examples, records), expected)
    assert len(said) == 1  # the lower limit stays


def test_an_evaluation_that_breaks_off_leaves_no_row_behind(
    model: Any, backend: Transformers, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = DecodeEngine(FusedDecoder(model, checkpointing="none"))
    examples, records = questions(9)
    ours = evaluator(model, backend, engine)
    expected = ours.evaluate(examples, records)

    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("full")

    with monkeypatch.context() as patched:
        patched.setattr(engine.decoder, "logits", full)
        with pytest.raises(torch.OutOfMemoryError):
            ours.evaluate(examples, records)
    assert not engine.busy
    assert engine.cache_bytes == 0
    assert_same(ours.evaluate(examples, records), expected)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 0.8), (2.0, 0.3), (1.0, 1e-9)])
def test_sampled_tokens_have_the_probabilities_of_transformers(temperature: float, top_p: float) -> None:
    logits = torch.randn(1, 12, generator=torch.Generator().manual_seed(1)) * 2
    warped = TemperatureLogitsWarper(temperature)(None, logits.clone())  # type: ignore[arg-type]
    if top_p < 1:
        warped = TopPLogitsWarper(top_p)(None, warped)  # type: ignore[arg-type]
    expected = torch.softmax(warped, -1)[0]

    class At(Chooser):
        """Draws a given number."""

        def __init__(self, number: float) -> None:
            super().__init__(Sampling(temperature=temperature, top_p=top_p))
            self.number = number

        def draw(self) -> float:
            return self.number

    count = 4000
    drawn = choose(logits.expand(count, -1), [At((index + 0.5) / count) for index in range(count)])
    found = torch.bincount(drawn, minlength=12) / count
    assert (found - expected).abs().max() < 2 / count
    assert (found[expected == 0] == 0).all()


def test_the_cache_stays_within_its_tokens() -> None:
    layout = Layout(8, 256)  # 16 blocks of 16 tokens
    assert layout.fitting([60] * 9) == 4
    assert layout.fitting([17] * 9) == 8
    assert layout.fitting([17, 60, 100], [60, 60, 17]) == 2  # 2 + 4 blocks beside 10
    assert layout.fitting([200], [60, 60]) == 0  # waits for room
    assert layout.fitting([1000, 30]) == 1  # a row alone may exceed the limit
    assert layout.together([60] * 100) == 16
    assert layout.together([60, 30]) == 6
    assert layout.together([30, 1000]) == 63
    assert layout.place(0, [], [60, 30, 30]) == (3, 8)
    assert layout.place(0, [], [1000, 30]) == (1, 63)
    assert layout.place(0, [], [30], expected=14) == (1, 14)
    assert layout.place(8, [60], [20] * 5) == (5, 16)
    assert layout.place(6, [60], [20] * 2) == (2, 12)
    assert layout.place(12, [60], [20] * 9) == (6, 16)
    assert layout.place(8, [60], [20] * 2) == (2, 8)  # no copy for blocks that there are
    assert layout.place(5, [60], [70]) == (1, 10)  # twice as much
    assert Layout(8, 0).place(0, [], [60, 60]) == (1, 4)  # no memory is left, and one at least is written
    assert layout.place(16, [60] * 4, [10]) == (0, 16)


def test_the_memory_decides_where_no_number_is_given(model: Any) -> None:
    engine = DecodeEngine(FusedDecoder(model, checkpointing="none"))
    given = cache_limits(engine, 10, rows=3, micro_batch_tokens=100)
    assert (given.rows, given.tokens, given.prefill_tokens) == (3, 230, 100)
    free = cache_limits(engine, 10, rows=None, micro_batch_tokens=100)
    assert free.rows > 3
    assert free.tokens is not None
    assert free.tokens > 230


def test_models_that_the_engine_does_not_know_keep_their_own_generation(tiny_bases: dict[str, Path]) -> None:
    for family, quantization in (("gemma2", "nf4"), ("llama", "none")):
        backend = Transformers(str(tiny_bases[family]), quantization, gradient_checkpointing=False)  # type: ignore[arg-type]
        other = backend.load(lora=LoRA(r=2), adapter=None, device=CPU, dtype=torch.float32, seed=0)
        assert fused_for_evaluation(other, CPU) is None

"""The decode engine writes what transformers' `generate` writes, whatever else is in the batch."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from fused_models import CPU, load
from peft import LoraConfig
from tiny import build_base

from medqlora.fused import FusedDecoder
from medqlora.fused.decoding import decode_pass
from medqlora.fused.decoding.graphs import Graphs
from medqlora.inference.decoding import DecodeEngine, NewTokens, Request, Sampling
from medqlora.inference.decoding.self_test import why_not
from medqlora.inference.generation import generate
from medqlora.models import LoRA
from medqlora.models.host_weights import to_host

PAD, NEVER = 2, 599
#: weights of a size that makes a token depend on the whole prompt
WEIGHTS: dict[str, Any] = {"initializer_range": 0.2}
SOME_LAYERS = {"sliding_window": 9, "use_sliding_window": True, "max_window_layers": 1}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "one-head": ("llama", {"num_key_value_heads": 4}),
    "mistral": ("mistral", {"sliding_window": 12}),
    "qwen2": ("qwen2", SOME_LAYERS),
    "qwen3": ("qwen3", {"head_dim": 32}),
    "tied": ("qwen3", {"tie_word_embeddings": True}),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """A variant's 4-bit model with an adapter that has an effect, loaded at its first use."""
    root, loaded = tmp_path_factory.mktemp("decode"), {}

    def model(name: str) -> Any:
        if name not in loaded:
            family, changes = VARIANTS[name]
            loaded[name] = load(build_base(root / name, family, **WEIGHTS, **changes))
        return loaded[name]

    return model


@pytest.fixture(scope="module")
def llama(models: Callable[[str], Any]) -> Any:
    """Llama with a second adapter, of another rank and on fewer projections."""
    model = models("llama")
    model.add_adapter("second", LoraConfig(r=3, lora_alpha=24, target_modules=["q_proj", "down_proj"]))
    generator = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        if "second" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval()


def prompts(*lengths: int, seed: int = 3) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, 250, (count,), generator=generator).tolist() for count in lengths]


def oracle(
    model: Any, given: Sequence[Sequence[int]], new: int, ends: Sequence[int] = (NEVER,)
) -> list[list[int]]:
    """transformers' `generate`."""
    return generate(model, given, max_new_tokens=new, end_token_ids=ends, pad_token_id=PAD, device=CPU)


def engine_of(model: Any, **limits: Any) -> DecodeEngine:
    return DecodeEngine(FusedDecoder(model, checkpointing="none", cached=1), **limits)


def texts(engine: DecodeEngine, requests: Sequence[Request]) -> list[list[int]]:
    numbers = [engine.add(request) for request in requests]
    written = collect(engine.run())
    assert not engine.busy
    return [written.get(number, []) for number in numbers]


def collect(events: Iterator[NewTokens]) -> dict[int, list[int]]:
    written: dict[int, list[int]] = {}
    for event in events:
        written.setdefault(event.id, []).extend(event.tokens)
    return written


@pytest.mark.parametrize("name", VARIANTS)
def test_prompts_of_very_different_lengths_continue_as_with_transformers(
    name: str, models: Callable[[str], Any]
) -> None:
    """Longer than the window, and growing beyond it; more of them than rows; several prefills."""
    model, given = models(name), prompts(9, 1, 60, 4, 14, 31)
    expected = oracle(model, given, 14)
    assert len({tuple(text) for text in expected}) == len(given)
    engine = engine_of(model, rows=3, tokens=200, prefill_tokens=40)
    assert texts(engine, [Request(prompt, 14, (NEVER,)) for prompt in given]) == expected


def test_a_text_ends_at_an_end_token_at_any_place(llama: Any) -> None:
    (prompt,) = prompts(11)
    (free,) = oracle(llama, [prompt], 10)
    expected = [oracle(llama, [prompt], 10, [end])[0] for end in free]
    assert [] in expected
    assert len({len(text) for text in expected}) > 3
    assert texts(engine_of(llama, rows=4), [Request(prompt, 10, (NEVER, end)) for end in free]) == expected


def test_200_rows_and_one(llama: Any) -> None:
    given = prompts(*(1 + index * 7 % 50 for index in range(200)))
    expected = oracle(llama, given, 6)
    engine = engine_of(llama, rows=48, prefill_tokens=512, gather=0.25)
    assert texts(engine, [Request(prompt, 6, (NEVER,)) for prompt in given]) == expected
    assert texts(engine, [Request(given[7], 6, (NEVER,))]) == expected[7:8]
    engine.release()
    assert engine.cache_bytes == 0
    assert texts(engine, [Request(given[8], 6, (NEVER,))]) == expected[8:9]


def test_rows_of_one_batch_have_their_own_adapters_or_none(llama: Any) -> None:
    given = prompts(8, 21, 3)
    expected: dict[str | None, list[list[int]]] = {}
    with llama.disable_adapter():
        expected[None] = oracle(llama, given, 8)
    for name in ("second", "default"):
        llama.set_adapter(name)
        expected[name] = oracle(llama, given, 8)
    assert len({str(each) for each in expected.values()}) == 3
    engine = engine_of(llama, rows=5)
    mixed = [(adapter, index) for index in range(3) for adapter in expected]
    found = texts(engine, [Request(given[index], 8, (NEVER,), adapter=adapter) for adapter, index in mixed])
    assert found == [expected[adapter][index] for adapter, index in mixed]
    # the one that PEFT has active when the request comes
    requests = [Request(prompt, 8, (NEVER,)) for prompt in given]
    assert texts(engine, requests) == expected["default"]
    with llama.disable_adapter():
        assert texts(engine, requests) == expected[None]
    llama.set_adapter("second")
    try:
        assert texts(engine, requests) == expected["second"]
    finally:
        llama.set_adapter("default")
    with pytest.raises(ValueError, match=r"no adapter 'third'; it holds: default, second"):
        engine.add(Request(given[0], 8, adapter="third"))


def test_a_text_goes_on_alike_when_those_of_other_adapters_have_ended(llama: Any) -> None:
    """Its prompt was in a pass with rows of several adapters, the first pass of the engine."""
    given = prompts(7, 9)
    expected = oracle(llama, given[:1], 12)[0]
    engine = engine_of(llama, rows=4)
    kept = engine.add(Request(given[0], 12, (NEVER,), adapter="default"))
    engine.add(Request(given[1], 2, (NEVER,), adapter="second"))
    assert collect(engine.run())[kept] == expected


def test_an_adapter_may_be_loaded_later_and_on_other_layers(tmp_path: Path) -> None:
    base = build_base(tmp_path / "base", "llama", **WEIGHTS)
    model, given = load(base, LoRA(r=4, alpha=8, target_modules=["q_proj"])), prompts(7, 12)
    engine = engine_of(model)
    first = texts(
        engine, [Request(prompt, 8, (NEVER,), adapter=name) for prompt in given for name in ("default", None)]
    )
    model.add_adapter("late", LoraConfig(r=2, lora_alpha=32, target_modules=["gate_proj", "down_proj"]))
    for name, parameter in model.named_parameters():
        if "late" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.set_adapter("late")
    expected = oracle(model, given, 8)
    model.set_adapter("default")
    assert expected != oracle(model, given, 8)
    late = [Request(prompt, 8, (NEVER,), adapter="late") for prompt in given]
    assert texts(engine, late) == expected
    again = [Request(prompt, 8, (NEVER,), adapter=name) for prompt in given for name in ("default", None)]
    assert texts(engine, [*late, *again]) == [*expected, *first]


def test_adapters_that_were_trained_on_are_read_again(llama: Any) -> None:
    engine, request = engine_of(llama), Request(prompts(13)[0], 8, (NEVER,))
    bare = Request(request.prompt, 8, (NEVER,), adapter=None)
    before = texts(engine, [request, bare])
    weights = [parameter for name, parameter in llama.named_parameters() if "lora_B.default" in name]
    for weight in weights:
        weight.data.mul_(-4)
    try:
        expected = oracle(llama, [request.prompt], 8)
        assert expected != before[:1]
        assert texts(engine, [request, bare]) == [*expected, before[1]]
        assert texts(engine, [request]) == expected
    finally:
        for weight in weights:
            weight.data.div_(-4)


def test_requests_come_and_go_while_others_are_written(llama: Any) -> None:
    given = prompts(5, 17, 40, 2, 9)
    expected = oracle(llama, given, 12)
    engine = engine_of(llama, rows=2)
    first = [engine.add(Request(prompt, 12, (NEVER,))) for prompt in given[:3]]
    written: dict[int, list[int]] = {number: [] for number in first}
    ended: dict[int, str] = {}
    late: list[int] = []
    for event in engine.run():
        written.setdefault(event.id, []).extend(event.tokens)
        if event.finished:
            ended[event.id] = event.finished
        if event.id == first[0] and len(written[first[0]]) == 4 and not late:
            assert engine.cancel(first[0])  # one that is written
            assert engine.cancel(first[2])  # one that waits
            late = [engine.add(Request(prompt, 12, (NEVER,))) for prompt in given[3:]]
    assert not engine.cancel(first[1])
    assert not engine.cancel(12345)
    assert ended == {
        first[0]: "cancelled", first[2]: "cancelled", first[1]: "length", late[0]: "length", late[1]: "length"
    }  # fmt: skip
    # an event that was on its way may have come before the cancellation's
    assert written[first[0]] == expected[0][: len(written[first[0]])]
    assert len(written[first[0]]) in (4, 5)
    assert written[first[2]] == []
    assert [written[number] for number in (first[1], *late)] == [expected[1], expected[3], expected[4]]


def test_idle_rows_and_rounded_lengths_of_a_gpus_buckets_change_nothing(llama: Any) -> None:
    given = prompts(5, 17, 33, 2, 9, 12)
    expected = oracle(llama, given, 9)
    with llama.disable_adapter():
        expected[0] = oracle(llama, given[:1], 9)[0]
    engine = engine_of(llama, rows=20)
    engine._pass._gpu = True  # the buckets alone: without a GPU no graph is captured
    adapters = [None, *["default"] * 5]
    requests = [
        Request(prompt, 9, (NEVER,), adapter=adapter) for prompt, adapter in zip(given, adapters, strict=True)
    ]
    assert engine._pass.rows(5) == 0  # no cache yet
    assert texts(engine, requests) == expected
    assert [engine._pass.rows(count) for count in (1, 3, 5, 8)] == [1, 4, 8, 8]


def test_rows_that_the_kernel_does_not_take_are_written_only_where_they_are_many(llama: Any) -> None:
    nf4, kept = (FusedDecoder(llama, checkpointing="none", cached=layers) for layers in (0, 2))
    found = []
    for decoder, kernels in ((nf4, None), (kept, object()), (nf4, object())):
        engine = DecodeEngine(decoder)
        engine._pass._kernels = kernels  # type: ignore[assignment]  # without Triton there are none
        found.append([engine.fastest(count) for count in (1, 64, 65, 191, 192, 256)])
    assert found == [[1, 64, 65, 191, 192, 256]] * 2 + [[1, 64, 64, 64, 192, 256]]


def test_an_engine_that_fails_on_a_device_is_found_out(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    llama.train()
    assert why_not(engine_of(llama)) is None
    assert llama.training
    llama.eval()
    with monkeypatch.context() as patched:
        # as if a kernel of this device saw one token only
        patched.setattr(
            decode_pass,
            "_mask",
            lambda positions, longest, window: (torch.arange(longest) == positions[:, None])[:, None, None],
        )
        assert "its tokens are not the likeliest ones" in str(why_not(engine_of(llama)))

        def broken(*_: Any) -> None:
            raise RuntimeError("no kernel\nfor this device")

        patched.setattr(decode_pass, "attend_cached", broken)
        engine = engine_of(llama)
        assert why_not(engine) == "no kernel"
    assert not engine.busy
    assert why_not(engine) is None


def test_sampling_depends_on_the_seed_and_not_on_the_company(llama: Any) -> None:
    prompt, *others = prompts(12, 30, 1, 7)

    def sampled(seed: int) -> Request:
        return Request(prompt, 10, (NEVER,), sampling=Sampling(temperature=3.0, top_p=0.95, seed=seed))

    alone = [texts(engine_of(llama), [sampled(seed)])[0] for seed in (1, 2)]
    assert alone[0] != alone[1]
    company = [Request(other, 10, (NEVER,)) for other in others]
    engine = engine_of(llama, rows=2)
    found = texts(engine, [company[0], sampled(2), company[1], sampled(1), sampled(2), company[2]])
    assert [found[1], found[3], found[4]] == [alone[1], alone[0], alone[1]]
    assert [found[0], found[2], found[5]] == oracle(llama, others, 10)


def test_an_embedding_and_a_head_on_the_host_give_the_same(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model, given = load(build_base(tmp_path / "base", "qwen2", **WEIGHTS)), prompts(6, 15)
    expected = oracle(model, given, 8)
    to_host(model, embedding=True, head=True)
    assert texts(engine_of(model), [Request(prompt, 8, (NEVER,)) for prompt in given]) == expected


def test_where_a_capture_fails_passes_run_without_graphs_and_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if torch.cuda.is_available():
        pytest.skip("here a capture works")
    said: list[str] = []
    monkeypatch.setattr("medqlora.fused.decoding.graphs.say", said.append)
    graphs, runs = Graphs(torch.device("cuda")), []

    def body() -> torch.Tensor:
        runs.append(1)
        return torch.ones(2)

    for _ in range(3):
        assert graphs.run("key", body).tolist() == [1, 1]
    assert len(runs) == 3
    assert len(said) == 1
    assert said[0].startswith("Generation: without CUDA graphs, a capture failed (")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Request([], 5), "the prompt is empty"),
        (lambda: Request([1], 0), "max_new_tokens is 0"),
        (lambda: Sampling(temperature=0.0), "temperature is 0.0"),
        (lambda: Sampling(temperature=float("nan")), "temperature is nan"),
        (lambda: Sampling(top_p=0.0), "top_p is 0.0"),
        (lambda: Sampling(seed=-1), "seed is -1"),
    ],
)
def test_impossible_requests_are_refused(wrong: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wrong()

"""A pass that starts before the host has the tokens of the one before changes no text and no event.

A GPU's engine looks ahead; here one on a CPU is told to.
"""

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from fused_models import load
from peft import LoraConfig
from tiny import build_base

from medqlora.fused import FusedDecoder
from medqlora.fused.decoding import DecodePass
from medqlora.inference.decoding import DecodeEngine, NewTokens, Request, Sampling
from medqlora.inference.decoding.passes import Flight

#: an end token that no text has
NEVER = 599


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = load(build_base(Path(tmp_path_factory.mktemp("ahead")) / "base", "llama", initializer_range=0.2))
    made.add_adapter("second", LoraConfig(r=3, lora_alpha=24, target_modules=["q_proj", "down_proj"]))
    generator = torch.Generator().manual_seed(5)
    for name, parameter in made.named_parameters():
        if "second" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return made.eval()


@pytest.fixture(scope="module")
def engine_of(model: Any) -> Callable[..., DecodeEngine]:
    decoder = FusedDecoder(model, checkpointing="none", cached=2)

    def engine(ahead: bool, **limits: Any) -> DecodeEngine:
        made = DecodeEngine(decoder, **limits)
        made._ahead = ahead
        return made

    return engine


def prompt(length: int, seed: int) -> list[int]:
    return torch.randint(3, 250, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def played(engine: DecodeEngine, seed: int) -> tuple[list[list[NewTokens]], int]:
    """The events of each of 14 requests that come at random steps, some cancelled at random ones; and the steps."""
    random = Random(seed)
    coming, cancelled = [], {}
    for number in range(14):
        sampling = Sampling(1.5, 0.9, number) if random.random() < 0.3 else None
        adapter = random.choice(["default", "second", None])
        ends = [NEVER, *range(3, random.choice([3, 20, 60]))]  # some texts end early
        request = Request(
            prompt(1 + random.randrange(30), number), 1 + random.randrange(12), ends, adapter, sampling
        )
        coming.append((random.randrange(20), request))
        if random.random() < 0.4:
            cancelled[number] = random.randrange(1, 5)
    events: dict[int, list[NewTokens]] = {}
    numbers: dict[int, int] = {}
    step = 0
    while engine.busy or len(numbers) < len(coming):
        for index, (when, request) in enumerate(coming):
            if index not in numbers and when <= step:
                numbers[index] = engine.add(request)
        for event in engine.step():
            events.setdefault(event.id, []).append(event)
        for index, count in cancelled.items():
            if index in numbers and len(events.get(numbers[index], ())) == count:
                engine.cancel(numbers[index])
        step += 1
    return [events[numbers[index]] for index in range(len(coming))], step


@pytest.mark.parametrize("seed", range(4))
def test_events_are_the_same(engine_of: Callable[..., DecodeEngine], seed: int) -> None:
    """With rows that come, end, are cancelled, are sampled, and have different adapters."""
    limits = {"rows": 4, "tokens": 160, "prefill_tokens": 40, "gather": (0.0, 0.5)[seed % 2]}
    expected, _ = played(engine_of(False, **limits), seed)
    engine = engine_of(True, **limits)
    found, _ = played(engine, seed)
    assert [[event[1:] for event in each] for each in found] == [
        [event[1:] for event in each] for each in expected
    ]
    assert {each[-1].finished for each in expected} == {"end", "length", "cancelled"}
    assert not engine.busy
    assert engine._cache.free == engine._cache.blocks  # every block was given back


def test_the_next_pass_is_under_way_when_tokens_are_read(
    engine_of: Callable[..., DecodeEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a text of eight tokens, the first is the prefill's, and no pass runs for a ninth."""
    happened: list[str] = []
    run, read = DecodePass.run, Flight.read

    def runs(*args: Any) -> torch.Tensor:
        happened.append("pass")
        return run(*args)

    def reads(flight: Flight) -> list[int]:
        happened.append("read")
        return read(flight)

    monkeypatch.setattr(DecodePass, "run", runs)
    monkeypatch.setattr(Flight, "read", reads)
    engine = engine_of(True, rows=2)
    engine.add(Request(prompt(5, 1), 8, (NEVER,)))
    assert sum(len(event.tokens) for event in engine.run()) == 8
    assert happened == ["pass", *["pass", "read"] * 6, "read"]


def test_a_pass_ahead_takes_the_adapters_of_its_time(
    model: Any, engine_of: Callable[..., DecodeEngine]
) -> None:
    """The model's own adapter is switched off and on between steps: rows keep theirs, on another way."""
    requests = [Request(prompt(4 + index, index), 9, (NEVER,), "default") for index in range(3)]
    found = []
    for ahead in (False, True):
        engine = engine_of(ahead, rows=3)
        numbers = [engine.add(request) for request in requests]
        written: dict[int, list[int]] = {}
        while engine.busy:
            off = len(written.get(numbers[0], ())) in (3, 4)
            with model.disable_adapter() if off else torch.no_grad():
                for event in engine.step():
                    written.setdefault(event.id, []).extend(event.tokens)
        found.append([written[number] for number in numbers])
    assert found[0] == found[1]

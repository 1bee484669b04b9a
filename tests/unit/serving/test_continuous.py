"""Texts join and leave between two tokens, and are those of transformers' `generate`, whatever else happens."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from served import CONTEXT, trained_adapter

from medqlora.records import Record
from medqlora.serving import Delta, Done, Event, Failed, Inbox, Job
from medqlora.serving.engine import EngineSpec
from medqlora.serving.engines.local import LocalEngine

NEW = 12


@pytest.fixture(scope="module")
def reference(spec: EngineSpec) -> LocalEngine:
    """The same, with transformers' `generate`."""
    made = LocalEngine.start(spec)
    made._texts = None
    return made


def job(number: int, model: str = "ward", **more: Any) -> Job:
    record = Record("x", f"Does drug {number} help?", (CONTEXT * (1 + number % 3),))
    return Job(f"{number}", model, record, **{"max_new_tokens": NEW, **more})


def run(engine: LocalEngine, jobs: Sequence[Job], inbox: Inbox | None = None) -> list[Event]:
    """The events in their order."""
    inbox, seen = inbox or Inbox(), []  # type: tuple[Inbox, list[Event]]
    for each in jobs:
        inbox.put(each)
    while len(inbox) or engine.busy:
        engine.work(inbox, seen.extend)
    return seen


def done(events: Sequence[Event]) -> dict[str, Done]:
    return {event.id: event for event in events if isinstance(event, Done)}


def deltas(events: Sequence[Event]) -> int:
    return sum(isinstance(event, Delta) for event in events)


def text_of(event: Done) -> str:
    assert event.answer.rationale is not None
    return event.answer.rationale


def test_texts_stops_and_log_probabilities_are_those_of_transformers(
    engine: LocalEngine, reference: LocalEngine
) -> None:
    plain = done(run(reference, [job(1)]))["1"]
    (word,) = text_of(plain).split()[1:2] or [text_of(plain)[2:4]]
    jobs = [
        job(1, top_logprobs=3),
        job(2, "other"),
        job(3, "base", max_new_tokens=3),
        job(4, stop=(word[:2], "never there")),
        job(5, "other", top_logprobs=0, stream=True),
    ]
    ours, theirs = done(run(engine, jobs)), done(run(reference, jobs))
    assert ours.keys() == theirs.keys()
    for name, wanted in theirs.items():
        found = ours[name]
        assert (text_of(found), found.finish) == (text_of(wanted), wanted.finish)
        assert (found.prompt_tokens, found.completion_tokens) == (
            wanted.prompt_tokens,
            wanted.completion_tokens,
        )
        assert [each.token for each in found.logprobs] == [each.token for each in wanted.logprobs]
        for one, two in zip(found.logprobs, wanted.logprobs, strict=True):
            assert one.logprob == pytest.approx(two.logprob, abs=1e-4)
            assert [token for token, _ in one.top] == [token for token, _ in two.top]


def test_a_seed_gives_one_text_in_any_company_and_no_seed_gives_several(engine: LocalEngine) -> None:
    sampled = job(1, temperature=1.5, seed=-7)
    alone = done(run(engine, [sampled]))["1"]
    beside = done(run(engine, [sampled, job(2, "other"), job(3, temperature=0.7, seed=3)]))["1"]
    assert text_of(alone) == text_of(beside)
    free = {text_of(done(run(engine, [replace(sampled, seed=None)]))["1"]) for _ in range(4)}
    assert len(free) > 1


def test_a_question_that_comes_later_joins_between_two_tokens(engine: LocalEngine) -> None:
    inbox, seen = Inbox(), []  # type: tuple[Inbox, list[Event]]

    def emit(events: Sequence[Event]) -> None:
        before = deltas(seen)
        seen.extend(events)
        if before < 3 <= deltas(seen):
            inbox.put(job(2, "other", max_new_tokens=2, stream=True))

    inbox.put(job(1, stream=True, stop=()))
    while len(inbox) or engine.busy:
        engine.work(inbox, emit)
    ends = [event.id for event in seen if isinstance(event, Done)]
    first = done(seen)["1"]
    if first.completion_tokens == NEW:  # else it ended early by itself
        assert ends == ["2", "1"]
    alone = run(engine, [job(1)])
    assert text_of(first) == text_of(done(alone)["1"])


def test_a_client_that_hangs_up_frees_its_slot(spec: EngineSpec) -> None:
    narrow = LocalEngine.start(replace(spec, rows=1))
    inbox, seen = Inbox(), []  # type: tuple[Inbox, list[Event]]
    for each in (job(1, stream=True, max_new_tokens=400), job(2), job(3)):
        inbox.put(each)

    def emit(events: Sequence[Event]) -> None:
        before = deltas(seen)
        seen.extend(events)
        if before < 2 <= deltas(seen):
            inbox.cancel("1")

    while len(inbox) or narrow.busy:
        narrow.work(inbox, emit)
    assert deltas(seen) == 2
    assert list(done(seen)) == ["2", "3"]
    assert not inbox.cancelled("1")


def test_out_of_memory_begins_the_texts_again_and_reports_nothing_twice(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [job(1, stream=True), job(2, "other", stream=True), *map(job, (3, 4, 5))]
    wanted = run(engine, jobs)
    assert engine._texts is not None
    held = engine._texts._engine
    original, steps = held._decode, [0]

    def fail_twice() -> None:
        steps[0] += 1
        if steps[0] in (4, 6):
            raise torch.OutOfMemoryError
        original()

    monkeypatch.setattr(held, "_decode", fail_twice)
    found = run(engine, jobs)
    for number in ("1", "2"):
        texts = [
            [event.text for event in events if isinstance(event, Delta) and event.id == number]
            for events in (found, wanted)
        ]
        assert texts[0] == texts[1]
    assert {name: text_of(each) for name, each in done(found).items()} == {
        name: text_of(each) for name, each in done(wanted).items()
    }
    monkeypatch.setattr(held, "_decode", lambda: (_ for _ in ()).throw(torch.OutOfMemoryError))
    events = run(engine, [job(1), job(2)])
    assert [(event.id, event.status) for event in events if isinstance(event, Failed)] == [
        ("1", 503),
        ("2", 503),
    ]


def test_an_adapter_that_goes_finishes_its_texts_and_dora_comes_beside_texts(
    engine: LocalEngine, spec: EngineSpec, tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    wanted = {name: text_of(each) for name, each in done(run(engine, [job(1), job(2, "other")])).items()}
    engine.load("third", spec.adapters["other"])
    inbox, seen = Inbox(), []  # type: tuple[Inbox, list[Event]]
    inbox.put(job(1))
    inbox.put(job(2, "third"))
    engine.work(inbox, seen.extend)
    engine.work(inbox, seen.extend)
    engine.unload("third")
    assert engine.busy
    seen += run(engine, [], inbox)
    assert {name: text_of(each) for name, each in done(seen).items()} == wanted
    dora = trained_adapter(tiny_bases["llama"], tmp_path / "dora", threshold=0.0, seed=4, use_dora=True)
    inbox.put(job(1))
    engine.work(inbox, seen.extend)
    engine.load("dora", str(dora))
    found = done(run(engine, [job(3), job(4, "dora")], inbox))
    assert text_of(found["1"]) == wanted["1"]
    assert found.keys() == {"1", "3", "4"}
    engine.unload("dora")
    assert text_of(done(run(engine, [job(2, "other")]))["2"]) == wanted["2"]


def test_an_adapter_of_the_head_that_comes_later_scores_with_it(
    engine: LocalEngine, spec: EngineSpec, tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    targets = ["v_proj", "lm_head"]
    head = trained_adapter(
        tiny_bases["llama"], tmp_path / "head", threshold=0.0, seed=4, target_modules=targets
    )
    own = LocalEngine.start(replace(spec, adapters={"head": str(head)})).self_test()["head"]
    before = engine.self_test()
    engine.load("head", str(head))
    found = engine.self_test()
    engine.unload("head")
    assert found.pop("head") == pytest.approx(own, abs=1e-4)
    assert own != pytest.approx(before["base"], abs=1e-2)
    for name, scores in engine.self_test().items():
        assert scores == pytest.approx(before[name], abs=1e-4)
        assert found[name] == pytest.approx(before[name], abs=1e-4)


def test_a_bare_base_takes_adapters_later(tiny_bases: dict[str, Path], spec: EngineSpec) -> None:
    bare = LocalEngine.start(replace(spec, adapters={}, base=str(tiny_bases["llama"])))
    before = text_of(done(run(bare, [job(1, "base")]))["1"])
    bare.load("ward", spec.adapters["ward"])
    bare.load("other", spec.adapters["other"])
    found = done(
        run(bare, [job(1, "base"), replace(job(1, "ward"), id="w"), replace(job(1, "other"), id="o")])
    )
    assert text_of(found["1"]) == before
    assert len({text_of(each) for each in found.values()}) == 3


def prompts_through(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The tokens of each packed pass from now on."""
    assert engine._texts is not None
    decoder, passes = engine._texts._engine.decoder, []  # type: tuple[Any, list[int]]
    original = decoder.prefill

    def prefill(batch: Any, *rest: Any) -> Any:
        passes.append(int(batch.lengths.sum()))
        return original(batch, *rest)

    monkeypatch.setattr(decoder, "prefill", prefill)
    return passes


def test_a_prompt_goes_through_the_model_once_for_its_decision_and_its_text(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = prompts_through(engine, monkeypatch)
    found = done(run(engine, [job(1), job(2, "other", stream=True), job(3, "base")]))
    labels = [len(engine._loaded["ward"].spoken.encode(job(number)).labels) for number in (1, 2, 3)]
    # each label is one token or a row of its own: at most so many times the prompts
    (tokens,) = passes
    prompts = sum(each.prompt_tokens for each in found.values())
    assert prompts < tokens <= max(labels) * (prompts + 3 * 8)


def test_a_text_that_nobody_follows_waits_for_room_and_a_stream_has_its_scores_at_once(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = engine._texts
    assert texts is not None
    monkeypatch.setattr(texts, "_most", 1)
    passes = prompts_through(engine, monkeypatch)
    run(engine, [job(number) for number in range(3)])
    assert len(passes) == 3, "each prompt waited for its room"
    seen = run(engine, [job(1), job(2, stream=True), job(3)])
    order = [(type(event).__name__, event.id) for event in seen if not isinstance(event, Delta)]
    assert order[0] == ("Scores", "2")
    assert [name for kind, name in order if kind == "Done"] == ["1", "2", "3"]
    monkeypatch.undo()
    assert texts_of(run(engine, [job(1), job(2), job(3)])) == texts_of(seen)


def texts_of(events: Sequence[Event]) -> dict[str, str]:
    return {name: text_of(each) for name, each in done(events).items()}


def test_a_question_too_long_for_the_memory_ends_no_text_beside_it(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = texts_of(run(engine, [job(1, stream=True), job(2, "other"), job(4)]))
    assert engine._texts is not None
    decoder = engine._texts._engine.decoder
    original, most = decoder.prefill, 2 * len(engine._loaded["ward"].spoken.encode(job(2)).prompt)

    def prefill(batch: Any, *rest: Any) -> Any:
        if int(batch.lengths.max()) > most:
            raise torch.OutOfMemoryError
        return original(batch, *rest)

    inbox, seen = Inbox(), []  # type: tuple[Inbox, list[Event]]
    for each in (job(1, stream=True), job(2, "other")):
        inbox.put(each)
    for _ in range(4):
        engine.work(inbox, seen.extend)
    monkeypatch.setattr(decoder, "prefill", prefill)
    short = replace(job(4), record=Record("x", "Does drug 4 help?", ()))
    seen += run(
        engine,
        [replace(job(3), record=Record("x", job(3).record.question * 9, (CONTEXT * 3,))), short],
        inbox,
    )
    monkeypatch.undo()
    assert [(event.id, event.status) for event in seen if isinstance(event, Failed)] == [("3", 503)]
    assert {name: texts_of(seen)[name] for name in ("1", "2")} == {name: wanted[name] for name in ("1", "2")}
    assert "4" in done(seen)
    told = [event.text for event in seen if isinstance(event, Delta)]
    assert len(told) == len(set(told)), "nothing is told twice"


def test_log_probabilities_for_which_the_memory_is_too_small_cost_one_answer_and_no_process(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medqlora.serving.engines.rows import Row

    wanted = done(run(engine, [job(1, top_logprobs=1), job(2, "other")]))
    original, calls = Row.score, [0]

    def fail_once(row: Row, *rest: Any) -> None:
        calls[0] += 1
        if calls[0] == 1:
            raise torch.OutOfMemoryError
        original(row, *rest)

    monkeypatch.setattr(Row, "score", fail_once)
    found = done(run(engine, [job(1, top_logprobs=1, max_new_tokens=4), job(2, "other")]))
    assert [each.token for each in found["1"].logprobs] == [each.token for each in wanted["1"].logprobs[:4]]
    assert text_of(found["2"]) == text_of(wanted["2"])
    monkeypatch.setattr(Row, "score", lambda *given: (_ for _ in ()).throw(torch.OutOfMemoryError))
    events = run(engine, [job(1, top_logprobs=1), job(2, "other")])
    assert [(event.id, event.status) for event in events if isinstance(event, Failed)] == [("1", 503)]
    assert text_of(done(events)["2"]) == text_of(wanted["2"])


def test_of_many_streams_some_are_brought_up_to_date_after_each_token_and_all_end_whole(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medqlora.serving.engines.continuous.WRITTEN", 2)
    jobs = [job(number, stream=True) for number in range(5)]
    inbox, news, seen = Inbox(), [], []  # type: tuple[Inbox, list[int], list[Event]]
    for each in jobs:
        inbox.put(each)
    while len(inbox) or engine.busy:
        before = len(seen)
        engine.work(inbox, seen.extend)
        news.append(deltas(seen[before:]))
    assert max(news) == 2
    assert {event.id for event in seen if isinstance(event, Delta)} == {each.id for each in jobs}, "in turns"
    monkeypatch.undo()
    assert texts_of(seen) == texts_of(run(engine, jobs))


def test_on_a_gpu_a_question_waits_some_tokens_for_others_unless_nothing_is_under_way(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_gather_steps", 3)
    passes = prompts_through(engine, monkeypatch)
    inbox, seen = Inbox(), []  # type: tuple[Inbox, list[Event]]
    for number in range(8):
        inbox.put(job(number, max_new_tokens=12))
    engine.work(inbox, seen.extend)
    assert len(passes) == 1
    for number in range(8, 11):
        inbox.put(job(number, max_new_tokens=2))
        engine.work(inbox, seen.extend)
    assert len(passes) == 1, "the others gather"
    run(engine, [], inbox)
    assert len(passes) == 2


def test_questions_that_another_thread_has_encoded_are_answered_alike_also_where_their_model_went(
    engine: LocalEngine, spec: EngineSpec
) -> None:
    engine.load("third", spec.adapters["other"])
    jobs = [job(1), job(2, "third"), job(3, "nobody"), job(4, stop=()), replace(job(5), model="base")]
    wanted = texts_of(run(engine, [each for each in jobs if each.id != "3"]))
    inbox = Inbox()
    with ThreadPoolExecutor(2) as threads:
        for each, prepared in zip(jobs, threads.map(engine.prepare, jobs), strict=True):
            inbox.put(each, prepared)
    engine.unload("third")
    events = run(engine, [], inbox)
    assert {(event.id, event.status) for event in events if isinstance(event, Failed)} == {
        ("2", 404),
        ("3", 404),
    }
    assert texts_of(events) == {name: text for name, text in wanted.items() if name != "2"}

"""The engines: one answer for one question, whatever the batch, the adapters beside it, and who holds the weights."""

import json
import multiprocessing
import shutil
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from served import CONTEXT, trained_adapter
from warm_process import begin_server

from medqlora.errors import InputError
from medqlora.inference import Predictor, TrainingScope
from medqlora.records import Record
from medqlora.serving import Delta, Done, Event, Failed, Inbox, Job, Scores, worker
from medqlora.serving.engine import EngineSpec
from medqlora.serving.engines.local import LocalEngine
from medqlora.serving.engines.vllm import VLLMEngine
from medqlora.serving.server import told


def job(number: int, model: str, **more: Any) -> Job:
    record = Record("x", f"Does drug {number} help?", (CONTEXT * (1 + number % 3),))
    return Job(f"{number}-{model}", model, record, max_new_tokens=10, **more)


def run(engine: Any, jobs: Sequence[Job], inbox: Inbox | None = None) -> dict[str, list[Event]]:
    """Job → its events."""
    inbox = inbox or Inbox()
    for each in jobs:
        inbox.put(each)
    found: dict[str, list[Event]] = {each.id: [] for each in jobs}
    while len(inbox) or engine.busy:
        engine.work(inbox, lambda events: [found[event.id].append(event) for event in events])
    return found


def done(events: Sequence[Event]) -> Done:
    (last,) = [event for event in events if isinstance(event, Done)]
    return last


def alike(one: Done, two: Done) -> None:
    assert (one.answer.decision, one.answer.rationale, one.finish) == (
        two.answer.decision,
        two.answer.rationale,
        two.finish,
    )
    assert one.answer.probabilities == pytest.approx(two.answer.probabilities, abs=1e-5)
    assert (one.prompt_tokens, one.completion_tokens) == (two.prompt_tokens, two.completion_tokens)


def test_an_answer_does_not_depend_on_the_batch_nor_on_the_adapters_beside_it(engine: LocalEngine) -> None:
    jobs = [job(number, model) for number in range(3) for model in ("ward", "other", "base")]
    sampled = job(7, "ward", temperature=1.2, seed=3)
    together = run(engine, [*jobs, sampled])
    for each in [*jobs, sampled]:
        alike(done(together[each.id]), done(run(engine, [each])[each.id]))
    texts = {model: done(together[f"0-{model}"]).answer.rationale for model in ("ward", "other", "base")}
    assert len(set(texts.values())) == 3


def test_a_question_far_from_the_training_is_uncertain_as_ask_has_it(
    spec: EngineSpec, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(spec.adapters["ward"], tmp_path / "far"))
    trained_on = [Record(str(n), "Does lomevir reduce pain?", (CONTEXT,)) for n in range(3)]
    TrainingScope.of(trained_on, invented="SyntheticTrials").save(folder)
    question = "Does metformin lower the risk of adenoma?"
    wanted = Predictor.load(str(folder)).answer(question)
    assert (wanted.kind, wanted.warning is None) == ("uncertain", False)
    engine = LocalEngine.start(replace(spec, adapters={"far": str(folder)}))
    asked = [
        Job(model, model, Record("x", question), max_new_tokens=4, stream=True) for model in ("far", "base")
    ]
    events = run(engine, asked)
    for answer in (done(events["far"]).answer, events["far"][0].answer):  # type: ignore[union-attr]
        assert (answer.kind, answer.warning) == ("uncertain", wanted.warning)
        assert "content words" in str(answer.reason)
        assert "no context was given" in str(answer.reason)
    bare = done(events["base"]).answer
    assert (bare.kind, bare.warning) == ("answer", None), "the base model was not trained on anything of ours"


def test_a_stream_is_scored_first_and_its_texts_grow(engine: LocalEngine) -> None:
    events = run(engine, [job(1, "ward", stream=True), job(2, "other")])["1-ward"]
    assert [type(event) for event in events] == [Scores, *[Delta] * (len(events) - 2), Done]
    last = done(events)
    # the first token is chosen by the pass that scores, and comes with the second
    assert len(events) - 2 == last.completion_tokens - 1 - (last.finish == "length")


def test_a_cancelled_job_leaves_the_batch_and_the_others_go_on(engine: LocalEngine) -> None:
    inbox, seen = Inbox(), []  # type: tuple[Inbox, list[Event]]

    def emit(events: Sequence[Event]) -> None:
        seen.extend(events)
        if sum(isinstance(event, Delta) for event in seen) == 2:
            inbox.cancel("1-ward")

    for each in (job(1, "ward", stream=True), job(2, "ward")):
        inbox.put(each)
    while len(inbox) or engine.busy:
        engine.work(inbox, emit)
    assert sum(isinstance(event, Delta) for event in seen) <= 3
    assert [event.id for event in seen if isinstance(event, Done)] == ["2-ward"]
    inbox.put(job(3, "ward"))
    inbox.cancel("3-ward")
    engine.work(inbox, emit)
    assert "3-ward" not in {event.id for event in seen}


@pytest.mark.parametrize("padded", [False, True])
def test_batches_stay_within_the_token_budget(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch, padded: bool
) -> None:
    sizes = []
    original = engine._answer

    def answer(batch: Any, *rest: Any) -> None:
        tokens = [one.tokens for one in batch]
        sizes.append((len(batch), max(tokens) * len(batch) if padded else sum(tokens)))
        original(batch, *rest)

    monkeypatch.setattr(engine, "_answer", answer)
    monkeypatch.setattr(engine, "_spec", replace(engine._spec, batch_tokens=300))
    monkeypatch.setattr(engine._texts, "_tokens", 300)
    if padded:  # as with a model that the decode engine doesn't run
        monkeypatch.setattr(engine, "_texts", None)
    run(engine, [job(number, "ward", write=False) for number in range(9)])
    assert sum(count for count, _ in sizes) == 9
    assert all(tokens <= 300 or count == 1 for count, tokens in sizes)
    assert len(sizes) > 1


def test_out_of_memory_halves_the_batch(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    original = engine._answer

    def answer(batch: Any, *rest: Any) -> None:
        if len(batch) > 2 or "5-ward" in {one.job.id for one in batch}:
            raise torch.OutOfMemoryError
        original(batch, *rest)

    monkeypatch.setattr(engine, "_answer", answer)
    found = run(engine, [job(number, "ward", write=False) for number in range(6)])
    kinds = [type(events[-1]) for events in found.values()]
    assert kinds == [Done] * 5 + [Failed]


def test_adapters_come_and_go_and_a_waiting_job_of_one_that_went_is_told(
    engine: LocalEngine, spec: EngineSpec
) -> None:
    before = done(run(engine, [job(0, "ward")])["0-ward"])
    engine.load("third", spec.adapters["other"])
    alike(done(run(engine, [job(0, "third")])["0-third"]), done(run(engine, [job(0, "other")])["0-other"]))
    assert list(engine.models) == ["ward", "other", "third", "base"]
    engine.unload("third")
    (event,) = run(engine, [job(0, "third")])["0-third"]
    assert isinstance(event, Failed)
    assert event.status == 404
    alike(done(run(engine, [job(0, "ward")])["0-ward"]), before)
    with pytest.raises(InputError, match="stays loaded"):
        engine.unload("ward")


def test_each_adapter_has_its_own_remarks_and_the_operator_reads_whose_they_are(
    engine: LocalEngine, spec: EngineSpec, tmp_path: Path
) -> None:
    folder = tmp_path / "far"
    shutil.copytree(spec.adapters["other"], folder)
    record = json.loads((folder / "medqlora.json").read_text("utf-8"))
    del record["base_identity"]  # as of an adapter made elsewhere: nothing says that the base is another
    (folder / "medqlora.json").write_text(json.dumps(record), "utf-8")
    config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    config["base_model_name_or_path"] = "elsewhere/other-base"
    (folder / "adapter_config.json").write_text(json.dumps(config), "utf-8")
    engine.load("far", str(folder))
    (line,) = engine.models["far"].remarks
    assert "elsewhere/other-base" in line
    assert told(engine.models.values()) == {line: ["far"]}
    engine.unload("far")


@pytest.mark.parametrize("write", [True, False])
def test_an_adapter_doubts_and_warns_as_ask_does(
    engine: LocalEngine, tiny_bases: dict[str, Path], tmp_path: Path, write: bool
) -> None:
    folder = trained_adapter(tiny_bases["llama"], tmp_path / "drawn", threshold=0.0, seed=5)
    scope = TrainingScope.of(
        [Record(f"q{n}", "Does drug help?", (CONTEXT,)) for n in range(3)], "drawn trials"
    )
    scope.save(folder)
    predictor = Predictor.load(folder, device="cpu", max_new_tokens=10)
    engine.load("drawn", str(folder))
    try:
        for record in (
            Record("known", "Does drug 7 help?", (CONTEXT,)),
            Record("bare", "Does drug 7 help?"),
            Record("strange", "Is aspirin useful?", (CONTEXT,)),
        ):
            (wanted,) = predictor.answers([record])
            found = done(run(engine, [Job("x", "drawn", record, write=write, max_new_tokens=10)])["x"]).answer
            assert wanted.warning is not None
            assert (found.warning, found.calibrated, found.caution) == (
                wanted.warning,
                wanted.calibrated,
                wanted.caution,
            )
            if write or record.id != "known":
                assert (found.kind, found.reason) == (wanted.kind, wanted.reason)
        assert done(run(engine, [Job("x", "base", record, write=False)])["x"]).answer.warning is None
    finally:
        engine.unload("drawn")


def test_an_adapter_of_another_base_is_refused(
    engine: LocalEngine, tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    foreign = trained_adapter(tiny_bases["qwen2"], tmp_path / "foreign", threshold=0.0, seed=1)
    with pytest.raises(InputError, match="was trained on the base"):
        engine.load("foreign", str(foreign))
    assert "foreign" not in engine.models


# ---- vLLM ------------------------------------------------------------------------------------------


class _LikeVLLM(BaseHTTPRequestHandler):
    """The part of vLLM's API that the engine uses, computed by the tiny model itself."""

    engine: LocalEngine
    one_at_a_time = threading.Lock()  # an adapter is active for the whole model

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        models = [
            {"id": "tiny", "parent": None},
            {"id": "ward", "parent": "tiny"},
            {"id": "other", "parent": "tiny"},
        ]
        self._send(json.dumps({"data": models}).encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        loaded = self.engine._loaded["base" if body["model"] == "tiny" else body["model"]]
        with self.one_at_a_time, torch.no_grad(), self.engine._adapters.active(loaded.adapter):
            reply = self._scores(body) if body.get("prompt_logprobs") is not None else self._text(body)
        self._send(reply)

    def _scores(self, body: dict[str, Any]) -> bytes:
        choices = [self._scored(number, ids) for number, ids in enumerate(body["prompt"])]
        return json.dumps({"choices": choices}).encode()

    def _text(self, body: dict[str, Any]) -> bytes:
        decode, ids, before, reply = self.engine._predictor.tokenizer.decode, list(body["prompt"]), "", b""
        for step in range(body["max_tokens"]):
            ids.append(int(self._logits(ids)[-1].argmax()))
            ended = ids[-1] in body["stop_token_ids"]
            last = "stop" if ended else "length" if step == body["max_tokens"] - 1 else None
            text = decode(ids[len(body["prompt"]) :], skip_special_tokens=True)
            piece = {"choices": [{"text": text.removeprefix(before), "finish_reason": last}]}
            before = text
            reply += f"data: {json.dumps(piece)}\n\n".encode()
            if ended:
                break
        return reply + b"data: [DONE]\n\n"

    def _logits(self, ids: list[int]) -> torch.Tensor:
        return self.engine._predictor.model(torch.tensor([ids])).logits[0]

    def _scored(self, number: int, ids: list[int]) -> dict[str, Any]:
        logprobs = torch.log_softmax(self._logits(ids).float(), dim=-1)
        steps = [{str(token): {"logprob": float(logprobs[at, token])}} for at, token in enumerate(ids[1:])]
        return {"index": number, "prompt_logprobs": [None, *steps]}

    def _send(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def url(engine: LocalEngine) -> Iterator[str]:
    handler = type("Handler", (_LikeVLLM,), {"engine": engine})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_vllm_with_the_weights_and_we_with_the_calibration_give_the_same_answer(
    engine: LocalEngine, spec: EngineSpec, url: str
) -> None:
    remote = VLLMEngine.start(replace(spec, engine="vllm", url=url))
    assert list(remote.models) == ["ward", "other", "base"]
    for name, values in engine.self_test().items():
        assert remote.self_test()[name] == pytest.approx(values, abs=1e-4)
    for model in ("ward", "base"):
        inbox, seen, ended = Inbox(), [], threading.Event()  # type: tuple[Inbox, list[Event], threading.Event]

        def emit(events: Sequence[Event], seen: list[Event] = seen, ended: threading.Event = ended) -> None:
            seen.extend(events)
            if any(isinstance(event, (Done, Failed)) for event in events):
                ended.set()

        inbox.put(job(1, model, stream=True))
        remote.work(inbox, emit)
        assert ended.wait(240)
        assert isinstance(seen[0], Scores)
        wanted = done(run(engine, [job(1, model)])[f"1-{model}"])
        assert done(seen).answer.probabilities == pytest.approx(wanted.answer.probabilities, abs=1e-4)
        assert done(seen).answer.rationale == wanted.answer.rationale


def test_a_vllm_server_that_is_not_there_or_lacks_the_adapter_is_told(spec: EngineSpec, url: str) -> None:
    with pytest.raises(InputError, match="no answer"):
        VLLMEngine.start(replace(spec, url="http://127.0.0.1:9"))
    with pytest.raises(InputError, match="has no model 'elsewhere'"):
        VLLMEngine.start(replace(spec, url=url, adapters={"elsewhere": spec.adapters["ward"]}))


# ---- llama.cpp -------------------------------------------------------------------------------------


def test_llama_cpp_answers_as_the_live_adapter(engine: LocalEngine, spec: EngineSpec, tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="the extra [gguf] is not installed")
    pytest.importorskip("xllamacpp", reason="the extra [gguf] is not installed")
    from medqlora.cli import main
    from medqlora.serving.engines.llama_cpp import LlamaCppEngine

    file = tmp_path / "model.gguf"
    words = ["--adapter", spec.adapters["ward"], "--out", str(file), "--type", "f32", "--verify", "false"]
    assert main(["export", "--to", "gguf", *words, "--device", "cpu"]) == 0
    one = replace(spec, engine="llama.cpp", gguf=str(file), adapters={"ward": spec.adapters["ward"]})
    laptop = LlamaCppEngine.start(one)
    events = run(laptop, [job(1, "ward", stream=True)])["1-ward"]
    wanted = done(run(engine, [job(1, "ward")])["1-ward"])
    assert done(events).answer.probabilities == pytest.approx(wanted.answer.probabilities, abs=2e-3)
    assert done(events).answer.rationale == wanted.answer.rationale


def test_an_inference_process_whose_service_has_ended_ends_while_it_loads(spec: EngineSpec) -> None:
    begin_server()
    with socket.create_server(
        ("127.0.0.1", 0)
    ) as silent:  # a vLLM server that never answers: loading takes long
        waits = replace(spec, engine="vllm", url=f"http://127.0.0.1:{silent.getsockname()[1]}")
        forkserver = multiprocessing.get_context("forkserver")
        ours, theirs = forkserver.Pipe()
        process = forkserver.Process(target=worker.main, args=(waits, theirs), daemon=True)
        process.start()
        theirs.close()
        with silent.accept()[0]:  # it loads
            ours.close()
            process.join(240)
            assert process.exitcode == 0

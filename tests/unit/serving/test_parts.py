"""The parts of the service that need no model: tokens, audit log, self-test, growing texts, typed decisions, limits."""

import asyncio
import errno
import json
import multiprocessing
import os
import queue
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from harness import refused
from hypothesis import given
from hypothesis import strategies as st

from medqlora.cli import main
from medqlora.config.serving import ServeOptions, is_loopback
from medqlora.errors import InputError
from medqlora.inference import rationale_in
from medqlora.records import YES_NO_MAYBE
from medqlora.serving.audit import AuditLog
from medqlora.serving.engine import Delta, EngineSpec, Failed
from medqlora.serving.errors import ServiceError
from medqlora.serving.mailbox import Mailbox
from medqlora.serving.metrics import Metrics
from medqlora.serving.pool import Pool
from medqlora.serving.process import InferenceProcess
from medqlora.serving.question import Call
from medqlora.serving.routes.admin import allowed
from medqlora.serving.routes.typed import Typed
from medqlora.serving.self_test import TOLERANCE, SelfTest
from medqlora.serving.service import Service
from medqlora.serving.streaming import Growing, event, json_line
from medqlora.serving.tokens import ANYBODY, Holder, Rate, Tokens

# ---- tokens ----------------------------------------------------------------------------------------


def test_a_new_token_is_printed_once_and_kept_as_a_hash(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tokens.txt"
    assert main(["serve", "--tokens", str(file), "--new_token", "ward", "--admin"]) == 0
    token = capsys.readouterr().out.strip()
    assert token not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    tokens = Tokens.read(str(file))
    assert tokens.holder(token) == Holder("ward", admin=True)
    assert tokens.holder(token[:-1]) is None
    assert tokens.holder("") is None
    assert "has one already" in refused(capsys, "serve", "--tokens", str(file), "--new_token", "ward")


@pytest.mark.parametrize(
    "line", ["ward", "ward:12", f"ward:{'0' * 64}:root", f"a b:{'0' * 64}", "# nothing else"]
)
def test_a_damaged_file_of_tokens_is_refused(tmp_path: Path, line: str) -> None:
    file = tmp_path / "tokens.txt"
    file.write_text(line + "\n")
    with pytest.raises(InputError, match="token"):
        Tokens.read(str(file))


def test_each_token_has_a_rate_of_its_own() -> None:
    rate = Rate("2/hour")
    assert [rate.taken("a") for _ in range(3)] == [True, True, False]
    assert rate.taken("b")
    assert rate.retry_after_s == 3600
    with pytest.raises(InputError, match="120/minute"):
        Rate("often")


# ---- options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_", "why"),
    [
        ({"host": "0.0.0.0"}, "pass --tokens"),
        ({"host": "ward.example"}, "pass --tokens"),
        ({"port": 70000}, "at most 65535"),
        ({"queue": 0}, "at least 1"),
        ({"timeout_s": float("nan")}, "at least 0.1"),
        ({"url": "http://x"}, "--engine vllm"),
        ({"engine": "vllm"}, "pass --url"),
        ({"engine": "vllm", "url": "ftp://x"}, "begins with http"),
        ({"adapter_folder": "x"}, "--tokens"),
        ({"cors": ("ward.example",)}, "https://"),
    ],
)
def test_options_that_can_not_be_are_refused(given_: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=why):
        ServeOptions(**given_).check()


def test_loopback_is_known_by_address() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "127.0.0.1.example", "")))


# ---- audit log -------------------------------------------------------------------------------------


def test_a_full_disk_costs_the_line_and_not_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lost: list[int] = []
    log = AuditLog(str(tmp_path / "audit"), lambda: lost.append(1))
    log.write({"status": 200})

    def full(handle: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        log.write({"status": 200})
        log.write({"status": 200})
    log.write({"status": 503})
    log.close()
    assert len(lost) == 2
    assert [json.loads(line)["status"] for line in (tmp_path / "audit").read_text().splitlines()] == [
        200,
        503,
    ]
    assert capsys.readouterr().out.count("No space left") == 1


def test_a_line_that_was_cut_by_a_full_disk_spoils_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, lost, write = tmp_path / "audit", [], os.write
    file.write_text('{"status": 1}\n{"stat')  # as an earlier start left it
    log = AuditLog(str(file), lambda: lost.append(1))
    log.write({"status": 200})
    room = iter([10])

    def filling(handle: int, data: bytes) -> int:
        if (count := next(room, 0)) == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, data[:count])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", filling)
        log.write({"status": 201})
    log.write({"status": 202})
    log.write({"status": 203})
    log.close()
    whole = [line for line in file.read_text().splitlines() if line.endswith("}")]
    assert [json.loads(line)["status"] for line in whole] == [1, 200, 202, 203]
    assert lost == [1]
    assert "No space left" in capsys.readouterr().out


def test_equal_prompts_have_equal_hashes_and_another_start_has_others() -> None:
    one, two = AuditLog(None), AuditLog(None)
    assert one.prompt_hash(["a", "b"]) == one.prompt_hash(["a", "b"]) != one.prompt_hash(["ab"])
    assert one.prompt_hash(["a"]) != two.prompt_hash(["a"])


# ---- self-test -------------------------------------------------------------------------------------


def test_another_model_under_the_same_name_is_not_ready(tmp_path: Path) -> None:
    adapter = tmp_path / "ward"
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").write_bytes(b"1")
    stored = {"ward": (-1.0, -2.0), "base": (-3.0, -4.0)}

    def fresh() -> SelfTest:
        return SelfTest("cpu", {"ward": str(adapter)}, tmp_path)

    assert fresh().checked(stored) is None
    assert fresh().checked({**stored, "ward": (-1.0 - TOLERANCE / 2, -2.0)}) is None
    assert "differs from the stored one" in str(fresh().checked({**stored, "ward": (-1.2, -2.0)}))
    assert "not finite" in str(fresh().checked({"ward": (float("nan"), 0.0)}))
    (adapter / "adapter_model.safetensors").write_bytes(b"2")  # other weights have other answers
    assert fresh().checked({**stored, "ward": (-9.0, -2.0)}) is None
    (next(tmp_path.glob("self-test-*.json"))).write_text("{damaged")
    assert fresh().checked(stored) is None


# ---- growing texts ---------------------------------------------------------------------------------


@given(st.text(st.sampled_from("yesno. The\n\ufffdé<>*"), max_size=120), st.integers(1, 7))
def test_the_pieces_of_a_growing_text_are_its_rationale(text: str, step: int) -> None:
    growing = Growing(YES_NO_MAYBE, {})
    pieces = [growing.more(text[:end]) for end in range(step, len(text), step)]
    rationale = rationale_in(text, YES_NO_MAYBE)
    assert "".join([*pieces, growing.rest(rationale)]).endswith(rationale)


def test_a_decision_at_the_start_is_not_shown_as_rationale() -> None:
    growing = Growing(YES_NO_MAYBE, {})
    text = "Yes. The rates fell by a third in both arms of it."
    assert growing.more("Yes") == ""
    assert "".join([growing.more(text[:40]), growing.more(text)]) == text.removeprefix("Yes. ")


# ---- typed decisions -------------------------------------------------------------------------------

TYPED: list[dict[str, Any]] = [
    {"type": "noul", "instructions": "Is it?"},
    {"type": "noul", "instructions": "Is it?", "criteria": {"true": "so", "false": None}},
    {"type": "choice", "instructions": "Which?", "criteria": {"a": None, "b": "the other", "c": {"x": 1}}},
    {"type": "choice", "criteria": {"only": None}},
    {"type": "score", "instructions": "How much?", "criteria": ["none", "some", "much", "all"]},
]


@pytest.mark.parametrize("question", TYPED, ids=lambda question: f"{question['type']}")
def test_typed_answers_are_those_of_transformers(question: dict[str, Any]) -> None:
    templates = pytest.importorskip(
        "transformers.decision.template_utils", reason="transformers 5.23 brought it"
    )
    from transformers.decision.configuration_utils import DecisionConfig

    theirs = templates.Question.from_request("q", question, DecisionConfig())
    ours = Typed.read("q", question)
    assert list(ours.options) == theirs.options
    count = len(theirs.options)
    for seed in range(5):
        weights = [1.0 + (7 * seed + 3 * place) % 5 for place in range(count)]
        probabilities = [weight / sum(weights) for weight in weights]
        wanted = theirs.answer(probabilities)
        found = ours.answer(probabilities)
        assert found.keys() == wanted.keys()
        for key, value in wanted.items():
            close = pytest.approx(value) if isinstance(value, float) else value
            assert found[key] == close, key


@pytest.mark.parametrize(
    "question",
    [
        {"type": "other"},
        {"type": "choice"},
        {"type": "choice", "criteria": {}},
        {"type": "choice", "criteria": ["a"]},
        {"type": "score", "criteria": {"a": 1}},
        {"type": "noul", "criteria": {"maybe": "x"}},
        {"type": "score", "criteria": ["x"] * 27},
        {"type": "noul", "images": []},
    ],
)
def test_a_malformed_typed_question_is_refused(question: dict[str, Any]) -> None:
    with pytest.raises(ServiceError) as caught:
        Typed.read("q", question)
    assert (caught.value.status, caught.value.message.startswith("question 'q': ")) == (422, True)


# ---- the allowed folder ----------------------------------------------------------------------------


def test_a_link_out_of_the_allowed_folder_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path / "outside", tmp_path / "allowed" / "run" / "adapter"):
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").write_text("{}")
    root = tmp_path / "allowed"
    (root / "link").symlink_to(tmp_path / "outside")
    assert allowed(str(root), "run") == root / "run" / "adapter"
    for name in (
        "link",
        "../outside",
        str(tmp_path / "outside"),
        "run/../../outside",
        "none",
        "a\0",
        "x" * 900,
    ):
        with pytest.raises(ServiceError):
            allowed(str(root), name)


# ---- before a model is loaded -----------------------------------------------------------------------


def test_a_fixed_reply_waits_for_no_model(tmp_path: Path) -> None:
    pool = Pool([], 8, SelfTest("x", {}, tmp_path))
    service = Service(ServeOptions(), pool, Metrics(lambda: 0, lambda: 0), AuditLog(None), {})
    question = service.question("How do I kill myself?", (), None, "ward")
    call = Call("req-1", ANYBODY, "/v1/answer")
    done = asyncio.run(service.answered(question, service.job(question, "req-1"), call))
    assert done.answer.kind == "safe_reply"
    assert b'medqlora_refusals_total{kind="self_harm"} 1.0' in service.metrics.text()
    with pytest.raises(ServiceError, match="being loaded") as caught:
        service.question("Does aspirin help?", (), None, None)
    assert caught.value.status == 503


# ---- what is shipped beside the package -------------------------------------------------------------


def test_the_dashboard_reads_figures_that_exist_and_the_manifests_are_yaml() -> None:
    import re

    import yaml

    root = Path(__file__).parents[3]
    metrics = Metrics(lambda: 0, lambda: 0)
    known = {sample.name for family in metrics.registry.collect() for sample in family.samples}
    known |= {f"{family.name}{end}" for family in metrics.registry.collect() for end in ("_total", "_bucket")}
    dashboard = json.loads((root / "examples/serve/grafana/dashboards/medqlora.json").read_text("utf-8"))
    used = {
        name
        for panel in dashboard["panels"]
        for name in re.findall(r"medqlora_\w+", panel["targets"][0]["expr"])
    }
    assert used - known == set()
    assert len(used) == 11
    compose = yaml.safe_load((root / "compose.yaml").read_text("utf-8"))
    for name, service in compose["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert ":latest" not in service.get("image", "")
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    assert compose["services"]["medqlora"]["read_only"] is True
    for document in yaml.safe_load_all((root / "examples/serve/kubernetes.yaml").read_text("utf-8")):
        assert document["metadata"]["name"] == "medqlora"
    dockerfile = (root / "Dockerfile").read_text("utf-8")
    assert dockerfile.count("USER 10001:10001") == dockerfile.count("ENTRYPOINT") == 2


# ---- events on their way ---------------------------------------------------------------------------


def test_no_letter_of_a_text_ends_a_line_of_a_stream() -> None:
    text = "".join(map(chr, range(1, 0x3000)))
    for sent in (event("text", {"text": text}).decode(), json_line({"text": text})):
        *_, line = sent.strip().splitlines()
        assert json.loads(line.removeprefix("data: ")) == {"text": text}


def test_of_a_text_that_grows_faster_than_it_is_read_the_newest_state_is_kept() -> None:
    async def read() -> list[object]:
        box: Mailbox[Delta | Failed] = Mailbox()
        waiting = asyncio.ensure_future(box.get())
        await asyncio.sleep(0)
        for sent in (Delta("1", "a"), Delta("1", "ab"), Delta("1", "abc"), Failed("1", 503, "gone")):
            box.put(sent)
        return [await waiting, *[await box.get() for _ in range(len(box))]]

    assert asyncio.run(read()) == [Delta("1", "abc"), Failed("1", 503, "gone")]


# ---- inference process -----------------------------------------------------------------------------


@pytest.mark.parametrize("error", [EOFError, OSError])
def test_a_process_that_can_not_be_started_is_reported_as_ended(error: type[Exception]) -> None:
    """EOFError: the server that processes are forked from got SIGTERM too, as from systemd, while it imports torch."""

    class Unstartable:
        def start(self) -> None:
            raise error

    ended: queue.Queue[Any] = queue.Queue()
    context: Any = SimpleNamespace(Pipe=multiprocessing.Pipe, Process=lambda **given: Unstartable())
    spec = EngineSpec("local", {}, None, None, "cpu", "", 1, 1, 1)
    process = InferenceProcess(spec, context, lambda *message: ended.put(message))
    assert ended.get(timeout=240) == (process, None)

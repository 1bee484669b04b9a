"""A case that fails is a row that says so, and the next one runs."""

import pytest
from warm_process import warm_workers

from medqlora.profiling import SHAPES, Case, run_case
from medqlora.profiling.processes import run_cases

TINY = SHAPES["tiny"][1]
CASE = Case(
    trainer="native",
    shape=TINY,
    micro_batch_tokens=512,
    precision="32",
    warm_up=1,
    steps=1,
    checkpointing="none",
)


@pytest.fixture
def _warm(monkeypatch: pytest.MonkeyPatch) -> None:
    warm_workers(monkeypatch)


@pytest.mark.slow
@pytest.mark.usefixtures("_warm")
def test_a_case_that_does_not_fit_says_so_and_the_next_one_runs() -> None:
    # an embedding of petabytes: the allocator's own answer
    large = Case(trainer="native", shape={**TINY, "vocab_size": 10**13}, precision="32", warm_up=1, steps=1)
    reported = []
    run_cases([large, CASE], lambda case, result: reported.append((case, result)))
    assert [case for case, _ in reported] == [large, CASE]
    rows = [result for _, result in reported]
    assert rows[0]["failed"] == "out of memory"
    assert rows[1]["tokens_per_s"] > 0
    assert rows[1]["versions"]["torch"]


def test_a_case_that_takes_too_long_is_ended() -> None:
    assert run_case(CASE, limit_s=0.2) == {"failed": "it took longer than 0 s"}


@pytest.mark.slow
@pytest.mark.usefixtures("_warm")
def test_what_goes_wrong_inside_is_said_in_a_line() -> None:
    wrong = Case(trainer="fused", shape={**TINY, "model_type": "gemma", "head_dim": 16}, precision="32")
    result = run_case(wrong)
    assert result["input_error"]
    assert result["failed"].startswith("--engine fused: it doesn't run this shape")

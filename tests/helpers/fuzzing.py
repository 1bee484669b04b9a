"""What the fuzz tests share: how many inputs each gives in the slow run, and a loop that counts them."""

import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

#: the longest series in full, as the workflow runs them every night; `.ci/run` takes a shorter form
THOROUGH = bool(os.environ.get("MEDQLORA_THOROUGH"))
#: of a test whose promise a shorter one holds by day
nightly = pytest.mark.skipif(not THOROUGH, reason="every night, with MEDQLORA_THOROUGH=1")
#: inputs of the thorough run, by what they are given to; `test_fuzz_decisions.py` adds them up
THOROUGH_INPUTS = {"readers": 9_000, "prompts": 2_500, "packing": 4_500, "decisions": 8_000}
#: inputs of the slow tests in this run
SLOW_INPUTS = {name: count if THOROUGH else count // 8 for name, count in THOROUGH_INPUTS.items()}


def fuzz(strategy: st.SearchStrategy[Any], check: Callable[[Any], None], inputs: int) -> None:
    """Gives `check` that many inputs, the same in every run, and fails where it got fewer.

    Args:
        strategy: what they are drawn from.
        check: raises where a promise is broken.
        inputs: how many.
    """
    given_to_it = 0

    @settings(
        max_examples=inputs,
        deadline=None,
        derandomize=True,
        database=None,  # nothing is left behind in the folder of the project
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def every(value: Any) -> None:
        nonlocal given_to_it
        given_to_it += 1
        check(value)

    every()
    assert given_to_it >= inputs, f"{given_to_it} of {inputs}: the strategy is exhausted"
    print(f"{given_to_it:,} inputs")

"""The summary of `full` reads as the report does."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from medqlora.commands.full import summary
from medqlora.evaluation.report.wording import p_value


@pytest.mark.parametrize(("p", "shown"), [(3e-9, "McNemar p < 0.001"), (0.0213, "McNemar p 0.021")])
def test_the_p_value_is_written_as_in_the_report(p: float, shown: str) -> None:
    fit = SimpleNamespace(
        model=SimpleNamespace(parameter_counts=(1, 10), backend=SimpleNamespace(base="a base")),
        trainer=SimpleNamespace(global_step=3),
        datamodule=SimpleNamespace(train=[1, 2]),
        adapter_folder=Path("run/adapter"),
    )
    scores = SimpleNamespace(
        decided_by="likelihood",
        n=4,
        accuracy=0.5,
        accuracy_ci95=(0.2, 0.8),
        base={"accuracy": 0.25},
        mcnemar_p=p,
        more={},
    )
    test = SimpleNamespace(report=SimpleNamespace(scores=scores))
    lines = summary(cast(Any, fit), cast(Any, test), Path("run"))
    assert f"  bare base  25.0% ({shown})" in lines
    assert shown.endswith(p_value(p))

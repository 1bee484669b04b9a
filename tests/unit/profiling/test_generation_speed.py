"""`bench --generate` measures the decode engine and transformers' `generate` on the same model and prompts."""

import json
from pathlib import Path
from typing import Literal

import pytest
from harness import refused

from medqlora.profiling.generation import GenerationCase, heading, line, measure_generation
from medqlora.profiling.shapes import SHAPES
from medqlora.profiling.worker import main as worker


def case(
    writer: Literal["medqlora", "transformers"], weights: Literal["nf4", "cached"] = "nf4"
) -> GenerationCase:
    shape = SHAPES["tiny"][1]
    return GenerationCase(writer, shape, "tiny", weights, rows=3, new_tokens=5, precision="32")


def test_both_writers_are_measured_in_the_same_units() -> None:
    cases = [case("medqlora", "cached"), case("transformers")]
    cached, native = (measure_generation(each) for each in cases)
    for each, figures in zip(cases, (cached, native), strict=True):
        # 4 tokens of each of 3 rows after the prefill's
        assert figures["tokens_per_s"] == pytest.approx(3e3 / figures["step_ms"], rel=1e-2)
        assert figures["prefill_s"] > 0
        assert figures["bandwidth_share"] == pytest.approx(
            figures["read_gb_per_step"] / (figures["step_ms"] / 1e3) / figures["bandwidth_gb_per_s"], rel=0.1
        )
        assert len(line(each, figures)) == len(heading("cpu"))
    # 2 layers of 4 projections' 64·64, and so on, in 32 bits and in 4
    assert cached["read_gb_per_step"] > native["read_gb_per_step"]


def test_a_case_travels_to_its_process_and_back(tmp_path: Path) -> None:
    given, result = tmp_path / "case.json", tmp_path / "result.json"
    given.write_text(json.dumps(case("medqlora").to_json()))
    worker("generate", str(given), str(result))
    assert json.loads(result.read_text())["tokens_per_s"] > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rows", "3"], "--rows: it is of a generation: add --generate"),
        (["--generate", "--sweep"], "--sweep and --generate"),
        (["--generate", "--engine", "native"], "--engine and --generate"),
        (["--generate", "--rows", "0"], "--rows 0: it has to be at least 1"),
        (["--generate", "--new_tokens", "1"], "--new_tokens is 1"),
        (["--generate", "--devices", "2"], "--devices 2 and --generate"),
        (["--generate", "--head", "host"], "--head host and --generate"),
    ],
)
def test_options_of_another_measurement_are_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capsys, "bench", "--shape", "tiny", "--device", "cpu", *words)

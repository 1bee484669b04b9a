"""What is written says what was measured, and what was not."""

import csv
import dataclasses
import json
from pathlib import Path

from medqlora.profiling import SHAPES, Case
from medqlora.profiling.figures import Figures, Row
from medqlora.profiling.report import (
    frontier,
    heading,
    line,
    write_csv,
    write_json,
    write_plot,
)

CASES = [
    Case(trainer="fused", shape=SHAPES["tiny"][1], shape_name="tiny", checkpointing="none", compile=True),
    Case(trainer="trl-peft", shape={}, batch_size=2, accumulate=4, packing=False, micro_batch_tokens=256),
    Case(trainer="native", shape={}),
]
FIGURES: Figures = {
    "tokens_per_s": 16820.4, "tokens_per_s_median": 16800.0, "tokens_per_s_quartiles": [16700.0, 16868.0],
    "step_s": 0.468, "tokens_per_step": 8000.0, "steps": 12, "peak_allocated_gib": 58.2,
    "peak_reserved_gib": 60.1, "planned_gib": 59.1, "plan_error": 0.015,
    "flop_utilisation": 0.62, "matrix_product_tflops": 790.0, "attention": "flash",
}  # fmt: skip
PEER: Figures = {
    **FIGURES,
    "plan_error": None,
    "flop_utilisation": None,
    "tokens_per_s": 1181.0,
    "peak_allocated_gib": 8.4,
}


def rows() -> list[Row]:
    results: list[Figures] = [FIGURES, PEER, {"failed": "out of memory"}]
    return [Row(case, result) for case, result in zip(CASES, results, strict=True)]


def table(rows: list[Row], device: str) -> str:
    return "\n".join((heading(device), *map(line, rows)))


def test_the_table_has_a_line_a_case_and_says_what_did_not_fit() -> None:
    head, fused, peer, native = table(rows(), "cuda").splitlines()
    assert head.split() == [
        "trainer",
        "setting",
        "tokens/s",
        "±",
        "s/step",
        "peak",
        "GiB",
        "reserved",
        "plan",
        "FLOPs",
    ]
    assert fused.split()[-7:] == ["16,820", "1%", "0.468", "58.20", "60.10", "+1.5%", "62.0%"]
    assert "8192 tokens, checkpointing none" in fused
    assert "2×4 cut at 256, checkpointing full" in peer
    assert native.endswith("out of memory")


def test_several_devices_have_a_line_of_their_own(tmp_path: Path) -> None:
    case = dataclasses.replace(CASES[0], devices=2, device="cuda")
    figures: Figures = {
        **FIGURES,
        "tokens_per_s": 33000.0,
        "tokens_per_s_per_device": 16500.0,
        "quickest_waits": 0.013,
        "scaling": 1.942,
    }
    row = Row(case, figures)
    alone, several, about = table([rows()[0], row], "cuda").splitlines()[1:]
    assert len(alone) == len(several)
    assert "2 × 8192 tokens, checkpointing none" in several
    assert about.strip() == (
        "2 GPUs: 16,500 tokens/s each, scaling 1.94 of 2, fastest device idle 1.3% of the step"
    )
    assert len(about) <= len(several)
    # one device alone didn't fit, so there is nothing to compare with
    without = {name: value for name, value in figures.items() if name != "scaling"}
    assert "scaling" not in table([Row(case, without)], "cuda")  # type: ignore[arg-type]
    assert table([Row(case, {**figures, "failed": "out of memory"})], "cuda").endswith("out of memory")
    write_csv(tmp_path / "a.csv", [row])
    with (tmp_path / "a.csv").open(newline="") as file:
        (read,) = csv.DictReader(file)
    assert (read["devices"], read["tokens_per_s_per_device"], read["scaling"], read["quickest_waits"]) == (
        "2", "16500.0", "1.942", "0.013",
    )  # fmt: skip


def test_csv_and_json_hold_every_row(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", rows())
    write_json(tmp_path / "a.json", rows())
    with (tmp_path / "a.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["failed"] for row in read] == ["", "", "out of memory"]
    assert (read[0]["tokens_per_s"], read[0]["spread"], read[0]["shape"]) == ("16820.4", "0.01", "tiny")
    assert read[2]["tokens_per_s"] == ""
    assert json.loads((tmp_path / "a.json").read_text())["rows"] == [row.to_json() for row in rows()]


def test_the_frontier_leaves_out_what_another_passes_with_as_little_memory() -> None:
    points = [(7.3, 9.4), (10.1, 11.3), (12.0, 11.0), (29.0, 14.0), (7.3, 9.0), (58.2, 16.8)]
    assert frontier(points) == [(7.3, 9.4), (10.1, 11.3), (29.0, 14.0), (58.2, 16.8)]
    assert frontier([]) == []


def test_a_plot_is_drawn_of_what_ran_and_none_of_nothing(tmp_path: Path) -> None:
    assert write_plot(tmp_path / "a.png", rows())
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert not write_plot(tmp_path / "b.png", rows()[2:])
    assert not (tmp_path / "b.png").exists()

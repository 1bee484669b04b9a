"""What a rationale does to accuracy: none, after the decision, or before it; paired tests on the same questions.

    python examples/compare_rationales.py --config configs/demo.yaml --out rationales
    python examples/compare_rationales.py --config configs/qlora.yaml --out rationales -- --model.max_new_tokens 96

Trains one adapter for each value of `data.rationale` with the same options, and tests it. Options after `--` go to
every fit and test. A comparison of two adapters is McNemar's exact test; a difference under about 5 points on 500
questions is no finding.
"""

import argparse
import itertools
import json
import sys
from pathlib import Path

from medqlora.cli import main as medqlora
from medqlora.evaluation.statistics.paired import mcnemar_exact

VARIANTS = ("none", "after", "before")


def answers(variant: str, words: list[str], out: Path) -> dict[str, bool]:
    """Trains and tests one variant, unless that is done; id → whether the decision is right."""
    folder = out / variant
    if not list(folder.rglob("test_report.json")):
        given = [*words, f"--data.rationale={variant}", f"--trainer.default_root_dir={folder}"]
        if medqlora(["fit", *given]) or medqlora(["test", *given]):
            raise SystemExit(f"data.rationale {variant}: the run failed")
    (file,) = folder.rglob("predictions.jsonl")
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return {line["id"]: bool(line["right"]) for line in lines}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config", action="append", required=True, help="configuration of the fit; repeatable"
    )
    parser.add_argument("--out", type=Path, default=Path("rationales"))
    own, _, more = " ".join(sys.argv[1:]).partition(" -- ")
    given = parser.parse_args(own.split())
    words = [*(f"--config={name}" for name in given.config), *more.split()]
    right = {variant: answers(variant, words, given.out) for variant in VARIANTS}
    print("| data.rationale | accuracy |\n|---|---|")
    for variant, found in right.items():
        print(f"| {variant} | {sum(found.values()) / len(found):.3f} |")
    print(
        "\n| first | second | only first right | only second right | exact McNemar p |\n|---|---|---|---|---|"
    )
    for first, second in itertools.combinations(VARIANTS, 2):
        one, two = right[first], right[second]
        only_first = sum(one[ident] and not two[ident] for ident in one)
        only_second = sum(two[ident] and not one[ident] for ident in one)
        p = mcnemar_exact(only_first, only_second)
        print(f"| {first} | {second} | {only_first} | {only_second} | {p:.3f} |")


if __name__ == "__main__":
    main()

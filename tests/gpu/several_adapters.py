"""Three adapters on one base model: the fused engine's scores and texts beside PEFT's own forward, and float32's.

    python tests/gpu/several_adapters.py BASE_FOLDER PUBMEDQA_FILE [QUESTIONS] [TEXTS]

The adapters are random; the base is loaded in NF4 twice, for the engine and for PEFT. Prints a JSON line for each
adapter and for the bare base: seconds, the largest and the mean difference of label log-probabilities between engine,
PEFT, and PEFT in float32, decisions that are equal, and greedy texts that are. Ends with 1 where the engine is farther
from float32 than PEFT is by half, where another adapter in float32 is nearer than its own, or where the order in which
the adapters are asked changes a score.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from random_adapter import write

from medqlora.config.model import EvaluationOptions
from medqlora.data import PubMedQA
from medqlora.inference.several import PassLimits, SeveralAdapters
from medqlora.records import Prediction, Record

NEW, TOKENS = 16, 4096


def differences(mine: Sequence[Prediction], other: Sequence[Prediction]) -> list[float]:
    """Of each label's log-probability, in nats."""
    return [
        abs(a - b)
        for one, two in zip(mine, other, strict=True)
        for a, b in zip(one.logprobs, two.logprobs, strict=True)
    ]


def scored(
    several: SeveralAdapters, folder: str | None, records: list[Record]
) -> tuple[list[Prediction], float]:
    """An adapter's predictions, and their seconds."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = time.perf_counter()
    predictions = several.predict(folder, records)
    return predictions, time.perf_counter() - started


def texts(several: SeveralAdapters, folder: str | None, records: list[Record]) -> list[str | None]:
    """An adapter's greedy texts."""
    with several.asked(folder) as predictor:
        writing = replace(predictor, options=EvaluationOptions(generate=True, max_new_tokens=NEW))
        return [one.text for one in writing.predict(records)]


def main(base: Path, file: str, count: int, written: int) -> int:
    records, wrong = PubMedQA(path=file).read().test[:count], []
    with tempfile.TemporaryDirectory() as root:
        folders = [str(Path(root, str(seed))) for seed in range(3)]
        for seed, folder in enumerate(folders):
            write(Path(folder), base, seed)
        engine = SeveralAdapters.load(folders[:2], limits=PassLimits(TOKENS))
        engine.add(folders[2])
        if engine.engine is None:
            print("the engine does not run here", flush=True)
            return 1
        native = SeveralAdapters.load(folders, decoding="transformers")
        asked = [*folders, None]
        scored(engine, None, records[:8])  # compiles
        ours = {folder: scored(engine, folder, records) for folder in asked}
        theirs = {folder: scored(native, folder, records) for folder in asked}
        for folder in asked:  # what is known early is printed early
            most = max(differences(ours[folder][0], theirs[folder][0]))
            print(f"{ours[folder][1]:.3f} s, PEFT {theirs[folder][1]:.3f} s, apart by {most:.5f}", flush=True)
        equal = {
            folder: [
                a == b
                for a, b in zip(
                    *(texts(each, folder, records[:written]) for each in (engine, native)), strict=True
                )
            ]
            for folder in asked
        }
        backwards = {folder: scored(engine, folder, records)[0] for folder in reversed(asked)}
        native.predictor.compute_in_float32()
        exact = {folder: scored(native, folder, records)[0] for folder in asked}
    for number, folder in enumerate(asked):
        (mine, mine_s), (peft, peft_s) = ours[folder], theirs[folder]
        pairs = {
            "engine_peft": differences(mine, peft),
            "engine_float32": differences(mine, exact[folder]),
            "peft_float32": differences(peft, exact[folder]),
        }
        nearest = min(asked, key=lambda other: statistics.fmean(differences(mine, exact[other])))
        line = {
            "adapter": None if folder is None else number,
            "engine_s": round(mine_s, 3),
            "peft_s": round(peft_s, 3),
            **{f"{name}_max": round(max(values), 5) for name, values in pairs.items()},
            **{f"{name}_mean": round(statistics.fmean(values), 6) for name, values in pairs.items()},
            "nearest_is_own": nearest == folder,
            "decisions": sum(a.decision == b.decision for a, b in zip(mine, peft, strict=True)),
            "questions": len(mine),
            "texts_equal": f"{sum(equal[folder])} of {len(equal[folder])}",
            "same_backwards": [one.logprobs for one in mine] == [one.logprobs for one in backwards[folder]],
        }
        print(json.dumps(line), flush=True)
        bound = 1.5 * line["peft_float32_mean"] + 1e-5
        if line["engine_float32_mean"] > bound or not (line["nearest_is_own"] and line["same_backwards"]):
            wrong.append(number)
    print("ok" if not wrong else f"differs: {wrong}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    questions, written = (*map(int, sys.argv[3:5]), *(16, 4)[max(0, len(sys.argv) - 3) :])
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], questions, written))

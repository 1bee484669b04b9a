"""The process of a case: `python -m medqlora.profiling.worker JOB CASE_FILE RESULT_FILE`."""

import json
import sys
import traceback
from pathlib import Path

from medqlora.profiling.case import PEERS, Case
from medqlora.profiling.failures import failure
from medqlora.profiling.figures import Figures
from medqlora.profiling.generation import GenerationCase, measure_generation
from medqlora.utils.versions import versions

#: whose versions are told
_PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "triton", "trl", "unsloth")


def work(job: str, case: Case) -> Figures:
    """Measures a case, or writes its checkpoint. Heavy packages are imported here, Unsloth before the others."""
    if job == "checkpoint":
        import torch

        from medqlora.models.precision import DTYPES
        from medqlora.profiling.random_model import write_checkpoint

        write_checkpoint(
            case.shape, Path(case.folder), device=torch.device(case.device), dtype=DTYPES[case.precision]
        )
        return {"written": case.folder}
    if case.trainer in PEERS:
        from medqlora.profiling.peers import measure_peer

        return measure_peer(case)
    if case.devices > 1:
        from medqlora.profiling.devices import measure_on_devices

        return measure_on_devices(case)
    from medqlora.profiling.measure import measure

    return measure(case)


def main(job: str, case_file: str, result_file: str) -> None:
    fields = json.loads(Path(case_file).read_text(encoding="utf-8"))
    result: Figures | dict[str, object]
    try:
        figures = (
            measure_generation(GenerationCase(**fields)) if job == "generate" else work(job, Case(**fields))
        )
        result = {**figures, "versions": versions(_PACKAGES)}
    except Exception as error:
        traceback.print_exc()
        result = failure(error)
    Path(result_file).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])

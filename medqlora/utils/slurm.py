"""The SLURM job of this process."""

import os


def slurm_job() -> str | None:
    """The number of this process's SLURM job, "17_3" in a job array; None outside SLURM.

    https://slurm.schedmd.com/sbatch.html#SECTION_OUTPUT-ENVIRONMENT-VARIABLES
    """
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    if array is not None:
        return f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID')}"
    return os.environ.get("SLURM_JOB_ID")

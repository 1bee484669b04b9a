"""The SLURM job that this process is part of."""

import os


def slurm_job() -> str | None:
    """The number of the SLURM job that this process is of, a job array's as "17_3"; None outside of SLURM.

    https://slurm.schedmd.com/sbatch.html#SECTION_OUTPUT-ENVIRONMENT-VARIABLES
    """
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    if array is not None:
        return f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID')}"
    return os.environ.get("SLURM_JOB_ID")

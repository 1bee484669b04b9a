"""What a fit says where a full disk keeps a checkpoint or the adapter from being written."""

from collections.abc import Collection
from pathlib import Path

from medqlora.utils.console import say
from medqlora.utils.files import disk_full


def tell_checkpoint(error: OSError, folder: Path, kept: int | None) -> None:
    """Reports a checkpoint that found no room; raises every other error again.

    Args:
        error: of the write.
        folder: of the checkpoints.
        kept: the step of the newest checkpoint on the disk; None before the first.
    """
    if not disk_full(error):
        raise error
    stands = "no checkpoint stands yet" if kept is None else f"that of step {kept} is kept"
    say(
        f"No room for a checkpoint in {folder} ({error.strerror}): {stands}, training goes on, and the next "
        "save tries again: make room on that disk"
    )


def tell_adapter(error: OSError, run: Path, checkpoint: str) -> None:
    """Reports the adapter of `checkpoint` that found no room in the run's folder; raises every other error again."""
    if not disk_full(error):
        raise error
    say(
        f"No room for the adapter in {run} ({error.strerror}): training goes on; make room, and write it "
        f"with `medqlora export --ckpt_path {checkpoint}`"
    )


def check_result(lacks: Collection[str], step: int, last: Path, *, best: bool) -> None:
    """Tells at the end of a fit what found no room on the disk to the last.

    Args:
        lacks: "adapter" for that of the best checkpoint, "checkpoint" for the one of `step`; or nothing.
        step: the fit's last one.
        last: the file of the newest checkpoint.
        best: a best checkpoint is on the disk.

    Raises:
        RuntimeError: the fit leaves no adapter, or one of older weights.
    """
    if "adapter" in lacks:
        raise RuntimeError("the adapter found no room on the disk: make room")
    if "checkpoint" in lacks and not best:
        raise RuntimeError(
            f"no checkpoint of step {step} found room on the disk, and there is no adapter: make room"
        )
    if "checkpoint" in lacks:
        say(
            f"The checkpoint of step {step} found no room, and the best one is the best of those before it: make room, "
            f"and go on with --ckpt_path {last}"
        )

"""torch's writer of TensorBoard's HPARAMS: `add_hparams` would begin a second run beside the run's own."""

from collections.abc import Iterable, Mapping

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams


def write_session(
    writer: SummaryWriter,
    options: Mapping[str, str | float],
    columns: Mapping[str, str | float],
    metrics: Iterable[str],
) -> None:
    """Writes the run's row of the HPARAMS table into the run's own event file.

    TensorBoard takes the columns from whichever run it finds first, so every run writes the same ones.

    Args:
        writer: the run's.
        options: column → the run's value; columns without one stay empty.
        columns: every column of options → a value of its type.
        metrics: the scalars that are columns; a run need not have them all.
    """
    experiment, _, _ = hparams(dict(columns), dict.fromkeys(metrics, 0.0))
    _, start, end = hparams(dict(options), {})
    file_writer = writer._get_file_writer()
    for summary in (experiment, start, end):
        file_writer.add_summary(summary)

"""A disk that is full of something else costs points of a curve, and no run."""

from pathlib import Path

from tensorboard_events import logged
from warm_process import WarmProgram

_LIMITED = """
import resource, signal, sys, time
from medqlora.callbacks import event_files
from medqlora.callbacks.event_files import EventFiles, silence_writer_threads

silence_writer_threads()
event_files._PATIENCE_S = 1.0
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
logger = EventFiles(sys.argv[1], name="", version="run")

def log(steps):
    for step in steps:
        logger.log_metrics({"train/loss": step / 2, "train/rate": 1.0}, step=step)
        logger.experiment.add_text("sample", "written", step)

log(range(20))
logger.experiment.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (6_000, resource.RLIM_INFINITY))  # no file may grow beyond
log(range(20, 500))
logger.experiment.flush()
logger.save()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
time.sleep(1.1)
log(range(500, 520))
logger.experiment.flush()
logger.finalize("success")
"""


def test_what_finds_no_room_is_left_out_and_said_once_and_a_new_file_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "said.txt"
    assert WarmProgram(_LIMITED, tmp_path, log=log).wait() == 0, log.read_text()
    said = log.read_text()
    assert "Traceback" not in said
    assert said.count("No room for TensorBoard's events in ") == 1, said
    assert "(File too large): points are left out until there is" in said
    files = sorted((tmp_path / "run").glob("events.out.tfevents.*"))
    points = logged(tmp_path / "run", "train/loss")
    assert points[:20] == [(step, step / 2) for step in range(20)]
    assert len(files) == 2  # not tried again at every point
    assert points[-20:] == [(step, step / 2) for step in range(500, 520)]
    assert [step for step, _ in points] == sorted({step for step, _ in points})  # none twice

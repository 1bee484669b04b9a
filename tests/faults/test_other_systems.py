"""What Linux alone has is not asked for at import, so that other systems come as far as their packages do."""

import subprocess
import sys

import pytest

from medqlora.utils.host_memory import peak_gib, resident_gib

#: of the standard library, and not on Windows: https://docs.python.org/3/library/ ("Availability: not Windows")
UNIX_ALONE = ("resource", "fcntl", "pwd", "grp", "termios", "tty", "pty", "syslog", "posix")

EVERY_MODULE = f"""
import sys
# what these use of the modules below is theirs
import torch, transformers, peft, bitsandbytes, datasets, lightning.pytorch, matplotlib.pyplot, sklearn, scipy
import jsonargparse, tensorboard, psutil, filelock, subprocess, multiprocessing.popen_fork
for name in {UNIX_ALONE}:
    sys.modules[name] = None
import importlib, pkgutil, medqlora
for module in pkgutil.walk_packages(medqlora.__path__, "medqlora."):
    try:
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        if error.name != "triton":  # of the engine's kernels, which are imported on a GPU alone
            raise
"""


@pytest.mark.slow
def test_no_module_asks_for_what_windows_has_not() -> None:
    ended = subprocess.run([sys.executable, "-c", EVERY_MODULE], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_the_peak_of_this_process_is_no_lower_than_what_it_holds() -> None:
    before = peak_gib()
    held = bytearray(200 * 2**20)
    for place in range(0, len(held), 4096):  # a page is only there once it is written
        held[place] = 1
    assert resident_gib() > 0.2
    del held
    assert peak_gib() >= before
    assert peak_gib() > 0.2

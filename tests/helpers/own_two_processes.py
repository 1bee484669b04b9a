"""A user's own program on two processes; Lightning starts it a second time.

python tests/own_two_processes.py BASE FOLDER
"""

import json
import sys
from pathlib import Path

import torch
from own_programs import Own

from medqlora.callbacks import AdapterCheckpoint
from medqlora.distributed.processes import DDPStrategy4bit


def main(base: Path, folder: Path) -> None:
    """Fits and tests; each process writes what its Trainer returned."""
    torch.set_num_threads(1)
    own = Own(base, folder / "files")
    module, data = own.module(), own.data()
    trainer = own.trainer(
        devices=2,
        strategy=DDPStrategy4bit(),
        callbacks=[AdapterCheckpoint(dirpath=str(folder))],
        logger=False,
    )
    trainer.fit(module, datamodule=data)
    (scores, *_) = trainer.test(module, datamodule=data, verbose=False)
    (folder / f"scores-{trainer.global_rank}.json").write_text(json.dumps(scores))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

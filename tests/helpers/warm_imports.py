"""What a small run imports on its way, imported once for all processes that `warm_process` forks."""

import gc

import bitsandbytes  # noqa: F401
import matplotlib.backends.backend_agg
import matplotlib.backends.backend_svg
import matplotlib.figure  # noqa: F401
import peft  # noqa: F401
import pytest
import quick
import torch.utils.tensorboard  # noqa: F401
import transformers.models.llama.modeling_llama  # noqa: F401

import medqlora.callbacks
import medqlora.commands.ask
import medqlora.commands.lightning_cli
import medqlora.commands.verbs
import medqlora.models.transformers
import medqlora.profiling.devices
import medqlora.profiling.measure
import medqlora.profiling.worker  # noqa: F401

# for good: of the processes' reports no test looks at the pictures
quick.undrawn(pytest.MonkeyPatch())
quick.unsynced(pytest.MonkeyPatch())

gc.collect()
gc.freeze()  # no process looks through what all of them share

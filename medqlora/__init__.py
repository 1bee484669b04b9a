"""medqlora: QLoRA fine-tuning of language models on medical question answering, with PyTorch Lightning.

Importing the package stays light: nothing here loads torch, transformers or Lightning. It only
switches off the usage statistics of the libraries that would send them, has waiting CPU threads sleep,
and lets torch's GPU memory grow in place, before any is imported.
"""

import os

__version__ = "1.0.0"

for _name, _value in {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "UNSLOTH_DISABLE_STATISTICS": "1",
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",  # datasets tells a server what is loaded
    # OpenMP's threads otherwise spin while they wait: a quarter faster on idle cores, several times slower
    # on cores that something else uses too
    "OMP_WAIT_POLICY": "PASSIVE",
    # micro-batches differ in size: blocks that can't grow left 71 GiB reserved for 29 in use, on an H200
    "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
}.items():
    os.environ.setdefault(_name, _value)

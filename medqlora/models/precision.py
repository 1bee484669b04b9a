"""The Trainer's precisions as types of torch."""

import torch

#: `--trainer.precision` → type of the quantized layers' products
DTYPES = {
    "16-mixed": torch.float16,
    "bf16-mixed": torch.bfloat16,
    "32-true": torch.float32,
    "32": torch.float32,
}

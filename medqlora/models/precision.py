"""Precisions: what the quantized layers compute in."""

import torch

#: `--trainer.precision` → what the quantized layers compute in
DTYPES = {
    "16-mixed": torch.float16,
    "bf16-mixed": torch.bfloat16,
    "32-true": torch.float32,
    "32": torch.float32,
}

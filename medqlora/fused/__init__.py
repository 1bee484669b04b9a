"""The fast path: packed, fused training steps and scoring of Llama-like 4-bit models.

It knows weights and micro-batches, and neither the Trainer nor the options.
"""

from medqlora.fused.decoder import Checkpointing, FusedDecoder
from medqlora.fused.support import unsupported

__all__ = ["Checkpointing", "FusedDecoder", "unsupported"]

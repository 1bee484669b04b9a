"""4-bit integer weights of GPTQ and AWQ bases: the layouts of their files, and a linear layer that computes with them.

Both methods store w = (q - z) s: q of 4 bits, and for each output and group of inputs a zero point z of 4 bits and a
scale s. They differ in how the bits are packed. GPTQ: Frantar et al., 2022, https://arxiv.org/abs/2210.17323. AWQ: Lin
et al., 2023, https://arxiv.org/abs/2306.00978.
"""

from medqlora.models.int4.layouts import Int4Weights, unpack
from medqlora.models.int4.linear import Int4Linear
from medqlora.models.int4.state import Int4State

__all__ = ["Int4Linear", "Int4State", "Int4Weights", "unpack"]

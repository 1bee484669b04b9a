# ruff: noqa: N803, N806  # compile-time constants are in capitals, as in Triton's own kernels
"""y = x Wᵀ and x Aᵀ for one or two rows in one launch, W in bitsandbytes' NF4, A in 16 bits.

The GPU's rate of operations is the limit here, not its memory, so the products are of integers: x in 16 bits with a
scale for each block of 64 values, and the codes of NF4 in 16 bits; four products of bytes are one instruction (dp4a).
The products of the high bytes and the two mixed ones are added; that of the low bytes is below 2⁻¹⁶ of the block. So
it rounds less than bfloat16 does.
"""

import triton  # type: ignore[import-not-found,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,unused-ignore]

from medqlora.fused.kernels.triton_nf4_product import NF4, four_to_a_word, scales

#: the largest integer: 127 in the high byte, 0 in the low one
LARGEST = 127 * 256


def _tables() -> tuple[list[int], list[int]]:
    """The high and the low bytes of NF4's codes as 16-bit integers, four to a word."""
    codes = [round(value * LARGEST) for value in NF4]
    low = [(code + 128) % 256 - 128 for code in codes]
    high = [(code - byte) // 256 for code, byte in zip(codes, low, strict=True)]
    return four_to_a_word(high), four_to_a_word(low)


def _lookup() -> str:
    """PTX from a word of eight nibbles, $4, to the high and low bytes of four codes, twice: byte permutations."""
    high, low = _tables()
    lines = [
        "{",
        ".reg .b32 s, t, p, q;",
        "and.b32 s, $4, 0x77777777;",
        "shr.u32 t, $4, 1;",
        # selects, of two tables of eight, by the nibble's highest bit
        "lop3.b32 t, t, 0x44444444, 0x32103210, 0xEA;",
    ]
    for half in range(2):
        for part, table in enumerate((high, low)):
            lines.append(f"prmt.b32 p, {table[0]:#010x}, {table[1]:#010x}, s;")
            lines.append(f"prmt.b32 q, {table[2]:#010x}, {table[3]:#010x}, s;")
            lines.append(f"prmt.b32 ${2 * half + part}, p, q, t;")
        if not half:
            lines.append("shr.u32 s, s, 16;")
            lines.append("shr.u32 t, t, 16;")
    return "\n".join([*lines, "}"])


_LOOKUP = tl.constexpr(_lookup())
#: $1 to $4 from `_LOOKUP`; x's high bytes $5 and $6, its low ones $7 and $8
_DOT = tl.constexpr(
    """{
.reg .s32 a, b;
dp4a.s32.s32 a, $1, $5, 0;
dp4a.s32.s32 a, $3, $6, a;
dp4a.s32.s32 b, $1, $7, 0;
dp4a.s32.s32 b, $2, $5, b;
dp4a.s32.s32 b, $3, $8, b;
dp4a.s32.s32 b, $4, $6, b;
mad.lo.s32 $0, a, 256, b;
}"""
)
_UNIT = tl.constexpr(256 / LARGEST)


@triton.jit
def _code(word, code, x, index: tl.constexpr):  # type: ignore[no-untyped-def]
    """A code of each word times x; a byte's high nibble comes first."""
    return tl.load(code + ((word >> (4 * (index ^ 1))) & 15)) * tl.load(x + index).to(tl.float32)


@triton.jit
def _sums(loaded, word, x, limbs, scale, h0, l0, h1, l1, code, COLUMNS: tl.constexpr, ASSEMBLY: tl.constexpr):  # type: ignore[no-untyped-def]
    """[BLOCK, WORDS] products of each word's codes with x, times the word's scale."""
    if ASSEMBLY:
        PLANE: tl.constexpr = COLUMNS // 8
        at = limbs + word
        products = tl.inline_asm_elementwise(
            _DOT, "=r,r,r,r,r,r,r,r,r",
            [h0, l0, h1, l1, tl.load(at), tl.load(at + PLANE), tl.load(at + 2 * PLANE), tl.load(at + 3 * PLANE)],
            dtype=tl.int32, is_pure=True, pack=1,
        )  # fmt: skip
        result = products.to(tl.float32) * scale
    else:
        at = x + word * 8
        total = _code(loaded, code, at, 0) + _code(loaded, code, at, 1)
        total += _code(loaded, code, at, 2) + _code(loaded, code, at, 3)
        total += _code(loaded, code, at, 4) + _code(loaded, code, at, 5)
        total += _code(loaded, code, at, 6) + _code(loaded, code, at, 7)
        result = total * scale
    return result


@triton.jit
def _spread(scale, of_x, ASSEMBLY: tl.constexpr, BLOCK: tl.constexpr, WORDS: tl.constexpr):  # type: ignore[no-untyped-def]
    """The scale of each word, [BLOCK, WORDS], from those of blocks of eight words, and those of x."""
    if ASSEMBLY:
        scale = scale * (tl.load(of_x) * _UNIT)
    return tl.reshape(tl.broadcast_to(scale[:, :, None], (BLOCK, WORDS // 8, 8)), (BLOCK, WORDS))


@triton.jit
def _low(  # type: ignore[no-untyped-def]
    x, low, down, down_row, program, ranks,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, SPLITS: tl.constexpr, BLOCK: tl.constexpr,
    LONG: tl.constexpr,
):  # fmt: skip
    """x Aᵀ at BLOCK ranks, over a part of the columns."""
    split = program % SPLITS
    rank = (program // SPLITS) * BLOCK + tl.arange(0, BLOCK)
    inside = rank < ranks
    s0 = tl.zeros([BLOCK, LONG], tl.float32)
    s1 = s0
    for turn in tl.range(0, COLUMNS // (LONG * SPLITS)):
        k = ((turn * SPLITS + split) * LONG + tl.arange(0, LONG))[None, :]
        a = tl.load(down + rank[:, None] * down_row + k, mask=inside[:, None], other=0.0).to(tl.float32)
        s0 += a * tl.load(x + k).to(tl.float32)
        if ROWS > 1:
            s1 += a * tl.load(x + COLUMNS + k).to(tl.float32)
    to = low + split * ROWS * ranks + rank
    tl.store(to, tl.sum(s0, 1), mask=inside)
    if ROWS > 1:
        tl.store(to + ranks, tl.sum(s1, 1), mask=inside)


@triton.jit
def _nf4(  # type: ignore[no-untyped-def]
    x, limbs, x_scales, to, packed, absmax, second, offset, code, second_code, first, outputs,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, NESTED: tl.constexpr, SECOND_BLOCK: tl.constexpr,
    ASSEMBLY: tl.constexpr, BLOCK: tl.constexpr, WORDS: tl.constexpr,
):  # fmt: skip
    """x Wᵀ at BLOCK outputs from the weight's row `first` on; the second row's go `outputs` behind `to` [BLOCK]."""
    row = first + tl.arange(0, BLOCK)
    words = packed.to(tl.pointer_type(tl.int32), bitcast=True) + row[:, None] * (COLUMNS // 8)
    blocks = row[:, None] * (COLUMNS // 64)
    s0 = tl.zeros([BLOCK, WORDS], tl.float32)
    s1 = s0
    for turn in tl.range(0, COLUMNS // (8 * WORDS)):
        word = (turn * WORDS + tl.arange(0, WORDS))[None, :]
        loaded = tl.load(words + word)
        block = (turn * (WORDS // 8) + tl.arange(0, WORDS // 8))[None, :]
        scale = scales(absmax, second, offset, second_code, blocks + block, NESTED, SECOND_BLOCK)
        h0, l0, h1, l1 = loaded, loaded, loaded, loaded
        if ASSEMBLY:
            h0, l0, h1, l1 = tl.inline_asm_elementwise(
                _LOOKUP, "=r,=r,=r,=r,r", [loaded], dtype=(tl.int32, tl.int32, tl.int32, tl.int32), is_pure=True,
                pack=1,
            )  # fmt: skip
        s0 += _sums(
            loaded, word, x, limbs, _spread(scale, x_scales + block, ASSEMBLY, BLOCK, WORDS), h0, l0, h1, l1,
            code, COLUMNS, ASSEMBLY,
        )  # fmt: skip
        if ROWS > 1:
            s1 += _sums(
                loaded, word, x + COLUMNS, limbs + COLUMNS // 2,
                _spread(scale, x_scales + COLUMNS // 64 + block, ASSEMBLY, BLOCK, WORDS), h0, l0, h1, l1,
                code, COLUMNS, ASSEMBLY,
            )  # fmt: skip
    tl.store(to, tl.sum(s0, 1))
    if ROWS > 1:
        tl.store(to + outputs, tl.sum(s1, 1))


@triton.jit(do_not_specialize=["end", "end_1", "ranks", "low_programs"])
def row_products(  # type: ignore[no-untyped-def]
    x, limbs, x_scales, out, low, down, down_row,
    packed, absmax, second, offset,
    packed_1, absmax_1, second_1, offset_1,
    packed_2, absmax_2, second_2, offset_2,
    end, end_1, code, second_code, outputs, ranks, low_programs,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, NESTED: tl.constexpr,
    SECOND_BLOCK: tl.constexpr, ASSEMBLY: tl.constexpr, LOW_SPLITS: tl.constexpr,
    BLOCK: tl.constexpr, WORDS: tl.constexpr, LONG: tl.constexpr,
):  # fmt: skip
    """The first `low_programs` programs multiply rows of A, each other one BLOCK rows of W.

    Args:
        x: [ROWS, COLUMNS] in 16 bits.
        limbs, x_scales: the same x as integers, see `triton_decode.leave`; read with ASSEMBLY.
        out: [ROWS, outputs] float32.
        low: [LOW_SPLITS, ROWS, ranks] float32.
        down, down_row: A [ranks, COLUMNS] and its row stride.
        packed, absmax, second, offset: bytes and scales of up to three weights, stacked.
        end, end_1: the first programs, of those for W, of the second and the third weight.
        ROWS: 1 or 2.
    """
    tile = tl.program_id(0) - low_programs
    if tile < 0:
        _low(x, low, down, down_row, tl.program_id(0), ranks, ROWS, COLUMNS, LOW_SPLITS, BLOCK, LONG)
    else:
        n = tile * BLOCK + tl.arange(0, BLOCK)
        first = tile * BLOCK
        if tile >= end_1:
            packed, absmax, second, offset = packed_2, absmax_2, second_2, offset_2
            first = (tile - end_1) * BLOCK
        elif tile >= end:
            packed, absmax, second, offset = packed_1, absmax_1, second_1, offset_1
            first = (tile - end) * BLOCK
        _nf4(
            x, limbs, x_scales, out + n, packed, absmax, second, offset, code, second_code, first, outputs,
            ROWS, COLUMNS, NESTED, SECOND_BLOCK, ASSEMBLY, BLOCK, WORDS,
        )  # fmt: skip

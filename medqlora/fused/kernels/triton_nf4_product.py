# ruff: noqa: N803  # compile-time constants are in capitals, as in Triton's own kernels
"""y = x Wᵀ and x Aᵀ for 3 to 64 rows in one launch, W in bitsandbytes' NF4, A in 16 bits.

NF4 is dequantized in registers, so a product reads 4.1 bits a weight. Dettmers et al., 2023,
https://arxiv.org/abs/2305.14314. The columns are divided among SPLITS programs, whose float32 sums the next kernel adds
(`triton_decode`): few outputs need many programs for the memory's full rate.

x is in the order of the nibbles: value 8 i + m of a row of K stands at m · K / 8 + i (`nibble order`).
"""

import struct

import triton  # type: ignore[import-not-found,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,unused-ignore]

#: the 16 values of NF4
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip


def _tables() -> tuple[list[int], list[int]]:
    """The highest bytes of the values' float32 forms, four to a word, and their second bytes.

    The two bytes below repeat the second one, which is chosen for the least error.
    """
    high, low = [], []
    for value in NF4:
        (bits,) = struct.unpack("<I", struct.pack("<f", value))
        near = [bits >> 16, (bits >> 16) + 1, max(0, (bits >> 16) - 1)]
        made = [each << 16 | (each & 255) * 0x101 for each in near]
        best = min(made, key=lambda each: abs(struct.unpack("<f", struct.pack("<I", each))[0] - value))
        high.append(best >> 24)
        low.append(best >> 16 & 255)

    return four_to_a_word(high), four_to_a_word(low)


def four_to_a_word(values: list[int]) -> list[int]:
    """The lowest bytes of 16 values in four words of 32 bits."""
    return [
        int.from_bytes(bytes(value & 255 for value in values[start : start + 4]), "little")
        for start in range(0, 16, 4)
    ]


def _lookup() -> str:
    """PTX from a word of eight nibbles, $8, to eight float32 values: byte permutations, no loads from a table."""
    high, low = _tables()
    lines = [
        "{",
        ".reg .b32 s, t, p, q, h, l;",
        "and.b32 s, $8, 0x77777777;",
        "shr.u32 t, $8, 1;",
        # selects, of two tables of eight, by the nibble's highest bit
        "lop3.b32 t, t, 0x44444444, 0x32103210, 0xEA;",
    ]
    for half in range(2):
        for name, table in (("h", high), ("l", low)):
            lines.append(f"prmt.b32 p, {table[0]:#010x}, {table[1]:#010x}, s;")
            lines.append(f"prmt.b32 q, {table[2]:#010x}, {table[3]:#010x}, s;")
            lines.append(f"prmt.b32 {name}, p, q, t;")
        for nibble in range(4):
            # a byte's high nibble comes first
            selector = (4 + nibble) << 12 | nibble * 0x111
            lines.append(f"prmt.b32 ${(half * 4 + nibble) ^ 1}, l, h, {selector:#06x};")
        if not half:
            lines.append("shr.u32 s, s, 16;")
            lines.append("shr.u32 t, t, 16;")
    return "\n".join([*lines, "}"])


_LOOKUP = tl.constexpr(_lookup())


@triton.jit
def _values(word, code, ASSEMBLY: tl.constexpr):  # type: ignore[no-untyped-def]
    """The eight codes of each word, float32, in the order of the weights."""
    if ASSEMBLY:
        v0, v1, v2, v3, v4, v5, v6, v7 = tl.inline_asm_elementwise(
            _LOOKUP, "=r,=r,=r,=r,=r,=r,=r,=r,r", [word],
            dtype=(tl.int32, tl.int32, tl.int32, tl.int32, tl.int32, tl.int32, tl.int32, tl.int32),
            is_pure=True, pack=1,
        )  # fmt: skip
        return (
            v0.to(tl.float32, bitcast=True), v1.to(tl.float32, bitcast=True), v2.to(tl.float32, bitcast=True),
            v3.to(tl.float32, bitcast=True), v4.to(tl.float32, bitcast=True), v5.to(tl.float32, bitcast=True),
            v6.to(tl.float32, bitcast=True), v7.to(tl.float32, bitcast=True),
        )  # fmt: skip
    else:  # noqa: RET505  # Triton compiles what follows a branch, too
        # a byte's high nibble comes first
        return (
            tl.load(code + ((word >> 4) & 15)), tl.load(code + (word & 15)),
            tl.load(code + ((word >> 12) & 15)), tl.load(code + ((word >> 8) & 15)),
            tl.load(code + ((word >> 20) & 15)), tl.load(code + ((word >> 16) & 15)),
            tl.load(code + ((word >> 28) & 15)), tl.load(code + ((word >> 24) & 15)),
        )  # fmt: skip


@triton.jit
def scales(absmax, second, offset, second_code, block, NESTED: tl.constexpr, SECOND_BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """The scale of each block of 64 values."""
    scale = tl.load(absmax + block)
    if NESTED:
        outer = tl.load(second + block // SECOND_BLOCK)
        scale = tl.load(second_code + scale.to(tl.int32)) * outer + tl.load(offset)
    return scale


@triton.jit
def _many_nf4(  # type: ignore[no-untyped-def]
    x, packed, absmax, second, offset, code, second_code, row, rows, split,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, NESTED: tl.constexpr, SECOND_BLOCK: tl.constexpr,
    ASSEMBLY: tl.constexpr, SPLITS: tl.constexpr, BLOCK: tl.constexpr, WORDS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    r = tl.arange(0, ROWS)
    inside = (r < rows)[None, :]
    words = packed.to(tl.pointer_type(tl.int32), bitcast=True) + row[:, None] * (COLUMNS // 8)
    blocks = row[:, None] * (COLUMNS // 64) + tl.arange(0, WORDS // 8)[None, :]
    total = tl.zeros([BLOCK, ROWS], tl.float32)
    for turn in tl.range(0, COLUMNS // (8 * WORDS * SPLITS), num_stages=STAGES):
        iteration = turn * SPLITS + split
        word = iteration * WORDS + tl.arange(0, WORDS)
        loaded = tl.load(words + word[None, :])
        scale = scales(
            absmax, second, offset, second_code, blocks + iteration * (WORDS // 8), NESTED, SECOND_BLOCK
        )
        scale = tl.reshape(tl.broadcast_to(scale[:, :, None], (BLOCK, WORDS // 8, 8)), (BLOCK, WORDS))
        codes = _values(loaded, code, ASSEMBLY)
        at = x + r[None, :] * COLUMNS + word[:, None]
        for m in tl.static_range(8):
            w = (codes[m] * scale).to(x.dtype.element_ty)
            total = tl.dot(w, tl.load(at + m * (COLUMNS // 8), mask=inside, other=0.0), total)
    return total


@triton.jit
def _many_plain(  # type: ignore[no-untyped-def]
    x, weight, n, width, rows, split,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, SPLITS: tl.constexpr, BLOCK: tl.constexpr,
    LONG: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    r = tl.arange(0, ROWS)
    inside = (r < rows)[None, :]
    total = tl.zeros([BLOCK, ROWS], tl.float32)
    for turn in tl.range(0, COLUMNS // (LONG * SPLITS), num_stages=STAGES):
        iteration = turn * SPLITS + split
        k = iteration * LONG + tl.arange(0, LONG)
        w = tl.load(weight[:, None] + k[None, :], mask=(n < width)[:, None], other=0.0)
        k = (k % 8) * (COLUMNS // 8) + k // 8
        total = tl.dot(w, tl.load(x + r[None, :] * COLUMNS + k[:, None], mask=inside, other=0.0), total)
    return total


@triton.jit(do_not_specialize=["end", "end_1", "rows"])
def products(  # type: ignore[no-untyped-def]
    x, out, down, down_row,
    packed, absmax, second, offset,
    packed_1, absmax_1, second_1, offset_1,
    packed_2, absmax_2, second_2, offset_2,
    end, end_1, code, second_code, outputs, rows,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, RANKS: tl.constexpr, NESTED: tl.constexpr,
    SECOND_BLOCK: tl.constexpr, ASSEMBLY: tl.constexpr, SPLITS: tl.constexpr, BLOCK: tl.constexpr,
    WORDS: tl.constexpr, LONG: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Each program multiplies BLOCK rows of W, or of A, with all rows of x.

    Args:
        x: [rows, COLUMNS] in 16 bits, in nibble order.
        out: [SPLITS, rows, outputs + RANKS] float32.
        down, down_row: A [RANKS, COLUMNS] and its row stride.
        packed, absmax, second, offset: bytes and scales of up to three weights, stacked.
        end, end_1: the first programs of the second and the third weight.
        ROWS: `rows` rounded up to 16, 32 or 64.
    """
    tile = tl.program_id(0)
    split = tl.program_id(1)
    n = tile * BLOCK + tl.arange(0, BLOCK)
    width = outputs + RANKS
    if tile * BLOCK >= outputs:
        weight = down + (n - outputs) * down_row
        total = _many_plain(x, weight, n, width, rows, split, ROWS, COLUMNS, SPLITS, BLOCK, LONG, STAGES)
        _store(out, total, n, width, rows, split, ROWS)
    else:
        first = tile * BLOCK
        if tile >= end_1:
            packed, absmax, second, offset = packed_2, absmax_2, second_2, offset_2
            first = (tile - end_1) * BLOCK
        elif tile >= end:
            packed, absmax, second, offset = packed_1, absmax_1, second_1, offset_1
            first = (tile - end) * BLOCK
        row = first + tl.arange(0, BLOCK)
        total = _many_nf4(
            x, packed, absmax, second, offset, code, second_code, row, rows, split,
            ROWS, COLUMNS, NESTED, SECOND_BLOCK, ASSEMBLY, SPLITS, BLOCK, WORDS, STAGES,
        )  # fmt: skip
        _store(out, total, n, width, rows, split, ROWS)


@triton.jit
def _store(out, total, n, width, rows, split, ROWS: tl.constexpr):  # type: ignore[no-untyped-def]
    r = tl.arange(0, ROWS)
    place = out + (split * rows + r)[None, :] * width + n[:, None]
    tl.store(place, total, mask=(n < width)[:, None] & (r < rows)[None, :])

"""The cache's blocks: no row reads or writes another's, whatever comes and goes."""

import random

import pytest
import torch
from torch import Tensor

from medqlora.fused.attention_half import Heads
from medqlora.fused.decoding import KeyValueCache
from medqlora.fused.decoding.cache import BLOCK, blocks_for

CPU, LAYERS = torch.device("cpu"), 2
HEADS = Heads(4, 2, 8, None, None, 1e-6)


def tokens_of(row: int, count: int, layer: int) -> Tensor:
    """Keys that tell whose they are: [count, 2, 8]."""
    start = 1000.0 * row + 0.5 * layer
    return (start + torch.arange(float(count)))[:, None, None].expand(count, 2, 8).contiguous()


class Rows:
    """Rows in a cache as the engine has them, slots 0 to n - 1, beside what each has written."""

    def __init__(self, cache: KeyValueCache) -> None:
        self.cache = cache
        #: (number, tokens so far, most tokens) by slot
        self.rows: list[tuple[int, int, int]] = []
        self.begun = 0

    def begin(self, tokens: int, most: int) -> None:
        """A prompt from a packed pass in which it stands behind another sequence."""
        slot, other = len(self.rows), 3
        self.cache.take(slot, most)
        for layer in range(LAYERS):
            behind = torch.cat([tokens_of(77, other, layer), tokens_of(self.begun, tokens, layer)])
            source = torch.arange(other, other + tokens)
            self.cache.store(layer, behind, -behind, source, self.cache.places(slot, tokens))
        self.rows.append((self.begun, tokens, most))
        self.begun += 1

    def end(self, slot: int) -> None:
        last = len(self.rows) - 1
        self.cache.give_back(slot)
        if slot != last:
            self.cache.move(last, slot)
            self.rows[slot] = self.rows[last]
        self.rows.pop()

    def step(self) -> None:
        """A token for each row, in a pass that also runs over slots without one."""
        self.rows = [(number, min(count + 1, most), most) for number, count, most in self.rows]
        idle = self.cache.slots - len(self.rows)
        positions = torch.tensor([count - 1 for _, count, _ in self.rows] + [0] * idle)
        self.cache.update()
        places = self.cache.newest(positions)
        for layer in range(LAYERS):
            new = [tokens_of(number, count, layer)[-1:] for number, count, _ in self.rows]
            keys = torch.cat([*new, torch.full((idle, 2, 8), float("nan"))])
            self.cache.append(layer, keys, -keys, places)

    def check(self) -> None:
        self.cache.update()
        longest = max(count for _, count, _ in self.rows)
        for layer in range(LAYERS):
            keys, values = self.cache.read(layer, len(self.rows), longest)
            for slot, (number, count, _) in enumerate(self.rows):
                expected = tokens_of(number, count, layer)
                assert torch.equal(keys[slot, :count], expected)
                assert torch.equal(values[slot, :count], -expected)
                # what is masked is a number: 0 times it is 0
                assert (keys[slot, count:] == 0).all()
        used = sum(blocks_for(most) for _, _, most in self.rows)
        assert self.cache.free == self.cache.blocks - used


@pytest.mark.parametrize("seed", range(4))
def test_each_row_reads_what_it_wrote_and_nothing_else(seed: int) -> None:
    drawn = random.Random(seed)
    cache = KeyValueCache(LAYERS, HEADS, torch.float32, CPU)
    cache.resize(9)
    cache.widen(8, 40)
    rows = Rows(cache)
    for _ in range(60):
        tokens = drawn.randint(1, 3 * BLOCK)
        most = tokens + drawn.randint(1, BLOCK)
        wanted = blocks_for(most)
        if len(rows.rows) < cache.slots and drawn.random() < 0.6:
            if wanted > cache.free and drawn.random() < 0.5:
                cache.resize(cache.blocks - cache.free + wanted)  # larger or smaller
            cache.widen(8, most)
            if wanted <= cache.free:
                rows.begin(tokens, most)
        elif rows.rows and drawn.random() < 0.5:
            rows.end(drawn.randrange(len(rows.rows)))
        if rows.rows:
            rows.step()
            rows.check()
    assert rows.begun > 10
    while rows.rows:
        rows.end(0)
    assert cache.free == cache.blocks
    cache.release()
    assert (cache.nbytes, cache.blocks, cache.slots) == (0, 0, 0)


def test_what_a_row_cannot_have_is_refused() -> None:
    cache = KeyValueCache(LAYERS, HEADS, torch.float32, CPU)
    cache.resize(3)
    cache.widen(2, 2 * BLOCK)
    cache.take(0, BLOCK + 1)
    for slot, tokens in ((0, 1), (1, 2 * BLOCK), (1, 3 * BLOCK)):  # taken, too few blocks, too wide
        with pytest.raises(ValueError, match=f"no room for {tokens} tokens in slot {slot}"):
            cache.take(slot, tokens)
    with pytest.raises(ValueError, match="2 blocks are in use: a cache of 1 can't hold them"):
        cache.resize(1)
    cache.take(1, BLOCK)
    assert cache.free == 0

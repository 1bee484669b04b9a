"""The decode engine beside transformers' `generate` on a GPU, for every family that the fused engine knows.

    python tests/gpu/families.py {float32|bfloat16} [ROWS] [NEW_TOKENS] [FAMILY …]

Small random models in NF4 with two adapters: grouped and single heads, tied heads, biases, head norms, attention
windows on all layers and on some, several kinds of rotary positions. Prompts have 1 to some hundred tokens; all rows at
once, fewer rows than prompts, one row; weights in NF4 and cached; adapters on, off and mixed in a batch; an end token
at each place of a text. One JSON line a case. In float32 all texts are equal. In bfloat16, where a text parts from
transformers', a float32 pass over the same weights judges the two tokens: their logits are no further apart than twice
the largest error of transformers' own bfloat16 logits at this place.
"""

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from partings import DEVICE, Parting, autocast, in_roundings, partings, to_float32
from peft import LoraConfig
from transformers import AutoConfig, AutoModelForCausalLM

from medqlora.fused import FusedDecoder
from medqlora.fused.families import FAMILIES
from medqlora.inference.decoding import DecodeEngine, Request
from medqlora.inference.generation import generate
from medqlora.models import LoRA, Transformers

#: of the kernels' sizes: heads of 64, sides that are multiples of 128
SHAPE: dict[str, Any] = {
    "vocab_size": 1024, "hidden_size": 256, "intermediate_size": 384, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "max_position_embeddings": 4096,
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "initializer_range": 0.1,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"rope_parameters": LLAMA3}),
    "llama, no groups": ("llama", {"num_key_value_heads": 4}),
    "llama, yarn": ("llama", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}}),
    "mistral": ("mistral", {"sliding_window": 33}),
    "qwen2": ("qwen2", {"sliding_window": 21, "use_sliding_window": True, "max_window_layers": 1}),
    "qwen2, tied": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", {}),
    "qwen3, tied": ("qwen3", {"tie_word_embeddings": True}),
}
NEVER = 1023
LONGEST = 300


def say(**values: Any) -> None:
    print(json.dumps(values), flush=True)


def build(family: str, changes: dict[str, Any], dtype: torch.dtype, folder: Path) -> Any:
    """A model of this family with two adapters that have an effect."""
    config = AutoConfig.for_model(family, **{**SHAPE, **changes})
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for parameter in base.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.02)
    base.get_output_embeddings().weight.data.normal_(std=0.5)
    base.save_pretrained(folder)
    backend = Transformers(str(folder), "nf4", gradient_checkpointing=False)
    lora = LoRA(r=5, alpha=9)
    model: Any = backend.load(lora=lora, adapter=None, device=DEVICE, dtype=dtype, seed=0)
    model.add_adapter("second", LoraConfig(r=3, lora_alpha=24, target_modules=["q_proj", "down_proj"]))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "second" in name:
            values = torch.randn(parameter.shape, generator=generator)
            parameter.data.copy_(values * (0.2 if "second" in name else 0.05))
    return model.eval()


def random_prompts(count: int) -> list[list[int]]:
    """A few very short and very long ones, and the rest in between."""
    generator = torch.Generator().manual_seed(3)
    lengths = [1, LONGEST, 2, LONGEST - 1, *(4 + index * 37 % 90 for index in range(count))][:count]
    return [torch.randint(3, 1000, (length,), generator=generator).tolist() for length in lengths]


class Case:
    """A model, and what transformers writes with it."""

    def __init__(self, name: str, dtype: torch.dtype, rows: int, new: int) -> None:
        self.name, self.dtype, self.new = name, dtype, new
        family, changes = VARIANTS[name]
        with tempfile.TemporaryDirectory() as folder:
            self.model = build(family, changes, dtype, Path(folder) / "base")
        self.layers = SHAPE["num_hidden_layers"]
        self.prompts = random_prompts(rows)
        self.right = True
        self.partings: list[Parting] = []

    def oracle(self, prompts: Sequence[Sequence[int]], ends: Sequence[int] = (NEVER,)) -> list[list[int]]:
        with autocast(self.dtype):
            return generate(
                self.model,
                prompts,
                max_new_tokens=self.new,
                end_token_ids=ends,
                pad_token_id=2,
                device=DEVICE,
            )

    def engine(self, cached: int, **limits: Any) -> DecodeEngine:
        decoder = FusedDecoder(self.model, checkpointing="none", compile=DEVICE.type == "cuda", cached=cached)
        return DecodeEngine(decoder, **limits)

    def texts(self, engine: DecodeEngine, requests: Sequence[Request]) -> list[list[int]]:
        with autocast(self.dtype):
            numbers = [engine.add(request) for request in requests]
            written: dict[int, list[int]] = {number: [] for number in numbers}
            for event in engine.run():
                written[event.id] += event.tokens
        return [written[number] for number in numbers]

    def compare(
        self,
        what: str,
        found: list[list[int]],
        expected: list[list[int]],
        prompts: list[list[int]],
        adapter: str | None = "default",
        seconds: float = 0.0,
    ) -> None:
        """Prints how many texts are equal; in bfloat16 `judge` looks at the others."""
        apart = partings(self.model, self.dtype, prompts, found, expected, end=NEVER, adapter=adapter)
        self.partings += apart
        self.right &= self.dtype != torch.float32 or not apart
        say(
            family=self.name, type=str(self.dtype), case=what, texts=len(found), equal=len(found) - len(apart),
            seconds=round(seconds, 2),
        )  # fmt: skip

    def judge(self) -> None:
        """Looks at the tokens where texts part."""
        if self.dtype == torch.float32:
            return
        to_float32(self.model)
        shares = in_roundings(self.model, self.partings)
        self.right &= max(shares, default=0.0) <= 1.0
        mean = sum(shares) / max(1, len(shares))
        say(
            family=self.name, parted=len(shares), in_roundings=round(max(shares, default=0.0), 3),
            mean=round(mean, 3),
        )  # fmt: skip

    def run(self) -> None:
        expected = self.oracle(self.prompts)
        count = len(self.prompts)
        kinds = [
            ("all rows, nf4", 0, count),
            ("a quarter of the rows, cached", self.layers, max(1, count // 4)),
        ]
        for what, cached, rows in kinds:
            engine = self.engine(cached, rows=rows, gather=0.25)
            started = time.perf_counter()
            found = self.texts(engine, [Request(prompt, self.new, (NEVER,)) for prompt in self.prompts])
            self.compare(what, found, expected, self.prompts, seconds=time.perf_counter() - started)
            engine.release()
        engine = self.engine(0, rows=1)
        some = slice(0, 6)
        found = self.texts(engine, [Request(prompt, self.new, (NEVER,)) for prompt in self.prompts[some]])
        self.compare("one row", found, expected[some], self.prompts[some])
        engine.release()
        self._adapters()
        if self.dtype == torch.float32:
            self._ends(expected)
        self.judge()

    def _adapters(self) -> None:
        """Rows with the first adapter, the second and none, in one batch."""
        some = self.prompts[:5]
        texts: dict[str | None, list[list[int]]] = {}
        with self.model.disable_adapter():
            texts[None] = self.oracle(some)
        for name in ("second", "default"):
            self.model.set_adapter(name)
            texts[name] = self.oracle(some)
        mixed = [(adapter, index) for index in range(len(some)) for adapter in texts]
        requests = [Request(some[index], self.new, (NEVER,), adapter=adapter) for adapter, index in mixed]
        found = self.texts(self.engine(0, rows=len(mixed)), requests)
        right = self.right
        for adapter in texts:
            places = [place for place, each in enumerate(mixed) if each[0] == adapter]
            with self.model.disable_adapter() if adapter is None else nullcontext():
                if adapter is not None:
                    self.model.set_adapter(adapter)
                self.compare(
                    f"mixed: {adapter}", [found[place] for place in places], texts[adapter],
                    [some[mixed[place][1]] for place in places], adapter,
                )  # fmt: skip
        self.model.set_adapter("default")
        differ = len({str(each) for each in texts.values()}) == 3
        self.right = right and self.right and differ

    def _ends(self, expected: list[list[int]]) -> None:
        """A text ends at each of its tokens in turn."""
        engine, prompt = self.engine(0, rows=8), self.prompts[4]
        free = expected[4]
        found = self.texts(engine, [Request(prompt, self.new, (NEVER, end)) for end in free])
        self.compare("end tokens", found, [free[: free.index(end)] for end in free], [prompt] * len(free))


def main(dtype: str, rows: str = "200", new: str = "24", *names: str) -> int:
    assert {family for family, _ in VARIANTS.values()} >= set(FAMILIES.names()), "a family is not compared"
    right = True
    for name in names or VARIANTS:
        case = Case(name, getattr(torch, dtype), int(rows), int(new))
        case.run()
        right &= case.right
        del case
    say(all_right=right)
    return int(not right)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

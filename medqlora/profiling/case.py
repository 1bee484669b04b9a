"""One thing to measure: plain values, so that it can go to a process of its own."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Trainer = Literal["native", "fused", "trl-peft", "trl-unsloth"]
Precision = Literal["bf16-mixed", "16-mixed", "32"]
#: trainers of others, and the packages that each needs
PEERS: dict[Trainer, tuple[str, ...]] = {"trl-peft": ("trl", "peft"), "trl-unsloth": ("trl", "unsloth")}


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        trainer: "native" and "fused" are this project's engines, the others are other projects' trainers.
        shape: the fields of transformers' configuration, with its `model_type`.
        shape_name: what the shape is called.
        checkpointing: "full", "none", "offload" (fused alone) or, for the fused engine, a number of layers;
            "unsloth" for that trainer's own.
        weights: "nf4", or "cached" for the fused engine to keep them dequantized.
        embedding, head: on the "device", or in "host" memory; of this project's engines.
        compile: the fused engine's kernels between products are compiled.
        micro_batch_tokens: of a packed micro-batch; for a peer, the length that it packs or cuts to.
        batch_size: examples a step for each device; None for one full micro-batch a step on each. Of a peer that
            doesn't pack, the examples of a micro-batch.
        accumulate: micro-batches a step, of a peer.
        packing: whether a peer packs.
        precision: as of Lightning's Trainer.
        warm_up: steps before any is timed.
        steps: that are timed.
        device: "cuda" or "cpu".
        devices: GPUs that share each step, or processes on a CPU.
        strategy: "ddp", each of them has a base of its own; "fsdp", they share one.
        seed: of weights, order and tokens.
        folder: a checkpoint of the shape, for a peer that loads one.
    """

    trainer: Trainer
    shape: dict[str, Any]
    shape_name: str = ""
    checkpointing: str = "full"
    weights: Literal["nf4", "cached"] = "nf4"
    embedding: Literal["device", "host"] = "device"
    head: Literal["device", "host"] = "device"
    compile: bool = False
    micro_batch_tokens: int = 8192
    batch_size: int | None = None
    accumulate: int = 1
    packing: bool = True
    precision: Precision = "bf16-mixed"
    warm_up: int = 4
    steps: int = 12
    device: str = "cpu"
    devices: int = 1
    strategy: Literal["ddp", "fsdp"] = "ddp"
    seed: int = 0
    folder: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def described(self) -> str:
        """In a few words, for a table."""
        if self.trainer in PEERS and not self.packing:
            rows = f"{self.batch_size}×{self.accumulate} cut at {self.micro_batch_tokens}"
        else:
            each = f"{self.devices} × " if self.devices > 1 else ""
            rows = f"{each}{self.micro_batch_tokens} tokens"
            if self.trainer in PEERS:
                rows = f"packed, {rows}"
            elif self.batch_size is not None:
                rows += f", {each}{self.batch_size} a step"
        where = {"embedding": self.embedding, "head": self.head}
        hosted = " and ".join(name for name, place in where.items() if place == "host")
        return (
            f"{rows}, checkpointing {self.checkpointing}"
            + (", weights cached" if self.weights == "cached" else "")
            + (f", {hosted} on the host" if hosted else "")
            + (", one base" if self.strategy == "fsdp" else "")
            + (", plain" if self.trainer == "fused" and not self.compile and self.device == "cuda" else "")
        )

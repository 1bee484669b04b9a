"""A case of the benchmark: plain values, which a process of its own reads as JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias

from medqlora.utils.types import Json

Trainer = Literal["native", "fused", "trl-peft", "trl-unsloth"]
Precision = Literal["bf16-mixed", "16-mixed", "32"]
#: the fields of a transformers configuration, with its `model_type`
ModelShape: TypeAlias = Mapping[str, Json]
#: other projects' trainers, and the packages that each needs
PEERS: dict[Trainer, tuple[str, ...]] = {"trl-peft": ("trl", "peft"), "trl-unsloth": ("trl", "unsloth")}


@dataclass(frozen=True)
class Case:
    """A trainer with its settings.

    Attributes:
        trainer: "native" and "fused" are this project's engines, the others are other projects' trainers.
        shape: of the model.
        shape_name: the name of the shape in the table.
        checkpointing: "full", "none", "offload" (fused engine only), a number of layers (fused engine only), or
            "unsloth" for that trainer's own.
        weights: "nf4", or "cached" for the fused engine to keep them dequantized.
        graphs: "auto" runs the fused engine's steps as CUDA graphs, as `medqlora fit` does; or "off".
        embedding, head: on the "device" or in "host" memory; of this project's engines.
        compile: the fused engine runs the functions between matrix products as compiled kernels.
        micro_batch_tokens: of a packed micro-batch; for a peer, the length to which it packs or truncates.
        batch_size: examples per step and device; None fills one micro-batch per step and device. For a peer
            without packing, the examples of a micro-batch.
        accumulate: micro-batches per step, of a peer.
        packing: whether a peer packs.
        precision: as of Lightning's Trainer.
        warm_up: steps before the timed ones.
        steps: timed steps.
        device: "cuda" or "cpu".
        devices: GPUs, or processes on a CPU, that share each step.
        strategy: "ddp": a base model on each device; "fsdp": one sharded base model.
        seed: of weights, order and tokens.
        folder: a checkpoint of the shape, for a peer that loads one.
    """

    trainer: Trainer
    shape: ModelShape
    shape_name: str = ""
    checkpointing: str = "full"
    weights: Literal["nf4", "cached"] = "nf4"
    graphs: Literal["auto", "off"] = "auto"
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

    def to_json(self) -> dict[str, Json]:
        """The fields; `Case(**fields)` reads them back."""
        return asdict(self)

    def described(self) -> str:
        """The settings in a few words, for a table."""
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
        hosted = " and ".join(name for name, memory in where.items() if memory == "host")
        return (
            f"{rows}, checkpointing {self.checkpointing}"
            + (", weights cached" if self.weights == "cached" else "")
            + (f", {hosted} on the host" if hosted else "")
            + (", no graphs" if self.trainer == "fused" and self.graphs == "off" else "")
            + (", sharded" if self.strategy == "fsdp" else "")
            + (", plain" if self.trainer == "fused" and not self.compile and self.device == "cuda" else "")
        )

"""GPTQ and AWQ weights on a GPU: the Triton kernel's values and time, and training steps beside NF4's.

    python tests/gpu/packed_int4.py {8b|tiny} [OUT.jsonl [CASE …]]

Weights are random integers of the shape, in groups of 128. One JSON line a case; a case that raises says so in it.
"""

import gc
import json
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from engine import DEVICE, SHAPES, build, flatten, gradients, speed, synchronize
from torch import Tensor

from medqlora.data.batching.packing import pack
from medqlora.fused import FusedDecoder
from medqlora.fused.kernels.dequantize import FourBit
from medqlora.models import Decoder
from medqlora.models.int4 import Int4Linear, Int4Weights
from medqlora.profiling.lengths import random_examples

GROUP = 128


def random_linear(outputs: int, inputs: int, dtype: torch.dtype, *, ordered: bool = True) -> Int4Linear:
    size = min(GROUP, inputs)
    count = inputs // size
    groups = None
    if not ordered:
        groups = (torch.arange(inputs, dtype=torch.int32) // size)[torch.randperm(inputs)].to(DEVICE)
    weights = Int4Weights(
        torch.randint(0, 256, (outputs, inputs // 2), dtype=torch.uint8, device=DEVICE),
        (torch.rand(outputs, count, device=DEVICE) * 0.01).half(),
        torch.randint(6, 10, (outputs, count), dtype=torch.uint8, device=DEVICE),
        groups,
    )
    return Int4Linear(weights, None, dtype)


def in_int4(model: Any, *, ordered: bool) -> Any:
    """The model with random 4-bit integers in place of its NF4 weights."""
    for module in list(model.modules()):
        linear = getattr(module, "base_layer", None)
        if linear is not None:
            shape = linear.out_features, linear.in_features
            module.base_layer = random_linear(*shape, linear.compute_dtype, ordered=ordered)
    return model


def milliseconds(work: Callable[[], object], count: int = 20) -> float:
    for _ in range(3):
        work()
    synchronize()
    started = time.perf_counter()
    for _ in range(count):
        work()
    synchronize()
    return 1000 * (time.perf_counter() - started) / count


def values(shape: str) -> dict[str, Any]:
    """The share of values in which the engine's dequantization of a group differs from the layers' own."""
    hidden, wide = SHAPES[shape]["hidden_size"], SHAPES[shape]["intermediate_size"]
    found: dict[str, Any] = {}
    for dtype in (torch.bfloat16, torch.float16):
        for ordered in (True, False):
            layers = [random_linear(wide, hidden, dtype, ordered=ordered) for _ in range(2)]
            expected = torch.cat([layer.dequantized(dtype) for layer in layers])
            out = torch.full((2 * wide, hidden + 64), 7.0, device=DEVICE, dtype=dtype)
            group = FourBit([layer.weight for layer in layers])  # type: ignore[misc]
            group.dequantize_into(out[:, :hidden])
            differ = (out[:, :hidden] != expected).float().mean().item()
            spilled = (out[:, hidden:] != 7).float().mean().item()
            found[f"{dtype}_{'ordered' if ordered else 'act_order'}"] = [differ, spilled]
    found["kernel"] = group._fill is not None
    return found


def dequantization(shape: str) -> dict[str, Any]:
    """Milliseconds for gate and up of one layer."""
    hidden, wide = SHAPES[shape]["hidden_size"], SHAPES[shape]["intermediate_size"]
    dtype = torch.bfloat16
    out = torch.empty(2 * wide, hidden, device=DEVICE, dtype=dtype)
    mlp = build(shape, layers=1).get_base_model().model.layers[0].mlp
    nf4 = FourBit([mlp.gate_proj.base_layer.weight, mlp.up_proj.base_layer.weight])
    found = {"nf4": milliseconds(lambda: nf4.dequantize_into(out))}
    for name, ordered in (("int4", True), ("int4_act_order", False)):
        layers = [random_linear(wide, hidden, dtype, ordered=ordered) for _ in range(2)]
        group = FourBit([layer.weight for layer in layers])  # type: ignore[misc]
        found[name] = milliseconds(lambda group=group: group.dequantize_into(out))  # type: ignore[misc]
        found[f"{name}_by_torch"] = milliseconds(
            lambda layers=layers: [one.dequantized(dtype) for one in layers]
        )  # type: ignore[misc]
    return {name: round(value, 4) for name, value in found.items()}


def agreement(shape: str) -> dict[str, Any]:
    """Relative differences of loss and gradients, fused against native, in bfloat16 and float16, on two layers."""
    found = {}
    batch = pack(random_examples(vocab_size=1000, longest=400)[:3]).to(DEVICE)
    for dtype in (torch.bfloat16, torch.float16):
        model = in_int4(build(shape, layers=2, dtype=dtype), ordered=False)
        results: list[tuple[float, Tensor]] = []
        for decoder in (Decoder(model), FusedDecoder(model, compile=DEVICE.type == "cuda")):
            with torch.autocast(DEVICE.type, dtype=dtype):
                loss = decoder.loss_sum(batch)
            results.append((loss.item(), gradients(model, loss)))
        (native, of_native), (fused, of_fused) = results
        found[str(dtype)] = [
            abs(fused / native - 1),
            ((of_fused - of_native).norm() / of_native.norm()).item(),
        ]
    return found


def steps(shape: str, kind: str) -> dict[str, Any]:
    """Training steps of the whole shape."""
    large = 8192 if shape == "8b" else 900
    model = build(shape)
    if kind != "nf4":
        model = in_int4(model, ordered=kind == "int4")
    flat = flatten(model)
    examples = random_examples(vocab_size=1000, longest=800)
    count = 8 if shape == "8b" else 1
    decoder = FusedDecoder(model, checkpointing="full", compile=DEVICE.type == "cuda")
    return speed(model, flat, examples, large, count, decoder)


def main(shape: str, out: str | None = None, *chosen: str) -> None:
    cases: dict[str, Callable[[], dict[str, Any]]] = {
        "values": lambda: values(shape),
        "dequantization_ms": lambda: dequantization(shape),
        "agreement": lambda: agreement(shape),
        **{
            f"steps_{kind}": lambda kind=kind: steps(shape, kind)
            for kind in ("nf4", "int4", "int4_act_order")
        },  # type: ignore[misc]
    }
    device = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "cpu"
    lines = [{"case": "machine", "device": device, "torch": torch.__version__}]
    for name, case in cases.items():
        if chosen and name not in chosen:
            continue
        gc.collect()
        if DEVICE.type == "cuda":
            torch.cuda.empty_cache()
        try:
            lines.append({"case": name, **case()})
        except Exception:
            lines.append({"case": name, "error": traceback.format_exc()[-1500:]})
        print(json.dumps(lines[-1]), flush=True)
        if out is not None:
            Path(out).write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])

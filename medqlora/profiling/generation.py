"""Speed of decoding: this project's engine, transformers' `generate` and Unsloth's, on the same model and prompts."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from medqlora.profiling.case import ModelShape, Precision
from medqlora.profiling.figures import Peaks
from medqlora.utils.types import Json

if TYPE_CHECKING:
    import torch
    from torch import nn

    from medqlora.fused import FusedDecoder

Writer = Literal["medqlora", "transformers", "unsloth"]


@dataclass(frozen=True)
class GenerationCase:
    """A writer of texts with its settings.

    Attributes:
        writer: "medqlora" is the decode engine; the others are those libraries' own `generate`.
        shape, shape_name: of the model; its weights are random, with adapters of rank 16 on all projections.
        weights: of the engine: "nf4", or "cached" to keep them dequantized.
        rows: prompts continued at once, of PubMedQA's lengths.
        new_tokens: of each; no text ends before.
        precision, device, seed, folder: as of `Case`.
    """

    writer: Writer
    shape: ModelShape
    shape_name: str = ""
    weights: Literal["nf4", "cached"] = "nf4"
    rows: int = 1
    new_tokens: int = 64
    precision: Precision = "bf16-mixed"
    device: str = "cpu"
    seed: int = 0
    folder: str = ""

    def to_json(self) -> dict[str, Json]:
        """The fields; `GenerationCase(**fields)` reads them back."""
        return asdict(self)

    def described(self) -> str:
        """The settings in a few words, for a table."""
        cached = ", weights cached" if self.writer == "medqlora" and self.weights == "cached" else ""
        return f"{self.rows} row{'s' if self.rows > 1 else ''} × {self.new_tokens} tokens{cached}"


class GenerationFigures(Peaks, total=False):
    """The figures of a case, or why it `failed`. Keys as in generate.json.

    `tokens_per_s` counts the new tokens of all rows after the first, over the time of decoding; `bandwidth_share` is
    the share of `bandwidth_gb_per_s`, a large copy's in the same process, at which weights and cache were read.
    """

    failed: str
    tokens_per_s: float
    step_ms: float
    prefill_s: float
    read_gb_per_step: float
    bandwidth_gb_per_s: float
    bandwidth_share: float
    hardware: dict[str, str | int | float]
    versions: dict[str, str]


class _Timed(NamedTuple):
    """Seconds up to the first new tokens, and seconds of all later ones."""

    prefill_s: float
    decoding_s: float


class _Writes(Protocol):
    """Continues prompts by a number of tokens each, without an end."""

    def __call__(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> _Timed: ...


def measure_generation(case: GenerationCase) -> GenerationFigures:
    """Measures a case in this process; a first run of everything warms up."""
    if case.writer == "unsloth":
        from medqlora.models.unsloth import import_unsloth

        import_unsloth()  # before transformers and PEFT, which it patches
    import torch

    from medqlora.fused.modules import text_config
    from medqlora.models.precision import DTYPES
    from medqlora.profiling import clock
    from medqlora.profiling.lengths import random_examples

    device, dtype = torch.device(case.device), DTYPES[case.precision]
    bandwidth = _bandwidth(device)
    model = _unsloth_model(case, dtype) if case.writer == "unsloth" else _model(case, device, dtype)
    config = text_config(model)
    longest = config.max_position_embeddings - case.new_tokens
    examples = random_examples(
        max(case.rows, 8), vocab_size=config.vocab_size, longest=longest, seed=case.seed
    )
    prompts = [example.prompt for example in examples[: case.rows]]
    decoder = _decoder(model, case)
    writes = _engine(decoder, case) if case.writer == "medqlora" else _generate(model, device)
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        writes(prompts, case.new_tokens)
        clock.reset_peak(device)
        timed = writes(prompts, case.new_tokens)
    steps = case.new_tokens - 1
    tokens = sum(map(len, prompts)) + case.rows * case.new_tokens / 2
    read = _read_bytes(decoder, case, tokens)
    return {
        "tokens_per_s": round(case.rows * steps / timed.decoding_s, 1),
        "step_ms": round(1e3 * timed.decoding_s / steps, 3),
        "prefill_s": round(timed.prefill_s, 4),
        "read_gb_per_step": round(read / 1e9, 4),
        "bandwidth_gb_per_s": round(bandwidth / 1e9, 1),
        "bandwidth_share": round(read * steps / timed.decoding_s / bandwidth, 4),
        "hardware": clock.hardware(device),
        **clock.peaks(device),
    }


def _model(case: GenerationCase, device: "torch.device", dtype: "torch.dtype") -> "nn.Module":
    from medqlora.profiling.random_model import add_adapters, build_base

    base = build_base(case.shape, device=device, dtype=dtype, seed=case.seed)
    base.config.use_cache = True
    return add_adapters(base, seed=case.seed).eval()


def _unsloth_model(case: GenerationCase, dtype: "torch.dtype") -> "nn.Module":
    """Unsloth's model from the case's checkpoint, with adapters, ready for its fast inference."""
    from unsloth import FastLanguageModel

    from medqlora.models.lora import SEVEN_PROJECTIONS, LoRA

    model, _ = FastLanguageModel.from_pretrained(
        model_name=case.folder, max_seq_length=2048, dtype=dtype, load_in_4bit=True,
        device_map={"": 0}, use_exact_model_name=True,
    )  # fmt: skip
    lora = LoRA()
    model = FastLanguageModel.get_peft_model(
        model, r=lora.r, lora_alpha=lora.alpha, lora_dropout=0, target_modules=list(SEVEN_PROJECTIONS),
        bias="none", random_state=case.seed,
    )  # fmt: skip
    FastLanguageModel.for_inference(model)
    return model


def _decoder(model: "nn.Module", case: GenerationCase) -> "FusedDecoder":
    """The fused engine; for other writers it only counts bytes.

    Raises:
        InputError: it can't run this shape.
    """
    from medqlora.errors import InputError
    from medqlora.fused import FusedDecoder, unsupported
    from medqlora.fused.modules import text_config

    reason = unsupported(model)
    if reason is not None:
        raise InputError(f"--generate: the decode engine doesn't run this shape: {reason}")
    cached = case.weights == "cached" and case.writer == "medqlora"
    layers = text_config(model).num_hidden_layers
    return FusedDecoder(
        model, checkpointing="none", compile=case.device == "cuda", cached=layers if cached else 0
    )


def _engine(decoder: "FusedDecoder", case: GenerationCase) -> _Writes:
    from medqlora.inference.decoding import DecodeEngine, Request

    engine = DecodeEngine(decoder, rows=case.rows, prefill_tokens=8192)

    def write(prompts: Sequence[Sequence[int]], new_tokens: int) -> _Timed:
        waiting = {engine.add(Request(prompt, new_tokens)) for prompt in prompts}
        timer = _Timer(case.device)
        while waiting:  # as many prefills as there are
            waiting -= {event.id for event in engine.step()}
        prefill_s = timer.lap_s()
        for _ in engine.run():
            pass
        return _Timed(prefill_s, timer.lap_s())

    return write


def _generate(model: "nn.Module", device: "torch.device") -> _Writes:
    from medqlora.inference.generation import generate

    def write(prompts: Sequence[Sequence[int]], new_tokens: int) -> _Timed:
        seconds = []
        for count in (1, new_tokens):
            timer = _Timer(device.type)
            generate(model, prompts, max_new_tokens=count, end_token_ids=[], pad_token_id=0, device=device)
            seconds.append(timer.lap_s())
        return _Timed(seconds[0], max(seconds[1] - seconds[0], 1e-9))

    return write


class _Timer:
    """Seconds between two calls, with the device's work."""

    def __init__(self, device: str) -> None:
        self._gpu = device == "cuda"
        self._last = self._now()

    def lap_s(self) -> float:
        before, self._last = self._last, self._now()
        return self._last - before

    def _now(self) -> float:
        import time

        import torch

        if self._gpu:
            torch.cuda.synchronize()
        return time.perf_counter()


def _bandwidth(device: "torch.device") -> float:
    """Bytes per second of a large copy, read and written: the median of several."""
    import statistics

    import torch

    from medqlora.profiling.clock import Clock

    size, repeats = (2**30, 20) if device.type == "cuda" else (2**27, 5)
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    clock = Clock(device)
    clock.mark()
    for _ in range(repeats):
        target.copy_(source)
        clock.mark()
    return 2 * size / statistics.median(clock.between_s())


def _read_bytes(decoder: "FusedDecoder", case: GenerationCase, tokens: float) -> float:
    """The bytes that a step has to read: the layers' weights as they are kept, the head, keys and values."""
    from medqlora.fused.decoding.decode_pass import NF4_ROWS, kernels_fit

    weights = sum(group.outputs * group.inputs for group in decoder.groups)
    width = decoder.dtype.itemsize
    cached = case.weights == "cached" and case.writer == "medqlora"
    if case.rows <= NF4_ROWS and kernels_fit(decoder):
        cached = False
    heads = decoder.layers[0].first.heads
    cache = 2 * len(decoder.layers) * heads.keys * heads.width * width
    # 4 bits and a byte of scale for 64 values
    head = decoder.head.get_parameter("weight").nbytes
    return weights * (width if cached else 0.5 + 1 / 64) + head + tokens * cache


def line(case: GenerationCase, figures: Mapping[str, object]) -> str:
    """One row of the table."""
    begin = f"{case.writer:<14}{case.described():<42}"
    if figures.get("failed") is not None:
        return f"{begin}{figures['failed']}"
    peak = figures.get("peak_allocated_gib", figures.get("peak_host_gib", 0.0))
    return (
        f"{begin}{figures['tokens_per_s']:>10,.1f}{figures['step_ms']:>10.2f}{figures['prefill_s']:>11.3f}"
        f"{figures['bandwidth_share']:>11.1%}{peak:>11.2f}"
    )


def heading(device: str) -> str:
    """The table's column names."""
    peak = "peak GiB" if device == "cuda" else "host GiB"
    return f"{'writer':<14}{'setting':<42}{'tokens/s':>10}{'ms/step':>10}{'prefill s':>11}{'bandwidth':>11}{peak:>11}"

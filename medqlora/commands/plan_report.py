"""The report of `medqlora plan`: its keys in JSON and its lines in the terminal."""

from typing import TypedDict

from medqlora.utils.cache import base_words

_GIB = 2**30


class FullFineTuning(TypedDict):
    """The peak of full fine-tuning, and the share of it that the plan saves."""

    peak: int
    saved: float


class GPUTimes(TypedDict):
    """A GPU beside others: whether the plan fits it; number of GPUs → (least, most) minutes of training."""

    gpu: str
    engine: str
    fits: bool
    minutes: dict[str, list[float]]


class _Required(TypedDict):
    base: str
    notes: list[str]
    parameters: dict[str, int]
    engine: str
    checkpointing: str | int
    weights: str
    graphs: bool
    micro_batch_tokens: int
    largest_micro_batch: int
    phases: dict[str, dict[str, int]]
    peak: int
    memory: int | None
    reserve: float
    device: str | None
    fits: bool | None
    devices: int
    steps: int
    flops_per_step: float
    tokens: int
    full_fine_tuning: FullFineTuning


class Report(_Required, total=False):
    """The keys of `--json`; memory is in bytes, speed and time are (least, most)."""

    tokens_per_s: list[float]
    minutes: list[float]
    largest: dict[str, int | None]
    gpus: list[GPUTimes]


def _checkpointing(report: Report) -> str:
    value = report["checkpointing"]
    words = f"of {value} layers" if isinstance(value, int) else value
    words += ", weights kept dequantized" if report["weights"] == "cached" else ""
    return words + (", CUDA graphs" if report["graphs"] else "")


def report_lines(report: Report) -> list[str]:
    """The report for the terminal."""
    unit = (_GIB, "GiB") if report["peak"] >= _GIB else (2**20, "MiB")
    return [
        f"Plan for {base_words(report['base'])}: {report['engine']} engine, checkpointing {_checkpointing(report)}",
        *(f"Note: {note}" for note in report["notes"]),
        "",
        *_phase_lines(report, *unit),
        "",
        *_peak_lines(report, *unit),
        f"Parameters: {report['parameters']['trainable']:,} trainable of {report['parameters']['total']:,} "
        f"({report['parameters']['trainable'] / report['parameters']['total']:.2%})",
        f"Work:      {report['steps']} steps of {_flops(report['flops_per_step'])}, "
        f"{report['tokens']:,} tokens",
        *_time_lines(report),
        *_gpu_lines(report.get("gpus", [])),
        "Memory is that of the whole process, libraries included."
        if report["phases"]["load"].get("libraries")
        else "Memory is what torch allocates; the GPU's own context takes about half a GiB more.",
    ]


def memory_words(report: Report) -> str:
    """The peak and the verdict, in a few words."""
    unit, name = (_GIB, "GiB") if report["peak"] >= _GIB else (2**20, "MiB")
    verdict = {None: "", True: ", which fits", False: ", which does NOT fit"}[report["fits"]]
    of = "" if report["memory"] is None else f" of {report['memory'] / unit:.1f} {name}"
    return f"{report['peak'] / unit:.1f} {name} at the peak{of}{verdict}, by the plan"


def time_words(report: Report) -> str:
    """The steps, and the minutes where they can be estimated, in a few words."""
    work = f"{report['steps']:,} steps, {report['tokens']:,} tokens"
    if "minutes" not in report:
        return work
    fast, slow = report["minutes"]
    return f"{work}; {_short(fast)} to {_short(slow)} minutes of training, by the plan"


def _phase_lines(report: Report, unit: int, name_of_unit: str) -> list[str]:
    """A table of parts by phases."""
    phases = report["phases"]
    parts = dict.fromkeys(part for phase in phases.values() for part in phase)
    lines = [f"{f'{name_of_unit}, at the peak of':<24}" + "".join(f"{name:>10}" for name in phases)]
    for part in parts:
        cells = (f"{phase[part] / unit:.2f}" if part in phase else "" for phase in phases.values())
        lines.append(f"  {part:<22}" + "".join(f"{cell:>10}" for cell in cells))
    totals = (f"{sum(phase.values()) / unit:.2f}" for phase in phases.values())
    return [*lines, f"  {'in all':<22}" + "".join(f"{total:>10}" for total in totals)]


def _peak_lines(report: Report, unit: int, name_of_unit: str) -> list[str]:
    """The peak, and how it fits the memory."""
    where = "in each of {} processes" if report["phases"]["load"].get("libraries") else "on each of {} GPUs"
    each = f" {where.format(report['devices'])}" if report["devices"] > 1 else ""
    lines = [
        f"Peak:      {report['peak'] / unit:.2f} {name_of_unit}{each}, with {report['largest_micro_batch']} tokens "
        "in the largest micro-batch"
    ]
    if report["memory"] is not None:
        device = report["device"] or "the given memory"
        verdict = "fits" if report["fits"] else "does not fit"
        lines.append(
            f"           {verdict} {device} of {report['memory'] / unit:.2f} {name_of_unit}, "
            f"{report['reserve']:.0%} of it left free"
        )
    for kind, tokens in report.get("largest", {}).items():
        most = "no example fits" if tokens is None else f"--data.micro_batch_tokens {tokens} at most"
        lines.append(f"           checkpointing {kind}: {most}")
    full = report["full_fine_tuning"]
    if full["saved"] > 0:
        lines.append(
            f"           full fine-tuning would take {full['peak'] / unit:.2f} {name_of_unit}: "
            f"{full['saved']:.0%} saved"
        )
    return lines


def _time_lines(report: Report) -> list[str]:
    if "minutes" not in report:
        on_cpu = report["memory"] is None and "gpus" not in report
        return [
            "Time:      not estimated for a CPU; the fit tells the time left after its first steps"
        ] * on_cpu
    (low, high), (fast, slow) = report["tokens_per_s"], report["minutes"]
    return [
        f"Time:      {fast:.1f} to {slow:.1f} minutes of training at {low:,.0f} to {high:,.0f} tokens/s, "
        "without validation;",
        "           an estimate from measured shares of an H200's peak",
    ]


def _flops(count: float) -> str:
    """Floating-point operations in the largest unit with a number of at least 1."""
    for unit, size in (("TFLOP", 1e12), ("GFLOP", 1e9)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count / 1e6:,.1f} MFLOP"


def _gpu_lines(gpus: list[GPUTimes]) -> list[str]:
    """A table of GPUs by their number."""
    if not gpus:
        return []
    counts = list(gpus[0]["minutes"])
    heads = (f"{count} GPU{'s' * (count != '1')}" for count in counts)
    lines = [
        "Minutes:   of training, estimated in the same way",
        f"{'':<29}" + "".join(f"{head:>16}" for head in heads),
    ]
    for row in gpus:
        words = f"{row['gpu']:<11}{row['engine']}" if row["fits"] else f"{row['gpu']:<11}does not fit"
        cells = (f"{_short(fast)} to {_short(slow)}" for fast, slow in row["minutes"].values())
        lines.append(f"  {words:<27}" + ("".join(f"{cell:>16}" for cell in cells) if row["fits"] else ""))
    return lines


def _short(minutes: float) -> str:
    return f"{minutes:.2g}" if minutes < 10 else f"{minutes:,.0f}"

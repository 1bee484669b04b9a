"""`medqlora test --gguf FILE`: a GGUF file's test report, with the live adapter on the same questions beside it."""

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from medqlora.artifacts.run_folder import RunFolder
from medqlora.commands.arguments import Parser
from medqlora.errors import InputError
from medqlora.utils.cache import why_not_writable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from medqlora.artifacts.gguf.reading import GGUFInfo
    from medqlora.commands.progress_lines import ProgressLines
    from medqlora.evaluation import Tested
    from medqlora.evaluation.report_data import Report
    from medqlora.inference.loading import Trained
    from medqlora.records import Encoded, Prediction, Record

_EXAMPLES = """examples:
  medqlora test --gguf model.gguf --adapter lightning_logs/version_0/adapter
  medqlora test --gguf model.gguf --live lightning_logs/version_1

llama.cpp scores the labels of the adapter's test questions. The live adapter answers the same questions, or --live
names the run folder of its test, whose answers are taken. Without --adapter it is that of the run under --logs that the
file was made from. comparison.json holds both models' answers.
"""


def is_meant(words: list[str]) -> bool:
    """Whether the words test a GGUF file."""
    return any(word == "--gguf" or word.startswith("--gguf=") for word in words)


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = Parser("test", "Tests a GGUF file in llama.cpp.", _EXAMPLES)
    made.add_argument("--gguf", required=True, metavar="FILE", help="the merged model")
    made.add_argument("--lora", metavar="FILE", help="a GGUF adapter to put on it")
    made.add_argument(
        "--adapter",
        "--model.adapter",
        metavar="DIR",
        help="adapter that it was made from: its prompt, its test questions, and the comparison (default: the "
        "finished run's under --logs that the file was made from)",
    )
    made.add_argument(
        "--base",
        "--model.backend.base",
        metavar="NAME|DIR",
        help="base model, where it differs from the record",
    )
    made.add_argument("--questions", metavar="FILE", help="test on these questions instead")
    made.add_argument(
        "--live",
        "--report.live",
        metavar="DIR",
        help="run folder of a test of the live adapter, whose answers are compared; without it the adapter is asked",
    )
    made.add_argument(
        "--logs",
        metavar="DIR",
        default="lightning_logs",
        help="folder of the runs, and of the report's (default: %(default)s)",
    )
    made.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="device of the live model"
    )
    return made


def run(words: list[str]) -> int:
    """Raises InputError for wrong options, files that are missing, or questions that can't be read."""
    options = parser().parse_args(words)
    _check(options)
    from medqlora.artifacts.gguf.reading import read_info
    from medqlora.artifacts.gguf.writing import check_installed
    from medqlora.inference.llama_cpp import check_llama_cpp
    from medqlora.inference.loading import read_trained, refuse_images
    from medqlora.models.adapters import read_adapter

    check_installed("--gguf")
    check_llama_cpp()
    info = read_info(Path(options.gguf).expanduser(), "--gguf")
    made_from = read_info(Path(options.lora).expanduser(), "--lora") if options.lora else info
    if options.adapter is None:
        options.adapter = _recorded(made_from, Path(options.logs).expanduser())
    trained = read_trained(options.adapter, "--adapter")
    refuse_images(trained, "--adapter", "a test of a GGUF file alone")
    if trained.adapter is None:
        raise InputError(f"--adapter {options.adapter}: it is a base model: name an adapter's folder")
    options.adapter = trained.adapter
    _compare_digests(options, made_from)
    record = read_adapter(options.adapter, "--adapter")
    tested = _tested(options, trained, record, info, made_from)
    tested.scores.more["gguf"] = header = _header(options.gguf, info)
    _report(options, tested, header)
    return 0


def _check(options: argparse.Namespace) -> None:
    for name in ("gguf", "lora", "questions"):
        value = getattr(options, name)
        if value is not None and not Path(value).expanduser().is_file():
            raise InputError(f"--{name}: there is no file '{value}': name one")
    logs = Path(options.logs).expanduser()
    why = why_not_writable(logs) if logs.parent.is_dir() else f"there is no folder {logs.parent}"
    if why:
        raise InputError(f"--logs {options.logs}: no run's folder can be made there ({why}): name another")


def _recorded(info: "GGUFInfo", logs: Path) -> str:
    """The adapter of a run under `logs` that the file was made from. Raises InputError."""
    from medqlora.artifacts.runs import finished_adapters
    from medqlora.models.weight_files import ADAPTER_WEIGHTS
    from medqlora.utils.digests import file_digest

    for folder in finished_adapters(logs) if info.adapter_sha256 else []:
        file = folder / ADAPTER_WEIGHTS
        if file.is_file() and file_digest(file)["sha256"] == info.adapter_sha256:
            print(f"Made from the adapter {folder}", flush=True)
            return str(folder)
    raise InputError(
        f"--adapter: no finished run under {logs} has the adapter that the file was made from: name its folder"
    )


def _compare_digests(options: argparse.Namespace, info: "GGUFInfo") -> None:
    """Warns of an adapter that the file was not made from."""
    from medqlora.models.weight_files import ADAPTER_WEIGHTS
    from medqlora.utils.digests import file_digest

    digest = file_digest(Path(options.adapter).expanduser() / ADAPTER_WEIGHTS)["sha256"]
    if info.adapter_sha256 not in (None, digest):
        print(
            f"WARNING: {options.lora or options.gguf} was made from another adapter than {options.adapter}: the "
            "comparison is not that of an export with its adapter",
            flush=True,
        )


def _tested(
    options: argparse.Namespace,
    trained: "Trained",
    record: "dict[str, object]",
    info: "GGUFInfo",
    made_from: "GGUFInfo",
) -> "Tested":
    """Asks llama.cpp and the live adapter; scores and comparison."""
    from medqlora.artifacts.live_report import read_live_report
    from medqlora.artifacts.merge.questions import file_questions, test_questions
    from medqlora.artifacts.merge.run import labelled, predictions
    from medqlora.commands.progress_lines import ProgressLines
    from medqlora.data import encode_all, lookup
    from medqlora.evaluation import Tested, score
    from medqlora.evaluation.verification import compare, limits
    from medqlora.inference.loading import build_backend, pick_device
    from medqlora.inference.predictor import Predictor
    from medqlora.training.live_choice import check_same_adapter

    device = pick_device(options.device)
    read = file_questions(options.questions) if options.questions else None
    questions = labelled(test_questions(record, options.adapter) if read is None else read)
    known = _training_in_common(options.adapter, questions)
    report = None
    if options.live is not None:
        report = read_live_report(Path(options.live).expanduser(), "--live")
        check_same_adapter(report, made_from.adapter_sha256, f"--live {options.live}")
    progress = ProgressLines()
    backend = build_backend(trained, base=options.base, backend=None, device=device)
    prompt, tokenizer = lookup(trained.prompt), backend.tokenizer()
    digest, dataset = prompt.sha256(tokenizer), _dataset(record) if read is None else None
    before = None if report is None else report.predictions(questions, dataset, digest)
    examples = encode_all(
        questions, prompt, tokenizer, trained.max_prompt_tokens, progress=False, cached=False
    )
    if before is None:
        live = Predictor.load(
            options.adapter, base=options.base, device=device, generate=False, option="--adapter"
        )
        before = predictions(live, questions, "Live model", progress.update)
        del live
    after = _in_llama_cpp(options, examples, questions, progress)
    scores = score(
        after,
        records=questions,
        adapter=options.adapter,
        dataset=dataset,
        split="test",
        prompt_sha256=digest,
    )
    compared = compare(before, after, limits(info.bits), questions)
    source = "asked now" if report is None else str(report.folder)
    scores.more.update(known)
    scores.more["live"] = {**compared.figures(), "source": source}
    if made_from.adapter_sha256 is not None:
        scores.more["adapter_sha256"] = made_from.adapter_sha256
    return Tested(dataset or "", scores, after, questions, None, compared)


def _in_llama_cpp(
    options: argparse.Namespace,
    examples: "list[Encoded]",
    questions: "list[Record]",
    progress: "ProgressLines",
) -> "list[Prediction]":
    from medqlora.inference.llama_cpp import LlamaCpp

    longest = max(len(one.prompt) + max(map(len, one.labels)) for one in examples)
    lora = None if options.lora is None else Path(options.lora).expanduser()
    with LlamaCpp(Path(options.gguf).expanduser(), longest, lora) as runtime:
        by_id = {question.id: question for question in questions}
        return runtime.predict(examples, by_id, lambda done, total: progress.update("llama.cpp", done, total))


def _header(file: str, info: "GGUFInfo") -> "dict[str, object]":
    """What the report says of the tested file."""
    from medqlora.utils.digests import file_digest

    path = Path(file).expanduser()
    return {
        "file size, bytes": path.stat().st_size,
        "quantization": info.quantization,
        "architecture": info.architecture,
        "sha256": file_digest(path)["sha256"],
    }


def _report(options: argparse.Namespace, tested: "Tested", header: "dict[str, object]") -> None:
    """Writes the report's files and TensorBoard's events, and prints the table."""
    from torch.utils.tensorboard import SummaryWriter

    from medqlora.callbacks.event_files import tag_of
    from medqlora.evaluation import console_table, write_report
    from medqlora.training.tested_sets import log_figures, logged_scores
    from medqlora.utils.versions import RESULT_PACKAGES, versions

    assert tested.live is not None
    folder = RunFolder.new(Path(options.logs).expanduser()).path
    info = {
        "command": shlex.join(["medqlora", *sys.argv[1:]]),
        "gguf": options.gguf,
        **header,
        "lora": options.lora,
        "adapter": options.adapter,
        "runtime": "llama.cpp",
        "versions": versions((*RESULT_PACKAGES, "xllamacpp", "gguf")),
    }
    answers = (tested.scores, tested.predictions, tested.records)
    paths = write_report(folder, *answers, run_info=info, live=tested.live)
    comparison = json.dumps(tested.live.to_json(), indent=2) + "\n"
    (folder / "comparison.json").write_text(comparison, "utf-8")
    writer = SummaryWriter(str(folder))
    for name, value in logged_scores([tested]).items():
        writer.add_scalar(tag_of(name), value, 0)

    def add(name: str, figure: "Figure", step: int, close: bool) -> None:
        writer.add_figure(tag_of(name), figure, step, close)

    log_figures(add, [tested], 0)
    writer.close()
    print(console_table(tested.scores))
    print("\n".join(["", "Against the live adapter:", *tested.live.lines()]))
    print(f"Report:  {paths['report.html']}", flush=True)


def _dataset(record: "dict[str, object]") -> str | None:
    """The name of the adapter's data set."""
    described = record.get("data")
    name = described.get("name") if isinstance(described, dict) else None
    return name if isinstance(name, str) else None


def _training_in_common(adapter: str, questions: "list[Record]") -> "Report":
    """What the report says of test questions that the adapter was trained on.

    Raises:
        InputError: one of these questions was.
    """
    from medqlora.artifacts.evaluated_weights import EvaluatedWeights
    from medqlora.data.test_sets import told
    from medqlora.evaluation.contamination import overlap

    weights = EvaluatedWeights("adapter", adapter, folder=Path(adapter).expanduser())
    trace, counts = weights.trace(), weights.test_questions
    shared = None if trace is None else overlap(trace, questions)
    if shared is not None and shared.contaminated:
        raise InputError(
            f"--adapter {adapter}: {len(shared.contaminated)} of the {shared.n} test questions were in its "
            f"training set (the first is {shared.contaminated[0]}): test on others with --questions"
        )
    if counts:
        print(f"WARNING: {told(counts)}: a score on that benchmark means nothing", flush=True)
    return {
        "contamination": None if shared is None else shared.to_json(),
        "trained_on_test_questions": counts,
    }

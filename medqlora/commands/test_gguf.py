"""`medqlora test --gguf FILE`: a GGUF file's test report, with the live adapter on the same questions beside it."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from medqlora.artifacts.run_folder import RunFolder
from medqlora.commands.arguments import Parser
from medqlora.commands.newest_run import adapter_or_newest
from medqlora.errors import InputError

if TYPE_CHECKING:
    from medqlora.evaluation.report_data import Report
    from medqlora.records import Record

_EXAMPLES = """examples:
  medqlora test --gguf model.gguf --adapter lightning_logs/version_0/adapter

llama.cpp scores the labels of the adapter's test questions; comparison.json holds the live adapter's answers.
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
        metavar="DIR",
        help="adapter that it was made from: its prompt, its test questions, and the comparison (default: the newest "
        "finished run's)",
    )
    made.add_argument("--base", metavar="NAME|DIR", help="base model, where it differs from the record")
    made.add_argument("--questions", metavar="FILE", help="test on these questions instead")
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
    for name in ("gguf", "lora", "questions"):
        value = getattr(options, name)
        if value is not None and not Path(value).expanduser().is_file():
            raise InputError(f"--{name}: there is no file '{value}': name one")
    options.adapter = adapter_or_newest(options.adapter, options.logs)
    from medqlora.artifacts.merge.questions import file_questions, test_questions
    from medqlora.artifacts.merge.run import labelled, predictions
    from medqlora.artifacts.merge.verification import compare, limits
    from medqlora.commands.progress_lines import ProgressLines
    from medqlora.data import encode_all
    from medqlora.evaluation import console_table, score, write_report
    from medqlora.inference.llama_cpp import LlamaCpp, check_llama_cpp
    from medqlora.inference.loading import pick_device, read_trained
    from medqlora.inference.predictor import Predictor
    from medqlora.models.adapters import read_adapter

    check_llama_cpp()
    trained = read_trained(options.adapter, "--adapter")
    if trained.adapter is None:
        raise InputError(f"--adapter {options.adapter}: it is a base model: name an adapter's folder")
    record = read_adapter(trained.adapter, "--adapter")
    read = file_questions(options.questions) if options.questions else None
    questions = labelled(test_questions(record, trained.adapter) if read is None else read)
    known = _training_in_common(trained.adapter, questions)
    progress = ProgressLines().update
    live = Predictor.load(
        trained.adapter,
        base=options.base,
        device=pick_device(options.device),
        generate=False,
        option="--adapter",
    )
    examples = encode_all(
        questions, live.prompt, live.tokenizer, live.max_prompt_tokens, progress=False, cached=False
    )
    before = predictions(live, questions, "Live model", progress)
    longest = max(len(one.prompt) + max(map(len, one.labels)) for one in examples)
    lora = None if options.lora is None else Path(options.lora).expanduser()
    with LlamaCpp(Path(options.gguf).expanduser(), longest, lora) as runtime:
        by_id = {question.id: question for question in questions}
        after = runtime.predict(examples, by_id, lambda done, total: progress("llama.cpp", done, total))
    scores = score(after, records=questions, adapter=trained.adapter, split="test")
    scores.more.update(known)
    folder = RunFolder.new(Path(options.logs).expanduser()).path
    info = {"gguf": options.gguf, "adapter": trained.adapter, "runtime": "llama.cpp"}
    paths = write_report(folder, scores, after, questions, run_info=info)
    compared = compare(before, after, limits(16))
    (folder / "comparison.json").write_text(json.dumps(compared.to_json(), indent=2) + "\n", "utf-8")
    print(console_table(scores))
    print("\n".join(["", "Against the live adapter:", *compared.lines()]))
    print(f"Report:  {paths['report.html']}", flush=True)
    return 0


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

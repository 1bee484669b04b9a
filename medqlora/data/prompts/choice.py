"""lm-evaluation-harness's prompts of the multiple-choice benchmarks; each stands beside its set."""

from collections.abc import Mapping, Sequence
from typing import Any

from medqlora.data.prompts.prompt import Prompt


class LMEvalChoice(Prompt):
    """`lm_eval` for one benchmark, built of the pieces of its task in the harness, without examples
    (zero-shot). The answer is the option's letter alone, after a space.

    Pieces are filled in one pass, so braces in a question stay as they are. These benchmarks have no
    contexts, so there is no piece for them.

    https://github.com/EleutherAI/lm-evaluation-harness/tree/v0.4.13/lm_eval/tasks

    Args:
        before: what stands before the options: {question} as it is, or {question.strip()}, and {subject}.
        option: one option's line: {label} and {text}.
        after: what stands after the options.
    """

    name = "lm_eval"

    def __init__(self, before: str, option: str = "{label}. {text}\n", after: str = "Answer:") -> None:
        self._before, self._option, self._after = before, option, after

    def body(
        self,
        question: str,
        contexts: Sequence[str],
        options: Mapping[str, str],
        labels: Sequence[str],
        subject: str = "",
    ) -> str:
        values = {"{question}": question, "{question.strip()}": question.strip(), "{subject}": subject}
        lines = [_filled(self._option, {"{label}": label, "{text}": text}) for label, text in options.items()]
        return _filled(self._before, values) + "".join(lines) + self._after

    def completion(self, answer: str, long_answer: str, labels: Sequence[str]) -> str:
        return answer.strip()

    def template(self, tokenizer: Any = None) -> dict[str, str]:
        return {
            "prompt": self._before + "{options}" + self._after,
            "option": self._option,
            "completion": " {answer}",
        }


def _filled(piece: str, values: Mapping[str, str]) -> str:
    """`piece` with its fields in place; what a value holds is not looked at again."""
    found = [(piece.find(field), field) for field in values if field in piece]
    if not found:
        return piece
    start, field = min(found)
    return piece[:start] + values[field] + _filled(piece[start + len(field) :], values)

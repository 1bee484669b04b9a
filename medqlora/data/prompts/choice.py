"""lm-evaluation-harness's prompts of multiple-choice benchmarks; each benchmark's pieces stand in its source's file."""

from collections.abc import Mapping, Sequence

from medqlora.data.prompts.prompt import Prompt
from medqlora.utils.types import Tokenizer


class LMEvalChoice(Prompt):
    """`lm_eval` for one benchmark, from the pieces of its task in the harness, zero-shot. The answer is the option's
    letter alone, after a space.

    Pieces are filled in one pass, so braces in a question stay unchanged. These benchmarks have no contexts.

    https://github.com/EleutherAI/lm-evaluation-harness/tree/v0.4.13/lm_eval/tasks

    Args:
        before: the text before the options: {question} or {question.strip()}, and {subject}.
        option: the line of one option: {label} and {text}.
        after: the text after the options.
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

    def template(self, tokenizer: Tokenizer | None = None) -> dict[str, str]:
        return {
            "prompt": self._before + "{options}" + self._after,
            "option": self._option,
            "completion": " {answer}",
        }


def _filled(piece: str, values: Mapping[str, str]) -> str:
    """`piece` with its fields filled in; fields inside a value are not filled again."""
    fields = [(piece.find(field), field) for field in values if field in piece]
    if not fields:
        return piece
    start, field = min(fields)
    return piece[:start] + values[field] + _filled(piece[start + len(field) :], values)

"""lm-evaluation-harness's prompts, so that accuracies can be compared with reported ones.

PubMedQA's is registered; the pieces of a multiple-choice benchmark stand in its source's file.
https://github.com/EleutherAI/lm-evaluation-harness/tree/v0.4.13/lm_eval/tasks
"""

from collections.abc import Mapping, Sequence

from medqlora.data.prompts.prompt import PROMPTS
from medqlora.data.prompts.template import TemplatePrompt


@PROMPTS.register("lm_eval")
class LMEval(TemplatePrompt):
    """The prompt of the harness's `pubmedqa`, byte for byte where a record has contexts. The answer is the label."""

    name = "lm_eval"
    verbatim = True  # as in the harness
    pieces: Mapping[str, str] = {
        "prompt": "{context}Question: {question}{options}\nAnswer:",
        "option": "\n{label}. {text}",
        "context": "Abstract: {contexts}\n",
        "context_joiner": "\n",
        "completion": " {answer}",
    }

    def completion(self, answer: str, long_answer: str, labels: Sequence[str]) -> str:
        return answer.strip()


class LMEvalChoice(LMEval):
    """`lm_eval` for one multiple-choice benchmark, zero-shot. The answer is the option's letter alone, after a space.

    These benchmarks have no contexts.

    Args:
        before: the text before the options: {question} or {question.strip()}, and {subject}.
        option: the line of one option: {label} and {text}.
        after: the text after the options.
    """

    def __init__(self, before: str, option: str = "{label}. {text}\n", after: str = "Answer:") -> None:
        self.pieces = {"prompt": before + "{options}" + after, "option": option, "completion": " {answer}"}

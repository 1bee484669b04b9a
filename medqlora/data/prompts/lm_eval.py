"""lm-evaluation-harness's prompt of PubMedQA, so that accuracies can be compared with reported ones."""

from collections.abc import Mapping, Sequence

from medqlora.data.prompts.prompt import PROMPTS, Prompt, option_lines
from medqlora.utils.types import Tokenizer


@PROMPTS.register("lm_eval")
class LMEval(Prompt):
    """The prompt of lm-evaluation-harness's `pubmedqa`, byte for byte where a record has contexts, so
    that accuracies can be compared with reported ones. The answer is the label alone.

    https://github.com/EleutherAI/lm-evaluation-harness/tree/main/lm_eval/tasks/pubmedqa
    """

    name = "lm_eval"

    def body(
        self,
        question: str,
        contexts: Sequence[str],
        options: Mapping[str, str],
        labels: Sequence[str],
        subject: str = "",
    ) -> str:
        # nothing is stripped: the harness doesn't either
        context = "\n".join(contexts)
        line = f"Abstract: {context}\n" if context.strip() else ""
        return f"{line}Question: {question}{option_lines(options)}\nAnswer:"

    def completion(self, answer: str, long_answer: str, labels: Sequence[str]) -> str:
        return answer.strip()

    def template(self, tokenizer: Tokenizer | None = None) -> dict[str, str]:
        return {
            "prompt": "{context}Question: {question}{options}\nAnswer:",
            "option": "\n{label}. {text}",
            "context": "Abstract: {contexts}\n",
            "context_joiner": "\n",
            "completion": " {answer}",
        }

"""A prompt whose completion has the rationale before the decision."""

from collections.abc import Mapping, Sequence

from medqlora.data.prompts.prompt import Frame, Prompt
from medqlora.utils.types import Tokenizer

#: after a prompt's name: the same prompt with the rationale first
SUFFIX = "+rationale_first"


class RationaleFirst(Prompt):
    """`inner` with a completion of rationale, `lead` and decision: "It halved the risk. Answer: yes."

    A decision is scored after the rationale that the model generates (Wei et al., 2022,
    https://arxiv.org/abs/2201.11903).
    """

    lead = "Answer:"

    def __init__(self, inner: Prompt) -> None:
        self.inner = inner
        self.name = f"{inner.name}{SUFFIX}"

    def body(
        self,
        question: str,
        contexts: Sequence[str],
        options: Mapping[str, str],
        labels: Sequence[str],
        subject: str = "",
    ) -> str:
        return self.inner.body(question, contexts, options, labels, subject)

    def template(self, tokenizer: Tokenizer | None) -> dict[str, str]:
        return {**self.inner.template(tokenizer), "completion": f"{{long_answer}} {self.lead} {{answer}}."}

    def frame(self, tokenizer: Tokenizer) -> Frame:
        return self.inner.frame(tokenizer)

    def label(self, label: str) -> str:
        return self.inner.label(label)

    def completion(self, answer: str, long_answer: str, labels: Sequence[str]) -> str:
        if not labels:
            return self.inner.completion(answer, long_answer, labels)
        return f"{self.before_decision(long_answer)} {self.label(answer.strip())}."

    def before_decision(self, long_answer: str) -> str:
        """The completion up to its decision, without the space before it."""
        return f"{long_answer.strip()} {self.lead}".lstrip()

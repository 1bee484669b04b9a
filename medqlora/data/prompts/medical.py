"""The default prompt: question, options and context under headings, one line each."""

from collections.abc import Mapping, Sequence

from medqlora.data.prompts.prompt import PROMPTS, Prompt, option_lines
from medqlora.utils.types import Tokenizer


@PROMPTS.register("medical")
class Medical(Prompt):
    """`MEDICAL QUESTION: … CONTEXT: … ANSWER: yes. <rationale>`, a line each."""

    name = "medical"

    def body(
        self,
        question: str,
        contexts: Sequence[str],
        options: Mapping[str, str],
        labels: Sequence[str],
        subject: str = "",
    ) -> str:
        context = " ".join(part.strip() for part in contexts).strip()
        line = f"\nCONTEXT: {context}" if context else ""
        return f"MEDICAL QUESTION: {question.strip()}{option_lines(options)}{line}\nANSWER:"

    def template(self, tokenizer: Tokenizer | None = None) -> dict[str, str]:
        return {
            "prompt": "MEDICAL QUESTION: {question}{options}{context}\nANSWER:",
            "option": "\n{label}. {text}",
            "context": "\nCONTEXT: {contexts}",
            "context_joiner": " ",
            "completion": " {answer}. {long_answer}",
        }

"""The tokenizer's own chat template around the question."""

from collections.abc import Mapping, Sequence

from medqlora.data.prompts.chat_template import chat_frame, template_of
from medqlora.data.prompts.prompt import PROMPTS, Frame, Prompt, option_lines
from medqlora.utils.types import Tokenizer


@PROMPTS.register("chat")
class Chat(Prompt):
    """One user message in the tokenizer's own chat template, answered by `Yes. <rationale>`."""

    name = "chat"

    _CONTEXT = "Context: {contexts}\n\n"
    _DECIDE = "Answer with one of: {labels}. Then explain why."
    _FREE = "Answer the question."

    def body(
        self,
        question: str,
        contexts: Sequence[str],
        options: Mapping[str, str],
        labels: Sequence[str],
        subject: str = "",
    ) -> str:
        context = "\n".join(part.strip() for part in contexts).strip()
        line = self._CONTEXT.replace("{contexts}", context) if context else ""
        names = ", ".join(self.label(label) for label in labels)
        ask = self._DECIDE.replace("{labels}", names) if labels else self._FREE
        return f"{line}Question: {question.strip()}{option_lines(options)}\n\n{ask}"

    def frame(self, tokenizer: Tokenizer) -> Frame:
        # a chat template writes BOS where its model was trained with it
        return Frame(*chat_frame(tokenizer), whole=True)

    def label(self, label: str) -> str:
        return label[:1].upper() + label[1:]

    def template(self, tokenizer: Tokenizer | None = None) -> dict[str, str]:
        return {
            "prompt": "{context}Question: {question}{options}\n\n{instruction}",
            "option": "\n{label}. {text}",
            "context": self._CONTEXT,
            "context_joiner": "\n",
            "instruction": self._DECIDE,
            "instruction_without_labels": self._FREE,
            "completion": "{Answer}. {long_answer}",
            "chat_template": template_of(tokenizer),
        }

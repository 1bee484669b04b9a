"""The tokenizer's own chat template around the question."""

from collections.abc import Mapping

from medqlora.data.prompts.chat_template import chat_frame, template_of
from medqlora.data.prompts.prompt import PROMPTS, Frame
from medqlora.data.prompts.template import TemplatePrompt
from medqlora.utils.types import Tokenizer


@PROMPTS.register("chat")
class Chat(TemplatePrompt):
    """One user message in the tokenizer's own chat template, answered by `Yes. <rationale>`."""

    name = "chat"
    pieces: Mapping[str, str] = {
        "prompt": "{context}Question: {question}{options}\n\n{instruction}",
        "option": "\n{label}. {text}",
        "context": "Context: {contexts}\n\n",
        "context_joiner": "\n",
        "instruction": "Answer with one of: {labels}. Then explain why.",
        "instruction_without_labels": "Answer the question.",
        "completion": "{Answer}. {long_answer}",
    }

    def frame(self, tokenizer: Tokenizer) -> Frame:
        # a chat template writes BOS where its model was trained with it
        return Frame(*chat_frame(tokenizer), whole=True)

    def label(self, label: str) -> str:
        return label[:1].upper() + label[1:]

    def template(self, tokenizer: Tokenizer | None = None) -> dict[str, str]:
        return {**self.pieces, "chat_template": template_of(tokenizer)}

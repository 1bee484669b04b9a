"""Prompts that are filled in from pieces of text: what the adapter's record shows is what the model reads."""

from collections.abc import Mapping, Sequence

from medqlora.data.prompts.prompt import Prompt
from medqlora.utils.types import Tokenizer


class TemplatePrompt(Prompt):
    """A prompt whose body is filled in from `pieces`. Fields are filled in one pass, so braces in user text stay.

    The piece `prompt` holds {question}, {options}, {context}, {subject} and {instruction}. `option` is one option, with
    {label} and {text}. `context` is used where a record has contexts, with {contexts}, joined by `context_joiner`.
    `instruction` holds {labels}; a free answer gets `instruction_without_labels`.
    """

    pieces: Mapping[str, str]

    #: whether question and contexts keep white space around them
    verbatim = False

    def body(
        self,
        question: str,
        contexts: Sequence[str],
        options: Mapping[str, str],
        labels: Sequence[str],
        subject: str = "",
    ) -> str:
        piece = self.pieces.get
        stripped = str if self.verbatim else str.strip
        context = stripped(piece("context_joiner", " ").join(map(stripped, contexts)))
        option = piece("option", "\n{label}. {text}")
        names = ", ".join(map(self.label, labels))
        values = {
            "{question}": stripped(question),
            "{question.strip()}": question.strip(),
            "{subject}": subject,
            "{context}": filled(piece("context", "{contexts}"), {"{contexts}": context})
            if context.strip()
            else "",
            "{options}": "".join(
                filled(option, {"{label}": label, "{text}": text}) for label, text in options.items()
            ),
            "{instruction}": filled(piece("instruction", ""), {"{labels}": names})
            if labels
            else piece("instruction_without_labels", ""),
        }
        return filled(self.pieces["prompt"], values)

    def template(self, tokenizer: Tokenizer | None = None) -> dict[str, str]:
        return dict(self.pieces)


def filled(piece: str, values: Mapping[str, str]) -> str:
    """`piece` with its fields filled in; fields inside a value are not filled again."""
    fields = [(piece.find(field), field) for field in values if field in piece]
    if not fields:
        return piece
    start, field = min(fields)
    return piece[:start] + values[field] + filled(piece[start + len(field) :], values)

"""Ollama's Modelfile: the prompt as its template, greedy decoding, and the note.

https://docs.ollama.com/modelfile
"""

from pathlib import Path

from medqlora.data import Prompt
from medqlora.data.encoding.tokens import text_tokenizer
from medqlora.errors import InputError
from medqlora.safety import NOTE
from medqlora.utils.types import Tokenizer

_MESSAGE = "{{ .Prompt }}"
#: stands for the question while the prompt is filled in
_QUESTION = "MEDQLORA-QUESTION"
_QUOTES = '"' * 3


def modelfile(gguf: Path, template: str, stop: str, license_text: str = "") -> str:
    """The text of a Modelfile beside a GGUF file.

    The user's message takes the place of the question: Ollama has no field for options and context.

    Args:
        gguf: the file that it names.
        template: see `ollama_template`.
        stop: text that ends an answer.
        license_text: the base model's licence.
    """
    lines = [
        f"FROM ./{gguf.name}",
        f"TEMPLATE {_QUOTES}{template}{{{{ .Response }}}}{_QUOTES}",
        "PARAMETER temperature 0",
        f"PARAMETER stop {_quoted(stop)}",
        f"SYSTEM {_QUOTES}{NOTE}{_QUOTES}",
    ]
    if license_text:
        lines.append(f"LICENSE {_QUOTES}{license_text.replace(_QUOTES, '')}{_QUOTES}")
    return "\n".join(lines) + "\n"


def ollama_template(prompt: Prompt, tokenizer: Tokenizer, labels: tuple[str, ...]) -> str:
    """The prompt with Ollama's `{{ .Prompt }}` where the question stands, up to the answer.

    Ollama puts BOS in front by itself where the tokenizer does: the template leaves it out.

    Raises:
        InputError: the prompt does not hold the question once, or holds text that a Modelfile can't.
    """
    frame = prompt.frame(tokenizer)
    before = frame.before
    bos = tokenizer.bos_token_id
    if bos is not None and bos in text_tokenizer(tokenizer).prefix:
        before = before.removeprefix(tokenizer.decode([bos]))
    text = before + prompt.body(_QUESTION, (), {}, labels) + frame.after
    if text.count(_QUESTION) != 1:
        raise InputError(
            "--to ollama: the adapter's prompt does not hold the question once: export --to gguf, and write the "
            "Modelfile by hand"
        )
    if "{{" in text or _QUOTES in text:
        raise InputError(
            f"--to ollama: the adapter's prompt holds {{{{ or {_QUOTES}, which a Modelfile reads as its own: export "
            "--to gguf"
        )
    return text.replace(_QUESTION, _MESSAGE)


def rendered(template: str, message: str) -> str:
    """What Ollama sends to the model for a message, by the part of Go's templates that `ollama_template` uses."""
    return template.replace(_MESSAGE, message)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'

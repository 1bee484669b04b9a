"""Ollama's Modelfile: the prompt as its template, greedy decoding, and the note.

https://docs.ollama.com/modelfile
"""

from collections.abc import Mapping
from pathlib import Path

from medqlora.errors import InputError

_SYSTEM = "Not medical advice; consult a healthcare professional."


def modelfile(gguf: Path, template: Mapping[str, str], stop: str, license_text: str = "") -> str:
    """The text of a Modelfile beside a GGUF file.

    The user's message takes the place of the question and its context: Ollama has no fields for them.

    Args:
        gguf: the file that it names.
        template: the prompt's template, as the adapter's record has it.
        stop: text that ends an answer.
        license_text: the base model's licence.

    Raises:
        InputError: the prompt has no place for the question.
    """
    lines = [
        f"FROM ./{gguf.name}",
        f'TEMPLATE """{ollama_template(template)}"""',
        "PARAMETER temperature 0",
        f"PARAMETER stop {_quoted(stop)}",
        f'SYSTEM """{_SYSTEM}"""',
    ]
    if license_text:
        lines.append(f'LICENSE """{license_text}"""')
    return "\n".join(lines) + "\n"


def ollama_template(template: Mapping[str, str]) -> str:
    """The prompt with Ollama's `{{ .Prompt }}` where question and context stand.

    Raises:
        InputError: the prompt has no place for the question.
    """
    text = template.get("prompt", "")
    if "{question}" not in text:
        raise InputError("--to ollama: the adapter's prompt has no place for a question: export --to gguf")
    for field in ("{options}", "{context}", "{subject}"):
        text = text.replace(field, "")
    return text.replace("{question}", "{{ .Prompt }}") + "{{ .Response }}"


def rendered(template: str, prompt: str) -> str:
    """What Ollama sends to the model for a message, by the part of Go's templates that `ollama_template` uses."""
    return template.replace("{{ .Prompt }}", prompt).replace("{{ .Response }}", "")


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'

"""The front matter of a model card, as the Hub reads it: https://huggingface.co/docs/hub/model-cards#model-card-metadata"""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from medqlora.artifacts.adapter_record import AdapterRecord

#: licences of base models by a part of their name on the Hub, as their own cards give them
_LICENCES = (
    (r"llama-?3\.3", "llama3.3"),
    (r"llama-?3\.2", "llama3.2"),
    (r"llama-?3\.1", "llama3.1"),
    (r"deepseek-r1", "mit"),
    (r"llama-?3", "llama3"),
    (r"mistral-7b|qwen3|smollm2", "apache-2.0"),
)
#: the Hub's names of metrics, by this project's
_METRICS = {"accuracy": "accuracy", "macro_f1": "f1", "token_f1": "f1", "rouge_l": "rouge"}
#: the backends whose bases this project makes
_DEMOS = ("TinyLlama", "TinyVision")


def front_matter(record: AdapterRecord) -> list[str]:
    """The lines between the two `---`, for an adapter."""
    base = record["base"]
    lines = [f"base_model: {_text(hub_name(base, record['backend']))}"]
    datasets = [name for name in (record["data"].get("hub"), record["data"].get("name")) if name][:1]
    if datasets:
        lines.append(f"datasets: {_list(datasets)}")
    return [
        *lines,
        f"metrics: {_list(metrics(record['scores']))}",
        *licence(base, record["backend"]),
        "library_name: peft",
        "pipeline_tag: text-generation",
        "tags: [medical, question-answering, qlora, lora]",
    ]


def on_the_hub(base: str) -> bool:
    """Whether `base` reads as a name on the Hub, and not as a folder."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", base) is not None


def hub_name(base: str, backend: str = "") -> str:
    """The base model's name in a card: on the Hub its id, of a folder the folder's own name.

    A folder's path says nothing to a reader elsewhere, and the Hub refuses one.
    """
    if on_the_hub(base):
        return base
    name = backend if backend in _DEMOS else Path(base).name
    return re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip("-.") or "local"


def metrics(scores: Mapping[str, float]) -> list[str]:
    """The Hub's names of the validation scores; accuracy where nothing was validated, which `test` measures."""
    names = [_METRICS.get(name.rpartition("/")[2]) for name in scores]
    return list(dict.fromkeys(name for name in names if name)) or ["accuracy"]


def licence(base: str, backend: str = "") -> list[str]:
    """An adapter is derived from its base model, and goes under the base model's licence.

    Of a local base its own card says which; of a name on the Hub the family; the demo's base is this project's own.
    Nothing asks a network.
    """
    found = "mit" if backend in _DEMOS else _own_licence(Path(base))
    if found is None and on_the_hub(base):
        found = next((name for part, name in _LICENCES if re.search(part, base.lower())), None)
    if found is not None:
        return [f"license: {_text(found)}"]
    link = f"https://huggingface.co/{base}" if on_the_hub(base) else "LICENSE"
    return ["license: other", "license_name: as-the-base-model", f"license_link: {link}"]


def _own_licence(folder: Path) -> str | None:
    """The licence in the card of a base model's folder; None without one."""
    import yaml

    try:
        text = (folder / "README.md").read_text(encoding="utf-8")
        found = yaml.safe_load(text.split("---")[1]).get("license")
    except (OSError, ValueError, IndexError, AttributeError, yaml.YAMLError):
        return None
    return found if isinstance(found, str) and re.fullmatch(r"[a-z0-9.+-]+", found) else None


def _list(values: list[object] | list[str]) -> str:
    return f"[{', '.join(_text(str(value)) for value in values)}]"


def _text(value: str) -> str:
    """A YAML scalar; quoted as in JSON where it could be read as anything else."""
    plain = re.fullmatch(r"[A-Za-z][\w./-]*", value, flags=re.ASCII)
    words = value.lower() in ("yes", "no", "on", "off", "true", "false", "null", "y", "n")
    return value if plain and not words else json.dumps(value)

"""Reads the sets of a fit for a look at them: with its options, its tokenizer and its readers, and no model."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from medqlora.errors import InputError
from medqlora.utils.types import Tokenizer

if TYPE_CHECKING:
    from medqlora.datamodule import PubMedQADataModule
    from medqlora.evaluation.data_look import DataLook
    from medqlora.models import Backend


class ReadSets(NamedTuple):
    """The sets of a fit.

    Attributes:
        look: the sets as records and as token ids.
        tokenizer: has encoded them.
        tokenizer_of: the base model that it belongs to.
        note: why it is not that of the fit's base model; "" where it is.
    """

    look: "DataLook"
    tokenizer: Tokenizer
    tokenizer_of: str
    note: str


def read_sets(words: list[str]) -> ReadSets:
    """Training, validation and test questions of `fit` with these options, which are checked already.

    A benchmark's test questions in training are told, not refused. Where the base model's tokenizer can't be read, that
    of the demo's base counts the tokens.

    Raises:
        InputError: the data can't be read, or an option is wrong.
    """
    from medqlora.commands.run import build
    from medqlora.data import encode_all
    from medqlora.evaluation.data_look import DataLook

    cli = build(["fit", *words], with_trainer=False)
    data: PubMedQADataModule = cli.datamodule
    tokenizer, tokenizer_of, note = _tokenizer(cli.model.backend)
    data.allow_test_questions = True
    remarks: list[str] = []
    data.read(tokenizer, ("train", "dev"), report=remarks.append)
    assert data.prompt is not None
    held_out = data.held_out
    encoded = encode_all(held_out, data.prompt, tokenizer, data.max_prompt_tokens)
    look = DataLook(
        source=data.source.name,
        prompt=data.prompt.name,
        max_prompt_tokens=data.max_prompt_tokens,
        batch_size=data.batch_size,
        micro_batch_tokens=data.token_budget,
        seed=data.seed,
        records={
            "train": [data.records[example.id] for example in data.train],
            "dev": [data.records[example.id] for example in data.dev],
            "test": held_out,
        },
        encoded={"train": data.train, "dev": data.dev, "test": encoded},
        remarks=remarks,
        packed=data.packing != "padded",
    )
    return ReadSets(look, tokenizer, tokenizer_of, note)


def _tokenizer(backend: "Backend") -> tuple[Tokenizer, str, str]:
    """The base model's tokenizer, its base model, and why it is another's ("" where it is not)."""
    from medqlora.commands.diagnosis.hub import hub, hub_off, without_hub
    from medqlora.models import TinyLlama
    from medqlora.models.hub import is_local

    asks_hub = not isinstance(backend, TinyLlama) and not is_local(backend.base) and hub_off() is None
    unreachable = asks_hub and hub(needed=False).state != "ok"
    name = "the demo's base" if isinstance(backend, TinyLlama) else backend.base
    try:
        with without_hub(unreachable):
            return backend.tokenizer(), name, ""
    except InputError:
        if isinstance(backend, TinyLlama) or is_local(backend.base):
            raise
        note = (
            f"Note: the tokenizer of {backend.base} can't be read here; lengths are in tokens of the demo's base, "
            "which writes medical text in about twice as many"
        )
        return TinyLlama().tokenizer(), "the demo's base", note


@contextmanager
def config_file(text: str) -> Iterator[str]:
    """A temporary configuration with this text."""
    with tempfile.TemporaryDirectory(prefix="medqlora-") as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(text, encoding="utf-8")
        yield str(path)

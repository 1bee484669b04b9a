"""Tokens without a row in the embedding: padding is replaced, and an example with one is refused."""

import json
from pathlib import Path

import pytest
from base_files import change, check, load, refused
from harness import options

from medqlora import cli
from medqlora.models.token_ids import check_token_ids


def test_a_padding_token_without_a_row_is_replaced_and_said(base: Path) -> None:
    rows = json.loads((base / "config.json").read_text())["vocab_size"]
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    assert tokenizer.pad_token_id == rows
    tokenizer.save_pretrained(base)
    change(base / "config.json", pad_token_id=rows)  # then torch's embedding can't even be made
    backend = check(base)
    assert backend.remarks() == (
        f"Note: the padding token '[PAD]' of '{base}' is token {rows}, for which the embedding has no row: '</s>' "
        "pads instead",
    )
    assert backend.tokenizer().pad_token_id == backend.tokenizer().eos_token_id == 1
    load(base, None)


def test_the_handed_base_with_such_a_padding_token_is_tested_and_the_other_one_said_once(
    cases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*options(cases / "models" / "pad_oob", tmp_path), "--model.adapter=none"]
    assert cli.main(["validate", *words]) == 0
    assert capsys.readouterr().out.count("Note: the padding token '[PAD]'") == 1


def test_an_added_token_without_a_row_is_said_and_refused_in_an_example(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["drug 1001", "never"])
    tokenizer.save_pretrained(base)
    backend = check(base)
    assert "no row for 2 added tokens of its tokenizer, the first 'drug 1001'" in backend.remarks()[0]
    check_token_ids(backend, [])
    assert cli.main(["fit", *options(base, tmp_path), "--trainer.max_steps=1"]) == 2
    shown = capsys.readouterr()
    assert shown.out.count(backend.remarks()[0]) == 1
    line = shown.err.strip().splitlines()[-1]
    assert line.startswith("medqlora: error: q1001: holds the token 'drug 1001' (")


def test_an_end_token_without_a_row_is_refused(base: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_special_tokens({"eos_token": "<|end|>"})
    tokenizer.save_pretrained(base)
    line = refused(base)
    assert "the end token '<|end|>'" in line
    assert "set eos_token in tokenizer_config.json" in line

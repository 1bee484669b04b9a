"""Many records are encoded as one by one is, and once: what decides the ids decides the cache's file."""

import copy
import importlib
import sys
from array import array
from pathlib import Path

import pytest
from example_records import RECORD, decoded, with_
from tokenizer_families import family

from medqlora.data import prompts
from medqlora.data.encoding import encoded_cache
from medqlora.data.encoding.encode import encode, encode_all
from medqlora.data.prompts.lm_eval import LMEvalChoice
from medqlora.data.prompts.rationale_first import RationaleFirst
from medqlora.records import Record


@pytest.fixture
def records() -> list[Record]:
    return [
        with_(RECORD, id=str(n), question=f"Question {n}?", answer=("yes", None)[n % 2]) for n in range(300)
    ]


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDQLORA_CACHE", str(tmp_path))
    return tmp_path / "encoded"


def all_(records, limit=60, name="medical", **kwargs):
    return encode_all(records, prompts.lookup(name), family("llama3"), limit, progress=False, **kwargs)


def test_many_are_encoded_as_one_by_one(records, own_cache):
    one_by_one = [encode(record, prompts.lookup("medical"), family("llama3"), 60) for record in records]
    assert all_(records, cached=False) == one_by_one
    assert not own_cache.exists()
    assert all_(records) == one_by_one
    assert all_(records) == one_by_one  # from the cache
    assert [file.suffix for file in own_cache.iterdir()] == [".npz"]


def test_a_second_run_reads_the_cache(records, own_cache, monkeypatch):
    first = all_(records)
    monkeypatch.setattr(
        "medqlora.data.encoding.encode._Encoder.encode", lambda *_: pytest.fail("tokenised again")
    )
    assert all_(records) == first
    assert isinstance(first[0].prompt, array)


def test_whatever_decides_the_ids_decides_the_cache_file(records, own_cache):
    changed = [with_(records[0], long_answer="Other."), *records[1:]]
    for arguments in ((records,), (changed,), (records, 80), (records, 60, "lm_eval"), (records[:-1],)):
        all_(*arguments)
    assert len(list(own_cache.iterdir())) == 5
    all_([with_(record, where="elsewhere", topics=("x",)) for record in records])
    assert len(list(own_cache.iterdir())) == 5
    all_([with_(records[0], subject="anatomy"), *records[1:]])  # a benchmark's own prompt says it
    assert len(list(own_cache.iterdir())) == 6


def test_another_tokenizer_reads_nothing_that_this_one_has_written(records, own_cache):
    all_(records)
    other = copy.deepcopy(family("llama3"))
    other.add_tokens(["MEDICAL QUESTION"])  # the same prompt, in other ids
    found = encode_all(records, prompts.lookup("medical"), other, 60, progress=False)
    assert found == [encode(record, prompts.lookup("medical"), other, 60) for record in records]
    assert found != all_(records)


def test_a_prompt_of_a_sets_own_has_a_cache_file_of_its_own(records, own_cache):
    own = LMEvalChoice("{subject}: {question}\n")
    few = [with_(record, subject="anatomy") for record in records[:3]]
    shown = decoded(family("llama3"), encode_all(few, own, family("llama3"), 60, progress=False)[0].prompt)
    assert shown.endswith("anatomy: Question 0?\nAnswer:")
    all_(few, name="lm_eval")
    assert len(list(own_cache.iterdir())) == 2
    encode_all(few, LMEvalChoice("{question}\n"), family("llama3"), 60, progress=False)
    assert len(list(own_cache.iterdir())) == 3


def test_a_changed_file_of_a_prompt_voids_what_was_encoded_with_it(records, own_cache, tmp_path, monkeypatch):
    def loaded(text: str):
        (tmp_path / "own_prompt.py").write_text(text)
        sys.modules["medqlora.data.encoding.encode"]._code.cache_clear()
        monkeypatch.delitem(sys.modules, "own_prompt", raising=False)
        importlib.invalidate_caches()
        return importlib.import_module("own_prompt").Own()

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    text = "from medqlora.data.prompts.lm_eval import LMEval\nclass Own(LMEval):\n    pass\n"
    encode_all(records[:2], loaded(text), family("llama3"), 60, progress=False)
    encode_all(records[:2], loaded(text), family("llama3"), 60, progress=False)
    assert len(list(own_cache.iterdir())) == 1
    encode_all(records[:2], loaded(text + "# changed\n"), family("llama3"), 60, progress=False)
    assert len(list(own_cache.iterdir())) == 2
    # also of a prompt within another
    for shown, files in ((text, 3), (text, 3), (text + "# changed\n", 4)):
        encode_all(records[:2], RationaleFirst(loaded(shown)), family("llama3"), 60, progress=False)
        assert len(list(own_cache.iterdir())) == files


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 not a zip", None])
def test_an_unreadable_cache_file_is_made_again(records, own_cache, damage):
    first = all_(records)
    (file,) = own_cache.iterdir()
    whole = file.read_bytes()
    middle = bytearray(whole)
    middle[len(whole) // 2] ^= 0xFF
    file.write_bytes(bytes(middle) if damage is None else damage)
    assert all_(records) == first
    assert file.read_bytes() != (damage or middle)


def test_a_cache_that_can_not_be_written_is_no_error(records, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MEDQLORA_CACHE", str(tmp_path / "file"))
    assert len(all_(records[:3])) == 3
    encoded_cache.save(tmp_path / "absent" / "x.npz", all_(records[:3]))


def test_nothing_to_encode(own_cache):
    assert all_([]) == []

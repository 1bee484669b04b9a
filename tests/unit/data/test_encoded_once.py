"""Of several processes that need the same tokenized records one makes them, and the others wait."""

import time
from pathlib import Path

from tokenizer_families import family
from warm_process import WarmProgram

_ENCODES = """
import sys, time
from pathlib import Path
from transformers import AutoTokenizer
from medqlora.data import SyntheticTrials, encode_all, lookup
from medqlora.data.encoding import encode

module = sys.modules["medqlora.data.encoding.encode"]
original, calls = module._Encoder.encode, []

def slow(self, records):
    calls.append(len(records))
    for _ in range(20_000):  # until the other process has come to wait for this one
        if any("Waiting for" in Path(log).read_text() for log in sys.argv[3:]):
            break
        time.sleep(0.005)
    return original(self, records)

module._Encoder.encode = slow
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
records = SyntheticTrials(train=300).read().train
print("ready", flush=True)
while not Path(sys.argv[2]).exists():
    time.sleep(0.001)
found = encode_all(records, lookup("medical"), tokenizer, 400)
print(sum(calls), len(found), hash(tuple(tuple(one.prompt) for one in found)))
"""


def test_two_processes_at_once_tokenize_once_between_them(tmp_path: Path) -> None:
    family("llama3").save_pretrained(tmp_path / "tokenizer")
    go, cache = tmp_path / "go", str(tmp_path / "cache")
    logs = [tmp_path / "first.txt", tmp_path / "second.txt"]
    given = (tmp_path / "tokenizer", go, *logs)
    both = [WarmProgram(_ENCODES, *given, log=log, MEDQLORA_CACHE=cache) for log in logs]
    while not all(log.exists() and "ready" in log.read_text() for log in logs):
        assert all(one.poll() is None for one in both)
        time.sleep(0.01)
    go.touch()
    assert [one.wait(timeout=120) for one in both] == [0, 0]
    said = [log.read_text().partition("ready\n")[2].splitlines() for log in logs]
    results = sorted(lines[-1].split() for lines in said)
    assert [result[0] for result in results] == ["0", "300"]
    assert results[0][1:] == results[1][1:]
    waited = [
        lines for lines in said if lines[0].startswith("Waiting for another process that is tokenizing")
    ]
    assert len(waited) == 1

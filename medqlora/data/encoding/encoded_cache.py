"""Encoded records on disk, so that a second run needn't tokenise them again.

One `.npz` a (records, prompt, tokenizer, limit), without pickle: `meta` is JSON as bytes (ids, and the
table of label ids), the other arrays hold all records' token ids end to end and their lengths.
"""

import contextlib
import hashlib
import json
import zipfile
import zlib
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medqlora.records import Encoded, Record
from medqlora.utils.cache import cache_folder
from medqlora.utils.files import replacing

if TYPE_CHECKING:
    import numpy as np

# what decides the ids besides the arguments; a change to one of them makes older files void
_CODE = (
    "encoding/encode.py",
    "encoding/encoded_cache.py",
    "encoding/tokens.py",
    "prompts/chat_template.py",
    "prompts/choice.py",
    "prompts/prompt.py",
)


def slot(records: Sequence[Record], identity: list[object]) -> Path | None:
    """Where the encoded form of `records` is kept; None where no cache folder can be made.

    Args:
        records: what is encoded.
        identity: what decides the result besides the records, as plain values.
    """
    import tokenizers

    digest = hashlib.sha256(json.dumps([identity, tokenizers.__version__]).encode())
    for name in _CODE:
        digest.update((Path(__file__).parents[1] / name).read_bytes())
    for record in records:
        fields = [
            record.id,
            record.question,
            record.contexts,
            list(record.options.items()),
            record.labels,
            record.answer,
            record.long_answer,
            record.subject,
        ]
        digest.update(json.dumps(fields).encode() + b"\n")
    try:
        return cache_folder("encoded") / f"{digest.hexdigest()}.npz"
    except OSError:
        return None


def save(path: Path, encoded: Sequence[Encoded]) -> None:
    """Write aside, then rename: readers see the whole file or none. A full disk is not an error."""
    import numpy as np

    table = list(dict.fromkeys(item.labels for item in encoded))
    number = {labels: index for index, labels in enumerate(table)}
    meta = json.dumps({"ids": [item.id for item in encoded], "labels": table})
    prompts, completions = array("i"), array("i")
    for item in encoded:
        prompts.extend(item.prompt)
        completions.extend(item.completion)
    with contextlib.suppress(OSError), replacing(path, durable=False) as file:
        np.savez(
            file,
            meta=np.frombuffer(meta.encode(), dtype=np.uint8),
            prompts=np.frombuffer(prompts, dtype=np.int32),
            prompt_lengths=np.array([len(item.prompt) for item in encoded], dtype=np.int32),
            completions=np.frombuffer(completions, dtype=np.int32) if completions else np.zeros(0, np.int32),
            completion_lengths=np.array([len(item.completion) for item in encoded], dtype=np.int32),
            label_table=np.array([number[item.labels] for item in encoded], dtype=np.int32),
            dropped=np.array([item.dropped for item in encoded], dtype=np.int32),
        )


def load(path: Path, records: Sequence[Record]) -> list[Encoded] | None:
    """What `save` wrote, or None where there is nothing, or nothing readable."""
    import numpy as np

    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
            meta = json.loads(held["meta"].tobytes())
            if meta["ids"] != [record.id for record in records]:
                return None
            table = [tuple(tuple(ids) for ids in labels) for labels in meta["labels"]]
            prompts = _split(held["prompts"], held["prompt_lengths"])
            completions = _split(held["completions"], held["completion_lengths"])
            rows = zip(meta["ids"], prompts, completions, held["label_table"], held["dropped"], strict=True)
            return [
                Encoded(id_, prompt, completion, table[label], int(dropped))
                for id_, prompt, completion, label, dropped in rows
            ]
    except (OSError, ValueError, KeyError, IndexError, TypeError, EOFError, zipfile.BadZipFile, zlib.error):
        return None


def _split(flat: "np.ndarray", lengths: "np.ndarray") -> list[array]:
    if int(lengths.sum()) != len(flat):
        raise ValueError("lengths and ids disagree")
    whole, start, parts = array("i", flat.astype("int32").tobytes()), 0, []
    for length in lengths.tolist():
        parts.append(whole[start : start + length])
        start += length
    return parts

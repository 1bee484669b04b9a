"""Encoded records on disk, so that a second run does not tokenize them again.

One `.npz` per (records, prompt, tokenizer, limit), without pickle. `meta` is JSON as bytes (ids, and the table of label
ids); the other arrays hold the token ids of all records, concatenated, and their lengths.
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

from medqlora.records import Encoded, ImageSlot, Record
from medqlora.utils.cache import cache_folder
from medqlora.utils.files import replacing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# code that decides the ids, besides the prompt's own classes; a change to one of these files voids older results
_CODE = (
    "encoding/encode.py",
    "encoding/encoded_cache.py",
    "encoding/image_slots.py",
    "encoding/labels.py",
    "encoding/tokens.py",
    "prompts/chat_template.py",
)


def slot(records: Sequence[Record], identity: list[object]) -> Path | None:
    """The cache file for the encoded `records`; None where no cache folder can be made.

    Args:
        records: the records to encode.
        identity: plain values that decide the result besides the records.
    """
    import tokenizers

    digest = hashlib.sha256(json.dumps([identity, tokenizers.__version__]).encode())
    for name in _CODE:
        digest.update((Path(__file__).parents[1] / name).read_bytes())
    for record in records:
        fields: list[object] = [
            record.id,
            record.question,
            record.contexts,
            list(record.options.items()),
            record.labels,
            record.answer,
            record.long_answer,
            record.subject,
        ]
        if record.images:
            fields.append([image.sha256 for image in record.images])
        digest.update(json.dumps(fields).encode() + b"\n")
    try:
        return cache_folder("encoded") / f"{digest.hexdigest()}.npz"
    except OSError:
        return None


def save(path: Path, encoded: Sequence[Encoded]) -> None:
    """Writes the file atomically: readers see a complete file or none. A full disk is not an error."""
    import numpy as np

    table = list(dict.fromkeys(item.labels for item in encoded))
    number = {labels: index for index, labels in enumerate(table)}
    content: dict[str, object] = {
        "ids": [item.id for item in encoded],
        "labels": table,
        "lead": next((item.lead for item in encoded if item.lead), ()),
    }
    if any(item.images for item in encoded):
        content["images"] = [[(slot.begin, slot.end) for slot in item.images] for item in encoded]
    meta = json.dumps(content)
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
            label_at=np.array([item.label_at for item in encoded], dtype=np.int32),
        )


def load(path: Path, records: Sequence[Record]) -> list[Encoded] | None:
    """The result that `save` wrote; None where there is no readable file."""
    import numpy as np

    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            meta = json.loads(arrays["meta"].tobytes())
            if meta["ids"] != [record.id for record in records]:
                return None
            table = [tuple(tuple(ids) for ids in labels) for labels in meta["labels"]]
            prompts = _split(arrays["prompts"], arrays["prompt_lengths"])
            completions = _split(arrays["completions"], arrays["completion_lengths"])
            rows = zip(
                meta["ids"],
                prompts,
                completions,
                arrays["label_table"],
                arrays["dropped"],
                arrays["label_at"],
                strict=True,
            )
            lead = tuple(meta["lead"])
            encoded = [
                Encoded(
                    id_,
                    prompt,
                    completion,
                    table[label],
                    int(dropped),
                    label_at=int(label_at),
                    lead=lead if table[label] else (),
                )
                for id_, prompt, completion, label, dropped, label_at in rows
            ]
            return encoded if "images" not in meta else _with_images(encoded, records, meta["images"])
    except (OSError, ValueError, KeyError, IndexError, TypeError, EOFError, zipfile.BadZipFile, zlib.error):
        return None


def _with_images(
    encoded: Sequence[Encoded], records: Sequence[Record], places: Sequence[Sequence[tuple[int, int]]]
) -> list[Encoded]:
    """The examples with their image slots; the files are the records', wherever they lie today."""
    return [
        item._replace(
            images=tuple(
                ImageSlot(image, begin, end) for image, (begin, end) in zip(record.images, found, strict=True)
            )
        )
        for item, record, found in zip(encoded, records, places, strict=True)
    ]


def _split(flat: "NDArray[np.int32]", lengths: "NDArray[np.int32]") -> list["array[int]"]:
    if int(lengths.sum()) != len(flat):
        raise ValueError("lengths and ids disagree")
    ids, start, parts = array("i", flat.astype("int32").tobytes()), 0, []
    for length in lengths.tolist():
        parts.append(ids[start : start + length])
        start += length
    return parts

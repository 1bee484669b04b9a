"""The folder of an adapter that was combined from others: their records, traces and scopes made one."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np

from medqlora.artifacts.adapter_folder import save_peft_files
from medqlora.artifacts.adapter_record import AdapterRecord
from medqlora.artifacts.card import model_card
from medqlora.artifacts.evaluated_weights import TRACE_FILE
from medqlora.data.test_sets import added, recorded_counts
from medqlora.errors import InputError
from medqlora.evaluation import TrainingTrace
from medqlora.inference.training_scope import TrainingScope
from medqlora.models.adapters import RECORD_FILE, TEST_QUESTIONS, read_adapter
from medqlora.models.adapters.combination import Combination
from medqlora.models.weight_files import ADAPTER_WEIGHTS
from medqlora.utils.digests import file_digest
from medqlora.utils.files import disk_errors_of_rust, now
from medqlora.utils.manifests import put_in_place, write_folder_manifest
from medqlora.utils.types import Tokenizer
from medqlora.utils.versions import versions


class Member(NamedTuple):
    """An adapter that is combined: its folder, its record, and its weight."""

    folder: str
    record: Mapping[str, object]
    weight: float


def read_members(folders: Sequence[str], weights: Sequence[float], option: str) -> list[Member]:
    """The members.

    Raises:
        InputError: one has no record, or they differ in base model, prompt or labels.
    """
    members = [
        Member(folder, read_adapter(folder, option), weight)
        for folder, weight in zip(folders, weights, strict=True)
    ]
    first = members[0]
    for member in members:
        if not member.record:
            raise InputError(
                f"{option} {member.folder}: it has no {RECORD_FILE}, so its base model and its prompt are not known: "
                "give adapters that `medqlora fit` trained"
            )
        for key in ("base_identity", "labels"):
            if member.record.get(key) != first.record.get(key):
                raise InputError(
                    f"{option}: {member.folder} and {first.folder} differ in {key}: combine adapters of one base model "
                    "and one kind of question"
                )
        if _prompt(member.record) != _prompt(first.record):
            raise InputError(
                f"{option}: {member.folder} and {first.folder} were trained with different prompts"
            )
    return members


def held_out_ids(members: Sequence[Member]) -> list[str]:
    """Ids of the validation questions that no member trained on, in the first member's order."""
    trained = {ident for member in members for ident in _ids(member.record, "train_ids")}
    listed = dict.fromkeys(ident for member in members for ident in _ids(member.record, "dev_ids"))
    return [ident for ident in listed if ident not in trained]


def combined_record(
    members: Sequence[Member],
    made: Combination,
    settings: Mapping[str, object],
    calibration: Mapping[str, object] | None,
) -> dict[str, object]:
    """The record of the combined adapter.

    Args:
        members: what it was made of.
        made: the combination.
        settings: the method and its options.
        calibration: on questions that no member trained on; None without any.
    """
    first = members[0].record
    data, lora, training, parameters = (
        _section(first, key) for key in ("data", "lora", "training", "parameters")
    )
    trained = list(dict.fromkeys(ident for member in members for ident in _ids(member.record, "train_ids")))
    same_fold = len({_section(member.record, "data").get("fold") for member in members}) == 1
    count = sum(value.numel() for value in made.weights.values())
    total, before = parameters.get("total"), parameters.get("trainable")
    known = isinstance(total, int) and isinstance(before, int)
    questions: Mapping[str, Mapping[str, int]] = {}
    for member in members:
        questions = added(questions, recorded_counts(member.record.get(TEST_QUESTIONS)))
    kept = {
        key: first[key]
        for key in ("base", "base_identity", "backend", "backend_options", "prompt", "labels")
        if key in first
    }
    return {
        **kept,
        "lora": {**lora, "r": made.rank, "alpha": made.rank, "use_rslora": False},
        "data": {
            **{key: value for key, value in data.items() if key != "fold" or same_fold},
            "train_questions": len(trained),
            "validation_sample": None,
        },
        "train_ids": trained,
        "dev_ids": held_out_ids(members),
        "test_questions": questions,
        "training": {key: training[key] for key in ("precision",) if key in training},
        "scores": {},
        "calibration": calibration,
        "chosen_by": {"score": None, "value": None},
        "parameters": {
            "trainable": count,
            "total": int(str(total)) - int(str(before)) + count if known else count,
        },
        "versions": versions(),
        "created": now(),
        "combined": {
            **settings,
            "deviation": made.deviation,
            "members": [_described(member) for member in members],
        },
    }


def write_combined(
    folder: Path,
    members: Sequence[Member],
    made: Combination,
    record: Mapping[str, object],
    tokenizer: Tokenizer,
) -> None:
    """Writes the adapter folder, whole or not at all.

    Raises:
        InputError: a member's trace or scope is damaged.
        OSError: it can't be written.
    """
    new, old = (folder.with_name(f".{folder.name}.{kind}") for kind in ("new", "old"))
    for path in (new, old):
        shutil.rmtree(path, ignore_errors=True)
    try:
        new.mkdir(parents=True)
        with disk_errors_of_rust(new):
            save_peft_files(made.peft_config, made.weights, new)
            tokenizer.save_pretrained(str(new))
        _write_trace(members, new)
        _scope(members).save(new)
        (new / RECORD_FILE).write_text(json.dumps(record, indent=2, default=str) + "\n", encoding="utf-8")
        (new / "README.md").write_text(model_card(cast(AdapterRecord, record)), encoding="utf-8")
        write_folder_manifest(new)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    put_in_place(new, folder, old)
    shutil.rmtree(old, ignore_errors=True)


def _write_trace(members: Sequence[Member], folder: Path) -> None:
    """The union of the members' traces; none where one of them has none."""
    files = [Path(member.folder).expanduser() / TRACE_FILE for member in members]
    if all(file.is_file() for file in files):
        traces = [TrainingTrace.load(file) for file in files]
        ids = tuple(dict.fromkeys(ident for trace in traces for ident in trace.ids))
        TrainingTrace(ids, np.unique(np.concatenate([trace.hashes for trace in traces]))).save(
            folder / TRACE_FILE
        )


def _scope(members: Sequence[Member]) -> TrainingScope:
    """What all members together were trained on; words are compared where they are for each of them."""
    scopes = [TrainingScope.load(Path(member.folder).expanduser(), member.record) for member in members]
    every = all(scope.words for scope in scopes)
    words = frozenset(word for scope in scopes for word in scope.words) if every else frozenset()
    return TrainingScope(
        next((scope.invented for scope in scopes if scope.invented), None),
        all(scope.always_context for scope in scopes),
        words,
        scopes[0].words_of if every else "nothing",
    )


def _described(member: Member) -> dict[str, object]:
    training, data = _section(member.record, "training"), _section(member.record, "data")
    return {
        "adapter": member.folder,
        "adapter_sha256": file_digest(Path(member.folder).expanduser() / ADAPTER_WEIGHTS)["sha256"],
        "weight": member.weight,
        "fold": data.get("fold"),
        "seed": training.get("seed"),
        "scores": member.record.get("scores"),
    }


def _section(record: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = record.get(key)
    return value if isinstance(value, Mapping) else {}


def _ids(record: Mapping[str, object], key: str) -> list[str]:
    value = record.get(key)
    return [str(one) for one in value] if isinstance(value, (list, tuple)) else []


def _prompt(record: Mapping[str, object]) -> object:
    return _section(record, "prompt").get("sha256")

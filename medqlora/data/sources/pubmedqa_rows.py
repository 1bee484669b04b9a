"""Rows of PubMedQA, in GitHub's shape or the Hub's, to records; `pubmedqa.py` shows one of each."""

from collections.abc import Mapping
from contextlib import suppress

from medqlora.data import fields
from medqlora.data.readers import Row
from medqlora.data.shapes.cells import CellError, parse_cell
from medqlora.data.wording import listed
from medqlora.errors import InputError
from medqlora.records import YES_NO_MAYBE, Record

_PREDS = ("reasoning_required", "reasoning_free")


def record_of(row: Row, kind: str = "labeled") -> Record:
    """The record of a row in either shape.

    Args:
        row: GitHub's, keyed by PMID, or the Hub's, also from a CSV.
        kind: the kind of the set: labeled, artificial or unlabeled.

    Raises:
        InputError: the row has neither shape, or a wrong value.
    """
    value = row.value
    if "QUESTION" in value or (row.key is not None and "question" not in value):
        if row.key is None:
            raise InputError(
                f"{row.where}: a row in GitHub's shape without its PMID: give an object keyed by PMID"
            )
        return _build(
            row, kind, "PMID", row.key, value, ("QUESTION", "CONTEXTS", "LABELS", "MESHES", "LONG_ANSWER")
        )
    if "pubid" not in value:
        raise InputError(
            f"{row.where}: neither GitHub's shape (QUESTION, keyed by PMID) nor the Hub's (pubid, question); its keys "
            f"are {listed(list(value)[:6])}: read other data with class_path medqlora.data.JSONLines"
        )
    context = value.get("context")
    if isinstance(context, str):  # a CSV's cell
        with suppress(CellError):
            context = parse_cell(context)
    if not isinstance(context, dict):
        raise fields.bad(row, "context", context, "give an object with contexts, labels and meshes")
    flat = {**context, **{key: item for key, item in value.items() if key != "context"}}
    return _build(
        row, kind, "pubid", value["pubid"], flat, ("question", "contexts", "labels", "meshes", "long_answer")
    )


def _build(
    row: Row,
    kind: str,
    id_key: str,
    id_value: object,
    value: Mapping[str, object],
    keys: tuple[str, str, str, str, str],
) -> Record:
    question, contexts, sections, meshes, long_answer = keys
    pmid = fields.identity(row, id_key, id_value)
    if not (pmid.isascii() and pmid.isdecimal()):
        raise fields.bad(row, id_key, id_value, "give a PMID")
    passages = fields.texts(row, contexts, value.get(contexts))
    names = fields.texts(row, sections, value.get(sections))
    # the automatic sets have rows with missing or odd sections, and section names are for display only
    if kind != "labeled" and len(names) != len(passages):
        names = ()
    if kind == "labeled" and not any(passage.strip() for passage in passages):
        raise fields.bad(row, contexts, value.get(contexts), "give the passages of the abstract")
    if names and len(names) != len(passages):
        raise fields.bad(row, sections, list(names), f"give a name to each of the {len(passages)} {contexts}")
    rationale = fields.text(row, long_answer, value.get(long_answer), needed=kind == "unlabeled")
    answer: str | None = None
    if kind != "unlabeled":
        answer = fields.one_of(row, "final_decision", value.get("final_decision"), YES_NO_MAYBE)
    preds = {name: _letters(value.get(f"{name}_pred")) for name in _PREDS}
    return Record(
        id=pmid,
        question=fields.text(row, question, value.get(question), needed=True),
        contexts=passages,
        context_labels=names,
        # an unlabeled row has no decision: its conclusion is the answer
        labels=() if kind == "unlabeled" else YES_NO_MAYBE,
        answer=rationale if kind == "unlabeled" else answer,
        long_answer="" if kind == "unlabeled" else rationale,
        topics=fields.texts(row, meshes, value.get(meshes)),
        annotations={
            name: fields.one_of(row, f"{name}_pred", pred, YES_NO_MAYBE)
            for name, pred in preds.items()
            if not fields.is_missing(pred) and pred != []
        },
        where=row.where,
    )


def _letters(value: object) -> object:
    """Joins the characters of an annotator's answer, as the Hub has it: ["y", "e", "s"]."""
    if isinstance(value, list) and value and all(isinstance(letter, str) for letter in value):
        return "".join(value)
    return value

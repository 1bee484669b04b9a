"""Chat and instruction data as rows of question, contexts and answer.

- `messages` (OpenAI) and `conversations` (ShareGPT): the last answer is learned; the turn before it is the
  question, and what stands before that is context, which a long prompt is shortened by.
- Alpaca: instruction, input, output. Where every row has the same instruction, the input is the question.
- prompt and completion; also as lists of turns (TRL).
- SQuAD: context, question, answers {"text": […], "answer_start": […]}; and its articles with `paragraphs` and `qas`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from medqlora.data import fields
from medqlora.data.fields import is_missing
from medqlora.data.readers import Row
from medqlora.data.shapes.columns import key
from medqlora.data.shapes.contexts import parsed_cell
from medqlora.data.wording import plain
from medqlora.errors import InputError

_CHATS = ("messages", "conversations", "conversation", "dialogue", "dialog", "turns", "chat")
_COMPLETIONS = ("completion", "output", "response", "answer", "chosen")
_ROLE_KEYS = ("role", "from", "speaker", "author")
_TEXT_KEYS = ("content", "value", "text", "message")
_ROLES = {
    **dict.fromkeys(("user", "human", "prompter", "patient", "question"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "bot", "chatgpt", "doctor", "answer", "ai"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "function", "observation", "ipython"), "tool"),
}


class Form(NamedTuple):
    """What kind of chat or instruction data a file holds.

    Attributes:
        kind: chat, turns (prompt and completion as turns), alpaca, prompt or squad.
        words: what the first line says of it.
        columns: what the kind calls its columns → the file's.
        swapped: the instruction is the same everywhere, so the input is the question.
    """

    kind: str
    words: str
    columns: Mapping[str, str]
    swapped: bool = False


def expanded(rows: Sequence[Row]) -> list[Row]:
    """SQuAD's articles as a row for each question; other rows as they are."""
    result: list[Row] = []
    for row in rows:
        # a reader may have unwrapped the article already
        paragraphs = [row.value] if isinstance(row.value.get("qas"), list) else row.value.get("paragraphs")
        nested = isinstance(paragraphs, list) and any(
            isinstance(part, Mapping) and isinstance(part.get("qas"), list) for part in paragraphs
        )
        result += _of_article(row, paragraphs) if nested and isinstance(paragraphs, list) else [row]
    return result


def _of_article(row: Row, paragraphs: Iterable[Any]) -> list[Row]:
    rows: list[Row] = []
    for paragraph in paragraphs:
        if not isinstance(paragraph, Mapping) or not isinstance(paragraph.get("qas"), list):
            raise fields.bad(row, "paragraphs", paragraph, 'give objects with "context" and "qas"')
        for asked in paragraph["qas"]:
            if not isinstance(asked, Mapping):
                raise fields.bad(row, "qas", asked, 'give objects with "question" and "answers"')
            number = len(rows) + 1
            value = {"context": paragraph.get("context"), **asked}
            place = f"{row.key or row.number}.{number}"
            rows.append(Row(f"{row.where}, question {number}", row.number, place, value, row.file))
    return rows


def form_of(rows: Sequence[Row]) -> Form | None:
    """The form that the columns of a file show; None for a table of questions."""
    there = list(dict.fromkeys(column for row in rows for column in row.value))
    keys = {key(column): column for column in reversed(there)}
    table = bool({"question", "query"} & set(keys)) and bool({"answer", "label", "finaldecision"} & set(keys))
    for name in _CHATS:
        if not table and name in keys and _has_turns(rows, keys[name]):
            return Form("chat", "chat messages (last answer learned)", {"turns": keys[name]})
    completion = next((keys[name] for name in _COMPLETIONS if name in keys), None)
    if "question" in keys or "query" in keys:
        return _squad(rows, keys)
    if "instruction" in keys:
        return _instructions(rows, keys)
    if completion is None:
        return None
    if "prompt" in keys and _has_turns(rows, keys["prompt"]):
        columns = {"turns": keys["prompt"], "more": completion}
        return Form("turns", "chat messages (last answer learned)", columns)
    asked = next((keys[name] for name in ("prompt", "input") if name in keys), None)
    if asked is None:
        return None
    return Form("prompt", f"{asked} and {completion}", {"question": asked, "answer": completion})


def _instructions(rows: Sequence[Row], keys: Mapping[str, str]) -> Form:
    columns = {"question": keys["instruction"]}
    answer = next((keys[name] for name in (*_COMPLETIONS, "label", "target", "gold") if name in keys), None)
    if answer is not None:
        columns["answer"] = answer
    if "input" not in keys:
        return Form("prompt", f"instructions ({', '.join(columns.values())})", columns)
    columns = {"question": keys["instruction"], "input": keys["input"], **columns}
    swapped = _is_command(rows, columns["question"], columns["input"])
    words = f"Alpaca ({', '.join(columns.values())})"
    if swapped:
        words += f": {columns['question']} is the same in every row, so {columns['input']} is the question"
    return Form("alpaca", words, columns, swapped)


def _squad(rows: Sequence[Row], keys: Mapping[str, str]) -> Form | None:
    if "answers" not in keys or "answer" in keys:
        return None
    column = keys["answers"]
    held = next((row.value[column] for row in rows if not is_missing(row.value.get(column))), None)
    try:
        held = parsed_cell(rows[0], column, held)
    except InputError:
        return None
    first = held[0] if isinstance(held, list) and held else held
    if not isinstance(first, Mapping) or "text" not in {key(str(name)) for name in first}:
        return None
    return Form("squad", "SQuAD's form (answers with their texts)", {"answer": column})


def _has_turns(rows: Sequence[Row], column: str) -> bool:
    for row in rows[:50]:
        value = row.value.get(column)
        if is_missing(value):
            continue
        try:
            value = parsed_cell(row, column, value)
        except InputError:
            return False
        return isinstance(value, list) and any(
            isinstance(turn, Mapping) and {key(str(name)) for name in turn} & {*_ROLE_KEYS} for turn in value
        )
    return False


def _is_command(rows: Sequence[Row], instruction: str, text: str) -> bool:
    """Whether every row has the same instruction, which is no question itself, with a text of its own."""
    first = rows[0].value.get(instruction)
    if isinstance(first, str) and first.rstrip().endswith("?"):
        return False
    inputs = {str(row.value.get(text)) for row in rows}
    return (
        len(rows) > 1
        and len(inputs) > 1
        and all(row.value.get(instruction) == first and not is_missing(row.value.get(text)) for row in rows)
    )


def in_our_columns(row: Row, form: Form, *, answers: bool = True) -> Row:
    """The row with question, contexts and answer under our names, and its other columns as they are.

    Args:
        row: the row.
        form: the file's form.
        answers: whether the answers are read.

    Raises:
        InputError: its turns or texts are not as the form has them.
    """
    taken = set(form.columns.values())
    if form.kind != "squad":  # the whole example as one text, with its answer, stands beside it in some sets
        taken.update(name for name in row.value if key(name) in ("text", "formatted"))
    if (
        answers
        and form.kind in ("turns", "prompt")
        and any(
            held is False and key(name) == "label" and name not in taken for name, held in row.value.items()
        )
    ):  # TRL's unpaired preferences: https://huggingface.co/docs/trl/dataset_formats
        raise InputError(
            f"{row.where}: label is false beside a completion: such a completion is one to avoid, and no answer: leave "
            "out the rows whose label is false, or rename the column"
        )
    before, theirs = ([], []) if form.kind == "squad" else _before(row)
    value = {name: held for name, held in row.value.items() if name not in (*taken, *theirs)}
    if form.kind in ("chat", "turns"):
        value.update(_of_turns(row, form.columns, before))
    elif form.kind == "squad":
        value["answer"] = _first_text(row, form.columns["answer"])
    else:
        asked, given = (row.value.get(form.columns.get(name, ""), None) for name in ("question", "input"))
        if form.swapped:
            asked, given = given, asked
        value["question"] = asked
        if "input" in form.columns or before:
            given = parsed_cell(row, form.columns.get("input", "input"), given)
            value["contexts"] = [*before, *(given if isinstance(given, list) else [given])]
        value["answer"] = row.value.get(form.columns.get("answer", ""))
    return row._replace(value=value)


def _before(row: Row) -> tuple[list[str], list[str]]:
    """The contexts that LLaMA-Factory's columns `system` and `history` ([[question, answer], …]) hold, and the
    columns' names."""
    keys = {key(name): name for name in row.value}
    texts: list[str] = []
    theirs = [keys[name] for name in ("system", "systemprompt", "history") if name in keys]
    for column in theirs:
        held = parsed_cell(row, column, row.value[column])
        if is_missing(held):
            continue
        if isinstance(held, str) and key(column) != "history":
            texts.append(held)
        elif isinstance(held, list) and all(
            isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in held
        ):
            for asked, said in held:
                texts += [f"User: {asked}", f"Assistant: {said}"]
        else:
            raise fields.bad(
                row, column, held, "give a text as system, and pairs of question and answer as history"
            )
    return texts, theirs


def _first_text(row: Row, column: str) -> object:
    held = parsed_cell(row, column, row.value.get(column))
    if isinstance(held, list):
        held = held[0] if held else None
    text = held.get("text") if isinstance(held, Mapping) else held
    return (text[0] if text else None) if isinstance(text, (list, tuple)) else text


def _of_turns(row: Row, columns: Mapping[str, str], before: Sequence[str]) -> dict[str, object]:
    turns = _turns(row, columns["turns"], "user")
    if "more" in columns:
        turns += _turns(row, columns["more"], "assistant")
    answer = None
    if turns and turns[-1][0] == "assistant":
        answer = turns.pop()[1]
    asked = next((place for place in reversed(range(len(turns))) if turns[place][0] == "user"), None)
    if asked is None:
        raise InputError(
            f"{row.where}: {plain(columns['turns'])} has no user's turn before its last answer: add one"
        )
    question = turns.pop(asked)[1]
    spoken = {"user": "User: ", "assistant": "Assistant: ", "tool": "Tool: ", "system": ""}
    contexts = [*before, *(spoken[role] + text for role, text in turns)]
    return {"question": question, "contexts": contexts, "answer": answer}


def _turns(row: Row, column: str, alone: str) -> list[tuple[str, str]]:
    """Role and text of each turn; a text by itself is one turn of the role `alone`."""
    held = parsed_cell(row, column, row.value.get(column))
    if isinstance(held, str):
        return [(alone, held)]
    if is_missing(held):
        return []
    if not isinstance(held, (list, tuple)):
        raise fields.bad(row, column, held, "give a list of turns")
    turns = []
    for turn in held:
        keys = {key(str(name)): name for name in turn} if isinstance(turn, Mapping) else {}
        role = next((turn[keys[name]] for name in _ROLE_KEYS if name in keys), None)
        ours = _ROLES.get(role.strip().casefold()) if isinstance(role, str) else None
        if ours is None:
            raise fields.bad(row, f"{column}: role", role, "give system, user or assistant")
        text = next((turn[keys[name]] for name in _TEXT_KEYS if name in keys), None)
        if isinstance(text, (list, tuple)):
            text = "\n".join(_part(row, column, part) for part in text)
        text = fields.text(row, f"{column}: text", text)
        if text.strip():
            turns.append((ours, text))
    return turns


def _part(row: Row, column: str, part: object) -> str:
    if isinstance(part, Mapping) and isinstance(part.get("text"), str):
        return str(part["text"])
    if isinstance(part, str):
        return part
    raise fields.bad(row, f"{column}: content", part, "give turns of text alone")

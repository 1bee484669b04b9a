"""Converts chat and instruction data to rows of question, contexts and answer.

- `messages` (OpenAI) and `conversations` (ShareGPT): the last answer is the target, the user's turn before it the
  question, and earlier turns are contexts, which long prompts truncate.
- Alpaca: instruction, input, output. If every row has the same instruction, the input is the question.
- prompt and completion; also as lists of turns (TRL).
- SQuAD: context, question, answers {"text": […], "answer_start": […]}; also articles with `paragraphs` and `qas`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from medqlora.data import fields
from medqlora.data.fields import is_missing
from medqlora.data.readers import Row
from medqlora.data.shapes.columns import columns_of, key, lookup
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
    """The format of chat or instruction data.

    Attributes:
        kind: chat, turns (prompt and completion as turns), alpaca, prompt or squad.
        words: the description in the file's remark.
        columns: column of the format → column of the file.
        swapped: all instructions are the same, so the input is the question.
    """

    kind: str
    words: str
    columns: Mapping[str, str]
    swapped: bool = False


def expanded(rows: Sequence[Row]) -> list[Row]:
    """Splits SQuAD articles into one row per question; returns other rows unchanged."""
    result: list[Row] = []
    for row in rows:
        # a reader may have unwrapped the article
        paragraphs = [row.value] if isinstance(row.value.get("qas"), list) else row.value.get("paragraphs")
        if isinstance(paragraphs, list) and any(map(_has_questions, paragraphs)):
            result += _of_article(row, paragraphs)
        else:
            result.append(row)
    return result


def _has_questions(paragraph: object) -> bool:
    return isinstance(paragraph, Mapping) and isinstance(paragraph.get("qas"), list)


def _of_article(row: Row, paragraphs: Iterable[object]) -> list[Row]:
    rows: list[Row] = []
    for paragraph in paragraphs:
        if not isinstance(paragraph, Mapping) or not _has_questions(paragraph):
            raise fields.bad(row, "paragraphs", paragraph, 'give objects with "context" and "qas"')
        for question in paragraph["qas"]:
            if not isinstance(question, Mapping):
                raise fields.bad(row, "qas", question, 'give objects with "question" and "answers"')
            number = len(rows) + 1
            value = {"context": paragraph.get("context"), **question}
            key_ = f"{row.key or row.number}.{number}"
            rows.append(Row(f"{row.where}, question {number}", row.number, key_, value, row.file))
    return rows


def form_of(rows: Sequence[Row]) -> Form | None:
    """The format that the columns imply; None for a table of questions."""
    keys = {key(column): column for column in reversed(columns_of(rows))}
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
        turns = {"turns": keys["prompt"], "more": completion}
        return Form("turns", "chat messages (last answer learned)", turns)
    question = next((keys[name] for name in ("prompt", "input") if name in keys), None)
    if question is None:
        return None
    return Form("prompt", f"{question} and {completion}", {"question": question, "answer": completion})


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
    answers = next((row.value[column] for row in rows if not is_missing(row.value.get(column))), None)
    try:
        answers = parsed_cell(rows[0], column, answers)
    except InputError:
        return None
    first = answers[0] if isinstance(answers, list) and answers else answers
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
    """Whether all rows have the same instruction, which is not a question, and different inputs."""
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
    """Returns the row with the columns question, contexts and answer, and its unrelated columns.

    Args:
        row: the row.
        form: the format of the file.
        answers: whether the answers are read.

    Raises:
        InputError: the turns or texts do not match the format.
    """
    taken = set(form.columns.values())
    if form.kind != "squad":  # some data sets add the formatted example, including its answer
        taken.update(name for name in row.value if key(name) in ("text", "formatted"))
    rejected = any(
        item is False and key(name) == "label" and name not in taken for name, item in row.value.items()
    )
    if (
        answers and form.kind in ("turns", "prompt") and rejected
    ):  # TRL's unpaired preferences: https://huggingface.co/docs/trl/dataset_formats
        raise InputError(
            f"{row.where}: label is false beside a completion: a rejected completion is not an answer: leave out the "
            "rows whose label is false, or rename the column"
        )
    history, history_columns = ([], []) if form.kind == "squad" else _history(row)
    value = {name: item for name, item in row.value.items() if name not in (*taken, *history_columns)}
    if form.kind in ("chat", "turns"):
        value.update(_of_turns(row, form.columns, history))
    elif form.kind == "squad":
        value["answer"] = _first_text(row, form.columns["answer"])
    else:
        question, context = (row.value.get(form.columns.get(name, "")) for name in ("question", "input"))
        if form.swapped:
            question, context = context, question
        value["question"] = question
        if "input" in form.columns or history:
            context = parsed_cell(row, form.columns.get("input", "input"), context)
            value["contexts"] = [*history, *(context if isinstance(context, list) else [context])]
        value["answer"] = row.value.get(form.columns.get("answer", ""))
    return row._replace(value=value)


def _history(row: Row) -> tuple[list[str], list[str]]:
    """The contexts in LLaMA-Factory's columns `system` and `history` ([[question, answer], …]), and the columns."""
    keys = {key(name): name for name in row.value}
    texts: list[str] = []
    columns = [keys[name] for name in ("system", "systemprompt", "history") if name in keys]
    for column in columns:
        value = parsed_cell(row, column, row.value[column])
        if is_missing(value):
            continue
        if isinstance(value, str) and key(column) != "history":
            texts.append(value)
        elif isinstance(value, list) and all(
            isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in value
        ):
            for question, answer in value:
                texts += [f"User: {question}", f"Assistant: {answer}"]
        else:
            raise fields.bad(
                row, column, value, "give a text as system, and pairs of question and answer as history"
            )
    return texts, columns


def _first_text(row: Row, column: str) -> object:
    answer = parsed_cell(row, column, row.value.get(column))
    if isinstance(answer, list):
        answer = answer[0] if answer else None
    text = answer.get("text") if isinstance(answer, Mapping) else answer
    return (text[0] if text else None) if isinstance(text, (list, tuple)) else text


def _of_turns(row: Row, columns: Mapping[str, str], history: Sequence[str]) -> dict[str, object]:
    turns = _turns(row, columns["turns"], "user")
    if "more" in columns:
        turns += _turns(row, columns["more"], "assistant")
    answer = None
    if turns and turns[-1][0] == "assistant":
        answer = turns.pop()[1]
    last = next((index for index in reversed(range(len(turns))) if turns[index][0] == "user"), None)
    if last is None:
        raise InputError(
            f"{row.where}: {plain(columns['turns'])} has no user's turn before its last answer: add one"
        )
    question = turns.pop(last)[1]
    prefixes = {"user": "User: ", "assistant": "Assistant: ", "tool": "Tool: ", "system": ""}
    contexts = [*history, *(prefixes[role] + text for role, text in turns)]
    return {"question": question, "contexts": contexts, "answer": answer}


def _turns(row: Row, column: str, default_role: str) -> list[tuple[str, str]]:
    """The role and the text of each turn; a plain text is one turn with the default role."""
    value = parsed_cell(row, column, row.value.get(column))
    if isinstance(value, str):
        return [(default_role, value)]
    if is_missing(value):
        return []
    if not isinstance(value, (list, tuple)):
        raise fields.bad(row, column, value, "give a list of turns")
    turns = []
    for turn in value:
        turn = turn if isinstance(turn, Mapping) else {}
        role = lookup(turn, _ROLE_KEYS)
        known = _ROLES.get(role.strip().casefold()) if isinstance(role, str) else None
        if known is None:
            raise fields.bad(row, f"{column}: role", role, "give system, user or assistant")
        text = lookup(turn, _TEXT_KEYS)
        if isinstance(text, (list, tuple)):
            text = "\n".join(_part(row, column, part) for part in text)
        text = fields.text(row, f"{column}: text", text)
        if text.strip():
            turns.append((known, text))
    return turns


def _part(row: Row, column: str, part: object) -> str:
    if isinstance(part, Mapping) and isinstance(part.get("text"), str):
        return str(part["text"])
    if isinstance(part, str):
        return part
    raise fields.bad(row, f"{column}: content", part, "give turns of text alone")

"""The page of `medqlora data`, in the style of `report.html`: it loads nothing and runs no script."""

from collections.abc import Mapping, Sequence

from medqlora.data.encoding.labels import shared_prefix
from medqlora.evaluation.data_look import (
    SET_NAMES,
    DataLook,
    LookFacts,
    Pair,
    Token,
    shown_examples,
    token_mask,
)
from medqlora.evaluation.report.context import Context
from medqlora.evaluation.report.look_console import findings, table_rows
from medqlora.evaluation.report.look_plots import lengths_figure, packing_figure
from medqlora.evaluation.report.markup import Markup, element, joined, picture, table
from medqlora.evaluation.report.page import page, section
from medqlora.evaluation.report.plots import svg
from medqlora.records import Encoded, Record
from medqlora.utils.types import Tokenizer

#: examples whose tokens the page has
EXAMPLES = 5
#: pairs of a table
_PAIRS = 20
#: tokens of an example before the rest is folded away from its middle
_TOKENS = 1500


def render_look(
    look: DataLook,
    facts: LookFacts,
    tokenizer: Tokenizer,
    about: Mapping[str, str],
    examples: int = EXAMPLES,
) -> str:
    """The page.

    Args:
        look: the sets.
        facts: its figures.
        tokenizer: has encoded the sets.
        about: more for the header: file, base model, date.
        examples: how many examples are shown token by token.
    """
    questions = sum(one["questions"] for one in facts["sets"].values())
    counts = ", ".join(f"{one['questions']:,} {SET_NAMES[name]}" for name, one in facts["sets"].items())
    heads = ["", *(SET_NAMES[name] for name in facts["sets"])]
    contents: dict[str, Markup | None] = {
        "The sets": table(heads, [[name.strip(), *cells] for name, cells in table_rows(facts)]),
        "How the files were read": _remarks(facts["remarks"]),
        "Lengths": _lengths(look),
        "The same question twice": _pairs(look, facts["same"]),
        "Nearly the same wording": _pairs(look, facts["nearly_same"]),
        "Tokens and loss mask": _examples(look, tokenizer, examples),
        "Packing of the first steps": _packing(look),
    }
    return page(
        title=f"{facts['source']}: {questions:,} questions",
        subtitle=f"{counts}; prompt {facts['prompt']}; before any training",
        headline=element(
            "p", element("b", f"{questions:,}"), " questions as a fit will read them", class_="headline"
        ),
        cautions=findings(facts) or ["Nothing to mend was found."],
        sections=joined(part for title, content in contents.items() for part in section(title, content)),
        context=Context(facts=dict(about)),
    )


def _remarks(lines: Sequence[str]) -> Markup | None:
    return element("ul", *(element("li", line) for line in lines)) if lines else None


def _lengths(look: DataLook) -> Markup:
    caption = f"A context is shortened where its prompt has more than {look.max_prompt_tokens:,} tokens."
    return element(
        "div",
        picture(svg(lengths_figure(look)), "Histogram of prompt lengths", caption, wide=True),
        class_="figures",
    )


def _pairs(look: DataLook, pairs: Sequence[Pair]) -> Markup | None:
    if not pairs:
        return None
    by_id = {record.id: record for records in look.records.values() for record in records}
    rows = [
        [
            _question(by_id[pair["first"]], pair["first_set"]),
            _question(by_id[pair["second"]], pair["second_set"]),
            f"{pair['similarity']:.0%}",
        ]
        for pair in pairs[:_PAIRS]
    ]
    more = (
        element("p", f"The first {_PAIRS} of {len(pairs):,}.", class_="soft") if len(pairs) > _PAIRS else ""
    )
    return joined((table(["question", "question", "shared wording"], rows), more))


def _question(record: Record, name: str) -> Markup:
    words = record.question if len(record.question) <= 160 else f"{record.question[:159]}…"
    answer = "" if record.answer is None else f" → {record.answer[:40]}"
    return joined((words, element("small", f"{record.id}, {SET_NAMES[name]}{answer}")))


def _examples(look: DataLook, tokenizer: Tokenizer, count: int) -> Markup | None:
    records, encoded = look.records["train"], look.encoded["train"]
    if count < 1 or not encoded:
        return None
    legend = element(
        "p",
        "The shading alternates from token to token. Tokens ",
        element("span", "in bold with a line below", class_="learned"),
        " carry loss: they are learned. All others are only read. The mask is that of the row that training makes.",
        class_="tokens",
    )
    chosen = shown_examples(records, encoded, count)
    return joined((legend, *(_example(records[index], encoded[index], tokenizer) for index in chosen)))


def _example(record: Record, example: Encoded, tokenizer: Tokenizer) -> Markup:
    tokens = token_mask(example, tokenizer)
    learned = sum(token.learned for token in tokens)
    facts = f"id {record.id} · {len(tokens):,} tokens, {learned:,} of them learned"
    if example.dropped:
        facts += f" · {example.dropped:,} tokens of the context left out"
    if example.labels and shared_prefix(example.labels) is None:
        scored = ", ".join(
            f"{label}: {len(ids)} token{'s' * (len(ids) != 1)}"
            for label, ids in zip(record.labels, example.labels, strict=True)
        )
        facts += f" · labels scored: {scored}"
    return element("article", element("p", facts, class_="small"), _tokens(tokens))


def _tokens(tokens: Sequence[Token]) -> Markup:
    """The tokens; the middle of a very long prompt is left out, never a learned token."""
    first_learned = next((place for place, token in enumerate(tokens) if token.learned), len(tokens))
    parts: list[object] = []
    left_out = max(0, first_learned - _TOKENS)
    for place, token in enumerate(tokens):
        if left_out and _TOKENS // 2 <= place < _TOKENS // 2 + left_out:
            if place == _TOKENS // 2:
                parts.append(f" … {left_out:,} tokens of the prompt … ")
            continue
        parts.append(
            element(
                "span", token.text.replace("\n", "↵\n"), **({"class_": "learned"} if token.learned else {})
            )
        )
    return element("p", *parts, class_="tokens")


def _packing(look: DataLook) -> Markup | None:
    steps = look.first_steps()
    if not steps:
        return None
    caption = (
        f"A step has {look.batch_size} examples in micro-batches of at most {look.micro_batch_tokens:,} tokens. Pale: "
        "read; dark: learned. Examples of a row do not attend to each other, and a step's loss is divided by all its "
        "learned tokens: packing changes memory and speed alone."
    )
    drawn = picture(
        svg(packing_figure(steps, look.micro_batch_tokens)), "Packing of the first steps", caption, wide=True
    )
    rows = [
        [f"step {number + 1}, row {place + 1}", len(row.examples), f"{row.tokens:,}", f"{row.learned:,}"]
        for number, step in enumerate(steps)
        for place, row in enumerate(step)
    ]
    heads = ["row", "examples", "tokens", "learned"]
    return joined((element("div", drawn, class_="figures"), _row_table(heads, rows)))


def _row_table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> Markup:
    return element("details", element("summary", "The rows in figures"), table(heads, rows))

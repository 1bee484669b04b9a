"""The table of `medqlora data` in the terminal, and the sentences that the page has too."""

from collections.abc import Mapping, Sequence

from medqlora.data.wording import plain
from medqlora.evaluation.data_look import SET_NAMES, LookFacts, Pair, SetFacts

#: pairs and ids that the terminal lists
_SHOWN = 5


def look_lines(facts: LookFacts, tokenizer: str) -> list[str]:
    """The table and what to look at, for the terminal."""
    names = list(facts["sets"])
    rows = table_rows(facts)
    width = max(len(name) for name, _ in rows)
    heads = [SET_NAMES[name] for name in names]
    lines = [
        f"{facts['source']}, prompt {facts['prompt']}, tokens of {tokenizer}",
        "",
        f"{'':<{width}}" + "".join(f"{head:>14}" for head in heads),
    ]
    lines += [f"{name:<{width}}" + "".join(f"{cell:>14}" for cell in cells) for name, cells in rows]
    found = findings(facts)
    return [*lines, "", *(found or ["Nothing to mend: no repeated, shortened or context-free question."])]


def table_rows(facts: LookFacts) -> list[tuple[str, list[str]]]:
    """Name of the row, and its cell for each set."""
    sets = list(facts["sets"].values())
    labels = dict.fromkeys(label for one in sets for label in one["labels"])
    rows = [("questions", [f"{one['questions']:,}" for one in sets])]
    rows += [(f"  {plain(label)}", [_share(one, label) for one in sets]) for label in list(labels)[:12]]
    numbers: tuple[tuple[str, str], ...] = (
        ("prompt tokens, mean", "prompt_mean"),
        ("  median", "prompt_median"),
        ("  longest", "prompt_longest"),
        ("answer tokens, mean", "completion_mean"),
        ("  longest", "completion_longest"),
        (f"shortened to {facts['max_prompt_tokens']:,}", "shortened"),
        ("without context", "without_context"),
        ("repeated in the set", "repeated"),
    )
    for name, key in numbers:
        rows.append((name, [f"{float(str(dict(one)[key])):,.0f}" for one in sets]))
    return rows


def _share(one: SetFacts, label: str) -> str:
    count = one["labels"].get(label, 0)
    return f"{count:,} ({count / one['questions']:.0%})"


def findings(facts: LookFacts) -> list[str]:
    """A sentence for each thing to look at, the gravest first."""
    leaks, lines = [], []
    kinds = (
        (facts["same"], "have the same texts", "so the score is too good"),
        (facts["nearly_same"], "have nearly the same wording", "so the score may be too good"),
    )
    for pairs, have, consequence in kinds:
        across = [pair for pair in pairs if pair["first_set"] != pair["second_set"]]
        within = [pair for pair in pairs if pair["first_set"] == pair["second_set"]]
        if across:
            leaks.append(f"Leak: {_count(across)} in two sets {have}, {consequence}: {_listed(across)}")
        if within:
            lines.append(f"{_count(within).capitalize()} in one set {have}: {_listed(within)}")
    lines += [line for one in facts["sets"].items() if (line := _shortened(*one, facts["max_prompt_tokens"]))]
    bare = facts["without_context"]
    total = sum(one["questions"] for one in facts["sets"].values())
    if bare and len(bare) < total:
        shown = ", ".join(map(plain, bare[:_SHOWN])) + (", …" if len(bare) > _SHOWN else "")
        lines.append(f"{len(bare):,} of {total:,} questions have no context, others have one: {shown}")
    warned = [line for line in facts["remarks"] if line.lower().startswith("warning")]
    # repeated questions with equal answers are among the pairs above
    lines += [line for line in warned if " more than once: " not in line]
    if facts["compared"] < total:
        lines.append(
            f"Near-duplicates were looked for among the first {facts['compared']:,} questions alone."
        )
    return [*leaks, *lines]


def _shortened(name: str, one: SetFacts, limit: int) -> str:
    if not one["shortened"]:
        return ""
    return (
        f"Contexts of {one['shortened']:,} {SET_NAMES[name]} questions are shortened to the limit of {limit:,} prompt "
        f"tokens, by {one['dropped_tokens']:,} in all: raise --data.max_prompt_tokens, or accept it"
    )


def _count(pairs: Sequence[Pair]) -> str:
    return f"{len(pairs):,} pair{'s' * (len(pairs) != 1)} of questions"


def _listed(pairs: Sequence[Pair]) -> str:
    shown = [f"{_place(pair, 'first')} and {_place(pair, 'second')}" for pair in pairs[:_SHOWN]]
    return "; ".join(shown) + ("; …" if len(pairs) > _SHOWN else "")


def _place(pair: Mapping[str, object], which: str) -> str:
    return f"{plain(str(pair[which]))} ({SET_NAMES[str(pair[f'{which}_set'])]})"

"""The words of a query that are searched."""

import re

#: terms of a query
MOST_TERMS = 64
WORD = re.compile(r"\w+")
#: words that say nothing of a question's subject; they are searched only where a question has no others
_FUNCTION_WORD_LIST = (
    "a about after all also among an and any are as at be been before being between both but by can could did do does "
    "doing during each for from had has have having how if in into is isn it its may might more most must no nor not "
    "of on only or other our should so some such t than that the their them then there these they this those through "
    "to true under until was we were what when where whether which while who whom why will with would"
)
FUNCTION_WORDS = frozenset(_FUNCTION_WORD_LIST.split())


def query_words(query: str) -> list[str]:
    """The words of a query in lower case, each once, without function words unless it has no others."""
    query = query.encode("utf-8", "replace").decode("utf-8")  # a terminal's bytes may be no UTF-8
    words = list(dict.fromkeys(word.casefold() for word in WORD.findall(query)))
    return ([word for word in words if word not in FUNCTION_WORDS] or words)[: 4 * MOST_TERMS]

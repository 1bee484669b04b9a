"""How a source is named in a terminal: one line of plain text."""

from medqlora.retrieval.store import Found
from medqlora.utils.terminal import printable_line


def reference(passage: Found) -> str:
    """Title, year, identifier, section and link, with marks; control characters are escaped.

    "Inhaled Combined Budesonide-Formoterol … (2018), PMID 29768149, ABSTRACT, https://pubmed…; RETRACTED"
    """
    year = f" ({passage.year})" if passage.year else ""
    number = (
        f"PMID {passage.pmid}"
        if passage.pmid
        else passage.pmcid or (f"doi {passage.doi}" if passage.doi else "")
    )
    named = number or f"{passage.source}: {passage.ident}"
    parts = [f"{passage.title}{year}" if passage.title else "", named, passage.section, passage.link]
    marks = [*(["RETRACTED"] if passage.retracted else []), *(["animal study"] if passage.animal else [])]
    line = ", ".join(filter(None, parts))
    return printable_line("; ".join([line, *marks]))

"""Patterns of the text around a label: what may surround a decision, and what shows that it is none.

Each pattern is matched at one position of a text, through a bounded window.
"""

import re
from functools import lru_cache

from medqlora.evaluation.parsing import languages as languages

#: text allowed between an announcement and its label: space, Markdown, quotes, brackets, LaTeX, "option"
DECORATION = re.compile(
    r"(?:[\s*_\"'`(\[{<$#>]|\\[(\[]|\\(?:boxed|fbox|text(?:bf|it|rm)?|math(?:bf|rm|it)?)\s?\{"
    r"|(?:the\s)?(?:option|choice|letter)\b[\s:]?){0,24}",
    re.IGNORECASE,
)
NAMED = re.compile(r"\b(?:option|choice|letter)\b[\s:*_(\[]{0,6}\Z", re.IGNORECASE)
CLOSE = r"[*_\"'`)\]}>$]{0,8}"
ENDED = (
    rf"{CLOSE}(?:\s*$|[ \t]*\n|[,;:!…](?!\w)|\.(?!\w)|\.(?=[A-Z][a-z])|\s*[–—]|\s-+\s|\s{{0,3}}</|\\[)\]]"
    r"|[\"']\s?[}\]]"  # the end of a JSON value
    r"|\s?[✅✔☑✓]|\s?\|\s{0,3}(?:\n|\Z)|\s[}\])])"
)
PAREN = r"\s?\((?![^()]{0,60}\)\s[a-z])"  # "no (p = 0.3)", but not "no (significant) difference"
#: "No. 5 of", "No. of patients"; not "no. In 40 patients …", a decision with its rationale
NUMBER_OF = r"\.\s?(?:(?-i:of\b)|\d{1,4}(?:\sof\b|\s*$))"
CAUSE = (
    r"\s(?:because|since|as\s(?:the|this|there|it|we|shown|options?\b|choices?\b|(?-i:[A-J]),?\s(?:is|was|has|does|would|and))"
    r"|due\sto|based\son|given|according\sto)\b"
)
NOT_AFTER_DETERMINER = (
    r"\s(?:it|they|this|that|these|those|there|the|we|i|he|she|and|but|so|when|while|however"
    r"|(?:in|on|at|for|with)\s(?:this|the|these|those|most|general|my|our|both|all|either|this))\b"
)
#: labels that are not adjectives
INTERJECTIONS = {"yes", "ja", "nein", "oui", "non", "sí", "si", "sim", "não", "sì", "да", "нет", "jein"}
#: "true by definition", not "true positives": text after a label that may be an adjective but stands alone
NOT_AFTER_NAME = (
    r"\s(?:it|they|this|that|these|those|there|the|we|i|he|she|and|but|so|when|while|whereas|however|for|in|on|at|with|by"
    r"|from|to|of|than|is|are|was|were|as|after|before|not|or|if|ob|weil|da|denn|dass|und|aber|die|der|das|es|in|bei|für)\b"
)
ASKED = re.compile(rf"{CLOSE}\s?\?")
#: the text is cut where more should follow
CUT = re.compile(r"[*_\"']{0,4},?\s(?:and|or|and/or|plus|with|but\snot|vs\.?|&|/)\s{0,3}\Z", re.IGNORECASE)
CONDITIONAL = re.compile(r"[*_\"']{0,4},?\s(?:(?:only|nur)\s)?(?:if|unless|provided|wenn|falls|sofern)\b")
BOUNDARY = r"(?!\w)(?!['’]\w)(?!-\w)"
BESIDE = (
    r"\s{0,3}(?:,\s{0,3}(?:or|and|but|then|maybe)?|;|\(\s?(?:or|and|possibly|maybe|alternatively)\b|/|\||\bor\b|\band\b|\bnor\b|\bbut\b|\bvs\b\.?|&|\+|\bto\b"
    rf"|\bas\swell\sas\b|\bplus\b|{languages.JOINING})"
)
FEW_MARKS = r"[\s*_\"'`(\[]{0,6}(?:option\s|choice\s)?"
MARKS = re.compile(FEW_MARKS, re.IGNORECASE)
#: a link between two options; a semicolon or nothing where the second has its own heading
JOINED = re.compile(rf"{CLOSE}\.?(?:{BESIDE}|\s?;|\\n)", re.IGNORECASE)
#: marks of a letter that is a heading: "A.", "A)", "A -"
HEADS = re.compile(r"[*_)\]]{0,3}(?:[).:\]]|\s{0,2}[–—=]|\s-\s)")
#: the option continues as the subject of a sentence: "Choice A (influenza) lacks …"
SUBJECT = re.compile(r"[)\],]\s(?!and\b|or\b|nor\b|plus\b)[a-z]{2}")
OTHERS = re.compile(r"\b(?:incorrect|wrong|others?)\b", re.IGNORECASE)
#: a heading within a line, at the start of a sentence; group 1 is the letter
LINE_HEADING = re.compile(r"(?<=[\w.;!)])\s[*_]{0,3}\(?([A-J](?=[.)]\s[*_]{0,3}[A-Z])|\d(?=[.)]\s\D))")
IN_BRACKETS = re.compile(r"[(\[]")
#: a second option is named only for comparison
CONTRAST = re.compile(
    r"(?<!\w)(?:not|than|unlike|instead|rather|whereas|while|although|though|but|because|since|as(?!\swell\sas)|which|who|that"
    r"|incorrect|wrong|others?|if|unless|nicht|nie|pas|non)(?!\w)|n't\b|不",
    re.IGNORECASE,
)
#: continues with a clause, not with a second item: "metformin and not insulin"
CLAUSE = re.compile(
    r"[\s*_(\"']{0,4}(?:not|n't|never|it|this|that|these|they|there|then|the\s(?:others?|patient|correct|answer|rest)|we|i|is"
    r"|are|should|would|will|can|could|has|have|may|must|no|none|only|so|because|since|if|which|who|as|therefore|hence|thus"
    r"|rather|all|both|neither)\b|\s{0,40}$",
    re.IGNORECASE,
)
#: a close link to the text before: a combination of two parts, a rate
PART = re.compile(
    rf"{CLOSE}(?:\s{{0,3}}(?:,\s{{0,3}})?(?:\band\b|\bor\b|\bplus\b|\bwith\b|\bas\swell\sas\b|&|\+|{languages.JOINING})\s{{0,3}}|\s?/)",
    re.IGNORECASE,
)
COMMA = re.compile(rf"{CLOSE},\s{{1,3}}")
#: "1. ", "(A) ", "B) " before a word label
ENUMERATED = re.compile(r"\(?(?:[A-Ja-j]|\d{1,2})[).:]\)?[\s*_]{1,3}")
ENUMERATED_BESIDE = r"[\s,;/.]{1,4}(?:(?:or|and)\s)?\(?(?:[A-J]|\d)[).:]\)?[\s*_]{1,3}"
#: text between a letter and its option's text
SEPARATORS = re.compile(
    r"[\s*_\"'`)\]}.:,=|→·•–—-]{0,12}\(?(?:(?:which|that)\s(?:is|says|states)\s|i\.?e\.?,?\s|namely\s)?",
    re.IGNORECASE,
)
#: the letter after an option's text: "Temporalis (B)", "temporalis, option B", "Temporalis - B"
LETTER_BEHIND = re.compile(
    r"[*_\"'`]{0,4}(?:\s?[(\[]\s?(?i:option|choice|answer|letter)?\s?(?P<inside>[A-Z]|\d)\s?[)\]]"
    r"|,?\s(?i:(?:which|that)\sis\s)?(?i:option|choice)\s\(?(?P<named>[A-Z]|\d)\b\)?"
    r"|\s?[=:–—-]\s?(?P<dashed>[A-Z])(?=[.\s]{0,3}(?:\Z|\n)))"
)
COMPARED = re.compile(r"[<>]\s?\Z")
HEADING = r"[\s*_\"'`(\[]{0,6}(?:(?i:option|choice)\s)?\(?"
#: "A–D"
RANGE = re.compile(r"\s?[–—-]\s?(?P<to>[A-Z]|\d)(?![\w-])")
#: species whose abbreviated genus is also an option's letter
SPECIES = re.compile(
    r"\.\s(?:coli|difficile|albicans|jejuni|perfringens|botulinum|tetani|diphtheriae|trachomatis|pneumoniae"
    r"|psittaci|fumigatus|baumannii|cereus|fragilis|burgdorferi|pertussis|anthracis|henselae|histolytica"
    r"|faecalis|faecium|cloacae|neoformans|immitis|granulosus|multilocularis|dermatitidis|elegans|freundii"
    r"|pylori|influenzae|ducreyi|capsulatum|dysenteriae|sonnei|flexneri|typhi|aeruginosa|aureus|epidermidis"
    r"|saprophyticus|pyogenes|agalactiae|enterica|marcescens|mirabilis|vulgaris|monocytogenes|meningitidis|gonorrhoeae"
    r"|pneumophila|lamblia|intestinalis|vivax|falciparum|malariae|stercoralis|solium|saginata|duodenale|tularensis"
    r"|pallidum|burnetii|rickettsii|catarrhalis|vaginalis|jirovecii|asteroides|leprae|tuberculosis|kansasii|marinum"
    r"|avium|cholerae|vulnificus|enterocolitica|pestis|canis|hominis|genitalium|acnes|mutans|bovis|gattii|schenckii"
    r"|cruzi|brucei|gondii|haematobium|mansoni|japonicum|hepatica|melanogaster|medinensis|vermicularis|lumbricoides|israelii|auris|glabrata|abortus|melitensis)\b"
)


@lru_cache(maxsize=64)
def follows(label: str) -> re.Pattern[str]:
    """The text that may follow a word label."""
    key = label.casefold()
    if key == "no":
        return re.compile(
            rf"(?!{NUMBER_OF})(?:{ENDED}|{PAREN}|{CLOSE}{CAUSE}|{CLOSE}{NOT_AFTER_DETERMINER})",
            re.IGNORECASE,
        )
    if key == "maybe":
        return re.compile(rf"(?:{ENDED}|{PAREN}|{CLOSE}{CAUSE})", re.IGNORECASE)
    if key in INTERJECTIONS:
        return re.compile(rf"(?:{ENDED}|{PAREN}|{CLOSE}\s)", re.IGNORECASE)
    return re.compile(
        rf"(?:{ENDED}|{PAREN}|{CLOSE}{CAUSE}|{CLOSE}{NOT_AFTER_NAME}|{CLOSE}\s\W)", re.IGNORECASE
    )


LETTER_FOLLOWS = re.compile(
    rf"(?:{ENDED}|{CLOSE}[)\]}}]|{PAREN}|{CLOSE}{CAUSE}|{CLOSE}\s(?:which|and|but|not|rather)\b|[*_]{{2}}"
    rf"|{CLOSE}{languages.FOLLOWING})"
)
OPTION_FOLLOWS = re.compile(
    rf"(?!\.\d)(?:{ENDED}|{PAREN}|{CLOSE}{CAUSE}|{CLOSE}{BESIDE}|{CLOSE}[)\]}}]|{languages.FOLLOWING})",
    re.IGNORECASE,
)

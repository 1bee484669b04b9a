"""Patterns that announce answers in other languages than English.

German, Spanish, French, Portuguese, Italian, Chinese, Korean and Japanese. The patterns are used on texts in
the form of `text.plain`: punctuation is ASCII, and a space stands between an Asian word and a letter.
Every repetition is bounded.
"""

import re

_GERMAN = (
    r"(?:(?:richtige|korrekte|beste|endgültige|finale|zutreffende)\s)?(?:antwort(?:option|möglichkeit)?|lösung|fazit)"
    r"(?:\s\([^()\n]{0,60}\))?(?:\s?:|\s(?:ist|lautet|wäre)(?:\s(?:daher|also|somit|demnach|folglich))?(?:\s?:)?)"
    r"|(?:richtige|korrekte|beste|zutreffende)\s(?:option|diagnose|behandlung)\s(?:ist|lautet|wäre)"
    r"|(?:ist|lautet|wäre)\sdie\s(?:richtige|korrekte|beste|endgültige)\s(?:antwort(?:option|möglichkeit)?|lösung|option)"
    r"(?=\s)|lautet\s(?:die|meine)\santwort(?=\s)|richtig\sist(?:\s(?:daher|also|somit))?(?=\s)"
)
_SPANISH = (
    r"(?:respuesta|opción|alternativa)(?:\s(?:correcta|final|adecuada|más\sprobable))?"
    r"(?:\s?:|\s(?:es|sería)(?:\s(?:por\stanto|entonces))?(?:\s?:)?)"
)
_FRENCH = (
    r"(?:(?:(?:bonne|meilleure)\s)?réponse(?:\s(?:correcte|finale|exacte|juste))?|(?:bonne|meilleure)\soption"
    r"|option\s(?:correcte|exacte|juste))"
    r"(?:\s?:|\s(?:est|serait)(?:\s(?:donc|alors))?(?:\s?:)?)"
)
_PORTUGUESE = (
    r"(?:resposta|alternativa|opção)(?:\s(?:correta|certa|final))?(?:\s?:|\s(?:é|seria)(?:\s(?:portanto|então))?(?:\s?:)?"
    r"(?:\s(?-i:a)(?=\s(?:letra|alternativa|opção|resposta|[A-J]\W)))?)"
)
_ITALIAN = r"risposta(?:\s(?:corretta|esatta|giusta|finale))?(?:\s?:|\s(?:è|sarebbe)(?:\s(?:quindi|dunque))?(?:\s?:)?)"
_CHINESE = (
    r"(?:答案|选项|選項)\]?\s{0,2}(?:应该|應該|应|應|就)?(?:是|为|為|选|選|:)\s?:?|\[答案\]:?"
    r"|(?:(?:故|应该|應該|应|應|因此|所以|我|本题|本題)|(?:^|(?<=[\s,.])))(?:选择|選擇|选|選)(?=[\s(])"
)
_KOREAN = r"(?:정답|답변|답)\s?(?:은|는|:)(?:\s?:)?"
_JAPANESE = r"(?:正解|正答|答え|解答|回答)\s?(?:は,?|:)(?:\s?:)?"
_EUROPEAN = "|".join((_GERMAN, _SPANISH, _FRENCH, _PORTUGUESE, _ITALIAN))
#: an announcement, directly before its label
MARKER = re.compile(
    rf"(?:(?<![\w-])(?:{_EUROPEAN})|{_CHINESE}|{_KOREAN}|{_JAPANESE})"
    r"[\s*_]{0,6}(?:(?:die|la|le|el|der)\s)?(?:l')?"
    r"(?:(?:antwort|option|möglichkeit|buchstabe|opción|letra|respuesta|alternativa|réponse|lettre|proposition|opção"
    r"|opzione|lettera|选项|選項)(?=\W))?",
    re.IGNORECASE,
)
#: one word of each marker, in lower case
WORDS = (
    *("antwort", "lösung", "fazit", "diagnose", "behandlung", "richtig ist"),
    *("respuesta", "opción", "alternativa", "réponse", "option", "resposta", "opção", "risposta"),
    *("答案", "选", "選", "정답", "답", "正解", "正答", "答え", "解答", "回答"),
)
#: calls the label or option before it correct
CORRECT = re.compile(
    r"\s(?:ist|wäre)\s(?:richtig|korrekt|die\s(?:richtige|korrekte|beste)\s(?:antwort|lösung|option))(?!\w)"
    r"|\s(?:es|sería)\s(?:la\s)?(?:(?:respuesta|opción)\s)?correcta(?!\w)"
    r"|\sest\s(?:la\s)?(?:(?:bonne|meilleure)\sréponse|réponse\scorrecte|correcte|exacte)(?!\w)"
    r"|\sé\s(?:a\s)?(?:(?:resposta|alternativa|opção)\s)?(?:correta|certa)(?!\w)"
    r"|\sè\s(?:la\s)?(?:risposta\s)?corretta(?!\w)"
    r"|\s?(?:选项|選項)(?:正确|正確)|\s(?:正确|正確)(?=[,.;\s]|\Z)|\s?(?:是|为|為)(?:正确|正確)(?:的|答案|选项)|\s?(?:가|이)\s정답|\s?(?:が|は)(?:正解|正しい)",
    re.IGNORECASE,
)
#: before an announcement: a wrong answer, or someone else's
WRONG = re.compile(
    r"(?:(?<!\w)(?:falsche|schlechteste|mauvaise|fausse|keine|nicht\sdie)\s|错误的?|錯誤的?|不正确的?|以下|下列|各个?|每个|这些|所有|其他|其它|[四五]个|不正確的?|틀린\s?"
    r"|間違った)$",
    re.IGNORECASE,
)
#: in the sentence before: a condition
SUPPOSED = re.compile(r"(?<!\w)(?:wenn|falls|sofern|si|caso)(?!\w)|如果|假如|만약|もし", re.IGNORECASE)
#: "or" and "and" between two labels
JOINING = r"\b(?:oder|und|ou|et|y|o|e|com|con|mit)\b|和|与|與|或|及|와|과|또는|と|または"
#: after a label or option: it is not the answer
REJECTED = re.compile(
    r"\s?(?:选项|選項|项|項)?\s?(?:是|为|為)?(?:错|錯|不正|不对|不對|不是|不符)|\s?(?:은|는|이|가)?\s?(?:틀|아니|아닙)|\s?(?:は|が)?(?:誤|間違|不正解)"
)
#: text that may follow a label in its sentence
FOLLOWING = r"\s?(?:입니다|이다|이며|이고|이에요|예요|번|です|である|だ(?=[.\s])|选项|選項|项|項)"

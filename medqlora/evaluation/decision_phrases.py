"""How a text shows that a decision comes, or that what looks like one is none.

Every repetition is bounded, and so is every window that these are used on: no input takes more than
linear time.
"""

import re

THOUGHT_END = re.compile(r"</(?:think|thinking|thought|reasoning|scratchpad)>", re.IGNORECASE)
THOUGHT_START = re.compile(r"<(?:think|thinking|thought|reasoning|scratchpad)>", re.IGNORECASE)
END_TOKEN = re.compile(r"<\|(?:eot_id|im_end|end_of_text|endoftext|end)\|>|</s>|<eos>|<end_of_turn>")
STYLE_TAG = re.compile(r"</?(?:b|i|u|p|br|em|strong|div|span)\s?/?>", re.IGNORECASE)
#: a base model that isn't stopped goes on with the next question of its own invention
NEXT_QUESTION = re.compile(
    r"^[ \t#*]{0,8}(?:question|abstract|context|q|user|human|instruction|input|problem|passage|example)"
    r"[ \t*]{0,4}\d{0,4}[ \t*]{0,4}:",
    re.IGNORECASE | re.MULTILINE,
)
QUALITY = (
    r"(?:final|correct|best|right|my|most\sappropriate|most\slikely|single|chosen|selected|predicted|overall)"
)
NOUN = re.compile(
    rf"(?<![\w-])(?P<quality>(?:{QUALITY}\s){{0,3}})(?:(?P<answer>answers?|ans|decision|verdict)"
    r"|(?P<thing>option|choice|response|label|prediction|conclusion|diagnosis|selection|judge?ment"
    r"|determination|classification|output|result))(?![\w-])",
    re.IGNORECASE,
)
KEY = re.compile(
    r"[\"'](?:final[_ ]?|correct[_ ]?|selected[_ ]?|predicted[_ ]?)?(?:answer|decision|verdict|label|prediction"
    r"|choice|option|response)(?:_choice|_letter|_label|_option)?[\"']\s?:|<(?:final[_ ]?)?answer>|\\boxed\s?(?=\{)"
    r"|^####(?=\s)",
    re.IGNORECASE | re.MULTILINE,
)
ADVERBS = (
    r"(?:\s(?:therefore|thus|hence|then|clearly|definitely|certainly|most\slikely|likely|probably|simply|still"
    r"|actually|indeed|unequivocally|an?\s(?:clear|definite|definitive|resounding|strong|firm|simple))){0,3}"
    r"(?:\s?[:,])?"
)
LINK = re.compile(
    r"(?P<colon>:)|=>?|[-–—]>|→|⇒|\s[-–—]\s"
    rf"|(?<!\w)(?:is|was|remains|(?:would|should|must|will)\sbe|(?:seems|appears)\sto\sbe)(?!\w){ADVERBS}",
    re.IGNORECASE,
)
AFTER_NOUN = re.compile(r"[\"'*_`)\]]{0,6}\s{0,3}(?:\([^()\n]{0,60}\))?[\"'*_`]{0,4}\s{0,3}")
BRIDGE = re.compile(
    r",|(?:to|for|of|based|in|here|given|from|with|that|after|according|(?:I|we)\s\w+)\b", re.IGNORECASE
)
LINE_START = re.compile(r"\n[ \t#*_>\"'-]*$")
HEADING_END = re.compile(r"[*_:]{0,6}[ \t]{0,40}\n")
CHOOSE = re.compile(
    r"(?<![\w-])(?:I|we)(?:['’](?:d|ll)|\s(?:would|will|must|should|can))?"
    r"(?:\s(?:therefore|thus|confidently|then))?\s(?:answer|say|choose|select|pick|go\swith|conclude|opt\sfor"
    r"|vote|respond)(?!\w)(?:\s?:|\sthat|\swith)?",
    re.IGNORECASE,
)
IS_CORRECT = re.compile(
    r"\s(?:is|must\sbe|would\sbe|seems|appears\sto\sbe)\s(?:(?:therefore|thus|clearly|definitely|indeed|most\slikely"
    r"|likely|hence)\s)?(?:correct|right|accurate|(?:the|my)\s(?:(?:single|most|best|only|correct|right|likely"
    r"|appropriate|accurate|final)\s){0,4}(?:answer|option|choice|one|diagnosis|response))(?![\w-])",
    re.IGNORECASE,
)
THEREFORE = re.compile(
    r"(?<![\w-])(?:so|therefore|thus|hence|overall|in\s(?:conclusion|summary|short)|ultimately|consequently"
    r"|to\s(?:conclude|summari[sz]e)|accordingly)(?![\w-])\s?[,:]?(?:\sit\sis|\sit['’]s)?",
    re.IGNORECASE,
)
LEAD = re.compile(
    r"\s{0,40}(?:(?:assistant|ai|model|bot|output|response|a)\s?:\s{0,8})?"
    r"(?:(?:based\son|according\sto|given|from)\s[^.,:\n]{1,160},\s)?"
    r"(?:(?:definitely|clearly|absolutely|certainly|well|sure|okay|ok)[,!.]?\s)?",
    re.IGNORECASE,
)
ECHOED_QUESTION = re.compile(r"[^?\n]{8,400}\?\s{1,4}")
LAST = re.compile(
    r"(?:^|\n|[.!]\s)(?P<mark>[\s*_\"'`(\[{-]{0,12})(?P<rest>[^\n.!?]{1,60}[.!*_\"'`)\]}\s]{0,12})\Z"
)
ITEM = re.compile(r"\n[ \t]{0,12}(?:[-•*+]\s)?(?=\S)")

REVISES = re.compile(
    r"\b(?:so|therefore|thus|hence|however|but|wait|actually|instead|rather|overall|final(?:ly)?|conclu\w+"
    r"|correct(?:ion|ing)|ultimately|consequently|reconsider\w*|reflection|summary|revised?|upon)\b",
    re.IGNORECASE,
)
SENTENCE_END = re.compile(r"[.!?;]\s|\n")
CLAUSE_START = re.compile(
    r"[,:–—]|\b(?:so|therefore|thus|hence|and|but|then|because|since|however|as)\b", re.IGNORECASE
)
SUPPOSED = re.compile(r"\b(?:if|unless|suppose|supposing|assuming|were\sto)\b", re.IGNORECASE)
DISOWNED = re.compile(
    r"\bwhether\b|\bneither\b|\bnot\b|n['’]t\b|\bcannot\b|\bdoubt\w*|\bnever\b|\bno\s(?:evidence|reason|proof|way)\b"
    r"|\b(?:thought|assumed|guessed|hypothesi[sz]ed|supposed|expected)\s(?:that\s)?(?:the\s)?$"
    r"|\b(?:some|others?|many|people|critics|they|one|you|authors?|s?ceptics|skeptics|someone|reviewers?|experts"
    r"|students?|he|she)\s(?:\w+\s){0,3}(?:argu|claim|think|believ|say|suggest|conclud|assum|guess|answer|contend"
    r"|stat|feel)\w*\s(?:that\s)?(?:the\s)?$",
    re.IGNORECASE,
)
SURE = re.compile(r"\bno\sdoubt\b|\bwithout\s(?:a\s)?doubt\b|\bundoubtedly\b|\bnot\sonly\b", re.IGNORECASE)
ANOTHERS = re.compile(
    r"\b(?:wrong|incorrect|previous|student['’]?s?|your|his|her|their|other|another|initial|first|possible|example"
    r"|alternative|expected|sample|reference|original|tentative|preliminary|no|any|either|worst|least\slikely)\s$",
    re.IGNORECASE,
)
REJECTED = re.compile(
    r"\b(?:incorrect|wrong|not|false|unlikely|inappropriate|contraindicated|less|rule[sd]?\sout|eliminated?)\b|n['’]t\b",
    re.IGNORECASE,
)

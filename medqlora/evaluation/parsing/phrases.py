"""Patterns of phrases that announce a decision, and of those that show that there is none.

Every repetition is bounded, and so is every window that is searched: parsing takes linear time.
"""

import re

_THOUGHT = r"(?:seed:)?(?:think|thinking|thought|thoughts|reasoning|scratchpad)"
#: XML-like tags, Kimi's, Magistral's, OpenThinker's, MedGemma's and Gemma 4's
THOUGHT_END = re.compile(
    rf"</{_THOUGHT}>|◁/think▷|\[/THINK\]|<\|end_of_thought\|>|<unused95>|<channel\|>", re.IGNORECASE
)
#: also the channels of OpenAI's harmony format other than "final", with or without its special tokens
THOUGHT_START = re.compile(
    rf"<{_THOUGHT}>|◁think▷|\[THINK\]|<\|begin_of_thought\|>|<unused94>|<\|channel>thought"
    r"|<\|channel\|>\s?(?:analysis|commentary)|\Aanalysis(?=(?-i:[A-Z]))",
    re.IGNORECASE,
)
FINAL_CHANNEL = re.compile(
    r"<\|channel\|>\s?final\b[^<\n]{0,40}(?:<\|constrain\|>[^<\n]{0,20})?<\|message\|>"
    r"|(?<=[\w.,!?)\]\"'*:])assistantfinal(?!ly\b|e\b|i[sz]e)"
)
END_TOKEN = re.compile(
    r"<\|(?:eot_id|eom_id|im_end|end_of_text|endoftext|endofturn|end_of_turn|end|return|end▁of▁sentence"
    r"|end_of_solution)\|>|</s>|<eos>|<end_of_turn>|<turn\|>"
)
CELL_TAG = re.compile(r"</?t[dh]\s?/?>", re.IGNORECASE)
LINE_TAG = re.compile(r"</?(?:p|br|div|li|ul|ol|tr|table|h[1-6])\s?/?>", re.IGNORECASE)
#: LaTeX that only styles its content, and LaTeX's spaces
LATEX_STYLE = re.compile(r"\\(?:text(?:bf|it|rm|tt)?|math(?:bf|rm|it|sf)|mbox)\s?\{([^{}\n]{0,400})\}")
LATEX_SPACE = re.compile(r"\\[,;: !]|\\q?quad\b")
#: "<B>" only where a closing tag follows: an answer may be "<B>" as well
STYLE_TAG = re.compile(
    r"</?(?:(?-i:[biu])|em|strong|span|font|mark|code)\s?/?>|<(?-i:[BIU])>(?=[^<]{1,200}</)|</(?-i:[BIU])>|<\|begin_of_solution\|>",
    re.IGNORECASE,
)
#: emphasis by underscores, which count as word characters in a pattern
UNDERSCORES = re.compile(r"(?<!\w)_{1,3}(?=[^\s_])([^_\n]{1,200})_{1,3}(?!\w)")
#: the tokens and the role at the start of the model's turn
TURN_START = re.compile(
    r"\A(?:\s|<s>|<bos>|<pad>|<\|begin_of_text\|>|\[/INST\]|(?:<\|im_start\|>|<\|start_header_id\|>|<\|start\|>|#{1,4}\s)"
    r"assistant(?!\w)|<start_of_turn>model(?!\w)|<\|turn>model(?!\w)|(?<=assistant)(?:<\|end_header_id\|>|\s?:)){1,12}"
)
_HEADERS = (
    r"question|query|exercise|abstract|context|passage|q|user|human|instruction|input|problem|example|case|task"
    r"|scenario|vignette|prompt|mcq"
    r"|frage|pregunta|pergunta|domanda|问题|問題|题目|題目|質問|질문|문제"
)
_BARE_HEADERS = (
    r"question|abstract|context|instruction|user|human|assistant|model|frage|pregunta|pergunta|domanda"
)
#: the start of a question or of the user's turn, which a base model invents when it is not stopped: with a colon, or
#: alone on its line, or a role's token
NEXT_QUESTION = re.compile(
    r"^[ \t#*_>\[]{0,8}"
    r"(?:(?:the|medical|clinical|next|new|another|sample|similar|practice|follow-up|exam|your|patient|board|test|quiz|second|third"
    r"|additional|multiple[ \t-]choice|here[ \t]is(?:[ \t](?:the|a|an))?|\d{1,3}[.)])[ \t]{1,3}){0,3}"
    rf"(?:(?P<word>{_HEADERS})[ \t*_.]{{0,4}}(?:(?:no\.[ \t])?[#(]?\d{{1,4}}[ \t*_)]{{0,4}})?[\])]?[ \t*_]{{0,4}}:"
    r"|question(?:[ \t][–—-][ \t]|\)[ \t]|\][ \t])"
    rf"|(?P<bare>{_BARE_HEADERS})[ \t]{{0,4}}[#(]?\d{{0,4}}[ \t*_#)\]]{{0,8}}$"
    r"|(?:question|q)[ \t]?\.?[ \t]?\d{1,4}[.)][ \t])"
    r"|<\|im_start\|>\s?(?:user|human)|<\|(?:user|human|start_header_id\|>\s?user)\|?|<start_of_turn>\s?user"
    r"|<\|turn>\s?user|<\|start\|>\s?user|\[INST\]"
    # a line with a question, and the options of it
    r"|^(?P<listed>[^\n]{20,600}\?)[ \t]{0,8}\n[ \t]{0,8}\n?[ \t]{0,8}[*_]{0,2}\(?[A1][.)]\s"
    r"|<question>|\\section\*?\{(?:medical\s)?question|(?<=[.!?)] )(?:medical\s)?question\s?\d{0,3}:"
    # roles between turns without their special tokens: "B.user\n\n…"
    r"|(?<=[^\s\w])(?:user|assistant)\n|(?<=\w)(?:user|assistant)\n\n",
    re.IGNORECASE | re.MULTILINE,
)
#: a line that introduces the prompt's question: "Sure, here is the question again:"
INTRODUCTION = re.compile(
    r"(?:sure|certainly|of\scourse|okay|ok|here(?:'s|\sis|\sare)|let\sme|let's|let\sus|to\sanswer|i\swill|i'll)\b[^\n]{0,160}\Z"
    r"|[^\n]{0,200}:\Z",
    re.IGNORECASE,
)
#: a bullet, an arrow, a tick or a rule before the label at the start of a text
OPENING_MARK = re.compile(
    r"\s{0,8}(?:(?:[-–—:>]|=>|-->?|—>|[•·→⇒➡👉✅✔☑✓])[ \t]{1,3}|[-—]{2,8}\s{0,3}\n\s{0,3}){1,3}(?=[^\W\d]|[(\[*\"])"
)
QUALITY = (
    r"(?:final|correct|best|right|my|most\sappropriate|most\slikely|single|chosen|selected|predicted|overall)"
)
NOUN = re.compile(
    rf"(?<![\w-])(?P<quality>(?:{QUALITY}\s){{0,3}})(?:(?P<answer>answers?(?:\s(?:choice|option|letter|key))?|ans|decision|verdict)"
    r"|(?P<thing>option|choice|response|label|prediction|conclusion|diagnosis|selection|judge?ment"
    r"|determination|classification|output|result|solution))(?!\w|-\w)",
    re.IGNORECASE,
)
KEY = re.compile(
    r"[\"'](?:final[_ ]?|correct[_ ]?|selected[_ ]?|predicted[_ ]?)?(?:answer|decision|verdict|label|prediction"
    r"|choice|option|response|letter|antwort|respuesta|réponse|resposta|risposta|答案|정답|正解|答え)"
    r"(?:_choice|_letter|_label|_option)?[\"']\s?:|<(?:final[_ ]?)?answer>|\\boxed\s?(?=\{)"
    r"|^####(?=\s)"
    # the same without quotes: "final_decision: no"
    r"|(?<![\w\"'])(?:(?:final|correct|selected|predicted)_(?:answer|decision|label|prediction|choice|option)"
    r"|answer_(?:choice|letter|label|option))[*`_]{0,3}(?:\s?[:=]|\s[–—-]\s)",
    re.IGNORECASE | re.MULTILINE,
)
ADVERBS = (
    r"(?:\s(?:therefore|thus|hence|then|clearly|definitely|certainly|most\slikely|likely|probably|simply|still"
    r"|actually|indeed|unequivocally|an?\s(?:clear|definite|definitive|resounding|strong|firm|simple))){0,3}"
    r"(?:\s?[:,])?"
)
LINK = re.compile(
    r"(?P<colon>:-(?=\s)|:)|==|\s?\|\s|[-–—](?=\s?[*_(\[]{0,4}[A-Z]\b)|=>?|[-–—]>|→|⇒|\s[-–—]\s"
    rf"|(?<!\w)(?:is|was|remains|(?:would|should|must|will)\sbe|(?:seems|appears)\sto\sbe)(?!\w){ADVERBS}",
    re.IGNORECASE,
)
AFTER_NOUN = re.compile(
    r"[\"'*_`)\]]{0,6}\s{0,3}(?:\([^()\n]{0,60}\)|\[[^\[\]\n]{0,60}\](?=[*_]{0,4}\s?:))?[\"'*_`]{0,4}\s{0,3}"
)
BRIDGE = re.compile(
    r",|(?:to|for|of|based|in|here|given|from|with|that|after|according|(?:I|we)\s\w+)\b", re.IGNORECASE
)
LINE_START = re.compile(r"\n[ \t#*_>\"'-]*$")
HEADING_END = re.compile(r"[*_:]{0,6}[ \t]{0,40}\n")
CHOOSE = re.compile(
    r"(?<![\w-])(?:I|we)(?:['’](?:d|ll|m|re)|\s(?:would|will|must|should|can|am|are))?"
    r"(?:\s(?:therefore|thus|confidently|then))?(?:\sgoing\s(?:with|for)|\schoosing|\sselecting|\spicking|\s(?:answer|say|choose|select|pick|go\swith|conclude|opt\sfor"
    r"|vote|respond))(?!\w)(?:\s?:|\sthat|\swith)?(?:\s(?:probably|most\slikely|likely)(?=\s))?",
    re.IGNORECASE,
)
#: "I think it's B", "I believe no"
THINK = re.compile(
    r"(?<![\w-])(?:I|we)\s(?:would\s)?(?:think|believe|guess|suspect)(?:\sthat)?(?:\s(?:it'?s|it\sis|it\swould\sbe)"
    r"(?:\s(?:probably|most\slikely|likely))?)?(?=\s)",
    re.IGNORECASE,
)
#: "Ans. B", and a line with "Answer B" alone
ABBREVIATED = re.compile(r"(?<![\w-])ans\.(?:\sis)?(?=[\s(*_:]|[A-Z]\b)(?:\s?:)?", re.IGNORECASE)
LABEL_LINE = re.compile(
    r"(?:^|(?<=[.!?]\s))[#*_ \t>\[]{0,8}(?:(?:the|my|correct|final|right|best)[ \t]){0,2}ans(?:wer)?\.?\]?[*_]{0,4}"
    r"[ \t]{1,3}"
    r"(?=[(*_\[]{0,4}\w)|^[#*_ \t>]{0,8}(?:antwort|lösung|respuesta|réponse|resposta|risposta)[*_]{0,4}[ \t]{1,3}"
    r"(?=[(*_\[]{0,4}\w)",
    re.IGNORECASE | re.MULTILINE,
)
LINE_ENDS = re.compile(r"[^\w\n]{0,12}(?:\n|$)")
IS_CORRECT = re.compile(
    r"\s(?:is|must\sbe|would\sbe|seems|appears\sto\sbe)\s(?:(?:therefore|thus|clearly|definitely|indeed|most\slikely"
    r"|likely|hence|also|equally|actually|really|probably|certainly)\s)?(?:correct|right|accurate|(?:the|my)\s(?:(?:single|most|best|only|correct|right|likely"
    r"|appropriate|accurate|final)\s){0,4}(?:answer|option|choice|one|diagnosis|response))(?![\w-])",
    re.IGNORECASE,
)
_BEST = (
    r"(?:(?:next\s)?best(?:\snext)?|most\s(?:appropriate|likely|probable|suitable)(?:\s(?:next|initial))?|recommended"
    r"|preferred|correct|ideal|optimal)"
)
#: "Both A and B are correct.", where that is an option's text
ALL_CORRECT = re.compile(
    r"\s(?:are|apply)(?:\s(?:(?:all|both|also)\s)?(?:correct|right|true|valid))?(?=[.,;!*_\n]|\s{0,3}\Z)",
    re.IGNORECASE,
)
WOULD_BE = re.compile(r"\swould\sbe\s", re.IGNORECASE)
#: after "C would be correct": a case that is not the question's
IN_ANOTHER_CASE = re.compile(
    r"[*_]{0,3},?\s(?:only\s)?(?:if|unless|provided|had|were|when|in\san?\s|for\san?\s)", re.IGNORECASE
)
#: "The statement is true."
CLAIM = re.compile(
    r"(?<![\w-])(?:the|this)\s(?:(?:given|above)\s)?(?:statement|claim|assertion|hypothesis|sentence)\s(?:is|was)"
    r"(?:\s(?:therefore|thus|hence|clearly|definitely|probably|likely))?(?=\s)",
    re.IGNORECASE,
)
#: "the next step is to start <a drug>"
TO_GIVE = re.compile(
    r"[\s*_]{1,4}(?:to\s)?(?:start|give|administer|initiate|begin|prescribe|add|use|order|perform|obtain)(?:ing)?\s"
    r"(?:(?:treatment|therapy)\swith\s|(?:the|this)\spatient\son\s)?(?:(?:oral|intravenous|iv|topical)\s)?",
    re.IGNORECASE,
)
#: "B is best.", "C is the most likely."
IS_BEST = re.compile(
    r"\s(?:is|would\sbe|remains)\s(?:the\s)?(?:single\s)?(?:best|most\s(?:appropriate|likely|suitable|probable|accurate))"
    r"(?=[*_\"')\]]{0,4}(?:\s{0,3}\Z|[.,;!](?!\w)|\n))",
    re.IGNORECASE,
)
_ASKED_FOR = (
    r"(?:treatment|therapy|management|steps?|drug|agent|medication|antibiotic|intervention|test|study|investigation"
    r"|approach|cause|etiology|explanation|mechanism|organism|pathogen|finding|procedure|diagnosis|course\sof\saction)"
)
#: the case of the question, not another one
_THIS_CASE = (
    r"(?:this|these|his|her|their|such|our|management|the\s(?:management|workup|treatment|patient|man|woman|child|boy|girl"
    r"|infant|case|above|vignette|scenario|situation|symptoms|findings|presentation))(?!\w)"
)
#: "folic acid is the most appropriate treatment"
IS_THE_STEP = re.compile(
    rf"\s(?:is|would\sbe)\s(?:(?:therefore|thus|likely)\s)?the\s{_BEST}\s(?:\w{{1,20}}\s)?{_ASKED_FOR}"
    rf"(?=[*_]{{0,4}}(?:\s{{0,3}}\Z|[.,;!\n])|\s(?:for|in|of|to)\s{_THIS_CASE})",
    re.IGNORECASE,
)
#: "the most appropriate treatment (for this patient) is"; "the drug of choice is"
STATEMENT = re.compile(
    rf"(?<![\w-])(?:{_BEST}(?:\s\w{{1,24}}){{1,3}}?|{_ASKED_FOR}\sof\schoice|next\sstep)"
    rf"(?P<case>[,\s]{{1,2}}(?:for|in|of|to|at|given|based\son|here)\s[^.:;\n]{{1,120}}?)?"
    rf"(?:\s(?:is|would\sbe|should\sbe|remains){ADVERBS}|\s?:)(?=\s)",
    re.IGNORECASE,
)
#: "of death", "to add": part of the name of what is asked for
PART_OF_NAME = re.compile(r"\s(?:of|to)\s\w{1,24}\Z", re.IGNORECASE)
#: a sentence that begins with the case that it is about
OTHER_CASE = re.compile(
    r"\s{0,3}(?:for|in|during|after|before|when|as)\s(?!(?:conclusion|summary|short|sum|fact"
    r"|general|total|the\send|such|an?\sresult|mentioned|noted|discussed)\b)",
    re.IGNORECASE,
)
SO_IS = re.compile(r"(?<![\w-])so\s(?:is|are|would\sbe)(?=\s)", re.IGNORECASE)
ALSO = re.compile(r"\b(?:also|equally)\b", re.IGNORECASE)
THIS_CASE = re.compile(rf"\b{_THIS_CASE}", re.IGNORECASE)
#: retracts or limits the statement before it
LIMITED = re.compile(
    r"\b(?:however|but|although|though|unless|except|alternatively|on\sthe\sother\shand|only\sif)\b",
    re.IGNORECASE,
)
#: after "the answer is": none of the options is the answer, or more than one is
NO_OPTION = re.compile(
    r"[\s*_\"'`(\[{:]{0,8}(?:(?:none|all|both|neither|either|perhaps|possibly|unclear|unknown|uncertain|undetermined"
    r"|indeterminate|inconclusive|insufficient|cannot|unanswerable)(?!\w)|can't\b"
    r"|n/a\b|(?:it\s)?depends\b|not\s(?:given|listed|provided|stated|among|applicable|possible|enough|clear|known)\b)",
    re.IGNORECASE,
)
OTHER_LABEL = re.compile(
    r"[\s*_\"'`(\[{]{0,8}(?:(?:option|choice)\s)?(?P<other>[A-Z]|\d{1,2})"
    r"(?=[*_\"'`)\]}]{0,6}(?:\s{0,3}\Z|\n|[.:)](?!\w)|[,;]\s|\s?</))"
)
NONE_ABOVE = re.compile(
    r"(?:^|(?<=\w\w[.!?])\s)[\s*_\"']{0,6}(?P<said>none|all)\sof\s(?:the\s)?(?:above|options|choices)[.!*_\s]{0,8}\Z",
    re.IGNORECASE,
)
#: a heading that is ruled out: "A) Masseter: this is not the muscle"
RULED_OUT = re.compile(
    r"[*_\"'`)\]]{0,6}(?:\s?[:;–—-]{1,2}\s?(?:(?:this|it|which)\s)?(?:(?:is|are)\s)?(?:an?\s|the\s)?(?:not|incorrect"
    r"|wrong|unlikely|less\slikely|false|ruled\sout|eliminated|no(?=\s{0,3}(?:[.,;\n]|\Z)))"
    r"|[.,]?\s(?:(?:this|it|which)\s)?(?:is|are|would\sbe)\s(?:not\s(?:correct|right|the|likely|appropriate|indicated)"
    r"|incorrect|wrong|unlikely|less\slikely|false)"
    r"|(?:[.:;*_ (–—-]{1,8}|[*_]{0,3}[ \t]{0,3}\n[*_]{0,3})(?:this\sis\s)?(?:incorrect|wrong|false|not\scorrect)"
    r"(?!\s(?:options?|answers?|choices?))"
    r"|[^\n]{0,160}\b(?:it|this|which)\s(?:is|would\sbe)\s(?:(?:therefore|thus|also)\s)?(?:incorrect|wrong|unlikely"
    r"|less\slikely|not\s(?:correct|the\s(?:correct|right|answer|best))))\b",
    re.IGNORECASE,
)
#: the start of another item, where the text was cut
STUMP = re.compile(
    r"\n[ \t]{0,8}(?=\S)[-*•#(\[\d.)_]{0,8}[ \t]{0,4}[*_(]{0,4}(?P<word>[^\n*_#(\[)\]:.]{0,60})[*_:. )\t-]{0,8}\Z"
)
#: introduces a list of the options
LISTING = re.compile(
    r"\b(?:options?|choices|each|analy[sz]e|evaluate|consider|examine|go\sthrough|look\sat|let's|let\sus|question"
    r"\sis\sabout|following|one\sby\sone)\b",
    re.IGNORECASE,
)
THEREFORE = re.compile(
    r"(?<![\w-])(?:so|therefore|thus|hence|overall|in\s(?:conclusion|summary|short)|ultimately|consequently"
    r"|to\s(?:conclude|summari[sz]e)|accordingly)(?![\w-])\s?[,:]?(?:\s?(?:it\sis|it['’]s|answer)(?=\s))?",
    re.IGNORECASE,
)
LEAD = re.compile(
    r"\s{0,40}(?:(?:assistant|ai|model|bot|output|response|a)\s?:\s{0,8})?"
    r"(?:(?:based\son|according\sto|given|from)\s[^.,:\n]{1,160},\s)?"
    r"(?:(?:definitely|clearly|absolutely|certainly|well|sure|okay|ok|(?:most\s)?likely|very\slikely|(?:very\s)?probably)[,!.]?\s)?",
    re.IGNORECASE,
)
ECHOED_QUESTION = re.compile(r"[^?\n]{8,400}\?\s{1,4}")
LAST = re.compile(
    r"(?:^|\n|[.!]\s)(?P<mark>[\s*_\"'`(\[{-]{0,12})(?P<rest>[^\n.!?]{1,60}[.!*_\"'`)\]}\s]{0,12})\Z"
)
ITEM = re.compile(r"(?:\n|\A)[ \t]{0,12}(?:[-•*+]\s|#{1,6}\s)?(?:\d{1,2}[.)]\s(?=[(*_]{0,4}[A-J]\W))?(?=\S)")
REJECTS_OTHERS = re.compile(
    r"\b(?:the\sothers?|other|incorrect|wrong|remaining)\s(?:(?:answer\s)?(?:options|choices|answers)|are\s(?:in|less|not|wrong))"
    r"[^\n]{0,60}(?::|\n)|\bwhy\snot\b",
    re.IGNORECASE,
)
#: a letter at the start of a line, as the subject of its sentence: "B is wrong"
ABOUT_LETTER = re.compile(
    r"[(*_]{0,4}(?:option\s|choice\s)?\(?(?P<letter>[A-Z])\)?\s(?:is|was|would)\s", re.IGNORECASE
)

REVISES = re.compile(
    r"\b(?:so|therefore|thus|hence|however|but|wait|actually|instead|rather|overall|final(?:ly)?|conclu\w+"
    r"|correct(?:ion|ing)|sorry|oops|scratch|ultimately|consequently|reconsider\w*|reflection|summary|revised?|upon)\b",
    re.IGNORECASE,
)
#: "Wait, no, it's C", "sorry, I meant C": the later label replaces the earlier one
CORRECTED = re.compile(
    r"(?<![\w-])(?P<mark>wait|hold\son|hm{2,8}|actually|sorry|correction|oops|apologies|my\smistake|scratch\sthat"
    r"|no(?=,\s)|I\smeant?|on\ssecond\sthought|make\sthat)"
    r"(?P<more>[\s,.:;!–—…-]{1,6}(?:no|wait|actually|hm{2,8}|sorry|(?:it|that)(?:\sis|['’]s|\sshould\sbe|\smust\sbe)"
    r"|I\smeant?|I\s(?:think|believe)|rather|make\sthat|to)(?!\w)){0,4}(?=[\s,.:;!–—…-])[\s,.:;!–—…-]{1,6}",
    re.IGNORECASE,
)
#: the text before a correction
BEFORE_CORRECTION = re.compile(r"[.!?…,;:—–\n)-][ *_]{0,6}\Z")
#: the model doubts its last statement
DOUBTED = re.compile(
    r"(?<![\w-])(?:wait|hold\son|hm{2,8}|no,?\swait|scratch\sthat|oops)(?:[,.!:;–—…]|\s[–—-]|\s(?:no|actually)\b|\s{0,3}\Z)"
    r"|(?<![\w-])(?:let\sme|let's|I\s(?:need\sto|should|must|have\sto))\s(?:reconsider|re-?(?:evaluate|examine|think|check|assess))"
    r"|(?<![\w-])(?:that|this|it)(?:\sis|['’]s|\swas)\s(?:not\s(?:right|correct)|wrong|incorrect|a\smistake)"
    r"(?=[.,;!\n]|\s{0,3}\Z)|(?<![\w-])I\s(?:made\sa\smistake|was\swrong|misread)",
    re.IGNORECASE,
)
#: a statement and the next sentence: "The answer is B. No."
DENIED = re.compile(r"[^.!?\n]{1,60}[.!]\s{1,2}No(?:[.!]|,\s(?:it|that|this|wait)\b)")
SENTENCE_END = re.compile(r"[.!?;]\s|\n")
CLAUSE_START = re.compile(
    r"[,:–—]|\b(?:so|therefore|thus|hence|and|but|then|because|since|however|as)\b", re.IGNORECASE
)
SUPPOSED = re.compile(
    r"\b(?:at\sfirst\s(?:glance|sight|look)|if|unless|suppose|supposing|assuming|were\sto)\b", re.IGNORECASE
)
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
    r"|alternative|second|third|fourth|secondary|expected|sample|reference|original|tentative|preliminary|no|any|either|worst|least\slikely)\s$",
    re.IGNORECASE,
)
SAID_WRONG = re.compile(
    r"\b(?:that|which)\s(?:is|was)\s(?:\w{1,20}\s)?(?:wrong|incorrect|false|not)\b", re.IGNORECASE
)
REJECTED = re.compile(
    r"\b(?:incorrect|wrong|not|false|unlikely|inappropriate|contraindicated|less|rule[sd]?\sout|eliminated?)\b|n['’]t\b",
    re.IGNORECASE,
)
SEVERAL_ARE = re.compile(
    rf"(?<![\w-])(?:{QUALITY}\s){{0,3}}(?:answers|options|choices)\s(?:are|would\sbe)(?=[\s:])\s?:?",
    re.IGNORECASE,
)
_PAIR = (
    r"(?:(?i:options?)\s)?\(?(?P<one>[A-Z]|\d)\)?(?:,\s\(?[A-Z]\)?){0,6},?\s(?:and|nor|&)\s"
    r"(?:(?i:options?)\s)?\(?(?P<two>[A-Z]|\d)(?![\w-])\)?"
)
BOTH = re.compile(rf"(?<![\w-])(?i:both|neither)\s(?:of\s)?{_PAIR}")
ARE_CORRECT = re.compile(
    rf"(?<![\w-]){_PAIR}\s(?:are|were|would\sbe)\s(?:(?:both|all|also|equally)\s)?(?:correct|right|true|accurate|valid"
    r"|the\s(?:correct|right|best)\s(?:answers|options|choices))(?!\w)"
)
#: a letter that is called wrong
IS_WRONG = re.compile(
    r"(?<![\w-])\(?(?P<letter>[A-Z]|\d)\)?\s(?:is|was)\s(?:(?:also|therefore|clearly)\s)?(?:incorrect|wrong|false"
    r"|not\s(?:correct|right|the\s(?:correct\s|right\s|best\s)?(?:answer|option|choice)))(?!\w)"
)
#: the start of a word, a number or a signed number
WORD_START = re.compile(r"(?<![\w-])(?:(?<![.,/])|(?<=[^\d][.,/]))[-+]?[\w]")
#: text allowed before the subject of a sentence
SUBJECT_START = re.compile(
    r"(?:\A|[\n.!?;:,–—(]|\b(?:the|an?|that|therefore|thus|hence|so|and|but|because|think|believe|conclude|only|option|choice"
    r"|answer|drug|actually|however))[\s\"'*_(`]{0,4}\Z",
    re.IGNORECASE,
)
#: text allowed before an option's letter, in a sentence about it
BEFORE_LETTER = re.compile(
    r"(?:\A|[^\w\s]\s{0,3}|[^\x00-\u2fff]\s?|\n\s{0,8}|\b(?:the|that|therefore|thus|hence|so|and|or|nor|but|because|since|as|although|though|while"
    r"|whereas|if|when|where|then|here|now|think|believe|say|says|know|see|means?|shows?|suggests?|conclude|only|both"
    r"|options?|choices?|answers?|letter|statement|lettre|buchstabe|antwort|opción|respuesta|alternativa|letra|réponse|opção"
    r"|resposta|opzione|risposta|lettera|drug|actually|however|also|clearly|obviously|is|not|than|whether|ist|es|est|la|le"
    r"|el|die|also|daher|somit|donc|portanto|quindi|entonces)\s)[\"'*_(`\[]{0,4}\Z",
    re.IGNORECASE,
)
#: between an option's text and its letter: "Temporalis (option B)"
NAMED_BEFORE = re.compile(r"(?:option|choice|answer|letter)\s?\(?\Z", re.IGNORECASE)
JOINED_BEFORE = re.compile(
    r"(?:\b(?P<or>or)|\b(?P<nor>nor)|\band|[/&]|,)\s?(?:(?:the|option|choice)\s)?(?:\(?[A-J\d][).:]\s?)?[\"'(*]{0,4}\Z",
    re.IGNORECASE,
)
COMPARED_WITH = re.compile(r"\b(?:not|than|unlike|instead\sof)\b[^.;\n]{0,90}\Z", re.IGNORECASE)
#: after a letter: the option's text in the model's words, to the end of the line
OPTION_IN_OTHER_WORDS = re.compile(
    r"[*_)\]]{0,3}(?:[).:\]]|\s?[–—=]|\s-)[ \t*_]{1,4}[^\n.;:!?]{1,100}(?=[.;]?[*_]{0,3}[ \t]{0,8}\n)"
)
#: the end of a line and the start of the next item
NEXT_ITEM = re.compile(r"[*_.,;\"')\]]{0,6}[ \t]{0,8}\n(?P<empty>[ \t]{0,8}\n)?[ \t]{0,12}(?:[-•*+]\s)?")

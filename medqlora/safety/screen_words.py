"""The words of the phrases, how they are mistyped, and the fixed replies."""

import re

Patterns = tuple[re.Pattern[str], ...]


def words(most: int, but: str = "") -> str:
    """Up to `most` words, none of them one of `but`."""
    return rf"(?:{f'(?!(?:{but}) )' if but else ''}\w+ ){{0,{most}}}"


def patterns(*texts: str) -> Patterns:
    """Each of `texts`, wherever it stands between words."""
    return tuple(re.compile(rf"\b(?:{text})\b") for text in texts)


#: words that turn what follows into its opposite
NOT = "dont|not|never|didnt|without|avoid|avoiding|prevent|afraid|worried|accidentally|wont|wouldnt"
#: who speaks, as a pattern
SPEAKER = r"(?:i|im|ive|id|ill|we)"
PILLS = r"(?:pills?|tablets?|capsules?|tabs|meds|medications?|medicine|bottle|pack|packet|box)"
KIN = (
    r"(?:(?:\w+ ){0,2}?(?:sons?|daughters?|kids?|child|childs|children|baby|babys|toddlers?|infant|newborn"
    r"|husbands?|wife"
    r"|wifes|spouse|partners?|boyfriends?|girlfriends?|fianc[e]{1,2}|mothers?|mums?|moms?|mommy|fathers?"
    r"|dads?|daddy|parents?"
    r"|brothers?|sisters?|siblings?|twin|grandmas?|grandpas?|grandmother|grandfather|granny|nan|nana|aunt"
    r"|auntie|uncle"
    r"|cousin|niece|nephew|stepdad|stepmom|stepmother|stepfather|friends?|mate|bff|teen|teenager|roommates?"
    r"|flatmate|housemate|neighbou?rs?"
    r"|cowork\w+|co worker|colleagues?|boss|teacher|classmate|gf|bf|ex|exs|old man))"
)
ADULT = (
    r"(?:man|woman|guy|lady|adult|girl|boy|stranger|customer|student|passenger|teenager|teen"
    r"|politician|rapist|bully)"
)
NUMBER = (
    r"(?:\d+|five|six|seven|eight|nine|ten|twelve|fifteen|twenty|thirty|forty|fifty|sixty|seventy|eighty"
    r"|ninety|a hundred|hundred|a dozen|dozens of)"
)
TEN_OR_MORE = (
    r"(?:[1-9]\d{1,3}|ten|eleven|twelve|fifteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|(?:a"
    r" )?hundred|a dozen|(?:two |three )?dozens?(?: of)?)"
)
DRUG = (
    r"(?:paracetamols?|tylenols?|acetaminophen|panadol|ibuprofens?|advil|aspirins?|naproxen|insulin|xanax"
    r"|alprazolam|valium"
    r"|diazepam|ambien|zolpidem|oxycodone|oxys?|percocets?|fentanyl|morphine|heroin|methadone|tramadol"
    r"|codeine|vicodin"
    r"|benadryl|diphenhydramine|amitriptyline|sertraline|prozac|fluoxetine|citalopram|lithium|metformin"
    r"|warfarin|digoxin"
    r"|propranolol|amlodipine|antidepressants?|sleeping pills?|painkillers?|iron tablets|benzos?|clonazepam"
    r"|klonopin|lorazepam|ativan|seroquel|quetiapine|gabapentin|lamotrigine|potassium chloride|potassium|ghb"
    r"|ketamine|rohypnol"
    r"|roofies?|laxatives?|eye drops|visine|nitroglycerin|misoprostol|ecstasy|mdma|cocaine|meth|co codamol"
    r"|cocodamol)"
)
TOXIC = (
    r"(?:bleach|antifreeze|anti freeze|ethylene glycol|drain cleaner|oven cleaner|toilet cleaner|rat poison"
    r"|rodenticide"
    r"|weed ?killer|pesticides?|insecticide|paraquat|detergent|dishwasher \w+|laundry pods?|tide pods?"
    r"|button battery"
    r"|battery|batteries|battery acid|magnets?|lamp oil|petrol|gasoline|paint thinner|turpentine|white"
    r" spirit|methanol|lye"
    r"|ammonia|mothballs?|cleaning (?:fluid|product|products|liquid)|wild mushrooms?|death caps?|poison"
    r"|poisonous \w+"
    r"|nail polish remover|liquid nicotine|vape juice|hand sanitizer|cyanide|arsenic|thallium|kerosene"
    r"|rubbing alcohol)"
)

#: words that are worth a correction: those that the phrases turn on
VOCABULARY = frozenset(
    [
        "suicide",
        "suicidal",
        "overdose",
        "overdosed",
        "overdosing",
        "myself",
        "poison",
        "poisoning",
        "undetectable",
        "untraceable",
        "painless",
        "painlessly",
        "swallowed",
        "swallow",
        "breathe",
        "breathing",
        "unconscious",
        "unresponsive",
        "paracetamol",
        "tylenol",
        "ibuprofen",
        "husband",
        "boyfriend",
        "girlfriend",
        "someone",
        "somebody",
        "tablets",
        "strangle",
        "suffocate",
        "sleeping",
        "murder",
        "antifreeze",
        "accidentally",
        "commit",
        "quickest",
        "easiest",
        "fastest",
        "detergent",
        "collapsed",
        "without",
        "anymore",
        "yourself",
    ]
)
#: words of their own that are a letter away from one of these
NO_TYPOS = frozenset(
    [
        "prison",
        "poisson",
        "poisons",
        "poisoned",
        "reathe",
        "breath",
        "breadth",
        "wreathe",
        "bleeding",
        "sweeping",
        "steeping",
        "sleepings",
        "swallows",
        "tablet",
        "husbands",
        "murders",
        "murdered",
        "commits",
        "comment",
        "comet",
        "within",
        "collapse",
        "collapses",
        "suicides",
        "breathed",
        "breather",
        "breathes",
        "overdoses",
        "overdose",
        "somebodys",
        "someones",
        "undetectably",
        "detergents",
        "strangled",
        "strangles",
        "strangler",
        "suffocated",
        "suffocates",
        "quicken",
        "fattest",
        "vastest",
        "faster",
        "easier",
        "creeping",
        "keeping",
        "seeping",
        "weeping",
        "wheezing",
        "seething",
        "teething",
        "bathing",
        "loathing",
        "breeding",
    ]
)
ONE_LESS = {
    word[:place] + word[place + 1 :]: word
    for word in sorted(VOCABULARY)
    for place in range(len(word))
    if len(word) > 5
}
SLANG = {
    "bos": "boss",  # of "boss's"
    "kil": "kill",
    "kll": "kill",
    "kiil": "kill",
    "klil": "kill",
    "killl": "kill",
    "kiling": "killing",
    "killin": "killing",
    "d0": "do",
    "t0": "to",
    "di3": "die",
    "hw": "how",
    "hwo": "how",
    "teh": "the",
    "wnat": "want",
    "wan": "want",
    "wana": "wanna",
    "gona": "gonna",
    "goin": "going",
    "mysef": "myself",
    "scide": "suicide",
    "sewerslide": "suicide",
    "suiside": "suicide",
    "sucide": "suicide",
    "chokeing": "choking",
    "chocking": "choking",
    "breatheing": "breathing",
    "unconcious": "unconscious",
    "unconsious": "unconscious",
    "uncontious": "unconscious",
    "swolowed": "swallowed",
    "swollowed": "swallowed",
    "pils": "pills",
    "tabelts": "tablets",
    "frend": "friend",
    "freind": "friend",
    "thier": "their",
    "poisen": "poison",
    "posion": "poison",
    "blech": "bleach",
    "bleech": "bleach",
    "beleding": "bleeding",
    "siezure": "seizure",
    "seizuring": "seizing",
    "cannnot": "cannot",
    "ambulence": "ambulance",
}
#: words that belong together, or apart, once there is one space between them
JOINED = tuple(
    (re.compile(pattern), meant)
    for pattern, meant in (
        (r"\b(don|can|won|isn|doesn|didn|couldn|wouldn|haven|hasn) t\b", r"\1t"),
        (r"\bi (m|ve|ll)\b", r"i\1"),
        (r"\bi am\b", "im"),
        (r"\bdo nt\b", "dont"),
        (r"\bdo not\b", "dont"),
        (r"\bwill not\b", "wont"),
        (r"\bis not\b", "isnt"),
        (r"\bcan not\b|\bcannot\b", "cant"),
        (r"\bmy ?self\b|\bme self\b", "myself"),
        (r"\bsome (one|body)\b", r"some\1"),
        (r"\bover dos(e|ed|ing)\b", r"overdos\1"),
        (r"\bsui cide\b", "suicide"),
        (r"\bany more\b", "anymore"),
        (r"\bwant 2\b", "want to"),
        (r"\bhow 2\b", "how to"),
        # Roman numerals: "type I" speaks of nobody
        (
            r"\b(type|phase|class|grade|stage|troponin|level|group|category|factor|part|mhc|collagen"
            r"|angiotensin|complex|schedule|axis|cyclin|topoisomerase) i\b",
            r"\1 one",
        ),
        (r"\bi (and|or|to|vs|versus) (ii|iii|iv|v)\b", r"one \1 \2"),
    )
)

#: letters of other scripts that look like Latin ones, which NFKC leaves as they are
LOOKALIKES = str.maketrans(
    "абвгдеіјкмнорстухѕԁһԛԝⅼıɩοαερτυνικχϲɑɡｌ",
    "abbrdeijkmhopctyxsdhqwliioaeptuvikxcagl",
)
#: a digit or sign among letters, or before two, is meant as a letter
LEET = re.compile(r"(?<=[a-z])[013457@$!](?=[a-z])|(?<![a-z0-9])[3@$](?=[a-z]{2})")
LEET_LETTERS = {"0": "o", "1": "i", "3": "e", "4": "a", "5": "s", "7": "t", "@": "a", "$": "s", "!": "i"}

EMERGENCY_REPLY = (
    "This may be an emergency. Call your local emergency number now: 112 in Europe, 911 in North America,"
    " 999 in "
    "the UK, and do what they say until help comes.\n"
    "If something was swallowed, inhaled or taken in too large an amount, poison control can help at once"
    " too, in "
    "the US 1-800-222-1222; keep the container at hand, and don't make anyone vomit unless they tell you"
    " to.\n"
    "If it was meant to end a life: crisis lines are open around the clock, 988 in the US, findahelpline.com "
    "elsewhere.\n"
    "This program cannot help in an emergency, and the question was not put to the model."
)
SELF_HARM_REPLY = (
    "If you are thinking of hurting yourself, or someone near you is, please talk to a person now; you need"
    " not be "
    "sure, or know what to say.\n"
    "In the US call or text 988; in other countries findahelpline.com lists crisis lines.\n"
    "In danger now, or if something has already been taken or done: call your local emergency number (112,"
    " 911 or "
    "999). Poison control in the US: 1-800-222-1222.\n"
    "The question was not put to the model."
)
POISONING_REPLY = (
    "This looks like a request for a way to harm someone, so it was not put to the model.\n"
    "If someone may have been poisoned or is in danger, call your local emergency number (112, 911 or 999)"
    " or "
    "poison control, in the US 1-800-222-1222.\n"
    "If you are afraid that you may harm yourself or someone else, crisis lines listen around the clock:"
    " 988 in the "
    "US, findahelpline.com elsewhere."
)

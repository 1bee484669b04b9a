"""The phrases of an emergency in progress, over words as `screen_phrases` has them; and of what is none."""

import re

from medqlora.safety.screen_words import (
    ADULT,
    DRUG,
    KIN,
    NOT,
    PILLS,
    SPEAKER,
    TEN_OR_MORE,
    TOXIC,
    patterns,
    words,
)

_NEAR = rf"(?:{SPEAKER}|my {KIN}|our {KIN}|my \w+ (?:year|month|week|yr) old(?: \w+)?|{KIN} of mine)"
_STRANGER = (
    rf"(?:(?<!if )(?:someone|somebody)|an? (?:\w+ )?(?:{ADULT}|kid|child|person) (?:next to me|in front of"
    rf" me|here|near me"
    r"|beside me|(?:at|on|in) (?:my|the|this) \w+)|this (?:guy|man|woman|kid|lady|girl|boy))"
)
_OTHER = r"(?:he|she|hes|shes|they|theyre|(?:the |a )?(?:baby|toddler|kid|child))"
_HAS = (
    r"(?:(?:has|have|had|just|think|may|might|accidentally|i|ive|he|she|hes|shes|also|must|possibly"
    r"|probably|by|mistake"
    r"|and|now|is|am|suddenly|only|they|literally|then|stupidly|somehow|kind|of|who|we|that|believe"
    r"|intentionally) ){0,6}"
)
_TOOK = (
    r"(?:swallowed|swallow|ate|eaten|drank|drunk|ingested|consumed|inhaled|injected|chewed|downed|took"
    r"|taken|popped|sipped|breathed in|had)"
)
_ABOUT = (
    r"(?:(?:about|around|like|nearly|almost|over|maybe|roughly|at least|more than|at|least|another) ){0,3}"
)
_MANY = (
    rf"(?:{TEN_OR_MORE}(?! (?:mg|mcg|g|grams?|ml|iu|units?|milligrams?|micrograms?|x|days?|minutes|hours?"
    rf"|weeks|years"
    r"|courses?|different|kinds)\b)|too (?:many|much)|(?:a|the|an|my|his|her) (?:whole|full|entire)|all"
    r" (?:of )?(?:my|the"
    r"|his|her)|a (?:handful|bunch|lot|load|bottle|box|pack|packet) of|loads of|lots of|double the)"
)
_DOWN = (
    r"(?:(?:is|are|was|am|im|been|just|be|hes|shes|now) ){0,3}"
    r"(?:choking|turning blue|going blue|turned blue|went blue|unconscious|unresponsive|seizing|convulsing"
    r"|bleeding out"
    r"|foaming at the mouth|collapsed|passed out|not responding|isnt responding|not waking up|isnt waking"
    r" up|wont wake"
    r"|wont wake up|will not wake up|wont respond|went limp|gone limp|limp|having a (?:heart attack|stroke"
    r"|seizure|fit"
    r"|severe allergic reaction)|having an? (?:\w+ )?(?:allergic reaction|anaphyla\w+|seizure|heart attack)"
    r"|in anaphyla\w+|stopped responding|has no pulse|no pulse|drowning)"
)
_NO_AIR = (
    r"(?:isnt|not|stopped|cant|cannot|can not|can barely|can hardly|barely|hardly|quit|struggling to|wont)"
    r" (?:really |even |be able to )?(?:breathe|breathing|breath|get any air|get air)"
    r"(?! (?:through|thru|at night|while|when|during|properly|well|deeply|exercises?|technique|treatment"
    r"|out of))"
)
_WHO = rf"(?:{_NEAR}|{_STRANGER})"


def _emergencies(who: str) -> tuple[str, ...]:
    """What happens to `who` just now."""
    return (
        rf"{who} {_HAS}{_TOOK} {words(6, NOT)}{TOXIC}",
        rf"{who} {_HAS}(?:got into|gotten into) {words(4)}{PILLS}",
        rf"{who} {_HAS}{_TOOK} {_ABOUT}{_MANY} {words(4)}(?:{PILLS}|{DRUG})",
        rf"{who} {_HAS}{_TOOK} {words(3)}\d+ units {words(5)}instead of",
        rf"{who} {_HAS}(?:overdosed|overdosing|od ?d|oded|oding|(?:taken|took|taking) an overdose)",
        rf"{who} {words(4)}{_NO_AIR}",
        rf"{who} {words(4, 'if|when|was|were|not')}{_DOWN}",
        rf"{who} {words(4, 'if|when|was|were|not')}bleeding {words(2)}(?:out|heavily|badly|to death"
        rf"|profusely|everywhere"
        r"|a lot|nonstop|uncontrollably|wont stop|doesnt stop|isnt stopping)(?! (?:during|with|on) (?:my"
        r"|periods?|every))",
        rf"{who} {words(3, 'if|when|was|were')}(?:vomiting|puking|coughing up|throwing up|spitting up)"
        rf" {words(4)}blood",
        rf"{who} {_HAS}(?:got|been|was|were) (?:stabbed|shot in|electrocuted|struck by lightning)",
        rf"{who} {_HAS}(?:got|been|was|were) (?:\w+ )?(?:bitten|bit|stung) by an? {words(2)}(?:snake"
        rf"|rattlesnake|viper|cobra"
        r"|adder|black widow|scorpion|jellyfish|mamba|copperhead)",
        rf"{who} {words(4, 'if|when|was|were')}(?:crushing|severe|sudden|terrible|intense|unbearable|awful"
        rf"|horrible|really"
        r" bad) (?:\w+ )?chest (?:pain|pains|pressure|tightness)",
    )


EMERGENCY = patterns(
    *_emergencies(_WHO),
    r"(?<!do )(?<!can )(?<!should )(?<!could )(?<!if )(?:i|ive) (?:(?:just|have|already) ){0,3}(?:slit"
    r"|slashed|cut) my (?:own )?(?:wrists|throat|veins)",
    rf"(?:my chest|(?:i have|i got|having) (?:\w+ )?chest) {words(14)}(?:my (?:left |right )?arm|my jaw"
    rf"|sweating|right now"
    r"|cant breathe)",
    r"(?:side|half) of (?:my|his|her) face (?:\w+ ){0,3}(?:droop\w*|numb|fallen|dropped|paraly\w+)"
    rf"|my (?:{KIN} )?face (?:is|has|just|started|suddenly) (?:\w+ )?droop\w*",
    r"(?:my|his|her) (?:throat|tongue|airway) (?:is|feels like its|feels|keeps|and \w+ are) (?:\w+ )?"
    r"(?:closing|swelling|closing up|swelling up)",
    r"(?:snake|rattlesnake|viper|cobra|adder|scorpion|black widow) (?:just )?(?:bit|stung|has bitten) (?:me"
    r"|my|him|her)",
    r"(?:cant|cannot|wont) (?:get the |the |make the |get it to |stop )?(?:bleeding (?:to )?stop|(?:the |my"
    r" |his |her )?"
    rf"bleeding)|my {words(4)}(?:bleeding|blood) {words(4)}(?:wont|will not|isnt|not|doesnt) stop(?:ping)?",
    r"(?<!when )should (?:i|we) (?:\w+ )?(?:call|ring|dial|phone|get) (?:for )?(?:an ambulance|911|999|112"
    r"|000|paramedics)",
    r"(?:need|send|call) (?:me )?(?:an )?ambulance (?:now|right now|please|asap|quick\w*|immediately)",
    rf"{SPEAKER} {words(4)}(?:mixed|mixing) (?:bleach|ammonia) (?:and|with)",
    r"carbon monoxide (?:alarm|detector) (?:(?:is|just|has|keeps) ){0,2}(?:going off|gone off|went off"
    r"|beeping)",
    rf"(?:my|i|im) {words(8)}(?:baby is coming (?:now|out|right now)|giving birth (?:right now|now|at home"
    rf"|in the))",
    rf"cant wake (?:him|her|them|my {KIN})(?: up)?",
    rf"(?<=\A ){_HAS}{_TOOK} (?:{words(2, NOT)}{TOXIC}|{_ABOUT}{_MANY} {words(4)}(?:{PILLS}|{DRUG}))",
    rf"(?<=\A )(?:help |please ){{0,2}}(?:baby|toddler|child|kid|hes|shes|infant|dad|mom|mum|husband|wife"
    rf"|son|daughter) {_HAS}(?:{_NO_AIR}|{_DOWN})",
    rf"(?:i|im|ive|my {KIN}) {words(4)}sudden(?:ly)? (?:weak|weakness|numb|numbness)",
    rf"(?:i|im|my {KIN}|he|she) {words(4)}(?:trouble|difficulty) breathing {words(5)}(?:swelling|blue"
    rf"|hives|now|help)",
    rf"(?:theres|there is) an? (?:\w+ )?(?:{ADULT}|person|kid|child) {words(4)}(?:{_NO_AIR}|{_DOWN})",
    r"(?:i|ive|im) (?:(?:think|might|may|have|was|be|being|been|got|i|ive|im|just|getting|believe)"
    r" ){1,5}poisoned",
    rf"my {KIN} {_HAS}(?:cut|slit) (?:her|his|their) (?:own )?(?:wrists?|throat)",
    rf"my {KIN} (?:has |have )?just (?:shot|hanged|hung|stabbed|poisoned) (?:himself|herself|themselves)",
    rf"my {KIN} {_HAS}tried to (?:kill|hang|drown|poison) (?:himself|herself|themselves) (?:tonight|today"
    rf"|just now|now|this)",
    rf"{SPEAKER} {_HAS}cut (?:an|my) artery|i think im dying",
    rf"(?:i|ive|my {KIN}) {_HAS}(?:attempted|tried) (?:suicide|to kill myself) (?:an hour|tonight"
    r"|today|just|now|this)",
    rf"my {KIN} {_HAS}(?:ate|eaten|swallowed|drank|drunk) (?:my|our|a bottle of|a box of|some of my|his|her) {words(4)}"
    rf"(?:{PILLS}|syrup)",
    rf"(?:i|ive|my {KIN}) {_HAS}(?:took|taken|given) (?:\w+ )?(?:double|triple|twice)"
    rf" (?:my|the|his|her) {words(2)}dose",
)
#: of someone who is only "he" or "she": an emergency where the one who asks is there too
EMERGENCY_OF_OTHERS = patterns(*_emergencies(_OTHER))
#: whoever asks, in the first person or calling for help
AT_HAND = re.compile(r" (?:i|im|ive|my|me|help|please|ambulance|911|999) ")
#: a sentence with this tells what was, or what is as it should be
OVER = re.compile(
    r" (?:years?|months?|weeks?|decades?) ago | (?:last|past) (?:year|month|week|winter|summer|spring"
    r"|autumn) "
    r"| (?:19|20)\d\d | when i was | as a (?:child|kid|teenager|baby) | previously | in the past | used to "
    r"| history of "
    r"| as (?:prescribed|usual|directed) | sometimes | often | usually | occasionally | (?:several|many)"
    r" times | every night | (?:a|per|each|every) day | daily | over (?:the )?(?:last |past )?\w+ (?:days"
    r"|weeks) | for (?:\w+ ){0,2}(?:days|weeks|months|years) | in a dream | dreamt | dreamed "
)
FIRST_PERSON = re.compile(r" (?:i|im|ive|my|me) ")
VIGNETTE = re.compile(
    r" (?:a|an|the|this) (?:\w+ ){0,3}\d{1,3} (?:year|yr|month|week|day|hour)s? old "
    r"| \d{1,3} (?:yo|y o|yr old|year old) (?:\w+ ){0,2}(?:man|woman|male|female|boy|girl|patient|m|f) "
    r"| patients? | present(?:s|ed|ing) (?:to|with) | (?:is|was) brought | brought (?:in )?(?:to|by) |"
    r" emergency department "
    r"| which of the following | most (?:likely|appropriate) | best next step | next (?:best )?step | on"
    r" examination | physical examination | case report "
)

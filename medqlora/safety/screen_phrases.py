"""The phrases that `screen` looks for, over words in lower case with one space between them.

Every repetition counts words and is bounded, and no word is longer than `screen` leaves it, so no input
takes more than linear time. A full stop is a word of its own that `\\w` doesn't match: no phrase reaches
from one sentence into the next.
"""

from medqlora.safety.screen_words import (
    ADULT,
    DRUG,
    KIN,
    NOT,
    NUMBER,
    PILLS,
    SPEAKER,
    TOXIC,
    patterns,
    words,
)

_ADVERB = (
    r"(?:(?:actually|really|quickly|easily|painlessly|successfully|safely|best|just|secretly|quietly|slowly"
    r"|possibly|hypothetically|even|go about|fatally|intentionally|effectively|properly) ){0,2}"
)
#: "i want to", "im going to"; ends with a space
_INTEND = (
    r"(?:want to|wanted to|wants to|wanna|(?<!am i )going to|gonna|need to|like to|trying to|try to|plan to"
    r"|planning to"
    r"|decided to|about to|tempted to|ready to|intend to|will|might|thinking (?:of|about)|thoughts (?:of"
    r"|about)|urges? to|urge of|feel like|felt like|wish i could|considering) "
)
_ASKER = (
    r"(?:i|you|u|we|one|someone|somebody|anyone|a person|he|she|they|a (?:nurse|doctor|killer|murderer"
    r"|character)"
    r"|(?:my|the|a|his|her) (?:\w+ )?(?:character|protagonist|villain|killer|murderer|assassin|antagonist"
    r"|heroine|hero))"
)
#: "how to", "how would one"; ends with a space
_HOW = (
    rf"(?:how (?:to|(?:do|does|can|could|would|should|might|did) {_ASKER})|(?:help|teach|show|tell) me(?:"
    rf" how)?(?: to)?"
    rf"|(?:way|ways|steps|method|methods|instructions|tips|plan|recipe) (?:to|for|of)|how {_ASKER} (?:can"
    rf"|could|would|should|might)) {_ADVERB}"
)
_NICE = (
    r"(?:painless|painlessly|quick|quickest|easy|easiest|fast|fastest|best|surest|peaceful|peacefully|least"
    r" painful"
    r"|effective|reliable|foolproof|cheapest|guaranteed|gentle|simplest|deadliest|painful|good|undetectable"
    r"|perfect)"
)

# self-harm

_ENDING = (
    r"(?:kill|killing|hang|hanging|drown|drowning|shoot|shooting|strangle|strangling|suffocate|suffocating"
    r"|asphyxiate"
    r"|gas|gassing|electrocute|murder|unalive|unaliving|end|ending|neck|top|(?:to|gonna|wanna|just|and|of)"
    r" off(?:ing)?)"
)
_HURTING = (
    r"(?:cut|cutting|harm|harming|hurt|hurting|injure|injuring|burn|burning|poison|poisoning|stab|stabbing"
    r"|starve|starving|punish|punishing|mutilate|overdose)"
)
_BY_ACCIDENT = (
    r"(?! (?:while|when|if|on|by accident|accidentally|shaving|running|lifting|at the|in the gym|up))"
)
_NOT_STUDIED = (
    r"(?! (?:prevention|research|rates?|risk|in|among|screening|assessment|attempts|ideation|as a|hotlines?))"
)
_STUDY = "whether|if|why|how|who|people|patients|teens|researching|studying|writing"
_NOT_HOSPICE = r"(?! (?:at home|with dignity|peacefully at|in hospice|in a hospice|from|of|at a|in my own))"
_JUMP = (
    r"(?:jump|jumping) (?:off|from|in front of|under) (?:a|an|the|my|this) "
    r"(?:\w+ )?(?:bridge|building|roof|balcony|cliff|train|window|floor|tower|overpass|car|truck)"
)
_WHOLE = r"(?:all|every one of|the whole|a whole|the entire|my whole|my entire|an entire|a bottle|my bottle)"

#: what nobody says who isn't in danger; in a vignette the patient may
SELF_HARM = patterns(
    rf"{_ENDING} myself(?! up)",
    rf"(?:how to|ways? to|how (?:do|can|should) i) {_ADVERB}(?:self harm|selfharm)",
    rf"(?:{SPEAKER} (?:self harm|selfharm)|hide (?:my )?(?:self harm|selfharm|cutting)|{SPEAKER}"
    rf" {words(3, NOT)}{_INTEND}self harm)",
    rf"(?:{_INTEND}|how to |how (?:do|can|could|should) i |ways? to |cant stop |keep |stop |started )"
    rf"{words(3, NOT)}{_HURTING} myself{_BY_ACCIDENT}",
    r"(?:i|im|ive)(?: (?:am|feel|feeling|felt|been|have|having|had|get|getting|became|so|very|really|just"
    r"|still|actively"
    r"|always|again|think|im|i|extremely|constantly|now|a|bit|little|pretty|keep|kind|of|these)){0,5}"
    r" suicidal(?! (?:patients?|clients?|teens?|people|behaviou?r in))",
    rf"{SPEAKER} {words(6, _STUDY)}(?:commit|committing"
    rf"|attempt|attempting|contemplating|considering|planning|think of|think about|thinking of|thinking"
    rf" about|do|try|trying) suicide{_NOT_STUDIED}",
    rf"(?:{SPEAKER} {words(3, NOT)}{_INTEND}|should i |can i |i )suicide{_NOT_STUDIED}",
    rf"(?:i|id|ive) {words(4, NOT)}(?:want to|wanted to|wanna|wish to|wish i could|wish i would|like to"
    rf"|rather|need to"
    rf"|deserve to|hope i|hope to|ready to|prefer to|waiting to) (?:just )?(?:die|be dead|disappear forever"
    rf"|never wake up|not wake up|stop living|stop existing|not exist|end it){_NOT_HOSPICE}",
    r"(?:dont|do not|didnt|no longer) (?:want to|wanna|wish to|feel like) (?:live|living|be alive|being"
    r" alive|exist"
    r"|existing|wake up|be here|go on living|be on this earth)(?: any ?more| any longer| like this|"
    r" tomorrow|(?= \. | $))",
    r"(?:end|ending|take|taking|ended) my (?:own )?(?:life|existence)(?! (?:back|saving|long|insurance))",
    rf"(?:end|ending) it all|{_INTEND}end (?:it|things) (?:tonight|now|today|forever|soon|for good)",
    rf"(?:wish i (?:was|were)|rather be|{SPEAKER} {words(3)}better off|{SPEAKER} {words(3, NOT)}want to be) dead"
    r"|(?:better off|better) without me|wish i (?:was|were|had|had been)(?: never| not)? (?:never )?(?:been"
    r" )?born",
    rf"(?:{SPEAKER}|theres|there is) {words(3)}(?:no reason|nothing(?: left)?|no point|no purpose|any reason"
    rf"|any point)"
    r" (?:to|in|for me to) (?:live|living|go on|going on|be alive|stay alive)",
    r"cant (?:go on|keep) living|cant (?:live|go on) (?:any ?more|any longer)",
    r"(?:slit|slitting|slash|slashing) (?:my |your |ones |the |both )?(?:own )?(?:wrists?|throat|veins?)"
    r"|(?:cut|cutting|open) my (?:wrists|veins)",
    rf"(?:{_INTEND}|how to |how (?:do|can|could|should) i |ways? to |cant stop |stop"
    rf" ){words(2, NOT)}(?:cut|cutting)"
    r" my (?:wrists?|arms?|thighs?|legs?|skin)(?! (?:hair|nails?))",
    rf"(?:{SPEAKER} {words(4, NOT)}(?:{_INTEND}|to |could |should |just ){_JUMP}"
    rf"|{_JUMP} {words(6)}(?:kill me|painless|quick|hurt|survive|die))",
    rf"(?:{_INTEND}|should i |can i |to |imma |ima )(?:just )?(?:kms|unalive)",
    r"(?:write|writing|draft|compose|word|wrote) (?:(?:me|my|a|up|out|this|the) ){0,3}suicide (?:note"
    r"|letter)",
    rf"{SPEAKER} {words(4, NOT)}{_INTEND}(?:an |take an |taking an )?(?:overdose|overdosing|od)",
    rf"(?:{_INTEND}|if i |should i )(?:just )?(?:take|taking|swallow|swallowing|down|eat) {_WHOLE}"
    rf" {words(3)}{PILLS}"
    r"(?! (?:with|on|to|through|together|in the|at the same))",
    rf"my {KIN} {words(6)}(?:{_INTEND}|threatening to |threatens to |threatened to |shell |hell |wanting to )"
    r"(?:kill|hang|hurt|harm|cut|shoot|drown|poison|end) (?:himself|herself|themselves|themself|his life"
    r"|her life)",
    rf"my {KIN} {words(3, NOT)}(?:threatening|planning|contemplating) suicide",
    rf"my {KIN} (?:is|feels|seems|says (?:he|she|they|hes|shes)(?: is| are| feels)?)(?: \w+)? suicidal"
    rf"|my {KIN} {words(3, NOT)}(?:wants to|wanting to) die{_NOT_HOSPICE}",
)
#: a request for the means, whoever is said to need them
SELF_HARM_REQUEST = patterns(
    rf"{_HOW}(?:commit|committing|complete|attempt|do|die by) suicide{_NOT_STUDIED}",
    rf"how (?:do|can|could|would) people (?:commit|do) suicide{_NOT_STUDIED}",
    rf"{_NICE} (?:and \w+ )?(?:way|ways|method|methods|pills?|drugs?|poison|means|death|place)"
    rf" {words(3)}(?:to|of) {_ADVERB}"
    r"(?:die|dying|suicide|commit suicide|committing suicide|end (?:my|it|your|ones)|kill (?:myself"
    r"|yourself|oneself|me))",
    rf"{_NICE} suicide(?: (?:method|methods|technique|way|pills?|option|kit|bag|plan|drugs?)|(?= \. | $))",
    rf"(?:how (?:to|do i|can i|could i|should i)|ways? (?:to|i can)) {_ADVERB}(?:die|be dead){_NOT_HOSPICE}",
    rf"how (?:many|much) {words(7, 'time|months|years|weeks|days|longer|people|patients')}(?:to|would|will"
    rf"|could|can) {words(2)}(?:kill|finish) (?:me|myself|you|yourself|oneself|u)",
    rf"how (?:many|much) {words(9, 'time|months|years|weeks|days|longer|people|patients')}(?:to {_ADVERB}"
    r"(?:die|od|overdose|never wake up|not wake up|pass away|end it|end my)|(?:until|till|before) i (?:die"
    r"|od|overdose))",
    rf"(?:can|could|will|would|do) (?:i|you) (?:die|od|overdose) (?:from|if i|by|on) (?:\w+ )?(?:{NUMBER}"
    rf"|{_WHOLE}|too many)",
    rf"{_HOW}(?:end|take) (?:ones|your|my|a|their own) (?:own )?life",
    r"(?:is|does|would|how painful is|how long does) (?:\w+ )?(?:hanging|drowning|overdosing|bleeding out"
    r"|suffocation|hanging yourself|drowning yourself) (?:\w+ ){0,2}(?:painful|painless|hurt|quick|peaceful)",
    r"help me (?:to )?(?:die|end it)(?! (?:at home|with dignity))",
    r"how long (?:does|would|will) it take to die (?:from|by|of|in|with) (?:an? )?(?:hanging|carbon monoxide|overdose"
    r"|bleeding|drowning|suffocation|charcoal|car exhaust|slit\w*)",
    r"where (?:to|do i|should i) cut (?:myself|to|so)|(?:cut|cutting|slit|slitting) your (?:own )?wrists",
    rf"(?:what|which) (?:dose|amount|dosage|quantity|combination|mix|pills|drugs?|meds?|medications?|poison"
    rf"|overdose|gun)"
    rf" {words(6)}(?:would|will|can|could|to|should|enough to) {words(2)}(?:kill (?:me|myself|you"
    rf"|yourself|oneself)|die"
    r"|overdose on|od on|end my|end it)",
    rf"enough {words(4)}to (?:kill (?:me|myself)|die|end (?:it|my)|od|overdose)",
    rf"(?:lethal|fatal|deadly) {words(5)}(?:for me|for my (?:weight|size|body|height)|if i weigh|i weigh)",
    rf"(?:will|would|could|can) (?:taking |swallowing |drinking |eating )?(?:{NUMBER}|{_WHOLE}|too many|a"
    rf" handful) {words(5)}kill me",
    rf"(?:if i (?:take|swallow|drink|inject|took)|taking|drinking) (?:{NUMBER}|{_WHOLE}|too many|a handful"
    rf"|lots) {words(7)}"
    r"(?:will|would|could|can|do|am) i (?:die|be dead|sleep forever|going to die)",
    rf"{_HOW}(?:overdose|od)(?! (?:patients|be|in|deaths|prevention|education|treatment|victims|risk))",
    rf"(?:{_NICE}|which|what) {words(3)}to (?:overdose|od) (?:on|with)",
    r"(?:tie|make|tying|making) (?:a |the )?(?:\w+ )?noose|exit bag|suicide bag",
    r"(?:buy|get|order|obtain|find|source) (?:some |me )?(?:nembutal|suicide pills?)",
    rf"{_HOW}(?:kill|hang|drown|shoot|strangle|suffocate|asphyxiate|poison|unalive|cut|harm) (?:yourself"
    rf"|oneself)",
    rf"(?:character|protagonist|hero|heroine|villain|friend) {words(5)}(?:kill|hang|poison|drown) "
    rf"(?:himself|herself|themselves|themself) {words(4)}(?:with|using|painlessly|realistically|by)",
    rf"how deep {words(4)}(?:cut|cuts)(?: \w+){{0,5}} (?:to die|to bleed out|wrists?|artery|vein)",
)

# harm to others

_POISONED = (
    r"(?:poison|poisoning|kill|killing|murder|murdering|drug|drugging|roofie|harm|hurt|incapacitate|knock"
    r" out|paraly[sz]e|suffocate|smother|strangle|get rid of|euthani[sz]e|sicken|assassinate)"
)
#: who is to be harmed; a bare "patient" or "cells" is none
_TARGET = (
    r"(?:someone|somebody|anyone|anybody|another person|people|everyone|everybody|him|her|them|my ex"
    rf"|an? (?:\d+ \w+ |\w+ )?(?:person|human|human being|{ADULT}|guest|king|child|kid|baby|toddler|crowd"
    rf"|victim|enemy|pet|patient)"
    rf"|(?:my|the|his|her|our|their) (?:{KIN}|(?:\w+ )?(?:{ADULT}|victim|enemy|dog|dogs|cat|cats"
    rf"|neighbou?rs?|boss"
    r"|teacher|landlord|patient|rival|target|stepson|pet)))"
)
_DRINK = (
    rf"(?:his|her|their|someones|somebodys|a persons|my {KIN}|my boss|my boss[e]?s) (?:\w+ )?(?:drinks?"
    rf"|food|coffee|tea"
    r"|soup|wine|beer|water|meal|dinner|breakfast|lunch|juice|smoothie|milk|bottle|glass|cup|sandwich"
    r"|cocktail|iv|drip)"
)
_AGENT = (
    r"(?:ricin|sarin|tabun|soman|novichok|vx|nerve agents?|nerve gas|mustard gas|chlorine gas|chloramine(?:"
    r" gas)?|phosgene"
    r"|poison gas|poisonous gas|toxic gas|deadly gas|cyanide(?: gas)?|hydrogen cyanide|hydrogen sul(?:f"
    r"|ph)ide gas|abrin"
    r"|aconitine|strychnine|(?:a |an |\w+ )?poisons?|chemical weapons?|a bomb|pipe bombs?|explosives?"
    r"|bioweapons?|biological weapons?)"
    r"(?! (?:vaccines?|antitoxin|antidotes?|antibod\w+|detect\w+|poisoning|assay|test|exposure|inhibitors?"
    r"|toxoid|ivy|cent\w+))"
)
_MAKE = (
    r"(?:make|making|synthesi[sz]e|synthesi[sz]ing|produce|extract|extracting|brew|cook|weaponi[sz]e"
    r"|manufacture|create"
    r"|build|purify|concoct|release|disperse|aerosoli[sz]e|get hold of|buy|obtain|isolate|prepare)"
)
_UNSEEN = (
    r"(?:without (?:a trace|leaving|getting caught|being caught|anyone|anybody|being detected|detection"
    r"|(?:him|her|them)"
    r" (?:knowing|noticing))|undetected|get away|getting away|looks? like|untraceabl[ey]|undetectabl[ey]|in"
    r" their sleep|in his sleep|in her sleep)"
)

POISONING = patterns(
    rf"{_HOW}{_POISONED} {_TARGET}(?! (?:feelings|tumou?r|spiders|cells|lice))",
    rf"{SPEAKER} {words(4, NOT)}{_INTEND}(?:\w+ )?(?:poison|poisoning|kill|killing|murder|murdering|drug"
    rf"|drugging|hurt|harm|strangle|smother) {_TARGET}",
    r"(?:undetectable|untraceable|untracable|tasteless|odou?rless) (?:(?:and|or|\w+less|untraceable|deadly"
    r"|lethal) ){0,3}(?:poisons?|toxins?|venom|way to (?:kill|poison|murder)|murder)",
    r"(?:untraceable|tasteless|undetectable) (?:drugs?|substances?|chemicals?) (?:to|that|for)",
    rf"(?:poisons?|toxins?) {words(4)}(?:cant|cannot|wont|not|impossible to|hard to|doesnt|dont|isnt|never"
    rf"|difficult to)"
    r" (?:be )?(?:traced?|detect(?:ed|able)?|show|found|discovered|noticed)",
    rf"(?:drugs?|substances?|chemicals?|medications?|medicine|something) {words(5)}(?:cant|cannot|wont|not"
    rf"|doesnt|dont"
    rf"|isnt|never|hard to|impossible to) {words(2)}(?:traced?|detect\w*|show up|found|appear) {words(3)}"
    r"(?:autopsy|autopsies|post ?mortem|coroner)",
    rf"(?:kill|killing|murder|murdering|poison|poisoning|drug|drugging) {_TARGET} {words(8)}{_UNSEEN}",
    r"(?:poisons?|toxins?|drugs?) (?:\w+ ){0,3}(?:leaves?|leaving) no (?:trace|evidence)",
    rf"{_HOW}make {_TARGET} (?:\w+ )?(?:sick|ill|throw up|pass out|unconscious|miscarry|infertile)(?!"
    rf" (?:leave|pay|note))",
    rf"what (?:can|could|should) (?:i|you|one) (?:put|slip|add|mix) (?:in|into|to) {_DRINK}"
    rf" {words(3)}(?:make|kill|hurt"
    r"|poison|without|knock)",
    r"secretly (?:sedate|drug|poison|medicate)|sedate (?:someone|somebody) (?:without|secretly|at)",
    rf"(?:how|where|get|buy|make|obtain) {words(4)}date rape drugs?(?! test)|date rape drugs? (?:how"
    rf"|where) to (?:get|buy|make)",
    rf"(?:miscarriage|miscarry|abort) {words(5)}secretly|secretly {words(4)}(?:miscarriage|miscarry|abort)",
    r"(?:fastest|quickest|best|painless|strongest|easiest) (?:acting )?poison(?! (?:control|cent\w+"
    r"|antidote|ivy|treatment))",
    r"get(?:ting)? away with (?:murder|murdering|killing|poisoning)",
    rf"(?:make|making) {words(3)}(?:murder|death|killing|poisoning|it) look(?:s)? like (?:a |an )?(?:heart"
    rf"|accident|natural"
    r"|suicide|overdose|stroke|sids|illness)",
    rf"(?:put|putting|slip|slipping|mix|mixing|add|adding|crush|dissolve|sneak|hide|pour|spike) {words(4)}"
    rf"(?:{TOXIC}|poison|sleeping pills?|{DRUG}|something) {words(4)}(?:in|into|to|inside) {_DRINK}",
    rf"(?:{_HOW}|{_INTEND})(?:spike|lace) {words(3)}drinks?",
    rf"{_HOW}(?:poison|contaminate) {words(4)}(?:water supply|reservoir|food supply|drinking water|salad bar)",
    rf"(?:make|get) (?:my {KIN}|him|her|them) (?:to )?die(?! (?:of|from))",
    rf"(?:poisons?|toxins?|venom|chemicals?|drugs?|medications?|medicine|plants?|mushrooms?|substances?"
    rf"|{DRUG}|{TOXIC})"
    rf" {words(5)}to (?:\w+ )?(?:kill|poison|murder|incapacitate|drug|knock out|finish off) {_TARGET}",
    rf"{_NICE} (?:acting )?(?:poisons?|toxins?|venom|way|ways|drug|method|household \w+) {words(2)}(?:to"
    rf"|for|of|that) {words(3)}(?:kill|killing|poison|poisoning|murder|murdering|drug) {_TARGET}",
    rf"how (?:much|many) {words(9, 'people|patients')}(?:to|would|will|could|can) {words(2)}(?:kill"
    rf"|poison|murder|knock out|finish off) {_TARGET}",
    rf"(?:what|which) (?:\w+ )?(?:poison|toxin|dose|amount|dosage|quantity) {words(6)}(?:kills?|poison"
    rf"|murder|finish off) {_TARGET}",
    rf"(?:what|which) (?:poisons?|toxin|venom) (?:should|would|could|can|do|might) (?:he|she|they|i|you"
    rf"|{_ASKER}) (?:\w+ )?"
    r"(?:use|give|need|choose|pick|buy|get)",
    rf"(?:{_HOW}|{_INTEND}){_MAKE} {words(2)}{_AGENT}",
    rf"(?:recipe|instructions|guide|directions|ingredients) (?:for|to|on) {words(4)}{_AGENT}",
    rf"(?:{_HOW}|{_INTEND})(?:grow|growing|culture|cultivate|weaponi[sz]e|brew|spread)"
    rf" {words(3)}(?:botulinum|botulism"
    r"|clostridium botulinum|anthrax|smallpox|plague|ebola)",
    rf"(?:slip|give|giving|put|feed|cause|induce|trigger|make) {words(7)}(?:misoprostol|mifepristone"
    rf"|abortion pills?|cytotec|miscarriage|miscarry|abort) {words(8)}without (?:her|them|my)",
    rf"(?:character|villain|protagonist|killer|murderer|antagonist|assassin|heroine|hero)"
    rf" {words(4)}(?:poison|poisons|kill|kills|murder|murders|drug) (?:{_TARGET}|with)",
    rf"(?:character|villain|protagonist|killer|murderer|antagonist|assassin|heroine|hero)"
    rf" {words(2)}(?:uses?|using|buys|needs)"
    rf" {words(3)}(?:poisons?|toxins?|venom|insulin|potassium|cyanide|arsenic)",
)

"""Small word lists and the tokenizer that the keyword rule and the splitter share: English edit requests."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


# --- Closed classes: they begin, join and end noun phrases. ---
DEFINITE = _set("the this that these those my your his her its our their both all each every")
INDEFINITE = _set(
    "a an some any another several many more enough few no one two three four five six seven eight nine ten dozen half"
)
DETERMINERS = DEFINITE | INDEFINITE
ARTICLES = _set("a an some another")
STANDALONE = _set("this that these those her")  # determiners that can also be a whole phrase: "turn her into a queen"
PRONOUNS = _set(
    "it he she him they them i me we us you himself herself itself themselves everything everyone everybody"
    " something someone somebody anything anyone nothing nobody there"
)
CONJUNCTIONS = _set("and or but & plus , ; : . ! ?")
PREPOSITIONS = _set(
    "of in on at to into onto with without from by for under underneath beneath below above over behind beside besides"
    " near between among around across against along through inside outside within toward towards upon beyond past"
    " as like than"
)
RELATIVES = _set("who whom whose which where when while because so if not never don't doesn't isn't")
PARTICLES = _set("away off out up down back apart together over on in rid of around")
ADVERBS = _set(
    "too also instead please again now here twice maybe perhaps even only very more less most much quite really just"
    " away off out up down back"
)
MODALS = _set("should would could must might will shall may cannot won't shouldn't can't")
ASKING = MODALS | {"can"}  # "can" only where a question begins: elsewhere it may be made of tin

# --- Verbs, by what they do to the object that follows. A clause starts with one of them. ---
ADD = _set(
    "add insert include draw introduce create generate append attach plant hang install sprinkle scatter drop bring"
    " build stick carve write apply wear overlay superimpose paste spray throw"
)
GIVE = _set("give lend offer grant hand")
PLACE = _set("put place set position seat show see")
CAUSE = _set("have make let get")
FILL = _set(
    "fill cover decorate surround dress top garnish adorn wrap coat drape equip provide clothe load litter stuff"
)
REMOVE = _set("remove delete erase eliminate take cut clear clean lose wipe exclude omit strip crop ditch")
COLOUR = _set("paint repaint color colour recolor recolour dye tint shade")
CONVERT = _set("turn change replace swap exchange switch substitute convert transform morph trade")
ADJUST = _set(
    "keep leave preserve maintain lighten darken brighten dim blur sharpen zoom rotate flip move shift resize enlarge"
    " shrink scale increase decrease reduce raise lower open close shut fix restore repair extend expand stretch widen"
    " lengthen shorten adjust modify alter edit update enhance improve render stylize stylise cartoonify light burn"
    " freeze melt break destroy hide reveal fade wash dry empty polish bleach straighten curl trim shave age smooth"
    " slice highlight simplify replicate duplicate copy mirror tilt soften"
)
# Also common nouns or adjectives: they start a clause only with an object that is plainly one ("light the candle").
AMBIGUOUS = COLOUR | _set(
    "cover plant dress top place set blur cut fill trim drop show light open clean clear dry empty lower wash coat load"
    " age curl scale smooth mirror stick spray wrap burn fade dim hand position seat trade copy close wear see let"
)
# "has a hat", "wearing a hat": what follows is on the subject.
HOLD = _set("wear wears wore hold holds held carry carries carried have has had ride rides rode need needs get gets")
HOLDING = _set("wearing holding carrying having riding")
# What follows says what the subject is like: never a thing that is added.
BE = _set(
    "be is are was were being been become becomes became remain stay look looks looking seem seems appear appears made"
    " it's that's he's she's there's they're"
)
ACTIONS = _set(
    "sit stand lie run jump walk fly swim eat drive dance sleep laugh cry go come float chase bark sing read kiss hug"
    " touch seen shown worn built hung left located next"
)

# --- Open classes, kept short: what commonly stands around the head noun of an edit request. ---
COLOURS = _set(
    "red orange yellow green blue purple pink white black grey gray brown golden gold silver navy turquoise teal beige"
    " violet crimson scarlet magenta cyan maroon tan cream ivory lavender indigo khaki olive bronze copper blond blonde"
    " brunette ginger transparent colorful colourful multicolored multicoloured monochrome pastel neon"
)
_BASES = _set(
    "big small large tiny huge little tall short long wide narrow thick thin fat slim deep shallow high low old young"
    " new modern ancient antique vintage light dark bright dull pale vivid clean dirty dusty muddy wet dry soft hard"
    " smooth rough shiny matte glossy hot cold warm cool frozen icy snowy rainy sunny cloudy stormy foggy misty windy"
    " starry clear happy sad angry scary cute funny silly strange beautiful pretty ugly handsome elegant fancy plain"
    " simple dramatic realistic abstract fluffy furry hairy bald curly straight wavy spiky round square flat sharp"
    " pointy striped spotted dotted wooden metallic woolen woollen plastic ceramic empty full open closed broken rusty"
    " burnt burned melted fresh rotten ripe raw juicy creamy crispy sweet spicy strong weak fast slow loud quiet calm"
    " rich poor heavy fierce gothic medieval futuristic photorealistic blurry glowing cozy cosy lush alive dead asleep"
    " awake naked visible invisible better worse different similar same other bare tidy messy crowded stained female"
    " male festive magical mysterious friendly lovely nice good bad great perfect real fake steaming extra whole entire"
    " single double main first second third last left right upper lower top bottom middle front back"
)
NOMINAL_ADJECTIVES = _set(
    "orange rose light cream gold silver square top bottom ginger tan peach left right middle front back"
)
NOUNS_IN_ING = _set(
    "ring king string wing spring earring building painting ceiling clothing lightning thing swing railing awning"
    " pudding stocking icing wedding topping lighting evening morning duckling drawing dressing dumpling frosting"
    " crossing sibling sling sting bling filling fencing flooring paving herring"
)
NOUNS_IN_ED = _set("shed sled seed weed steed moped bed bobsled tweed reed watershed")
NOUNS_IN_LY = _set("butterfly lily family jelly belly fly firefly dragonfly bully holly lolly")
# Compounds whose last word alone would name another thing.
FIXED_COMPOUNDS = frozenset(
    word.replace("_", " ")
    for word in _set(
        "ice_cream teddy_bear hot_air_balloon hot_dog traffic_light sea_lion guinea_pig cotton_candy"
        " french_fries shooting_star northern_lights ferris_wheel bow_tie high_heels sea_horse fire_hydrant"
        " fire_extinguisher contact_lens rubber_duck sun_glasses washing_machine light_bulb remote_control"
        " hot_tub bean_bag peanut_butter roller_coaster bell_pepper trash_can watering_can rocking_horse"
        " milky_way polka_dots solar_panel pine_cone disco_ball"
    )
)

# --- Nouns that do not say where. ---
MEASURES = _set(
    "pair couple bunch lot lots group number set kind type sort piece pieces bit row series rest side part half top"
    " bottom front back middle edge left right one ones dozens hundreds plenty layer dusting coat touch splash"
    " sprinkling pinch handful"
)
ATTRIBUTES = _set(
    "color colors colour colours hue size shape material texture brightness breed height length width age time position"
    " positions"
)
STYLES = _set(
    "style styles look appearance filter filters effect effects vibe vibes feel feeling mood tone tones theme"
    " atmosphere aesthetic aesthetics version contrast saturation lighting season weather temperature shade tint"
    " exposure"
)
PICTURES = _set("picture image photo photograph pic scene shot place")
NOTHINGS = _set("thing things one ones bit bits lot lots rest")
MEDIA = _set(
    "watercolor watercolour watercolors watercolours oil oils anime sketch cartoon painting pastels pencil ink"
)
TIMES = _set(
    "day night daytime nighttime morning noon midday afternoon evening dusk dawn sunset sunrise twilight midnight"
    " spring summer autumn fall winter christmas halloween"
)
WEATHER = _set("snow rain fog mist storm thunderstorm hail sunshine haze blizzard drizzle")

# --- What people put before the request itself. ---
FILLERS = _set(
    "please kindly now then also and just next first firstly second secondly finally lastly but plus so ok okay hey hi"
)
_OPENINGS = re.compile(
    r"(?:(?:can|could|would|will) (?:you|we|i|u)(?: please| kindly)?(?: mind| try to| help me| like to)?"
    r"|(?:i|we|i'd|we'd)(?: would| do| don't| really| just| also)* (?:like|love|want|need|prefer|wish)"
    r"(?: for)?(?: you)?(?: to)?"
    r"|(?:what|how) (?:would|will|might|does|do) [\w' ]{1,60}? look(?: like)? if"
    r"|(?:what|how) (?:if|about|would|will|might|does|do)"
    r"|(?:(?:let|have|can|could|should|will) )?there"
    r" (?:(?:should|could|would|must|can|(?:needs?|has|have|ought) to|to) )?(?:be|is|are|was|were)"
    r"|let's|lets|let us|go ahead(?: and)?|try (?:and|to)|help me(?: to)?|make sure(?: that| to)?|imagine|suppose"
    r"|don't|do not|you (?:can|could|should)|feel free to|is there (?:a|any) way to|(?:is|would) it (?:be )?possible to"
    r"|it would be \w+ (?:if|to)|if)\b"
)


@dataclass(frozen=True)
class Token:
    """A word or one mark of punctuation: `low` is its comparable form, `start` and `end` its place in the text."""

    low: str
    start: int
    end: int


LOOKAHEAD = 2
"""How many letters behind its end a token depends on."""
_TOKEN = re.compile(r"\w+(?:['’\-]+\w+)*(?:(?<=[sS])['’](?=\s\w))?|[^\w\s]")


def tokenize(text: str, begin: int = 0, end: int | None = None) -> list[Token]:
    """The tokens of `text` from `begin` on, up to `end`. Words keep their apostrophes and hyphens ("man's", "t-shirt",
    "dogs'")."""
    found = _TOKEN.finditer(text, begin, len(text) if end is None else end)
    return [Token(m.group().lower().replace("’", "'"), m.start(), m.end()) for m in found]


_OPENING_WORDS = 20
"""The longest polite opening, about."""


def opening_length(words: list[str], fillers: bool = True, begin: int = 0, *, whole: bool = False) -> int:
    """How many first words only ask politely or wonder ("could you please", "I'd like", "what if"). The `begin` of them
    are known to; `whole`: more words are to come, and what depends on them is left open."""
    count = begin
    while count < len(words) - (_OPENING_WORDS if whole else 0):
        polite = _OPENINGS.match(" ".join(words[count : count + _OPENING_WORDS]))
        if polite:
            count += len(polite.group().split())
        elif fillers and (words[count] in FILLERS or not words[count][0].isalnum()):
            count += 1
        else:
            break
    return count


def _forms(verb: str) -> tuple[str, ...]:
    stem = verb[:-1] if verb.endswith("e") and verb != "see" else verb
    return (verb, stem + "ing", stem + stem[-1] + "ing")


# "removing" -> "remove", "putting" -> "put": "how about adding a hat?"
LEADS = {
    form: verb
    for verb in sorted(ADD | GIVE | PLACE | CAUSE | FILL | REMOVE | COLOUR | CONVERT | ADJUST)
    for form in _forms(verb)
}


@lru_cache(4096)
def is_adjective(word: str) -> bool:
    """Known adjectives and colours, their comparatives and superlatives, and the endings that nouns hardly have."""
    if word in COLOURS or word in _BASES or re.search(r"(less|ous|ish|-\w+ed|-like)$", word):
        return word not in {"fish", "dish", "radish", "octopus"}
    stem = re.sub(r"(er|est)$", "", word)
    if stem == word:
        return False
    roots = {stem, stem + "e", stem[:-1], re.sub("i$", "y", stem)}
    return bool(roots & (COLOURS | _BASES))


def is_adverb(word: str) -> bool:
    return word.endswith("ly") and word not in NOUNS_IN_LY and not is_adjective(word)


def is_doing(word: str) -> bool:
    return word.endswith("ing") and word not in NOUNS_IN_ING and not is_adjective(word)


def is_participle(word: str) -> bool:
    """What ends a noun phrase after its noun: "the man standing there", "the car parked outside"."""
    return is_doing(word) or (
        word.endswith("ed") and len(word) > 4 and word not in NOUNS_IN_ED and not is_adjective(word)
    )

"""The keyword of one sub-instruction: the word whose cross-attention says where the edit acts (e_i of the paper).

The rule is what English does by itself. A request has a verb and a few noun phrases. What is *new* to the picture is
indefinite ("a hat", "sunglasses"), what is *there already* is definite ("the dog"). So the keyword is the head noun of
what is added, else of what is acted on. Whole pictures, pronouns and styles are nowhere in particular: they give None,
except that a named season, time of day or weather ("make it night") is its own keyword.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import dropwhile

from foi_core import words as w
from foi_core.words import Token, is_adjective, opening_length, tokenize

# Prepositions that lead to what something becomes, or was; all others lead to where something is.
_RESULTS = frozenset({"into", "to", "as", "like", "for", "than", "of", "from"})
_PLACES = w.PREPOSITIONS - _RESULTS
# Words that end a noun phrase, and the link that they make to the next one.
_LINKS = {
    **dict.fromkeys(w.ADVERBS | w.RELATIVES, "how"),
    **dict.fromkeys(w.HOLDING, "doing"),
    **dict.fromkeys(w.ACTIONS, "do"),
    **dict.fromkeys(w.BE | w.MODALS, "be"),
    **dict.fromkeys(w.HOLD, "hold"),
}


@dataclass
class Phrase:
    """A noun phrase. `link` is what leads to it: "" (the verb or nothing), a preposition, "and", or one of `_LINKS`."""

    link: str
    determiner: str = ""
    definite: bool = False
    owner: Token | None = None
    words: list[Token] = field(default_factory=list)
    has_noun: bool = False

    def add(self, word: Token) -> None:
        self.words.append(word)
        self.has_noun = self.has_noun or not is_adjective(word.low)


def find_keyword(text: str) -> str | None:
    """The noun or fixed compound that says where one sub-instruction acts, as written in `text`; None if none does."""
    tokens = tokenize(text)
    lead, rest = _lead(tokens[opening_length([t.low for t in tokens]) :])
    phrases = list(_phrases(rest))
    for index in _candidates(lead, phrases):
        span = _keyword_span(lead, phrases, index)
        if span:
            return text[slice(*span)]
    conditions = [t for p in phrases for t in p.words[-1:] if t.low in w.TIMES | w.WEATHER]
    return text[conditions[-1].start : conditions[-1].end] if conditions else None


def _lead(tokens: list[Token]) -> tuple[str, list[Token]]:
    """The verb that the request starts with ("" for a statement: "the cat should be a tiger"), and what follows it.

    Any first word counts as a verb if a determiner or a pronoun follows: "whiten her teeth", "roll up his sleeves".
    """
    tokens = list(dropwhile(lambda token: w.is_adverb(token.low), tokens))
    lows = [t.low for t in tokens]
    if not lows:
        return "", []
    first, at = lows[0], 1
    if first in w.PREPOSITIONS | {"instead"} and "," in lows[:-1]:  # "in the background, add a tree"
        request = lows.index(",") + 1
        if lows[request] in w.LEADS:
            return _lead(tokens[request:])
    known = first in w.LEADS
    while at < len(lows) and lows[at] in w.PARTICLES and (known or lows[at] in w.ADVERBS):
        at += 1
    if known:
        return "remove" if "rid" in lows[:at] else w.LEADS[first], tokens[at:]
    if first in w.ASKING:
        return "", tokens[1:]
    closed = w.DETERMINERS | w.PRONOUNS | w.PREPOSITIONS | w.BE
    if first not in closed and at < len(lows) and lows[at] in w.DETERMINERS | w.PRONOUNS:
        return first, tokens[at:]
    return "", tokens


def _phrases(tokens: list[Token]) -> Iterator[Phrase]:
    """Cuts a request into noun phrases at determiners, prepositions, verbs and joining words."""
    now = Phrase("")
    for index, token in enumerate(tokens):
        low = token.low
        if index and low in ("instead", "rather"):
            break
        link = _link(low, now)
        if link == "skip":
            continue
        if link is not None:
            if now.determiner or now.words:
                yield now
            elif now.link == "be" and low in w.HOLDING:  # "was wearing"
                link = "hold"
            now = Phrase(link)
            if low in w.PRONOUNS:
                yield Phrase("", low, definite=True)
            if low not in w.DETERMINERS:
                continue
        if low in w.DETERMINERS and not now.words:
            now.determiner, now.definite = low, now.definite or low in w.DEFINITE
        elif low.endswith(("'s", "s'")):
            now.owner, now.definite, now.words, now.has_noun = token, True, [], False
        else:
            now.add(token)
    if now.determiner or now.words:
        yield now


def _link(low: str, now: Phrase) -> str | None:
    """The link of the phrase that `low` starts after `now`; "skip" to pass over `low`, None if it belongs to `now`."""
    only_adjectives = bool(now.words) and not now.has_noun
    if low in w.CONJUNCTIONS or not low[0].isalnum():
        return "skip" if only_adjectives else "and"
    if low in w.PRONOUNS:
        return ""
    if low in w.PREPOSITIONS:
        return low
    if low in w.DETERMINERS and not (low == "more" and now.has_noun):
        if only_adjectives and low in w.INDEFINITE - {"a", "an"}:  # "the left half"
            return None
        fresh = now.words or (now.determiner in w.STANDALONE and low not in w.STANDALONE)
        return "" if fresh else None
    if only_adjectives or (now.determiner and not now.words and now.determiner not in w.STANDALONE):
        # The noun is still to come: "a really big dog", "remove the fly".
        return "skip" if low in w.ADVERBS or w.is_adverb(low) else None
    if low in _LINKS:
        return _LINKS[low]
    if w.is_adverb(low):
        return "how"
    return "doing" if now.has_noun and w.is_participle(low) else None


def _candidates(lead: str, phrases: list[Phrase]) -> list[int]:
    """Phrases that can hold the keyword, best first, by what the verb does."""

    def at(*links: str) -> list[int]:
        return [i for i, phrase in enumerate(phrases) if phrase.link in links]

    direct = at("") if not phrases or phrases[0].link in _RESULTS else sorted({0, *at("")})
    definite = bool(phrases) and phrases[0].definite
    if lead in w.GIVE:
        return direct[::-1]
    if lead == "substitute":
        return at("for") + direct[:1]
    if lead in w.ADD:
        return direct[:1] + at("to", "on", "in", "over")
    if lead in w.FILL:
        return at("with") + (at("in") if definite else []) + direct[:1]
    if lead and lead not in w.CAUSE | w.PLACE:
        return direct[:1]
    places = _PLACES | {"into"} if lead in w.PLACE | {"get"} else _PLACES
    arrivals = {"do"} if lead == "make" else {"do", "doing", *places}
    new = [i for i in at(*arrivals) if definite and not phrases[i].definite]  # "put the ball under a hat"
    return at("hold") + new + direct[:1] + ([] if lead == "make" else at(*places))


def _keyword_span(lead: str, phrases: list[Phrase], index: int) -> tuple[int, int] | None:
    """Where the keyword of one phrase stands in the text; None if the phrase names nothing that has a place."""
    for i in range(index, len(phrases)):
        phrase, after = phrases[i], phrases[i + 1] if i + 1 < len(phrases) else Phrase("")
        nouns = _to_head(phrase, after, lead)
        head = nouns[-1].low if nouns else ""
        if after.link == "of" and (head in w.MEASURES or not head) and phrase.determiner not in w.PRONOUNS:
            continue  # "a pair of sunglasses", "all of the text"
        if head not in w.ATTRIBUTES | w.STYLES:
            nowhere = not head or _is_nowhere(head, phrase, after)
            return None if nowhere else (nouns[-_compound_size(nouns)].start, nouns[-1].end)
        # "the car's colour": the keyword is whose it is
        of_noun = [t for t in nouns[:-1] if head in w.ATTRIBUTES and not is_adjective(t.low)]
        if of_noun:
            return of_noun[-1].start, of_noun[-1].end
        if phrase.owner:
            return phrase.owner.start, phrase.owner.end - (2 if phrase.owner.low.endswith("'s") else 1)
        named = after.link == "of" or (after.link in ("in", "on") and not phrase.link)
        if not named or not (head in w.ATTRIBUTES or after.definite):
            return None
    return None


def _is_nowhere(head: str, phrase: Phrase, after: Phrase) -> bool:
    """Times and whole pictures are everywhere; actions, numbers and other scripts are no English nouns."""
    whole = head in w.PICTURES and phrase.definite and after.link not in ("on", "above", "over", "behind")
    time = head in w.TIMES and phrase.link not in _PLACES
    medium = head in w.MEDIA and phrase.link in w.PREPOSITIONS
    return whole or time or medium or head in w.NOTHINGS or w.is_doing(head) or not "a" <= head[0] <= "ɏ"


def _to_head(phrase: Phrase, after: Phrase, lead: str) -> list[Token]:
    """The words of a phrase up to its head noun: "the hat black" -> hat; "make the walls brick" -> walls."""
    found = list(phrase.words)
    names = lead in w.ADD | w.GIVE | w.FILL | w.PLACE | w.REMOVE  # verbs whose object has no result after it
    if not phrase.has_noun:
        if not names and phrase.determiner in w.STANDALONE | {""}:
            return []  # "make her blonde"
        while found and found[-1].low not in w.NOMINAL_ADJECTIVES:
            found.pop()
        return found
    kept = w.NOMINAL_ADJECTIVES if names or phrase.determiner in w.ARTICLES else frozenset[str]()
    while is_adjective(found[-1].low) and found[-1].low not in kept and _compound_size(found) == 1:
        found.pop()
    ends = not after.words or (after.link == "and" and not after.determiner)
    if lead in w.CAUSE and ends and not phrase.link and len(found) == len(phrase.words) > _compound_size(found):
        found.pop()  # what it is made into: the request says so without a word between
    return found


def _compound_size(words: list[Token]) -> int:
    """How many of the last words are one fixed compound ("ice cream"); 1 if they are not."""
    for size in (3, 2):
        tail = " ".join(t.low for t in words[-size:])
        if len(words) >= size and {tail, tail.removesuffix("s")} & w.FIXED_COMPOUNDS:
            return size
    return 1

"""Cuts a composite text into sub-instructions (the T_i of the paper), each a request that stands by itself.

"and" joins two requests ("make it red and add a hat") or only two things or colours ("add salt and pepper"). So a text
is cut at a joint only where a clause with an edit verb, or a polite one ("could you ..."), begins. One case needs more:
English leaves out a repeated verb ("make the hat black and the coat red"). Where both sides are an object with a result
of its own, the second gets the verb back ("make the coat red"). Apart from that verb, a piece is a part of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import dropwhile, pairwise

from foi_core import words as w
from foi_core.spec import MAX_TEXT_LENGTH
from foi_core.words import Token, is_adjective, opening_length, tokenize

_STARTERS = r"\b(?:and|then|also|but|plus|after that|afterwards)\b|&"
_ORDER = (
    r"\b(?:next|first(?:ly)?|second(?:ly)?|third(?:ly)?|finally|lastly|last|in addition|additionally|as well as"
    r"|if (?:possible|you can))\b"
)
_ITEM = r"(?:step )?\(?(?:\d{1,2}[.):]|[a-h]\))(?=\s)"  # "1." or "a)" of a list
_MARKS = rf"(?<![,;.])[,;.]++(?=\s|$)|(?<=[!?])\s+|\n|^[ \t]*[-*•–][ \t]+|^[ \t]*{_ITEM}"


def _joint_pattern(marks: str) -> re.Pattern[str]:
    """A joint: the first mark or joining word and all that follow it ("; and then, finally")."""
    start = rf"(?:{marks}|{_STARTERS}|\A\s*{_ORDER})"
    return re.compile(
        rf"{start}(?:\s*(?:{marks}|{_STARTERS}|{_ORDER}|,|[-*•–](?=\s)))*\s*", re.IGNORECASE | re.MULTILINE
    )


_JOINT = _joint_pattern(_MARKS)
_JOINT_IN_LIST = _joint_pattern(rf"{_MARKS}|(?<=\s){_ITEM}")
# What follows one of these is a clause, whatever its verb.
_STRONG = re.compile(r"[\n;.!?]|\d|then|after|^\s*,\s*$", re.IGNORECASE)
_QUOTES = {'"': '"', "“": "”"}

# Verbs that a second clause can leave out, and the words that lead to their result.
_RESULT_WORDS = {
    **dict.fromkeys(("make", "turn", "change", "convert", "transform", "switch"), frozenset({"into", "to"})),
    **dict.fromkeys(("replace", "swap", "exchange"), frozenset({"with", "by", "for"})),
    **dict.fromkeys(("put", "place"), frozenset({"on", "in", "under"})),
    **dict.fromkeys(w.FILL, frozenset({"with", "in"})),
    "add": frozenset({"to"}),
}
_TAKES_ADJECTIVE = w.COLOUR | {"make", "turn", "change"}


def split_instruction(text: str) -> tuple[str, ...]:
    """The sub-instructions of `text`, in order; () only for blank text. Splitting a piece again gives the piece.

    Time grows with the length of `text`. A piece that is longer than a sub-instruction may be is not cut further.
    """
    if not text.strip():
        return ()
    pieces: list[str] = []
    left = _Left(text)
    joints = [*_joints(text), (len(text), len(text))]
    for (start, end), (stop, _) in pairwise(joints):
        left.read_to(start)
        if left.too_long:
            break
        found = _verb_of_next(left, text[start:end], text[end:stop])
        if found is not None:
            pieces.append(left.text)
            left = _Left(text, end, found)
    left.read_to(len(text), tokens=False)
    pieces.append(left.text)
    cleaned = [piece.strip().rstrip(".,; \n\t") for piece in pieces]
    return tuple(piece for piece in cleaned if piece) or (text.strip(),)


class _Left:
    """The piece that is being read, from `begin` on, after the `verb` that it had left out. It grows joint by joint,
    and only what is new is read again."""

    def __init__(self, whole: str, begin: int = 0, verb: str = "") -> None:
        self._whole, self._begin, self._verb, self._end = whole, begin, verb, begin
        self._tokens: list[Token] = []
        self._lows = [verb.lower()] if verb else []
        self._opening = 0

    @property
    def text(self) -> str:
        return f"{self._verb} {self._whole[self._begin : self._end]}".strip()

    @property
    def too_long(self) -> bool:
        return bool(self._tokens) and self._tokens[-1].end - self._tokens[0].start > MAX_TEXT_LENGTH

    @property
    def request(self) -> list[str]:
        """The words from the verb on, without the polite opening."""
        return self._lows[opening_length(self._lows, begin=self._opening) :]

    def read_to(self, end: int, *, tokens: bool = True) -> None:
        """Goes on until `end`. Words that end within the last LOOKAHEAD letters may have been cut off there."""
        cut = self._end - w.LOOKAHEAD
        while self._tokens and self._tokens[-1].end > cut:
            self._tokens.pop()
            self._lows.pop()
        if tokens:
            new = tokenize(self._whole, self._tokens[-1].end if self._tokens else self._begin, end)
            settled = len(self._lows)
            self._tokens += new
            self._lows += [token.low for token in new]
            self._opening = opening_length(self._lows[:settled], begin=self._opening, whole=True)
        self._end = end

    def as_written(self, low: str) -> str:
        """The first word whose comparable form is `low`."""
        if self._verb.lower() == low:
            return self._verb
        return next(self._whole[token.start : token.end] for token in self._tokens if token.low == low)


def _joints(text: str) -> Iterator[tuple[int, int]]:
    pattern = _JOINT_IN_LIST if re.match(rf"\s*{_ITEM}", text, re.IGNORECASE) else _JOINT
    quoted = _quoted(text)
    start = end = -1
    for joint in pattern.finditer(text):
        while end <= joint.start():
            start, end = next(quoted, (len(text), len(text) + 1))
        if not start < joint.start():
            yield joint.span()


def _quoted(text: str) -> Iterator[tuple[int, int]]:
    """What stands in quotation marks, with them; a mark that is not closed opens nothing."""
    begin, closed = 0, dict.fromkeys(_QUOTES, True)
    for mark in re.finditer('["“]', text):
        opening = mark.group()
        if mark.start() < begin or not closed[opening]:
            continue
        end = text.find(_QUOTES[opening], mark.end())
        if end < 0:
            closed[opening] = False
            continue
        begin = end + 1
        yield mark.start(), begin


def _verb_of_next(left: _Left, joint: str, right: str) -> str | None:
    """None: no cut between `left` and `right` (up to the next joint). Else the verb that `right` needs back, or ""."""
    thing = [t.low for t in tokenize(right)]
    if not _starts_clause(thing, joint, left):
        return _left_out_verb(left, thing)
    lows = left.request
    aside = (
        joint.strip() == "," and lows and lows[0] in w.PREPOSITIONS | w.RELATIVES | {"instead"}
    )  # "on the left, add"
    return None if left.text and (len(lows) < 2 or aside) else ""  # nor after the "copy" of "copy and paste the dog"


def _starts_clause(lows: list[str], joint: str, left: _Left) -> bool:
    """Whether `lows`, words, start with a request that can follow `left`."""
    lows = list(dropwhile(w.FILLERS.__contains__, lows))
    if len(lows) < 2:
        return False
    first, second = lows[:2]
    plain_object = second in w.DETERMINERS | w.PRONOUNS
    if 0 < opening_length(lows, fillers=False) < len(lows):
        return True
    if first in w.ASKING:
        return plain_object
    if first in w.DETERMINERS:  # a statement: "the cat should be a tiger", or "the cat was a tiger" after another one
        before = left.request[:1]
        signs = w.MODALS | w.BE if before and before[0] not in w.LEADS else w.MODALS
        return bool(signs.intersection(lows[2:6]))
    if w.LEADS.get(first) == first:
        if first in ("have", "get"):
            return second in w.DEFINITE | w.PRONOUNS
        return plain_object or first not in w.AMBIGUOUS
    if first in w.LEADS:  # "how about adding a hat and removing the scarf?", but not "a man painting the wall"
        return any(w.LEADS.get(low, low) != low for low in left.request[:1])
    closed = w.PRONOUNS | w.PREPOSITIONS | w.RELATIVES | w.BE | w.ADVERBS | w.HOLD
    unknown_verb = plain_object and first not in closed and not first.endswith(("ly", "ing", "ed"))
    return unknown_verb and bool(_STRONG.search(joint))


def _left_out_verb(left: _Left, thing: list[str]) -> str | None:
    """The verb, as written in `left`, that `thing`, words, needs to stand by itself; None if it is no such clause."""
    if len(thing) < 3 or not (thing[0] in w.DETERMINERS or thing[0].endswith("'s")):
        return None
    verb, *rest = left.request or [""]
    if not (_has_result(verb, thing) and _has_result(verb, rest)):
        return None
    return left.as_written(verb)


def _has_result(verb: str, lows: list[str]) -> bool:
    """Whether an object and what becomes of it are both there: "the hat black", "the grass into sand", "the man a
    hat"."""
    lows = [low for low in lows if low[0].isalnum()]
    if _RESULT_WORDS.get(verb, frozenset()).intersection(lows[1:-1]):
        return True
    if verb in ("give", "make") and {"a", "an"}.intersection(lows[1:]):
        return lows[0] in w.DEFINITE | w.PRONOUNS
    nouns = [low for low in lows[:-1] if low not in w.DETERMINERS - {"one"} and not is_adjective(low)]
    return verb in _TAKES_ADJECTIVE and bool(nouns) and is_adjective(lows[-1])

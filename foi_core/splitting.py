"""Cuts a composite text into sub-instructions (the T_i of the paper), each a request that stands by itself.

"and" joins two requests ("make it red and add a hat") or only two things or colours ("add salt and pepper"). So a text
is cut at a joint only where a clause with an edit verb, or a polite one ("could you ..."), begins. One case needs more:
English leaves out a repeated verb ("make the hat black and the coat red"). Where both sides are an object with a result
of its own, the second gets the verb back ("make the coat red"). Apart from that verb, a piece is a part of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from foi_core import words as w
from foi_core.words import is_adjective, opening_length, tokenize

_STARTERS = r"\b(?:and|then|also|but|plus|after that|afterwards)\b|&"
_ORDER = (
    r"\b(?:next|first(?:ly)?|second(?:ly)?|third(?:ly)?|finally|lastly|last|in addition|additionally|as well as"
    r"|if (?:possible|you can))\b"
)
_ITEM = r"(?:step )?\(?(?:\d{1,2}[.):]|[a-h]\))(?=\s)"  # "1." or "a)" of a list
_MARKS = rf"[,;.]+(?=\s|$)|(?<=[!?])\s+|\n|^[ \t]*[-*•–][ \t]+|^[ \t]*{_ITEM}"


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
_QUOTED = re.compile(r"\"[^\"]*\"|“[^”]*”")

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
    """The sub-instructions of `text`, in order; () only for blank text. Splitting a piece again gives the piece."""
    if not text.strip():
        return ()
    pieces: list[str] = []
    begin, verb = 0, ""  # of the piece that is being read; `verb` if it was left out
    joints = [*_joints(text), (len(text), len(text))]
    for (start, end), (stop, _) in pairwise(joints):
        left = f"{verb} {text[begin:start]}".strip()
        found = _verb_of_next(left, text[start:end], text[end:stop])
        if found is not None:
            pieces.append(left)
            begin, verb = end, found
    pieces.append(f"{verb} {text[begin:]}")
    cleaned = [piece.strip().rstrip(".,; \n\t") for piece in pieces]
    return tuple(piece for piece in cleaned if piece) or (text.strip(),)


def _joints(text: str) -> Iterator[tuple[int, int]]:
    quoted = [m.span() for m in _QUOTED.finditer(text)]
    pattern = _JOINT_IN_LIST if re.match(rf"\s*{_ITEM}", text, re.IGNORECASE) else _JOINT
    for joint in pattern.finditer(text):
        if not any(start < joint.start() < end for start, end in quoted):
            yield joint.span()


def _verb_of_next(left: str, joint: str, right: str) -> str | None:
    """None: no cut between `left` and `right` (up to the next joint). Else the verb that `right` needs back, or ""."""
    if not _starts_clause(right, joint, left):
        return _left_out_verb(left, right)
    lows = _request(left)
    aside = (
        joint.strip() == "," and lows and lows[0] in w.PREPOSITIONS | w.RELATIVES | {"instead"}
    )  # "on the left, add"
    return None if left and (len(lows) < 2 or aside) else ""  # nor after the "copy" of "copy and paste the dog"


def _request(text: str) -> list[str]:
    """The words of `text` from its verb on, without the polite opening."""
    lows = [t.low for t in tokenize(text)]
    return lows[opening_length(lows) :]


def _starts_clause(right: str, joint: str, left: str) -> bool:
    """Whether `right` starts with a request that can follow `left`."""
    lows = [t.low for t in tokenize(right)]
    while lows and lows[0] in w.FILLERS:
        lows = lows[1:]
    if len(lows) < 2:
        return False
    first, second = lows[:2]
    plain_object = second in w.DETERMINERS | w.PRONOUNS
    if 0 < opening_length(lows, fillers=False) < len(lows):
        return True
    if first in w.ASKING:
        return plain_object
    if first in w.DETERMINERS:  # a statement: "the cat should be a tiger", or "the cat was a tiger" after another one
        before = _request(left)[:1]
        signs = w.MODALS | w.BE if before and before[0] not in w.LEADS else w.MODALS
        return bool(signs.intersection(lows[2:6]))
    if w.LEADS.get(first) == first:
        if first in ("have", "get"):
            return second in w.DEFINITE | w.PRONOUNS
        return plain_object or first not in w.AMBIGUOUS
    if first in w.LEADS:  # "how about adding a hat and removing the scarf?", but not "a man painting the wall"
        return any(w.LEADS.get(low, low) != low for low in _request(left)[:1])
    closed = w.PRONOUNS | w.PREPOSITIONS | w.RELATIVES | w.BE | w.ADVERBS | w.HOLD
    unknown_verb = plain_object and first not in closed and not first.endswith(("ly", "ing", "ed"))
    return unknown_verb and bool(_STRONG.search(joint))


def _left_out_verb(left: str, right: str) -> str | None:
    """The verb, as written in `left`, that `right` needs to stand by itself; None if `right` is no such clause."""
    thing = [t.low for t in tokenize(right)]
    if len(thing) < 3 or not (thing[0] in w.DETERMINERS or thing[0].endswith("'s")):
        return None
    verb, *rest = _request(left) or [""]
    if not (_has_result(verb, rest) and _has_result(verb, thing)):
        return None
    return next(left[t.start : t.end] for t in tokenize(left) if t.low == verb)


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

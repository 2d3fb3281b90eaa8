"""How long hostile texts take to read: random ones, of every kind of thing that the splitter and the keyword rule look
for, repeated until they are as long as the service allows.

    python -m benchmarks.texts            # 10,000 texts
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable

from foi_core import words as w
from foi_core.keywords import find_keyword
from foi_core.spec import MAX_SPLIT_LENGTH, MAX_TEXT_LENGTH, word_span
from foi_core.splitting import split_instruction

WORDS = (
    w.DETERMINERS | w.PRONOUNS | w.PREPOSITIONS | w.LEADS.keys() | w.FILLERS | w.COLOURS | w.BE | w.ADVERBS | w.MODALS
)
ODD = (
    "hat dog cat's dogs' man’s rock-and-roll x-ray , ; . ! ? \" “ ” ' ’ - & • (a) 1. 2) step also plus style color and-"
    " -less -ed 的猫 😀 _ 0 x xx xxxxxxxx ,,, ... '''' ---- what would it look like if a pair of the color of"
)
PIECES = [*sorted(WORDS), *ODD.split()]
SPACES = ("", " ", " ", " ", "  ", "\n", "\t", "\n\n", " \n ")
READERS: dict[str, tuple[Callable[[str], object], int]] = {
    "split": (split_instruction, MAX_SPLIT_LENGTH),
    "keyword": (find_keyword, MAX_TEXT_LENGTH),
    "word": (lambda text: word_span(text, text[: len(text) // 2] + "!"), MAX_TEXT_LENGTH),
}


def hostile(draw: random.Random, length: int) -> str:
    """A few random pieces again and again, sometimes after others: what costs most is most often a repetition."""
    count = draw.choice((1, 1, 2, 3, 5, 8, 13))
    unit = "".join(draw.choice(PIECES) + draw.choice(SPACES) for _ in range(count)) or "x"
    begin = "".join(draw.choice(PIECES) + draw.choice(SPACES) for _ in range(draw.choice((0, 0, 1, 4))))
    return (begin + unit * length)[:length]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw, slowest, spent = random.Random(options.seed), dict.fromkeys(READERS, (0.0, "")), 0.0
    for _ in range(options.texts):
        text = hostile(draw, draw.choice((MAX_TEXT_LENGTH, MAX_SPLIT_LENGTH)))
        for name, (read, most) in READERS.items():
            given = text[:most]
            begin = time.thread_time()
            read(given)
            took = time.thread_time() - begin
            spent += took
            slowest[name] = max(slowest[name], (took * 1e6 / len(given.encode()), given))
    for name, (microseconds, text) in slowest.items():
        print(f"{name}: at most {microseconds:.2f} us/byte, {text[:60]!r}...")
    print(f"{options.texts} texts, {spent:.1f} s in all")


if __name__ == "__main__":
    main()

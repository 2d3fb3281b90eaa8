"""The user's data: what can be used is read, what cannot is named by file and line with what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from evaluation.pictures.data import Item, read_items
from evaluation.pictures.pictures import open_picture
from evaluation.pictures.problems import Problem, UsageError
from tests.evaluation.pictures.conftest import Write

GOOD = {"image": "a.png", "instruction": "make the ball red"}


def read(folder: Path) -> tuple[list[Item], list[Problem]]:
    return read_items(folder / "edits.jsonl", folder)


def test_one_text_is_split_into_its_instructions_and_a_list_is_taken_as_it_is(write: Write) -> None:
    listed = [{"text": "make the ball red", "keyword": "ball", "mask": "mask.png"}, {"text": "add a sun"}]
    items, problems = read(
        write(
            {"image": "a.png", "instruction": "make the ball red and add a sun"},
            {
                "image": "b.png",
                "instructions": listed,
                "id": "second",
                "seed": 7,
                "caption": "a",
                "target": "target.png",
            },
        )
    )
    assert not problems
    assert [[part.text for part in item.parts] for item in items] == [["make the ball red", "add a sun"]] * 2
    assert [(item.id, item.seed) for item in items] == [("1", None), ("second", 7)]
    masks = [part.mask for part in items[1].instructions()]
    assert masks[0] is not None
    assert masks[0].getbbox() == (0, 0, 32, 64)
    assert masks[1] is None


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ({"image": "none.png", "instruction": "x"}, "no file"),
        ({"image": "edits.jsonl", "instruction": "x"}, "not a whole picture"),
        ({"image": "../outside.png", "instruction": "x"}, "leaves"),
        ({"image": "/etc/passwd", "instruction": "x"}, "leaves"),
        ({"image": "a\0.png", "instruction": "x"}, "no path"),
        ({"instruction": "x"}, "image is None: give a text"),
        ({"image": "a.png"}, "either instruction"),
        ({**GOOD, "instructions": [{"text": "x"}]}, "either instruction"),
        ({**GOOD, "prompt": "x"}, "unknown field prompt: the fields are caption"),
        ({**GOOD, "seed": "7"}, "seed is '7': give a whole number"),
        ({**GOOD, "seed": True}, "whole number"),
        ({**GOOD, "seed": -1}, "whole number"),
        ({**GOOD, "id": "a/b"}, "id is 'a/b'"),
        ({**GOOD, "caption": "\ud800"}, "half of a letter"),
        ({"image": "a" * 5000, "instruction": "x"}, "not a whole picture"),
        ({**GOOD, "caption": 3}, "caption is 3: give a text"),
        ({**GOOD, "mask": "small.png"}, "small.png is 8x8 pixels, the picture 64x64"),
        ({**GOOD, "mask": "ones.png"}, r"black everywhere: the region must be white \(255, not 1\)"),
        ({"image": "deep.png", "instruction": "x"}, "more than 8 bits"),
        ({**GOOD, "target": "small.png"}, "make them the same"),
        ({"image": "a.png", "instruction": " "}, "give a text"),
        ({"image": "a.png", "instructions": []}, "give a list"),
        ({"image": "a.png", "instructions": ["x"]}, r"instructions\[0\] is not an object"),
        ({"image": "a.png", "instructions": [{"text": "x", "key": "x"}]}, r"unknown field instructions\[0\].key"),
        ({"image": "a.png", "instructions": [{"text": "add it", "keyword": "ball"}]}, "a word of 'add it'"),
        ({"image": "a.png", "instructions": [{"text": "x"}] * 9}, "1 to 8"),
        (b'{"image": "a.png"', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not an object"),
        (b'{"image": "\xff"}', "not UTF-8"),
    ],
)
def test_a_bad_line_is_named_by_file_and_line_and_the_others_are_read(
    line: dict[str, Any] | bytes, says: str, write: Write, data: Path
) -> None:
    Image.new("L", (8, 8)).save(data / "small.png")
    Image.new("L", (64, 64), 1).save(data / "ones.png")
    Image.new("I;16", (64, 64), 30_000).save(data / "deep.png")
    Image.new("L", (8, 8)).save(data.parent / "outside.png")
    items, problems = read(write(GOOD, line, b"", {**GOOD, "id": "last"}))
    assert [item.id for item in items] == ["1", "last"]
    assert [problem.place for problem in problems] == ["edits.jsonl:2"]
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(str(problems[0]))


def test_a_link_that_leaves_the_folder_is_refused(write: Write, data: Path) -> None:
    Image.new("RGB", (64, 64)).save(data.parent / "outside.png")
    (data / "link.png").symlink_to(data.parent / "outside.png")
    _, problems = read(write({**GOOD, "image": "link.png"}))
    assert "leaves" in str(problems[0])


def test_a_cut_off_picture_is_refused(write: Write, data: Path) -> None:
    whole = (data / "a.png").read_bytes()
    (data / "cut.png").write_bytes(whole[: len(whole) // 2])
    _, problems = read(write({**GOOD, "image": "cut.png"}))
    assert "not a whole picture" in str(problems[0])


def test_an_id_that_was_given_before_is_refused_at_the_second_line(write: Write) -> None:
    items, problems = read(write({**GOOD, "id": "x"}, {**GOOD, "id": "x"}))
    assert len(items) == 1
    assert str(problems[0]) == "edits.jsonl:2: id 'x' is also that of edits.jsonl:1: give each line its own"


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(write: Write) -> None:
    items, problems = read(write(b'\xef\xbb\xbf{"image": "a.png", "instruction": "add a sun"}\r'))
    assert len(items) == 1
    assert not problems


def test_a_missing_file_says_how_to_give_another(data: Path) -> None:
    with pytest.raises(UsageError, match="--file"):
        read(data)


def test_the_fingerprint_follows_the_line_and_its_files(write: Write, data: Path) -> None:
    def fingerprint(**more: object) -> str:
        return read(write({**GOOD, **more}))[0][0].fingerprint

    first = fingerprint(mask="mask.png")
    assert fingerprint(mask="mask.png") == first
    assert len({first, fingerprint(), fingerprint(seed=1), fingerprint(caption="a")}) == 4
    Image.new("L", (64, 64), 255).save(data / "mask.png")
    assert fingerprint(mask="mask.png") != first


def test_pictures_are_upright_and_transparent_parts_white(tmp_path: Path) -> None:
    turned = Image.new("RGB", (20, 10), "blue")
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    assert open_picture(tmp_path / "turned.jpg").size == (10, 20)
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert open_picture(tmp_path / "clear.png").getpixel((0, 0)) == (255, 255, 255)

"""Many edits in flight: they share batches and nothing else."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError

import pytest
import torch
from PIL import Image
from torch import Tensor

from foi_core import (
    DeadlineExceeded,
    EditCanceled,
    EditSpec,
    EngineDied,
    ModelFailure,
    OutOfMemory,
    SubInstruction,
    images,
)
from foi_core.batching import BatchingEngine, Capacity, Ticket
from foi_core.engine import Engine
from foi_core.finishing import Decoded
from foi_core.result import EditResult
from foi_core.state import EditState
from tests.support import picture, wait_until
from tests.tiny_model import build_tiny_model

PARTS = (SubInstruction("make the ball black"), SubInstruction("turn the grass into sand"))
LIMIT_S = 60
Start = Callable[..., BatchingEngine]


class Watched(Engine):
    """An engine whose steps and endings can be looked at, and interfered with."""

    before_step: Callable[[list[EditState]], object] = staticmethod(lambda _: None)
    before_finish: Callable[[], object] = staticmethod(lambda: None)

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.batches: list[list[int | None]] = []
        self.latents: dict[int | None, Tensor] = {}

    def step(self, states: list[EditState]) -> None:
        self.before_step(states)
        super().step(states)
        self.batches.append([state.spec.seed for state in states])

    def decode(self, state: EditState) -> Decoded:
        self.before_finish()
        self.latents[state.spec.seed] = state.latents
        return super().decode(state)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    engine = Watched.load(str(build_tiny_model(tmp_path_factory.mktemp("tiny"))), "cpu")
    assert isinstance(engine, Watched)
    return engine


@pytest.fixture
def engine(loaded: Watched) -> Watched:
    return Watched(loaded._model)


@pytest.fixture
def start(engine: Watched) -> Iterator[Start]:
    started = []

    def batching(edits: int = 4, cells: int = 10**6) -> BatchingEngine:
        started.append(BatchingEngine(engine, Capacity(edits, cells)))
        return started[-1]

    yield batching
    for one in started:
        one.close()


def spec(seed: int, parts: tuple[SubInstruction, ...] = PARTS[:1], **settings: object) -> EditSpec:
    return EditSpec(parts, seed=seed, **{"num_inference_steps": 5, **settings})  # type: ignore[arg-type]


def done(ticket: Ticket, image: Image.Image | None = None) -> EditResult:
    """At the size of `image`, or of the model."""
    decoded = ticket.result.result(LIMIT_S)
    return decoded.drawn(image or ticket.image, [part.mask for part in ticket.spec.instructions])


MIXED = [
    (picture(64, 64), spec(1, PARTS, num_inference_steps=12)),
    (picture(64, 64), spec(2, guidance_scale=3.0, num_inference_steps=7)),
    (picture(64, 64), spec(3, method="ip2p", num_inference_steps=10)),
    (picture(64, 64), spec(4, PARTS, image_guidance_scale=1.0, num_inference_steps=9)),
    (picture(128, 64), spec(5, PARTS, preset="paper", num_inference_steps=8)),
    (picture(64, 96), spec(6, strength=1.0, num_inference_steps=6)),
    (picture(64, 64), spec(7, PARTS, method="masks")),
    (picture(128, 64), spec(8, method="ip2p", image_guidance_scale=1.0, num_inference_steps=11)),
]
"""Different steps, seeds, scales, numbers of instructions, sizes, methods and rows."""


def test_a_result_does_not_depend_on_its_neighbours(engine: Watched, start: Start) -> None:
    alone = {}
    for image, one in MIXED:
        engine.edit(image, one)
        alone[one.seed] = engine.latents[one.seed]
    engine.latents.clear()
    batching, rng = start(8), random.Random(0)
    order = rng.sample(MIXED, len(MIXED))
    tickets = []
    for image, one in order:
        tickets.append(batching.submit(image, one))
        time.sleep(rng.choice((0, 0.02, 0.05)))
    for ticket in tickets:
        done(ticket)
    assert max(map(len, engine.batches)) >= 3, "they were together"
    for seed, latents in alone.items():
        assert (engine.latents[seed] - latents).abs().max() <= 1e-5 * max(1, latents.abs().max())


def test_without_guidance_by_the_picture_a_third_row_would_change_nothing(
    engine: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = engine.edit(picture(64, 64), spec(1, image_guidance_scale=1.0))
    fewer = engine.latents[1]
    role = EditState.role.fget  # type: ignore[attr-defined]  # mypy sees the property's value
    monkeypatch.setattr(EditState, "role", property(lambda state: role(state)._replace(unconditional=True)))
    three = engine.edit(picture(64, 64), spec(1, image_guidance_scale=1.0))
    assert (two.unet_rows, three.unet_rows) == (2 * 4, 3 * 4)
    assert (fewer - engine.latents[1]).abs().max() <= 1e-5 * max(1, fewer.abs().max())


def test_numbers_that_are_not_finite_end_only_their_own_edit(engine: Watched, start: Start) -> None:
    def spoil(states: list[EditState]) -> None:
        for state in states:
            if state.spec.seed == 13:
                state.latents = state.latents * float("nan")

    engine.before_step = spoil
    batching = start()
    bad, good = batching.submit(picture(64, 64), spec(13)), batching.submit(picture(64, 64), spec(1))
    with pytest.raises(ModelFailure):
        done(bad)
    assert done(good).image.size == (64, 64)


def test_a_step_that_fails_for_one_edit_is_taken_by_the_others(engine: Watched, start: Start) -> None:
    reference = engine.edit(picture(64, 64), spec(1, PARTS))

    def refuse(states: list[EditState]) -> None:
        if any(state.spec.seed == 13 and state.step == 2 for state in states):
            raise ValueError("bad edit")

    engine.before_step = refuse
    batching = start()
    tickets = [batching.submit(picture(64, 64), spec(seed, PARTS)) for seed in (1, 13, 2, 3)]
    with pytest.raises(ValueError, match="bad edit"):
        done(tickets[1])
    for ticket in (tickets[0], tickets[2], tickets[3]):
        done(ticket)
    assert done(tickets[0]).masks[0].tobytes() == reference.masks[0].tobytes()


def test_out_of_memory_makes_the_batch_smaller_and_every_edit_is_done(engine: Watched, start: Start) -> None:
    sizes: list[int] = []

    def limited(states: list[EditState]) -> None:
        sizes.append(len(states))
        if len(states) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    engine.before_step = limited
    batching = start(4)
    tickets = [batching.submit(picture(64, 64), spec(seed, num_inference_steps=10)) for seed in range(4)]
    for ticket in tickets:
        done(ticket)
    assert max(sizes) > 2
    assert max(sizes[sizes.index(max(sizes)) + 1 :]) <= 2, "tried once, then remembered"


def test_an_edit_that_alone_is_out_of_memory_says_what_to_change(engine: Watched, start: Start) -> None:
    def limited(states: list[EditState]) -> None:
        if any(state.latent_size[1] > 32 for state in states):
            raise torch.OutOfMemoryError("CUDA out of memory")

    engine.before_step = limited
    batching = start()
    large, small = batching.submit(picture(128, 64), spec(1)), batching.submit(picture(64, 64), spec(2))
    with pytest.raises(OutOfMemory, match="smaller"):
        done(large)
    done(small)


def test_a_dead_device_gives_every_edit_back(engine: Watched, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: list[EditState]) -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    engine.before_step = broken
    monkeypatch.setattr(BatchingEngine, "_device_lives", lambda _: False)
    batching = start(2)
    tickets = [batching.submit(picture(64, 64), spec(seed)) for seed in range(3)]
    for ticket in tickets:
        with pytest.raises(EngineDied):
            done(ticket)
    assert batching.died is not None
    with pytest.raises(EngineDied):
        batching.submit(picture(64, 64), spec(9))


def test_no_more_edits_fly_than_the_capacity_and_the_first_come_first(engine: Watched, start: Start) -> None:
    batching = start(2)
    tickets = [batching.submit(picture(64, 64), spec(seed)) for seed in range(5)]
    for ticket in tickets:
        done(ticket)
    assert max(map(len, engine.batches)) == 2
    begun = list(dict.fromkeys(seed for batch in engine.batches for seed in batch))
    assert begun == [0, 1, 2, 3, 4]


def test_priority_goes_before_age(engine: Watched, start: Start) -> None:
    hold = threading.Event()
    engine.before_step = lambda _: hold.wait(LIMIT_S)
    batching = start(1)
    first = batching.submit(picture(64, 64), spec(1))
    wait_until(lambda: batching._flying)
    low = batching.submit(picture(64, 64), spec(2), priority=1)
    high = batching.submit(picture(64, 64), spec(3), priority=-1)
    wait_until(lambda: len(batching._ready) == 2)
    hold.set()
    for ticket in (first, low, high):
        done(ticket)
    assert list(dict.fromkeys(batch[0] for batch in engine.batches)) == [1, 3, 2]


def test_a_large_picture_is_not_overtaken_for_good_and_one_over_the_budget_flies_alone(
    engine: Watched, start: Start
) -> None:
    hold = threading.Event()
    engine.before_step = lambda _: hold.wait(LIMIT_S)
    batching = start(4, cells=3 * 32 * 32)
    tickets = [batching.submit(picture(64, 64), spec(1))]
    wait_until(lambda: batching._flying)
    tickets += [batching.submit(picture(256, 64), spec(2))]
    tickets += [batching.submit(picture(64, 64), spec(seed)) for seed in (3, 4)]
    wait_until(lambda: len(batching._ready) == 3)
    hold.set()
    for ticket in tickets:
        done(ticket)
    assert [batch for batch in engine.batches if 2 in batch] == [[2]] * 4
    begun = list(dict.fromkeys(seed for batch in engine.batches for seed in batch))
    assert begun == [1, 2, 3, 4]


def test_edits_of_different_sizes_advance_at_the_same_pace(engine: Watched, start: Start) -> None:
    hold = threading.Event()
    engine.before_step = lambda _: hold.wait(LIMIT_S)
    batching = start(4)
    images = [picture(64, 64), picture(128, 64), picture(64, 64), picture(64, 128)]
    tickets = [batching.submit(image, spec(i, num_inference_steps=10)) for i, image in enumerate(images)]
    wait_until(lambda: len(batching._ready) + len(batching._flying) == 4)
    hold.set()
    for ticket in tickets:
        done(ticket)
    steps = [[seed for batch in engine.batches[:end] for seed in batch] for end in range(len(engine.batches))]
    behind = [max(map(so_far.count, range(4))) - min(map(so_far.count, range(4))) for so_far in steps]
    assert max(behind) <= 2


def test_a_stopped_edit_takes_no_further_step_and_frees_its_place(start: Start) -> None:
    batching = start(1)
    long = batching.submit(picture(64, 64), spec(1, num_inference_steps=150))
    waiting = batching.submit(picture(64, 64), spec(2))
    wait_until(lambda: long.progress.step >= 3)
    long.stop(EditCanceled("canceled"))
    at = long.progress.step
    with pytest.raises(EditCanceled):
        done(long)
    assert long.progress.step <= at + 2
    done(waiting)


def test_a_deadline_ends_running_and_waiting_edits(start: Start) -> None:
    batching = start(1)
    soon = time.monotonic() + 0.3
    running = batching.submit(picture(64, 64), spec(1, num_inference_steps=150), deadline=soon)
    waiting = batching.submit(picture(64, 64), spec(2), deadline=soon)
    unhurried = batching.submit(picture(64, 64), spec(3), deadline=time.monotonic() + LIMIT_S)
    for ticket in (running, waiting):
        with pytest.raises(DeadlineExceeded):
            done(ticket)
    done(unhurried)


def test_decoding_one_edit_does_not_hold_the_steps_of_another(engine: Watched, start: Start) -> None:
    hold = threading.Event()
    engine.before_finish = lambda: hold.wait(LIMIT_S)
    batching = start(2)
    tickets = [batching.submit(picture(64, 64), spec(1)), batching.submit(picture(64, 64), spec(2))]
    wait_until(lambda: {ticket.progress.stage for ticket in tickets} == {"decode"})
    third = batching.submit(picture(64, 64), spec(3, num_inference_steps=20))
    wait_until(lambda: third.progress.step == 16)
    hold.set()
    for ticket in (*tickets, third):
        done(ticket)


def test_work_that_hangs_is_seen(engine: Watched, start: Start) -> None:
    hold = threading.Event()
    engine.before_step = lambda _: hold.wait(LIMIT_S)
    batching = start()
    assert batching.busy_for() == 0
    ticket = batching.submit(picture(64, 64), spec(1))
    wait_until(lambda: batching.busy_for() > 0.2)
    hold.set()
    done(ticket)
    wait_until(lambda: batching.busy_for() == 0)


def test_work_that_is_slow_but_heard_does_not_hang(engine: Watched, start: Start) -> None:
    hold, heard = threading.Event(), threading.Event()
    conv = engine._model.vae.post_quant_conv

    def slowly(_: list[EditState]) -> None:
        while not hold.wait(0.01):
            if heard.is_set():
                conv(torch.zeros(1, conv.in_channels, 2, 2))

    engine.before_step = slowly
    batching = start()
    ticket = batching.submit(picture(64, 64), spec(1))
    wait_until(lambda: batching.hangs(0.3))
    engine.heartbeat.longest = 1.0
    assert not batching.hangs(0.3), "where layers take a second each it may be slow"
    engine.heartbeat.longest = 0.0
    heard.set()
    wait_until(lambda: not batching.hangs(0.3))
    heard.clear()
    wait_until(lambda: batching.hangs(0.3))
    hold.set()
    done(ticket)


def test_the_networks_of_one_thread_do_not_speak_for_another(engine: Watched, start: Start) -> None:
    hold = threading.Event()
    engine.before_step = lambda _: hold.wait(LIMIT_S)
    batching = start()
    stuck = batching.submit(picture(64, 64), spec(1))
    wait_until(lambda: batching._flying)
    while batching.busy_for() < 0.3:
        engine.round_trip(picture(64, 64))
    hold.set()
    done(stuck)


def test_a_picture_that_is_long_prepared_or_drawn_holds_up_no_other(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold, resized = threading.Event(), images.resized

    def held(image: Image.Image, size: tuple[int, int]) -> Image.Image:
        if 600 in (*image.size, *size):
            hold.wait(LIMIT_S)
        return resized(image, size)

    monkeypatch.setattr(images, "resized", held)
    batching = start()
    with ThreadPoolExecutor(1) as pool:
        large = pool.submit(lambda: done(batching.submit(picture(600, 600), spec(1)), picture(600, 600)))
        assert done(batching.submit(picture(64, 64), spec(2))).image.size == (64, 64)
        assert not large.done()
        hold.set()
        assert large.result(LIMIT_S).image.size == (600, 600)


def test_closing_gives_back_what_is_not_done(engine: Watched, start: Start) -> None:
    engine.before_step = lambda _: time.sleep(0.05)
    batching = start(1)
    tickets = [batching.submit(picture(64, 64), spec(seed, num_inference_steps=150)) for seed in range(2)]
    wait_until(lambda: tickets[0].progress.step > 0)
    with pytest.raises(FutureTimeoutError):
        tickets[0].result.result(0)
    batching.close()
    for ticket in tickets:
        with pytest.raises(EngineDied):
            done(ticket)


def test_masks_alone_cost_one_step_and_no_decoding_and_are_those_of_the_edit(start: Start) -> None:
    batching, image = start(), picture(64, 64)
    only = done(batching.submit(image, spec(1, PARTS, method="masks")))
    edit = done(batching.submit(image, spec(1, PARTS)))
    assert only.unet_rows == 2
    assert only.image.tobytes() == image.tobytes()
    assert [mask.tobytes() for mask in only.masks] == [mask.tobytes() for mask in edit.masks]
    assert only.keywords == edit.keywords
    assert all(shown is not None for shown in only.attention_maps)
    back = tuple(SubInstruction(p.text, p.keyword, mask=m) for p, m in zip(PARTS, only.masks, strict=True))
    assert done(batching.submit(image, spec(1, back))).image.tobytes() == edit.image.tobytes()


def test_a_preview_shows_the_picture_on_its_way(engine: Watched, start: Start) -> None:
    hold = threading.Event()
    engine.before_step = lambda states: states[0].step < 2 or hold.wait(LIMIT_S)
    batching = start()
    ticket = batching.submit(picture(128, 64), spec(1))
    wait_until(lambda: ticket.progress.step == 2)
    preview = batching.preview(ticket)
    assert preview is not None
    assert preview.size == (64, 32)
    hold.set()
    done(ticket)
    assert batching.preview(ticket) is None


def test_a_preview_of_a_picture_that_is_not_changed_looks_like_it(engine: Watched) -> None:
    red = Image.new("RGB", (64, 64), (200, 30, 30))
    state = engine.admit(red, spec(1))
    state.clean = state.image_latents * engine._model.vae.config.scaling_factor
    preview = engine.preview(state)
    assert preview is not None
    average = preview.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
    assert isinstance(average, tuple)
    assert average[0] > average[1]

"""Which passes are recorded, what a replay sees, and what is done where nothing can be recorded. Recordings are made on
the CPU here, by a stand-in for CUDA's; tests/gpu has the real one."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch

from foi_core import graphs
from foi_core.attention import Focus, cross_condition_modulation
from foi_core.errors import EngineDied
from foi_core.graphs import PASSES_BEFORE_RECORDING, Compiler, GraphedUNet, Work
from foi_core.regions import Region, assemble
from foi_core.tokens import TokenisedInstruction
from foi_core.unet import UNet
from tests.foi_core.test_unet import source


class Recorder:
    """As CUDA does: a replay computes anew from the same inputs, and puts the output where it was."""

    def __init__(self) -> None:
        self.captured = self.replayed = 0

    def __call__(self, work: Work) -> tuple[Callable[[], None], torch.Tensor]:
        output = work()
        self.captured += 1

        def replay() -> None:
            self.replayed += 1
            output.copy_(work())

        return replay, output


@pytest.fixture(scope="module")
def unet() -> UNet:
    return UNet(source())


def inputs(unet: UNet, seed: int = 0, rows: int = 3, focused: bool = False) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(seed)
    with torch.inference_mode():
        text = unet.text(torch.randn(rows, 11, 24, generator=generator))
        time = unet.time_shifts(torch.rand(rows, generator=generator) * 999)
    return torch.randn(rows, 8, 32, 32, generator=generator), time, text, focus(unet) if focused else None


def focus(unet: UNet) -> Focus:
    text = TokenisedInstruction((0,) * 11, (0,) * 11, ((1,),), ((),), cut=False)
    mask = torch.zeros(16, 16)
    mask[:8] = 1
    found = assemble([Region(mask)], text, [1.0])
    covers = tuple(cross_condition_modulation(found, size)[None] for size in unet.sizes((32, 32)))
    return Focus(covers, found.owner[None], torch.full((1, 11), 0.3), null_row=1)


@torch.inference_mode()
def same(graphed: GraphedUNet, unet: UNet, given: tuple[Any, ...]) -> bool:
    return torch.allclose(graphed(*given), unet(*given), atol=1e-5)


@pytest.mark.parametrize("focused", [False, True])
def test_a_make_up_that_comes_again_is_recorded_and_replayed_with_the_new_numbers(unet: UNet, focused: bool) -> None:
    recorder = Recorder()
    graphed = GraphedUNet(unet, recorder)
    for seed in range(PASSES_BEFORE_RECORDING + 3):
        assert same(graphed, unet, inputs(unet, seed, focused=focused))
    assert (recorder.captured, recorder.replayed) == (1, 4)


def test_a_make_up_that_is_rare_is_not_recorded_and_each_has_its_own(unet: UNet) -> None:
    recorder = Recorder()
    graphed = GraphedUNet(unet, recorder)
    for _ in range(PASSES_BEFORE_RECORDING - 1):
        for rows in (2, 3, 4):
            assert same(graphed, unet, inputs(unet, rows=rows))
    assert recorder.captured == 0
    for seed in range(3):
        for rows, focused in ((2, False), (3, False), (3, True)):
            assert same(graphed, unet, inputs(unet, seed, rows, focused))
    assert recorder.captured == 3


def test_what_stays_the_same_from_step_to_step_may_be_the_same_object_and_what_does_not_another(unet: UNet) -> None:
    graphed = GraphedUNet(unet, Recorder())
    sample, time, text, _ = inputs(unet, 0)
    for seed in range(8):
        changed = inputs(unet, seed)
        assert same(graphed, unet, (changed[0], time, changed[2] if seed == 6 else text, None))
    assert same(graphed, unet, (sample, time, text, None))


def test_passes_with_hooks_are_never_recorded(unet: UNet) -> None:
    recorder, seen = Recorder(), list[int]()
    graphed = GraphedUNet(unet, recorder)
    with torch.inference_mode():
        for _ in range(5):
            graphed(*inputs(unet), (lambda layer: seen.append(layer.level),))
    assert recorder.captured == 0
    assert len(seen) == 5 * 8


def test_the_recording_that_was_not_used_for_longest_makes_room(unet: UNet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "MOST_RECORDINGS", 2)
    recorder = Recorder()
    graphed = GraphedUNet(unet, recorder)
    for rows in (2, 3, 2, 4, 2):
        for _ in range(PASSES_BEFORE_RECORDING):
            assert same(graphed, unet, inputs(unet, rows=rows))
    assert recorder.captured == 3, "the one of two rows stayed"


def test_a_recording_that_made_room_is_earned_anew(unet: UNet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "MOST_RECORDINGS", 1)
    recorder = Recorder()
    graphed = GraphedUNet(unet, recorder)
    for rows in (2, 3):
        for _ in range(PASSES_BEFORE_RECORDING):
            assert same(graphed, unet, inputs(unet, rows=rows))
    assert same(graphed, unet, inputs(unet, rows=2))
    assert recorder.captured == 2


def test_without_memory_for_a_recording_its_passes_run_as_they_are_and_others_are_recorded_again(
    unet: UNet, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder()

    def only_small_ones(work: Work) -> tuple[Callable[[], None], torch.Tensor]:
        if len(work()) > 2:
            raise torch.OutOfMemoryError("no memory")
        return recorder(work)

    graphed = GraphedUNet(unet, only_small_ones)
    with caplog.at_level(logging.WARNING):
        for rows in (2, 3, 2):
            for _ in range(PASSES_BEFORE_RECORDING + 2):
                assert same(graphed, unet, inputs(unet, rows=rows))
    said = [record.message for record in caplog.records]
    assert said == ["no memory to record a pass of 3 rows, which stays slower: no memory"]
    assert recorder.captured == 2


def test_a_device_that_cannot_record_is_said_so_and_nothing_is_built_on_it(unet: UNet) -> None:
    def refuse(_work: Work) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    graphed = GraphedUNet(unet, refuse)
    for _ in range(PASSES_BEFORE_RECORDING - 1):
        assert same(graphed, unet, inputs(unet))
    with pytest.raises(EngineDied, match=r"not permitted.*FOI_EXECUTION=eager"):
        same(graphed, unet, inputs(unet))


def settle(compiler: Compiler) -> None:
    assert compiler._thread is not None
    compiler._thread.join()


def test_compiled_passes_are_used_once_they_are_ready_and_hold_nobody_before(unet: UNet) -> None:
    recorder, compiler = Recorder(), Compiler(backend="aot_eager")
    graphed = GraphedUNet(unet, recorder, compiler)
    for count, focused in enumerate((False, True)):
        for _ in range(PASSES_BEFORE_RECORDING):
            assert same(graphed, unet, inputs(unet, focused=focused))
        assert recorder.captured == count, "it is still being compiled"
        settle(compiler)
        assert same(graphed, unet, inputs(unet, 5, focused=focused))
        assert (recorder.captured, recorder.replayed) == (count + 1, count + 1)


def test_what_cannot_be_compiled_is_recorded_as_it_is_and_not_tried_again(
    unet: UNet, caplog: pytest.LogCaptureFixture
) -> None:
    tried = []

    def broken(*_: Any) -> Any:
        tried.append(1)
        raise RuntimeError("no C compiler")

    recorder, compiler = Recorder(), Compiler(backend=broken)  # type: ignore[arg-type]
    graphed = GraphedUNet(unet, recorder, compiler)
    with caplog.at_level(logging.WARNING, logger="foi_core"):
        for _ in range(PASSES_BEFORE_RECORDING):
            assert same(graphed, unet, inputs(unet, rows=5))
        settle(compiler)
        for _ in range(3):
            assert same(graphed, unet, inputs(unet, rows=5))
    assert (len(tried), recorder.captured) == (1, 1)
    assert "no C compiler" in caplog.text

"""The engine on a GPU: what graphs, compilation and streams must not change. Skipped where there is none."""

from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest
import torch
from PIL import Image

from foi_core import EditSpec, SubInstruction
from foi_core.batching import BatchingEngine, Capacity
from foi_core.engine import Engine, Execution
from foi_core.graphs import GraphedUNet

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

SAMPLE = Path(__file__).parent.parent.parent / "demo" / "samples" / "scene.png"
TWO = (SubInstruction("make the ball blue"), SubInstruction("turn the grass into sand"))


def specs() -> list[EditSpec]:
    return [
        EditSpec(TWO, seed=1),
        EditSpec(TWO, seed=2, preset="paper", num_inference_steps=12),
        EditSpec(TWO[:1], seed=3, method="ip2p", num_inference_steps=9),
        EditSpec(TWO[:1], seed=4, image_guidance_scale=1.0),
    ]


def share_within_one_level(one: Image.Image, other: Image.Image) -> float:
    difference = np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).max(axis=-1)
    return float((difference <= 1).mean())


def settle(engine: Engine) -> GraphedUNet:
    """Its graphs, when nothing is being compiled any more."""
    graphed = engine._denoiser.predict
    assert isinstance(graphed, GraphedUNet)
    if graphed._compiler is not None and graphed._compiler._thread is not None:
        graphed._compiler._thread.join()
    return graphed


@pytest.mark.parametrize("execution", ["graphs", "compiled"])
def test_however_passes_run_the_picture_is_the_same(execution: Execution) -> None:
    picture = Image.open(SAMPLE).convert("RGB")
    eager, other = Engine.load("demo", "cuda", execution="eager"), Engine.load("demo", "cuda", execution=execution)
    for spec in specs():
        for _ in range(3):  # as they are while they are compiled, then recorded
            found = other.edit(picture, spec).image
            graphed = settle(other)
        assert graphed._recordings
        assert graphed._compiler is None or graphed._compiler._compiled
        assert share_within_one_level(eager.edit(picture, spec).image, found) >= 0.999


def test_encoding_and_decoding_beside_a_recording_break_neither() -> None:
    picture = Image.open(SAMPLE).convert("RGB")
    engine = Engine.load("demo", "cuda")
    over = Event()

    def work_beside() -> None:
        while not over.is_set():
            state = engine.admit(picture, specs()[0])
            engine.decode(state)  # decodes the noise that it begins with

    beside = Thread(target=work_beside)
    beside.start()
    try:
        images = [engine.edit(picture, specs()[0]).image for _ in range(3)]
    finally:
        over.set()
        beside.join()
    assert settle(engine)._recordings
    assert min(share_within_one_level(images[0], one) for one in images[1:]) >= 0.999


def test_memory_does_not_grow_with_edits() -> None:
    picture = Image.open(SAMPLE).convert("RGB")
    engine = Engine.load("demo", "cuda")
    reserved = []
    for seed in range(40):
        engine.edit(picture, EditSpec(TWO, seed=seed, num_inference_steps=4))
        reserved.append(torch.cuda.memory_reserved())
    assert reserved[-1] <= reserved[4]


def test_cuda_finds_the_same_regions_as_the_cpu() -> None:
    picture = Image.open(SAMPLE).convert("RGB")
    cpu, cuda = (Engine.load("demo", device, "float32").edit(picture, specs()[0]) for device in ("cpu", "cuda"))
    for a, b in zip(cpu.masks, cuda.masks, strict=True):
        assert np.mean(np.asarray(a) != np.asarray(b)) < 0.02


def test_edits_that_share_batches_and_streams_are_what_they_are_alone() -> None:
    picture = Image.open(SAMPLE).convert("RGB")
    engine = Engine.load("demo", "cuda")
    alone = [engine.edit(picture, spec).image for spec in specs()]
    batching = BatchingEngine(engine, Capacity(4, 10**6))
    for _ in range(3):
        tickets = [batching.submit(picture, spec) for spec in specs()]
        for ticket, one in zip(tickets, alone, strict=True):
            assert share_within_one_level(ticket.result.result(timeout=120).drawn(picture).image, one) >= 0.999
    batching.close()


def test_a_step_waits_for_nothing_on_the_device_but_the_step_before_the_last() -> None:
    engine = Engine.load("demo", "cuda", execution="eager")
    picture = Image.open(SAMPLE).convert("RGB")
    state = engine.admit(picture, EditSpec(TWO, seed=1, num_inference_steps=30))
    for _ in range(3):  # masks are read in the first
        engine.step([state])
    torch.cuda.set_sync_debug_mode("error")
    try:
        while state.step < state.steps - 1:
            engine.step([state])
    finally:
        torch.cuda.set_sync_debug_mode("default")

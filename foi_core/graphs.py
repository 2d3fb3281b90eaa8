"""The UNet's pass on a GPU without Python in it: CUDA graphs, one for each make-up of a batch.

A pass in eager mode waits for Python to launch some 600 kernels. A make-up (how many edits, how many of them guided by
the picture, how many in focus, at what size) that comes again is therefore recorded once and replayed from then on;
until it is, and for passes with hooks, the UNet runs as it is. Nothing is padded: rows are what an edit costs.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from threading import Thread
from typing import NamedTuple
from weakref import ref

import torch
from torch import Tensor

from foi_core.attention import Focus, Hook
from foi_core.errors import EngineDied
from foi_core.unet import UNet

PASSES_BEFORE_RECORDING = 3
"""A make-up that lasts a step or two, while edits come and go, is not worth a recording."""
MOST_RECORDINGS = 12
"""Each keeps its inputs: some 50 MB for four edits of 512x512 on SD 1.5. What lies between is shared."""

MOST_COMPILED = 64
"""Every make-up is a variant of one function to torch.compile, which keeps them all."""

Work = Callable[[], Tensor]
Capture = Callable[[Work], tuple[Callable[[], None], Tensor]]
"""Runs `work` and records it: how to replay it, and where its output then lies."""

log = logging.getLogger(__name__)


class GraphedUNet:
    """`unet`, recorded. One thread; the tensor that it returns is overwritten by a later pass."""

    def __init__(self, unet: UNet, capture: Capture, compiler: Compiler | None = None) -> None:
        self._unet, self._capture, self._compiler = unet, capture, compiler
        self._passes: Counter[Makeup] = Counter()
        self._recordings: OrderedDict[Makeup, _Recording] = OrderedDict()
        self._too_large: set[Makeup] = set()

    def __call__(
        self, sample: Tensor, time: Tensor, text: Tensor, focus: Focus | None = None, hooks: Sequence[Hook] = ()
    ) -> Tensor:
        """As `UNet.forward`. Raises EngineDied where this device cannot record."""
        if hooks:
            return self._unet(sample, time, text, focus, hooks)  # type: ignore[no-any-return]
        inputs = (sample, time, text, *((*focus.covers, focus.owner, focus.gain) if focus else ()))
        makeup = Makeup(tuple(one.shape for one in inputs), focus.null_row if focus else 0)
        if makeup not in self._recordings:
            self._passes[makeup] += 1
            if self._passes[makeup] < PASSES_BEFORE_RECORDING or not self._record(makeup, inputs):
                return self._unet(sample, time, text, focus, hooks)  # type: ignore[no-any-return]
        self._recordings.move_to_end(makeup)
        return self._recordings[makeup](inputs)

    def _work(self, makeup: Makeup, inputs: Sequence[Tensor]) -> Pass | None:
        """What to record; None as long as it is being compiled."""
        plain = _pass(self._unet, makeup.null_row)
        return plain if self._compiler is None else self._compiler.compiled(makeup, plain, inputs)

    def _record(self, makeup: Makeup, inputs: Sequence[Tensor]) -> bool:
        """Whether there is a recording now. One for which there was no memory is not tried again."""
        if makeup in self._too_large:
            return False
        work = self._work(makeup, inputs)
        if work is None:
            return False
        while len(self._recordings) >= MOST_RECORDINGS:
            oldest, _ = self._recordings.popitem(last=False)
            del self._passes[oldest]
        try:
            self._recordings[makeup] = _Recording(work, inputs, self._capture)
        except torch.OutOfMemoryError as error:
            self._too_large.add(makeup)
            self._recordings.clear()
            self._passes.clear()
            log.warning("no memory to record a pass of %d rows, which stays slower: %s", len(inputs[0]), error)
            return False
        except RuntimeError as error:
            # What a failed capture leaves behind is not to be built on.
            raise EngineDied(
                f"CUDA graphs cannot be recorded here ({error}); FOI_EXECUTION=eager works without"
            ) from error
        return True


class Makeup(NamedTuple):
    shapes: tuple[torch.Size, ...]  # of the inputs
    null_row: int  # the first


Pass = Callable[..., Tensor]


def _pass(unet: UNet, null_row: int) -> Pass:
    """A pass as a function of tensors alone."""

    def run(sample: Tensor, time: Tensor, text: Tensor, *focused: Tensor) -> Tensor:
        focus = None
        if focused:
            *covers, owner, gain = focused
            focus = Focus(tuple(covers), owner, gain, null_row)
        out: Tensor = unet(sample, time, text, focus, ())
        return out

    return run


class _Recording:
    def __init__(self, work: Pass, inputs: Sequence[Tensor], capture: Capture) -> None:
        self._kept = [one.clone() for one in inputs]
        self._given = [ref(one) for one in inputs]
        self._replay, self._output = capture(lambda: work(*self._kept))

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        for i, (kept, given) in enumerate(zip(self._kept, inputs, strict=True)):
            if self._given[i]() is not given:  # a batch's own tensors are the same from step to step
                kept.copy_(given)
                self._given[i] = ref(given)
        self._replay()
        return self._output


class CudaGraphs:
    """Captures into one pool: recordings are replayed one after another, so what lies between may overlap."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._pool = device, torch.cuda.graph_pool_handle()
        self._side = torch.cuda.Stream(device)

    def __call__(self, work: Work) -> tuple[Callable[[], None], Tensor]:
        steps = torch.cuda.current_stream(self._device)
        self._side.wait_stream(steps)
        with torch.cuda.stream(self._side):
            work()  # kernels are chosen and compiled before the recording
        steps.wait_stream(self._side)
        graph = torch.cuda.CUDAGraph()
        with (
            torch.cuda.stream(steps),  # current again, even where the capture's end fails
            # Other threads encode and decode meanwhile: their calls are none of this recording's business.
            torch.cuda.graph(graph, pool=self._pool, stream=self._side, capture_error_mode="thread_local"),
        ):
            output = work()
        return graph.replay, output


class Compiler:
    """torch.compile beside the steps: a make-up is compiled in a thread of its own, one after another."""

    def __init__(self, backend: str = "inductor") -> None:
        self._backend = backend
        self._compiled: dict[Makeup, Pass] = {}
        self._thread: Thread | None = None

    def compiled(self, makeup: Makeup, work: Pass, inputs: Sequence[Tensor]) -> Pass | None:
        """The compiled pass, or None as long as there is none; asking for it starts it. None, too, while another one is
        compiled: calling what torch.compile made is not safe then."""
        if self._thread is not None and self._thread.is_alive():
            return None
        if makeup not in self._compiled:
            own = [one.clone() for one in inputs]
            self._thread = Thread(target=self._compile, args=(makeup, work, own), name="engine-compile", daemon=True)
            self._thread.start()
            return None
        return self._compiled[makeup]

    @torch.inference_mode()
    def _compile(self, makeup: Makeup, work: Pass, inputs: Sequence[Tensor]) -> None:
        """What cannot be compiled is recorded as it is."""
        try:
            with torch.cuda.device_of(inputs[0]), torch._dynamo.config.patch(recompile_limit=MOST_COMPILED):
                compiled = torch.compile(work, fullgraph=True, dynamic=False, backend=self._backend)
                compiled(*inputs)
        except Exception as error:  # the compiler raises of many kinds, and no make-up may be tried twice
            log.warning("a pass of %d rows cannot be compiled: %s", len(inputs[0]), error)
            compiled = work
        self._compiled[makeup] = compiled

"""A_self A_cross: the keyword's map spread along self-attention, so that it follows the picture's edges."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from foi_core import masks
from foi_core.attention import Layer, Watch, scores
from foi_core.engine import Engine
from foi_core.mask_sources import InCells, KeywordAttention, Seen


@dataclass(frozen=True)
class SelfAttentionSpread(InCells):
    """The map level's self-attention, averaged over layers and heads, times the keyword's attention, `times` over."""

    seen: dict[int, Tensor] = field(default_factory=dict, compare=False)
    times: int = 1
    gamma: int = 0

    def install(self, engine: Engine) -> None:
        """Watches, from now on, the self-attention of the rows and the level that the engine watches."""
        engine._model.unet.register_forward_pre_hook(self._watch_too)

    def _watch_too(self, _unet: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        *others, hooks = arguments
        return (*others, (*hooks, *(self._beside(hook) for hook in hooks if isinstance(hook, Watch))))

    def _beside(self, watch: Watch) -> _SelfWatch:
        self.seen.clear()
        return _SelfWatch(watch, self.seen)

    def soft_map(self, seen: Seen, tokens: tuple[int, ...]) -> Tensor:
        soft = KeywordAttention(gamma=0).soft_map(seen, tokens)
        spread = self.seen[seen.watched]
        spread = spread / spread.sum(dim=-1, keepdim=True)
        for _ in range(self.times):
            soft = (spread @ soft.flatten()).view_as(soft)
        return masks.enhance(soft, self.gamma) if self.gamma else masks.normalise(soft)


@dataclass(frozen=True)
class _SelfWatch:
    """A hook that adds up the self-attention of the rows that `watch` watches, in `seen` by their place among them."""

    watch: Watch
    seen: dict[int, Tensor]

    def __call__(self, layer: Layer) -> None:
        if layer.text is not None or layer.level != self.watch.level:
            return
        rows = list(self.watch.rows)
        share = scores(layer.query[rows], layer.key[rows]).softmax(dim=-1).mean(dim=1)  # (rows, queries, queries)
        for place, one in enumerate(share):
            self.seen[place] = self.seen.get(place, 0) + one

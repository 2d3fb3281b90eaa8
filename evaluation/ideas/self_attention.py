"""A_self A_cross: the keyword's map spread along self-attention, so that it follows the picture's edges."""

from __future__ import annotations

from dataclasses import dataclass, field

from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor

from foi_core import attention, masks
from foi_core.engine import Engine
from foi_core.mask_sources import InCells, KeywordAttention, Seen


class _Watcher(AttnProcessor2_0):  # type: ignore[misc]  # diffusers is untyped to mypy
    """Stock self-attention that also adds up its probabilities for the rows that the plan watches."""

    def __init__(self, parent: attention.CrossAttention, seen: dict[int, Tensor]) -> None:
        super().__init__()
        self.parent, self.seen = parent, seen

    def __call__(self, attn: Attention, hidden_states: Tensor, *args: object, **kwargs: object) -> Tensor:
        plan = self.parent.plan
        if plan is not None and plan.watch:
            if not plan.maps:  # the first watched layer of this pass
                self.seen.clear()
            rows = hidden_states[list(plan.watch)]
            query, key = (p.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for p in (attn.to_q(rows), attn.to_k(rows)))
            share = attention.scores(query, key).softmax(dim=-1).mean(dim=1)  # (rows, queries, queries)
            for place, one in enumerate(share):
                self.seen[place] = self.seen.get(place, 0) + one
        return super().__call__(attn, hidden_states, *args, **kwargs)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class SelfAttentionSpread(InCells):
    """The map level's self-attention, averaged over layers and heads, times the keyword's attention, `times` over."""

    seen: dict[int, Tensor] = field(default_factory=dict, compare=False)
    times: int = 1
    gamma: int = 0

    def install(self, engine: Engine) -> None:
        """Watches the self-attention of the engine's map level from now on."""
        model = engine._model
        level = model.cross_attention.level
        processors = dict(model.unet.attn_processors)
        for name, at in attention.layer_levels(model.unet).items():
            if at == level:
                processors[name.replace("attn2", "attn1")] = _Watcher(model.cross_attention, self.seen)
        model.unet.set_attn_processor(processors)

    def soft_map(self, seen: Seen, tokens: tuple[int, ...]) -> Tensor:
        soft = KeywordAttention(gamma=0).soft_map(seen, tokens)
        spread = self.seen[seen.watched]
        spread = spread / spread.sum(dim=-1, keepdim=True)
        for _ in range(self.times):
            soft = (spread @ soft.flatten()).view_as(soft)
        return masks.enhance(soft, self.gamma) if self.gamma else masks.normalise(soft)

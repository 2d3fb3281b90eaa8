"""The mask step: from what its rows saw to each sub-instruction's region."""

from __future__ import annotations

import torch
from torch import Tensor

from foi_core import regions
from foi_core.attention import Watch
from foi_core.batch import Batch
from foi_core.errors import ModelFailure
from foi_core.mask_sources import Seen
from foi_core.result import Keyword
from foi_core.state import EditState, Found


def take_masks(states: list[EditState], batch: Batch, watch: Watch, output: Tensor, eI0: Tensor) -> list[Found | None]:
    """Eq. 2 for the edits that were watched in this step; what is found so far of the others. `output` (B, C, h, w) are
    all rows' predictions, `eI0` (n, C, h, w) the null rows'."""
    seen: dict[int, list[Seen]] = {}
    for place, (row, one) in enumerate(zip(watch.rows, watch.attention, strict=True)):
        i = batch.owners[row]
        seen.setdefault(i, []).append(Seen(one, output[row] - eI0[i], place))
    return [_found(state, seen[i]) if i in seen else state.found for i, state in enumerate(states)]


def _found(state: EditState, rows: list[Seen]) -> Found:
    parts = state.spec.instructions
    each = rows if state.role.watches_apart else rows * len(parts)
    found, maps, keywords = zip(*(_region(state, i, seen) for i, seen in enumerate(each)), strict=True)
    return Found(regions.assemble(list(found), state.text, [part.intensity for part in parts]), maps, keywords)


def _region(state: EditState, i: int, seen: Seen) -> tuple[regions.Region, Tensor | None, Keyword | None]:
    """Where sub-instruction i acts, the map that says so, and its keyword: attention's if there was none."""
    given, keyword = state.spec.instructions[i].mask, state.keywords[i]
    if given is not None:
        grid = (seen.attention.shape[0], seen.attention.shape[1])
        return regions.Region.from_picture(given, grid, seen.attention.device), None, keyword
    if not torch.isfinite(seen.attention).all() or not torch.isfinite(seen.difference).all():
        raise ModelFailure("the model's attention gave numbers that are not finite; try dtype float32")
    text, at = (state.texts_apart[i], 0) if state.role.watches_apart else (state.text, i)
    tokens = text.keywords[at]
    if keyword is None and text.words[at]:
        word, tokens = regions.most_concentrated(text.words[at], seen.attention)
        in_whole = dict(state.text.words[i]).get(word, ()) if state.role.watches_apart else tokens
        keyword = Keyword(word, in_whole, "attention")
    soft = state.recipe.mask_source.soft_map(seen, tokens)
    return state.recipe.mask_source.region(soft, state.threshold, state.image), soft, keyword

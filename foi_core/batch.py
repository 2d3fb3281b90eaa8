"""The rows of a UNet pass: what they share from step to step, while the same edits take the same role in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foi_core.attention import Focus, FocusRow, Rewrite
from foi_core.modulated import Masks, masks
from foi_core.regions import Size
from foi_core.state import EditState, Found, Role


@dataclass(frozen=True, eq=False)
class Batch:
    """For n edits: n (I, T) rows, those in focus first; n (I, null) rows; u (null, null) rows, where Eq. 1 and 9 need
    them; and rows that are only watched, for edits whose mask step sees each sub-instruction apart."""

    ids: tuple[int, ...]  # of the edits: they hold on to this batch, so that no other object has their ids
    roles: tuple[Role, ...]
    watch: tuple[int, ...]  # rows whose attention the masks are made of
    owners: tuple[int, ...]  # each row's edit
    rows: Tensor  # the same, (B,)
    e00: Tensor  # (n,): the row of each edit's e_00; where it has none, e_I0 stands for it, whose weight is then zero
    condition: Tensor  # (B, C, h, w): the picture's latents, or zeros
    text: Tensor  # (B, tokens, keys and values)
    where: Tensor | None  # M_union of Eq. 9, as `union` gives it; only known while nobody takes masks
    focused: Focused | None
    rewrites: tuple[Rewrite, ...]

    @classmethod
    def of(cls, edits: Sequence[EditState], null_text: Tensor, sizes: tuple[Size, ...]) -> Batch:
        """Those in focus come first. `null_text` (1, tokens, keys and values); `sizes` of every level of the UNet. The
        batch of the step before, if it still holds."""
        ids, roles = tuple(map(id, edits)), tuple(edit.role for edit in edits)
        last = edits[0].batch
        if last is not None and (last.ids, last.roles) == (ids, roles) and all(edit.batch is last for edit in edits):
            return last
        batch = cls._assembled(edits, ids, roles, null_text, sizes)
        for edit in edits:
            edit.batch = batch
        return batch

    @classmethod
    def _assembled(
        cls,
        edits: Sequence[EditState],
        ids: tuple[int, ...],
        roles: tuple[Role, ...],
        null_text: Tensor,
        sizes: tuple[Size, ...],
    ) -> Batch:
        n, every = len(edits), range(len(edits))
        unconditional = [i for i in every if roles[i].unconditional]
        apart = {i: edits[i].apart_text for i in every if roles[i].watches_apart}
        texts = [text for text in apart.values() if text is not None]
        extra = [i for i, text in apart.items() if text is not None for _ in text]
        plain = 2 * n + len(unconditional)
        owners = (*every, *every, *unconditional, *extra)
        images = torch.cat([edit.image_latents for edit in edits]).to(null_text.dtype)
        rows = _indices(owners, images.device)
        condition = images[rows]
        condition[2 * n : plain] = 0
        nulls = null_text.expand(n + len(unconditional), -1, -1)
        taking = any(role.takes_masks for role in roles)
        return cls(
            ids=ids,
            roles=roles,
            watch=(*(i for i in every if roles[i].takes_masks and i not in apart), *range(plain, len(owners))),
            owners=owners,
            rows=rows,
            e00=_indices(
                [2 * n + unconditional.index(i) if roles[i].unconditional else n + i for i in every], images.device
            ),
            condition=condition,
            text=torch.cat([*(edit.instruction_text for edit in edits), nulls, *texts]),
            where=None if taking else union(edits, [edit.found for edit in edits], roles),
            focused=Focused.of([edit for edit in edits if edit.role.in_focus], sizes),
            rewrites=tuple(_rewrite(edits[i], i, n + i) for i in every if roles[i].rewritten),
        )

    def focus(self, xi: Tensor) -> Focus | None:
        """Who is in focus at this step; `xi` (n,) is Eq. 7's of every edit."""
        if self.focused is None:
            return None
        gain = self.focused.alpha * xi[: len(self.focused.alpha), None]
        return Focus(self.focused.covers, self.focused.owner, gain, len(self.ids), self.focused.masks)


@dataclass(frozen=True, eq=False)
class Focused:
    """Of the edits in focus, what a `Focus` is made of."""

    covers: tuple[Tensor, ...]  # by level, (f, cells) int32
    owner: Tensor  # (f, tokens) int32
    alpha: Tensor  # (f, tokens)
    masks: tuple[Masks, ...] | None

    @classmethod
    def of(cls, edits: Sequence[EditState], sizes: tuple[Size, ...]) -> Focused | None:
        pairs = [(edit.found.regions, policy) for edit in edits if edit.found and (policy := edit.recipe.attention)]
        if not pairs:
            return None
        covers = tuple(torch.stack([policy(regions, size) for regions, policy in pairs]) for size in sizes)
        owner = torch.stack([regions.owner for regions, _ in pairs])
        return cls(
            covers=covers,
            owner=owner,
            alpha=torch.stack([regions.alpha for regions, _ in pairs]),
            masks=tuple(masks(cover, owner) for cover in covers) if owner.device.type == "cpu" else None,
        )


def union(edits: Sequence[EditState], found: Sequence[Found | None], roles: Sequence[Role]) -> Tensor | None:
    """M_union of Eq. 8, (n, 1, h, w), ones for edits at steps that Eq. 9 does not guide; None: none of them is."""
    size = edits[0].latent_size
    unions = [
        one.regions.union(size) if one and role.disentangled else None for one, role in zip(found, roles, strict=True)
    ]
    if all(one is None for one in unions):
        return None
    everywhere = torch.ones(size, device=edits[0].latents.device)
    return torch.stack([everywhere if one is None else one for one in unions])[:, None]


def _rewrite(edit: EditState, row: int, null_row: int) -> Rewrite:
    assert edit.recipe.rewriting is not None
    assert edit.found is not None
    return Rewrite(edit.recipe.rewriting, FocusRow(row, null_row, edit.found.regions, edit.apart_text))


def _indices(values: Sequence[int], device: torch.device) -> Tensor:
    """Copied without waiting for what the device still does."""
    indices = torch.tensor(values)
    return indices.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else indices

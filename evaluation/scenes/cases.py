"""What is judged: unseen scenes of the procedural world, each with k edits and their ground truth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import islice

import numpy as np

from demo.edits import Edit, random_edit, random_edits
from demo.scenes import WHOLE, Scene, Thing, World, changed_region, random_scene, render
from evaluation.scenes.metrics import near

SEEDS_PER_COUNT = 100_000  # seeds set aside for each number of edits, so that sets of different k never share a scene
MAX_EDITS = 4
OWN_SHARE = 0.1
VAE_REACH = 16  # two cells of the demo model's latent: beyond, its VAE does not mix an edit into its surroundings
_STREAM = 17


@dataclass(frozen=True)
class Case:
    """One unseen scene and `k` edits of it, none on another's subject. `seed` draws the scene and the edits."""

    seed: int
    scene: Scene
    edits: tuple[Edit, ...]

    @cached_property
    def source(self) -> np.ndarray:
        """The picture before, (128, 128, 3) uint8."""
        return render(self.scene)

    @cached_property
    def target(self) -> np.ndarray:
        """The true picture with all edits applied, (128, 128, 3) uint8."""
        return render(reduce(lambda scene, edit: edit.apply(scene), self.edits, self.scene))

    @cached_property
    def regions(self) -> np.ndarray:
        """Each edit's true region, whole objects included, (k, 128, 128) bool. Regions may overlap."""
        return np.stack([edit.region(self.scene) for edit in self.edits])

    @cached_property
    def changed(self) -> np.ndarray:
        """The pixels that edit i alone visibly changes and no other edit does, (k, 128, 128) bool.

        Each instruction is judged on its own pixels; one that has hardly any to itself (a sun in a sky that changes
        too) is judged on all that it changes.
        """
        alone = np.stack([changed_region(self.source, render(edit.apply(self.scene))) for edit in self.edits])
        own = alone & (alone.sum(axis=0) == 1)
        enough = own.sum(axis=(1, 2)) >= OWN_SHARE * alone.sum(axis=(1, 2))
        return np.where(enough[:, None, None], own, alone)

    @cached_property
    def union(self) -> np.ndarray:
        """Where any edit may change something, (128, 128) bool."""
        return np.asarray(self.regions.any(axis=0))

    @cached_property
    def near(self) -> np.ndarray:
        """The union and all within VAE_REACH pixels of it, (128, 128) bool."""
        return near(self.union, VAE_REACH)

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(edit.kind for edit in self.edits)

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(edit.instruction for edit in self.edits)

    @property
    def has_twin(self) -> bool:
        """Whether the scene holds a second object of the kind of an edited one."""
        kinds = [thing.kind for thing in self.scene.things]
        return any(kinds.count(thing.kind) > 1 for thing in self._edited_things)

    @property
    def object_size(self) -> float | None:
        """Radius in pixels of the edited object, before the edit; None for k > 1 and for sky, ground, sun and night."""
        things = self._edited_things
        return things[0].radius if len(self.edits) == 1 and things else None

    @property
    def _edited_things(self) -> list[Thing]:
        subjects = [edit.subject.partition("thing ") for edit in self.edits]
        return [self.scene.things[int(index)] for _, found, index in subjects if found]


def cases(first_seed: int, counts: Mapping[int, int], world: World = WHOLE) -> list[Case]:
    """`counts[k]` cases with k edits each, for every k in `counts`: the same ones at every call.

    A larger count only appends cases of that k: every k has its own block of seeds from `first_seed + k * 100_000`.
    """
    found = []
    for k, count in sorted(counts.items()):
        if not 1 <= k <= MAX_EDITS:
            raise ValueError(f"a case has 1 to {MAX_EDITS} edits, not {k}")
        block = list(islice(_block(first_seed + k * SEEDS_PER_COUNT, k, world), count))
        if len(block) < count:
            raise ValueError(f"{SEEDS_PER_COUNT} seeds gave {len(block)} cases of {k} edits; ask for no more than that")
        found += block
    return found


def _block(first_seed: int, k: int, world: World) -> Iterator[Case]:
    for seed in range(first_seed, first_seed + SEEDS_PER_COUNT):
        rng = np.random.default_rng([_STREAM, seed])
        scene = random_scene(rng, world)
        edits = [random_edit(rng, scene, world=world)] if k == 1 else random_edits(rng, scene, k, world)
        if len(edits) == k and all(edit.kind != "nothing" for edit in edits):
            yield Case(seed, scene, tuple(edits))

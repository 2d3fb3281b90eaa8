"""The rows of the tables: ways of editing, each a recipe and its settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

from evaluation.ideas.attention_policies import apart, null_outside
from evaluation.ideas.composites import hard_edged
from evaluation.ideas.relevance import Relevance, RelevanceTimesAttention
from evaluation.ideas.self_attention import SelfAttentionSpread
from evaluation.ideas.upsampled import Upsampled
from foi_core import guidance
from foi_core.attention import cross_condition_modulation, exclusive_modulation
from foi_core.mask_sources import KeywordAttention
from foi_core.recipe import RECIPES, Recipe

Masks = Literal["found", "true", "diffedit"]


@dataclass(frozen=True, eq=False)
class Row:
    """One way of editing. `recipe` None is plain IP2P; `settings` are fields of EditSpec.

    `masks`: found by the recipe; the true regions; or DiffEdit's. Where there are masks, the recipe's compositor puts
    the input back outside. `keywords`: the scene's own, or found by the rule as the service does. `one_by_one`: each
    sub-instruction is an edit of its own, of the result before it. `nothing`: no edit at all. `intensity` is the first
    sub-instruction's alpha.
    """

    name: str
    says: str
    recipe: Recipe | None = None
    settings: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    masks: Masks = "found"
    keywords: Literal["true", "rule"] = "true"
    one_by_one: bool = False
    nothing: bool = False
    intensity: float = 1.0

    def with_settings(self, name: str, **settings: Any) -> Row:
        """The same way under other settings."""
        return replace(self, name=name, settings={**self.settings, **settings})


PAPER, DEFAULT = RECIPES["paper"], RECIPES["default"]
NO_FOCUS = {"modulation_end": 0.0, "disentangle_end": 0.0}
TUNED = {"preset": "paper", "threshold": 0.0001}
"""The paper's method at the best tau for this model's maps (chosen on tuning scenes): what the ideas are added to."""

NOTHING = Row("no edit", "The input as it is: what doing nothing scores.", nothing=True)
IP2P = Row("IP2P", "Plain InstructPix2Pix, from the picture with 80% noise.")
PASTE = Row("IP2P + paste", "IP2P, its result pasted into the input inside the default's masks.", DEFAULT, NO_FOCUS)
SEQUENTIAL = Row("IP2P one by one", "One IP2P edit after another, a sub-instruction each.", one_by_one=True)
FAITHFUL = Row(
    "FoI, paper", "The faithful reading: preset paper (and pasted, as all rows with masks).", PAPER, {"preset": "paper"}
)
FOI = Row("FoI, paper, tau .0001", "The faithful reading with tau for this model's maps.", PAPER, TUNED)
TRUE = Row("FoI, paper, true masks", "The faithful reading inside the true regions.", PAPER, TUNED, masks="true")
BEST = Row("FoI, default", "Preset default.", DEFAULT)

MAIN = (NOTHING, IP2P, PASTE, SEQUENTIAL, FAITHFUL, FOI, TRUE, BEST)

_UPSAMPLED = Upsampled(KeywordAttention(gamma=0))
IDEAS = (
    Row("+ DiffEdit's masks", "Masks from ten noises at 50%.", PAPER, TUNED, masks="diffedit"),
    Row("+ relevance", "Masks from e_IT - e_I0 (Watch Your Steps), one row an instruction.",
        replace(PAPER, mask_source=Relevance(), apart=True), {"preset": "paper", "threshold": 0.5}),
    Row("+ relevance x attention", "Both maps must agree.",
        replace(PAPER, mask_source=RelevanceTimesAttention(), apart=True), {"preset": "paper", "threshold": 0.5}),
    Row("+ A_self A_cross", "The map spread along self-attention.",
        replace(PAPER, mask_source=SelfAttentionSpread()), {"preset": "paper", "threshold": 0.45}),
    Row("+ upsampled", "The soft map upsampled, then cut.",
        replace(PAPER, mask_source=_UPSAMPLED), {"preset": "paper", "threshold": 0.45}),
    Row("+ upsampled, Otsu", "The same, cut at Otsu's threshold.",
        replace(PAPER, mask_source=replace(_UPSAMPLED, otsu=True)), {"preset": "paper", "threshold": 0.45}),
    Row("+ guided", "The map drawn along the picture's edges (in the default).",
        replace(PAPER, mask_source=DEFAULT.mask_source), {"preset": "paper", "threshold": 0.25}),
    Row("+ value isolation", "Outside, the null branch's values too.",
        replace(PAPER, rewriting=null_outside), TUNED),
    Row("+ encoded apart", "Each instruction's own encoding, inside its own region alone.",
        replace(PAPER, attention=None, rewriting=apart, apart=True), TUNED),
    Row("+ exclusive", "Eq. 3 only between instructions (in the default).",
        replace(PAPER, attention=exclusive_modulation), TUNED),
    Row("+ not modulated", "Eq. 3 left out: regions act in the sampling alone.", replace(PAPER, attention=None), TUNED),
    Row("+ hard edge", "Pasted without the soft edge.", replace(PAPER, compositor=hard_edged), TUNED),
)  # fmt: skip

CHOICES = (
    Row("default, true masks", "The default inside the true regions.", DEFAULT, masks="true"),
    Row("default, rule's keywords", "The default as the service runs it: the rule finds the keywords.",
        DEFAULT, keywords="rule"),
    Row("default, Eq. 3", "The default with the paper's modulation.",
        replace(DEFAULT, attention=cross_condition_modulation)),
    Row("default, whole inside", "The null branch's attention outside, the whole instruction's inside.",
        replace(DEFAULT, attention=None, rewriting=null_outside)),
    Row("default, source outside", "Outside, the sampler is led to the picture's own latents.",
        replace(DEFAULT, outside=guidance.source_outside)),
    Row("default, tau .35", "Tighter masks.", DEFAULT, {"threshold": 0.35}),
)  # fmt: skip

ALL = (*MAIN, *IDEAS, *CHOICES)
QUICK = (NOTHING, IP2P, FAITHFUL, TRUE, BEST)

MASK_AT = (0.0, 0.25, 0.5, 0.75, 0.99)
ENDS = (0.0, 0.25, 0.5, 0.75, 1.0)
TEXT_SCALES = (0.0, 0.5, 1.0, 1.5, 2.5, 4.0)
INTENSITIES = (1.0, 10.0, 30.0, 100.0)


def _sweep(of: Row, prefix: str, setting: str, values: tuple[float, ...]) -> tuple[Row, ...]:
    return tuple(of.with_settings(f"{prefix} {value:g}", **{setting: value}) for value in values)


# The paper's Tables 3, 4 and 5, each with the rest of the method as in its last two tables: on, or up to 75%.
TABLE_3 = _sweep(FOI, "mask at", "mask_at", MASK_AT)
TABLE_4 = _sweep(FOI, "modulated until", "modulation_end", ENDS)
TABLE_5 = _sweep(FOI, "disentangled until", "disentangle_end", ENDS)
# Fig. 6d, and the curves of preservation against success.
SCALES = {row: _sweep(row, f"{row.name}, s_T", "guidance_scale", TEXT_SCALES) for row in (IP2P, FOI, BEST)}
# Fig. 8: the first sub-instruction's alpha.
FIGURE_8 = tuple(replace(FOI, name=f"alpha {value:g}", intensity=value) for value in INTENSITIES)
DIRECTIONS = (*TABLE_3, *TABLE_4, *TABLE_5, *(row for rows in SCALES.values() for row in rows), *FIGURE_8)

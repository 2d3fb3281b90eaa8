"""The points that the paper leaves open, each decided here and nowhere else.

"Faithful" says what the paper or the code that it cites does; where we depart from that, the reason stands beside it.
"""

from __future__ import annotations

MAP_SIDE = 16
"""Eq. 2: maps come from the UNet level whose map is nearest to 16x16 at the model's native size (faithful)."""

SMOOTHING_WEIGHTS = (0.212, 0.576, 0.212)
"""Eq. 2's Gaussian filter: 3x3, separable, reflect padding. Attend-and-Excite, which the paper cites, states sigma 0.5,
but its kernel's effective sigma is 0.707, which these weights are. Averaging of the maps is a plain mean over the
level's layers and heads, and over the keyword's tokens."""

GUIDE_CELL = 8
"""Guided masks: pixels of a map's cell where the filter runs, and its radius: edges are looked for one cell around."""

GUIDE_EPSILON = 1e-3
"""Guided masks: variance of colours (0 to 1) under which a window is flat, so that texture draws no edges."""

GAMMA = 3
"""Eq. 2: how often the map is squared and normalised (the paper's value)."""

XI_FACTOR, XI_POWER = 0.05, 4
"""Eq. 7: xi(t) = 0.05 t^4 with t = timestep / number of training timesteps. Eq. 6's max(X) is DenseDiffusion's, whose
form it follows: per head and query, over all tokens, start and padding included."""

# Tokens of no sub-instruction. Eq. 3: columns of M for start, end, padding and separators hold the union of the masks.
# CLIP is causal, so the end and padding tokens carry the whole text's meaning: inside the union they act, outside they
# do not.

SEPARATOR = ", "
"""How sub-instructions are joined into the composite instruction T."""

MASK_INTERPOLATION = "nearest-exact"
"""Eq. 3 and 8: how masks reach a layer's or the latent's resolution (faithful: binary masks stay binary)."""

# The first step itself is not modulated, since the masks come out of it; it is already disentangled by their union
# (Eq. 9).

NEARLY_ALL = 0.98
"""A mask that covers this share of the picture counts as full: the edit goes on as plain IP2P there, with a warning.
An empty mask means that its sub-instruction changes nothing, with a warning: a region that was not found is never
replaced by everything."""

UNCHANGED = 0.25
"""Root mean square change of the latents inside the masks, in units of the source latents' own spread, below which an
edit counts as having changed nothing, with a warning. Not measured yet."""

FEATHER_SHARE = 1 / 128
"""Compositing: width of the soft edge, as a share of the picture's shorter side. It lies inside the mask, so that
outside every pixel keeps its bytes."""

"""The morphologies that can be drawn, and the kinds that they belong to."""

from dataclasses import dataclass

from astromorph.sky import artefacts, clouds, galaxies, jets
from astromorph.sky.canvas import Painter


@dataclass(frozen=True, slots=True)
class Morphology:
    """How an object is drawn.

    Attributes
    ----------
    kind : str
        The label of the object in a simulated sample.
    paint : callable
        Draws it; see `Painter`.
    flat : bool
        Whether it is a thin disk, which is seen at any inclination.
    sharp : bool
        Whether it arises in the detector, so that the beam does not blur it.
    """

    kind: str
    paint: Painter
    flat: bool = False
    sharp: bool = False


# Those of a simulated sample. Each kind is a label.
SAMPLE_MORPHOLOGIES = {
    "disk": Morphology("disk", galaxies.disk, flat=True),
    "ring": Morphology("ring", galaxies.ring, flat=True),
    "spiral": Morphology("spiral", galaxies.spiral, flat=True),
    "filament": Morphology("filament", clouds.filament),
    "edge-brightened jets": Morphology("jets", jets.edge_jets),
    "core-brightened jets": Morphology("jets", jets.core_jets),
    "clumps": Morphology("clumps", clouds.clumps),
    "none": Morphology("none", clouds.none),
}
# Those from which networks learn. Each is a kind of its own.
_MORE = {
    "elliptical": Morphology("elliptical", galaxies.elliptical),
    "edge-on": Morphology("edge-on", galaxies.edge_on),
    "barred": Morphology("barred", galaxies.barred, flat=True),
    "merger": Morphology("merger", galaxies.merger),
    "shells": Morphology("shells", galaxies.shells),
    "irregular": Morphology("irregular", galaxies.irregular),
    "gapped disk": Morphology("gapped disk", galaxies.gapped_disk, flat=True),
    "crescent": Morphology("crescent", galaxies.crescent, flat=True),
    "lens": Morphology("lens", galaxies.lens),
    "point": Morphology("point", jets.point),
    "double": Morphology("double", jets.double),
    "bent tails": Morphology("bent tails", jets.bent_tails),
    "one-sided jet": Morphology("one-sided jet", jets.one_sided_jet),
    "crossed lobes": Morphology("crossed lobes", jets.crossed_lobes),
    "relic": Morphology("relic", jets.relic),
    "cluster": Morphology("cluster", clouds.cluster),
    "bubble": Morphology("bubble", clouds.bubble),
    "bipolar": Morphology("bipolar", clouds.bipolar),
    "comet": Morphology("comet", clouds.comet),
    "cirrus": Morphology("cirrus", clouds.cirrus),
    "web": Morphology("web", clouds.web),
    "trail": Morphology("trail", artefacts.trail),
    "spikes": Morphology("spikes", artefacts.spikes),
    "cosmic rays": Morphology("cosmic rays", artefacts.cosmic_rays, sharp=True),
    "residual": Morphology("residual", artefacts.residual),
    "sidelobes": Morphology("sidelobes", artefacts.sidelobes),
    "edge": Morphology("edge", artefacts.edge),
}
MORPHOLOGIES = SAMPLE_MORPHOLOGIES | _MORE
KINDS: dict[str, tuple[str, ...]] = {
    kind: tuple(name for name, m in SAMPLE_MORPHOLOGIES.items() if m.kind == kind)
    for kind in dict.fromkeys(m.kind for m in SAMPLE_MORPHOLOGIES.values())
}

"""Where the files of a run without Snakemake lie; the rules name the same."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class RunFiles:
    """Where the files of a run lie.

    Attributes
    ----------
    results : Path
        The folder of all of them.
    """

    results: Path

    @property
    def catalogue(self) -> Path:
        """What the files are."""
        return self.results / "catalogue.csv"

    @property
    def page(self) -> Path:
        """The same to look at."""
        return self.results / "validation.html"

    @property
    def split(self) -> Path:
        """What became of each file."""
        return self.results / "split.csv"

    @property
    def model(self) -> Path:
        """The trained network."""
        return self.results / "model" / "model.pt"

    @property
    def history(self) -> Path:
        """Losses by epoch."""
        return self.results / "model" / "history.csv"

    @property
    def scalars(self) -> Path:
        """Losses for TensorBoard."""
        return self.results / "tensorboard" / "train"

    @property
    def evaluation(self) -> Path:
        """How good the embedding is."""
        return self.results / "evaluation.json"

    @property
    def history_figure(self) -> Path:
        """The same, drawn."""
        return self.results / "model" / "history.png"

    @property
    def settings_page(self) -> Path:
        """All settings, and versions."""
        return self.results / "report" / "settings.html"

    @property
    def gallery(self) -> Path:
        """The folder of contact sheets."""
        return self.results / "export" / "gallery"

    @property
    def analysis(self) -> Path:
        """What lies together; JSON and HTML stand beside it."""
        return self.results / "analysis.parquet"

    @property
    def csv(self) -> Path:
        """The table of embeddings."""
        return self.results / "export" / "embeddings.csv"

    @property
    def parquet(self) -> Path:
        """The same with types."""
        return self.results / "export" / "embeddings.parquet"

    @property
    def fits(self) -> Path:
        """The same as a FITS table."""
        return self.results / "export" / "embeddings.fits"

    @property
    def votable(self) -> Path:
        """The same as a VOTable."""
        return self.results / "export" / "embeddings.vot"

    @property
    def projector(self) -> Path:
        """The folder for TensorBoard's projector."""
        return self.results / "export" / "tensorboard"

    @property
    def map(self) -> Path:
        """The map to look at in a browser."""
        return self.results / "export" / "map.html"

    @property
    def map_pictures(self) -> Path:
        """Its pictures, where they do not fit into it."""
        return self.results / "export" / "map_files"

    def tensors(self, shard: str) -> Path:
        """One shard's images."""
        return self.results / "tensors" / f"{shard}.pt"

    def contents(self, shard: str) -> Path:
        """What one shard really holds."""
        return self.results / "tensors" / f"{shard}.csv"

    def embeddings(self, shard: str) -> Path:
        """One shard's embeddings."""
        return self.results / "embeddings" / f"{shard}.parquet"

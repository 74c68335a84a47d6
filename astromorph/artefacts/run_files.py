"""The files of a run, named in one place for the workflow and the command line."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# The steps that write the tables between steps.
WRITERS = {"catalogue.csv": "validate", "split.csv": "split", "history.csv": "train"}


def step_that_writes(table: str | Path) -> str:
    """Name, for messages, of the step that writes a CSV of a run."""
    table = Path(table)
    writer = "preprocess" if table.parent.name == "tensors" else ""
    step = WRITERS.get(table.name, writer)
    return f"`{step}`" if step else "the step that writes it"


@dataclass(frozen=True, slots=True)
class RenamedShard:
    """A shard of another run, some of whose images have other ids in this one.

    Attributes
    ----------
    path : Path
        The file.
    names : dict of str to str
        Id in the file to id in this run; empty for an image that is not used.
    """

    path: Path
    names: Mapping[str, str]

    def __str__(self) -> str:
        return str(self.path)


ShardFile = str | Path | RenamedShard


@dataclass(frozen=True, slots=True)
class Identity:
    """What a result was made from, as its page or table shows it.

    Attributes
    ----------
    settings, file_list : str
        Digests of the settings and of the file list, of the step and of all before it.
    date : str
        The day on which it was made (UTC).
    """

    settings: str
    file_list: str
    date: str

    def to_dict(self) -> dict[str, str]:
        """Names and values for the header of a table."""
        return {
            "settings_digest": self.settings,
            "file_list_digest": self.file_list,
            "date": self.date,
        }


@dataclass(frozen=True, slots=True)
class RunFiles:
    """Where the files of a run are.

    A step receives the paths of the run only through this record. In the workflow,
    ``files.tensors("{shard}")`` is the pattern for all shards.

    Attributes
    ----------
    results : Path
        The folder that contains all of them.
    shards : tuple of str
        Names of the shards, in the order of the file list; empty if a step needs
        none.
    named_model : Path or None
        The model file, if the settings name one; None for ``model/model.pt``.
    identity : Identity or None
        What the step that writes these files makes them from; None in one's own code.

    Examples
    --------
    >>> files = RunFiles.of_run("results", shards=2)
    >>> str(files.tensors("00001"))
    'results/tensors/00001.pt'
    >>> [path.name for path in files.all_embeddings]
    ['00000.parquet', '00001.parquet']
    """

    results: Path
    shards: tuple[str, ...] = ()
    named_model: Path | None = None
    identity: Identity | None = None

    @classmethod
    def of_run(
        cls, results: str | Path, shards: int = 0, named_model: str | Path | None = None
    ) -> "RunFiles":
        """The files of a run with a number of shards.

        Parameters
        ----------
        results : path
            The folder that contains them.
        shards : int
            Number of shards of the file list.
        named_model : path, optional
            The model file, if the settings name one.

        Returns
        -------
        RunFiles
        """
        names = tuple(f"{number:05d}" for number in range(shards))
        return cls(Path(results), names, Path(named_model) if named_model else None)

    @property
    def catalogue(self) -> Path:
        """CSV: one row for each listed file, with facts or why it is rejected."""
        return self.results / "catalogue.csv"

    @property
    def list_copy(self) -> Path:
        """CSV, written by the command line: a list that can be read only once."""
        return self.results / "filelist.csv"

    @property
    def validation_page(self) -> Path:
        """The catalogue as a page: counts, histograms, a sample of the images."""
        return self.results / "validation.html"

    def tensors(self, shard: str) -> Path:
        """The prepared images of one shard."""
        return self.results / "tensors" / f"{shard}.pt"

    @property
    def all_tensors(self) -> tuple[Path, ...]:
        """The prepared images of every shard."""
        return tuple(self.tensors(shard) for shard in self.shards)

    def contents(self, shard: str) -> Path:
        """CSV: one row for each file of a shard, with its position in the tensors."""
        return self.results / "tensors" / f"{shard}.csv"

    @property
    def all_contents(self) -> tuple[Path, ...]:
        """The contents of every shard."""
        return tuple(self.contents(shard) for shard in self.shards)

    @property
    def split(self) -> Path:
        """CSV: whether each file is used for training, for testing, or not at all."""
        return self.results / "split.csv"

    @property
    def own_model(self) -> Path:
        """The model file that this run trains."""
        return self.results / "model" / "model.pt"

    @property
    def model(self) -> Path:
        """The model file that embeds the images: the named one, or this run's."""
        return self.named_model or self.own_model

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints, beside the model file."""
        return self.model.parent / "checkpoints"

    @property
    def history(self) -> Path:
        """CSV: losses and metrics of each epoch."""
        return self.results / "model" / "history.csv"

    @property
    def history_figure(self) -> Path:
        """The history as a figure."""
        return self.results / "model" / "history.png"

    @property
    def scalars(self) -> Path:
        """The folder of the training curves for TensorBoard."""
        return self.results / "tensorboard" / "train"

    def embeddings(self, shard: str) -> Path:
        """The embeddings of one shard."""
        return self.results / "embeddings" / f"{shard}.parquet"

    @property
    def all_embeddings(self) -> tuple[Path, ...]:
        """The embeddings of every shard."""
        return tuple(self.embeddings(shard) for shard in self.shards)

    @property
    def evaluation(self) -> Path:
        """JSON: metrics of the embedding and of its references."""
        return self.results / "evaluation.json"

    @property
    def evaluation_page(self) -> Path:
        """The evaluation as a page."""
        return self.results / "evaluation.html"

    @property
    def analysis(self) -> Path:
        """Parquet: cluster, position on the map, neighbours, outlier score."""
        return self.results / "analysis.parquet"

    @property
    def analysis_summary(self) -> Path:
        """JSON: summary statistics and settings of the analysis."""
        return self.results / "analysis.json"

    @property
    def analysis_page(self) -> Path:
        """The analysis as a page."""
        return self.results / "analysis.html"

    def table(self, ending: str) -> Path:
        """The table of facts, analysis and embeddings: csv, parquet, fits or vot."""
        return self.results / "export" / f"embeddings.{ending}"

    @property
    def projector(self) -> Path:
        """The folder for TensorBoard's projector."""
        return self.results / "export" / "tensorboard"

    @property
    def map(self) -> Path:
        """The interactive map."""
        return self.results / "export" / "map.html"

    @property
    def map_pictures(self) -> Path:
        """The folder of the map's thumbnails, if they do not fit into the page."""
        return self.results / "export" / "map_files"

    @property
    def gallery(self) -> Path:
        """The folder of contact sheets."""
        return self.results / "export" / "gallery"

    @property
    def exported_model(self) -> Path:
        """The folder of the model for other people and programs."""
        return self.results / "export" / "model"

    @property
    def ranking(self) -> Path:
        """CSV: a score for each image, from the user's marks."""
        return self.results / "ranking.csv"

    @property
    def ranking_page(self) -> Path:
        """The quality of the ranking and its best images, as a page."""
        return self.results / "ranking.html"

    @property
    def ranking_sheets(self) -> Path:
        """The folder of contact sheets of the ranking."""
        return self.results / "ranking"

    @property
    def settings_page(self) -> Path:
        """A page with all settings and versions."""
        return self.results / "report" / "settings.html"

    @property
    def home(self) -> Path:
        """The page that shows the run and leads to all other results."""
        return self.results / "index.html"

    def record(self, step: str, job: str | None = None) -> Path:
        """JSON: what the results of one job of a step were made from."""
        return self.results / "provenance" / step / f"{job or step}.json"

    @property
    def workflow_lock(self) -> Path:
        """The lock of the Snakemake that works in the folder."""
        return self.results / "provenance" / "workflow.lock"

    def log(self, step: str, job: str | None = None) -> Path:
        """The log of one job of a workflow step; by default that of its only job."""
        return self.results / "logs" / step / f"{job or step}.log"

    def benchmark(self, step: str, job: str | None = None) -> Path:
        """TSV, written by the workflow: run time and memory of one job of a step."""
        return self.results / "benchmarks" / step / f"{job or step}.tsv"

"""The table of file names agrees with the guide."""

import inspect
import re
from pathlib import Path

from astromorph.artefacts.run_files import RunFiles
from astromorph.cli.steps import TABLE_ENDINGS

GUIDE = Path(__file__).parents[2] / "docs" / "files.md"


def patterns() -> set[str]:
    """Every file of `RunFiles`, with the names of parameters in braces."""
    files, found = RunFiles.of_run("results"), set()
    for name, member in vars(RunFiles).items():
        if isinstance(member, property):
            value = getattr(files, name)
            found |= {str(value)} if isinstance(value, Path) else set()
        elif inspect.isfunction(member) and not name.startswith("_"):
            parameters = list(inspect.signature(member).parameters)[1:]
            found.add(str(getattr(files, name)(*(f"{{{p}}}" for p in parameters))))
    return found


def test_the_guide_lists_every_file():
    """docs/files.md has a row for each file of a run, and no others."""
    section = GUIDE.read_text().split("\n## ")[1]
    listed = re.findall(r"^\| `([^`]+)` \|", section, re.M)
    assert len(listed) == len(set(listed))
    assert set(listed) == patterns()


def test_the_guide_names_every_ending_of_the_table():
    """`{ending}` is explained."""
    section = GUIDE.read_text().split("\n## ")[1]
    for ending in TABLE_ENDINGS.values():
        assert f"`{ending}`" in section


def test_a_named_model_replaces_that_of_the_run():
    """Checkpoints are next to it; the history stays with the run."""
    files = RunFiles.of_run("results", shards=1, named_model="models/a.pt")
    assert files.model == Path("models/a.pt")
    assert files.checkpoints == Path("models/checkpoints")
    assert files.own_model == Path("results/model/model.pt")
    assert files.all_embeddings == (Path("results/embeddings/00000.parquet"),)

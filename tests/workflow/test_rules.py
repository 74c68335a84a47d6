"""The rules, as Snakemake lists them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from astromorph.cli.steps import STEPS

ROOT = Path(__file__).parents[2]
RULE = re.compile(r'^( *)rule ?\w*:\n\1    (""")?(.*)', re.MULTILINE)


def test_every_rule_begins_with_a_description():
    """One line that `snakemake --list` shows beside the name."""
    files = [ROOT / "Snakefile", ROOT / "workflow" / "Snakefile"]
    files += (ROOT / "workflow" / "rules").glob("*.smk")
    rules = [match for path in files for match in RULE.finditer(path.read_text())]
    assert len(rules) > 15
    assert not [
        match[0] for match in rules if not (match[2] and match[3][-4:-3] == ".")
    ]


@pytest.mark.slow
def test_snakemake_lists_all_steps_with_descriptions(tmp_path):
    """Each step of the table, the rule for everything, and what they do."""
    (tmp_path / "list.csv").write_text("a.fits\n")
    config = str(ROOT / "config" / "config.yaml")
    command = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile")]
    options = ["--configfile", config, "--config", "datafile=list.csv", "--list"]
    done = subprocess.run(
        [*command, *options], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    listed = done.stdout
    # Without a file of marks there is no ranking.
    for name in ["everything", *(set(STEPS) - {"rank"})]:
        assert re.search(rf"^{name} \([A-Z].*\.\)$", listed, re.MULTILINE), name

"""The text of the rules; `test_same_files` compares what Snakemake lists."""

import re
from pathlib import Path

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

"""The quick tests with the oldest, the current and the newest supported packages.

For each environment, a folder gets a virtual environment with the packages of a list of
constraints, and the quick tests run in it. It needs 7 GB of disk space for each, which
are released at the end.

python benchmarks/versions.py [--only oldest] [--folder FOLDER]
"""

import argparse
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Python and constraints of each environment; the first one has the lower bounds of
# pyproject.toml.
ENVIRONMENTS = {
    "oldest": ("3.11", "constraints/oldest.txt"),
    "current": ("3.12", "constraints.txt"),
    "newest": ("3.13", "constraints/newest.txt"),
}
QUICK = "not slow and not browser and not slurm"
COUNT = re.compile(r"(\d+) (passed|failed|error)")


@dataclass(frozen=True)
class Environment:
    """A Python version, a list of constraints, and the folder of the environment."""

    name: str
    interpreter: str
    constraints: str
    folder: Path

    @property
    def python(self) -> str:
        """The Python of the environment."""
        return str(self.folder / "bin" / "python")

    def commands(self, tests: list[str]) -> Iterator[list[str]]:
        """What makes the environment, unless it exists, and what runs the tests."""
        if not (self.folder / "bin" / "astromorph").exists():
            yield [self.interpreter, "-m", "venv", str(self.folder)]
            yield [
                self.python, "-m", "pip", "install", "--quiet",
                "--constraint", self.constraints, "--editable", ".[dev]",
            ]  # fmt: skip
        yield [
            self.python,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "-m",
            QUICK,
            *tests,
        ]


def run_tests(environment: Environment, tests: list[str]) -> str:
    """Make the environment and run the tests in it; a row of the table."""
    *install, test = environment.commands(tests)
    for command in install:
        subprocess.run(command, cwd=ROOT, check=True)
    start = time.monotonic()
    done = subprocess.run(test, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    minutes = (time.monotonic() - start) / 60
    print(done.stdout)
    counts = dict.fromkeys(("passed", "failed", "error"), "0")
    counts |= {kind: number for number, kind in COUNT.findall(done.stdout)}
    return " | ".join([*counts.values(), f"{minutes:.1f}"])


def find_python(version: str, given: list[str]) -> str:
    """The interpreter of a version: one of those given, or the one on PATH."""
    for path in [*given, *filter(None, [shutil.which(f"python{version}")])]:
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        done = subprocess.run([path, "-c", code], capture_output=True, text=True)
        if done.stdout.strip() == version:
            return path
    raise SystemExit(
        f"Python {version} was not found; install it, or name it with --python PATH"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--only", nargs="+", choices=ENVIRONMENTS, default=list(ENVIRONMENTS),
        help="some of the environments",
    )  # fmt: skip
    parser.add_argument(
        "--python", nargs="+", default=[], metavar="PATH",
        help="interpreters that are not on PATH as python3.11 and so on",
    )  # fmt: skip
    parser.add_argument(
        "--folder", type=Path,
        help="where the environments are made, and remain for the next time; by "
        "default a temporary folder",
    )  # fmt: skip
    parser.add_argument(
        "--tests", nargs="+", default=[], help="by default all quick ones"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="only print the commands"
    )
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.only:
            version, constraints = ENVIRONMENTS[name]
            folder = (options.folder or Path(temporary)).absolute() / name
            interpreter = f"python{version}"
            if not options.dry_run:
                interpreter = find_python(version, options.python)
            environment = Environment(name, interpreter, constraints, folder)
            if options.dry_run:
                for command in environment.commands(options.tests):
                    print(name, *command)
                continue
            row = run_tests(environment, options.tests)
            rows.append(f"| {name} | {version} | {constraints} | {row} |")
            if not options.folder:
                shutil.rmtree(folder)
    if rows:
        print("| packages | Python | list | passed | failed | errors | minutes |")
        print("|---|---|---|---|---|---|---|", *rows, sep="\n")


if __name__ == "__main__":
    main()

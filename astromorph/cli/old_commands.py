"""The subcommands `training` and `inference` of version 0.1."""

import argparse
import json
import logging
import os
from typing import Any

from astromorph.cli import commands
from astromorph.errors import AstromorphError
from astromorph.settings.loading import load, required_datafile

LOG = logging.getLogger(__name__)


def add_old_commands(steps: Any) -> None:
    """Add both subcommands to the parser; the help does not list them.

    Parameters
    ----------
    steps : argparse action
        What ``ArgumentParser.add_subparsers`` returned.
    """
    training = steps.add_parser("training")
    training.add_argument("-c", "--configfile", "--config-file", required=True)
    training.set_defaults(
        command=old_training, shards=None, results="results", threads=0,
        datafile=None, trained_network_name=None,
    )  # fmt: skip
    inference = steps.add_parser("inference")
    inference.add_argument("-c", "--configfile", "--config-file")
    inference.add_argument("-d", "--datafile")
    inference.add_argument("-m", "--maskfile")
    inference.add_argument("-n", "--trained_network_name", "--trained-network-name")
    inference.set_defaults(
        command=old_inference, shard=None, results="results", threads=0, settings=""
    )


def old_training(options: argparse.Namespace) -> None:
    """`training` of version 0.1."""
    LOG.warning("`astromorph training` is now `astromorph train`")
    options.config_file = options.configfile
    # There it never named the model that is written.
    old = _old_defaults(options) | {"trained_network_name": None}
    options.settings = json.dumps(old)
    options.datafile = _list_from_here(options)
    commands.train(options)


def old_inference(options: argparse.Namespace) -> None:
    """`inference` of version 0.1."""
    LOG.warning("`astromorph inference` is now `astromorph infer`")
    if options.maskfile:
        raise AstromorphError(
            f"--maskfile {options.maskfile}: masks are not used, as they never were; "
            "leave it out"
        )
    options.config_file = options.configfile
    options.settings = json.dumps(_old_defaults(options))
    options.datafile = _list_from_here(options)
    commands.infer(options)


def _old_defaults(options: argparse.Namespace) -> dict[str, Any]:
    """What version 0.1 did where its settings said nothing: hold a fifth out."""
    values = load(options.config_file) if options.config_file else {}
    if "split_settings" in values:
        return {}
    LOG.info("a fifth of the images is held out, as in version 0.1")
    return {"split_settings": {"test_fraction": 0.2}}


def _list_from_here(options: argparse.Namespace) -> str | None:
    """The list with absolute paths, where its own count from the working folder."""
    from astromorph.atomic import atomic_write
    from astromorph.filelist.entries import read_filelist

    settings = commands.read_settings(options)
    source = options.config_file or "command line"
    datafile = required_datafile(settings, source)
    entries = list(read_filelist(datafile))
    if os.path.exists(entries[0].path) or not os.path.exists(entries[0].listed_path):
        return datafile
    found = os.path.join(options.results, "filelist.txt")
    with atomic_write(found) as temporary:
        lines = (f"{os.path.abspath(entry.listed_path)}\n" for entry in entries)
        temporary.write_text("".join(lines), encoding="utf-8")
    LOG.info("%s lists the files by their absolute paths", found)
    return found

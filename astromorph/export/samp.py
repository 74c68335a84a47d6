"""The command `send`: pass images of a run to TOPCAT, Aladin and other programs.

Programs of the Virtual Observatory exchange tables through SAMP (Taylor et al. 2015): a
hub, which TOPCAT and Aladin start, passes messages between all programs of a user.
"""

import contextlib
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.run_table import run_table
from astromorph.artefacts.tables import arrow_array, read_table
from astromorph.errors import AstromorphError
from astromorph.export.tables.votable import write_votable

if TYPE_CHECKING:  # pandas takes long to import; functions import it themselves
    from pandas import DataFrame

with warnings.catch_warnings():
    # astropy 8 announces that this module will move to pyvo.
    warnings.filterwarnings("ignore", "astropy.samp was deprecated")
    from astropy.samp import (
        SAMPHubError,
        SAMPIntegratedClient,
        SAMPProxyError,
        conf,
    )

LOG = logging.getLogger(__name__)
LOAD_TABLE = "table.load.votable"
ALL = "all"
TIMEOUT = 60  # seconds in which a program must have read the table
SUCCESS = "samp.ok"


def send(
    files: RunFiles, receiver: str, rows: str | Path | None = None
) -> tuple[str, ...]:
    """Send images of a run, with all columns and embeddings, to running programs.

    Parameters
    ----------
    files : RunFiles
        A finished run.
    receiver : str
        The beginning of the name of a program, such as ``topcat`` or ``aladin``, in any
        case; ``all`` for all programs that can load tables.
    rows : path, optional
        A CSV with a column `image_id`, such as a list saved from the map or a table of
        `similar`; by default all images are sent. Images are in the order of the run,
        and ids that the run does not have are counted in the log.

    Returns
    -------
    tuple of str
        The names of the programs that have loaded the table.

    Raises
    ------
    AstromorphError
        No hub or no such program is running, it does not load the table, or no image is
        selected.

    References
    ----------
    .. [1] Taylor et al. 2015, Astronomy and Computing, 11, 81
    """
    table = _selected(files, rows)
    with _connected() as client, tempfile.TemporaryDirectory() as folder:
        receivers = _find_receivers(client, receiver)
        path = Path(folder) / "astromorph.vot"
        write_votable(path, files, table, "{}")
        name = f"astromorph: {len(table)} images"
        message = {
            "samp.mtype": LOAD_TABLE,
            "samp.params": {
                "url": path.as_uri(),
                "name": name,
                "table-id": f"{name} of {files.results.absolute()}",
            },
        }
        for client_id, program in receivers.items():
            _call(client, client_id, program, message)
            LOG.info("%s has loaded %d images", program, len(table))
    return tuple(receivers.values())


def _selected(files: RunFiles, rows: str | Path | None) -> "DataFrame":
    """The rows of the run that a CSV names; all of them without one."""
    import pyarrow as pa
    import pyarrow.compute as pc

    table = run_table(files)
    if rows is None:
        return table
    wanted = pc.unique(arrow_array(read_table(rows, ["image_id"])["image_id"]))
    wanted = wanted.filter(pc.not_equal(wanted, ""))
    ids = arrow_array(table["image_id"]).cast(pa.large_string())
    chosen = pc.is_in(ids, value_set=wanted.cast(pa.large_string()))
    selected = table[chosen.to_numpy(zero_copy_only=False)]
    if selected.empty:
        raise AstromorphError(
            f"{rows}: none of its {len(wanted)} ids is an analysed image of "
            f"{files.results}; give the run with --results"
        )
    if len(selected) < len(wanted):
        LOG.warning(
            "%s: %d of %d ids are not analysed images of %s",
            rows,
            len(wanted) - len(selected),
            len(wanted),
            files.results,
        )
    return selected


@contextlib.contextmanager
def _connected() -> Iterator[SAMPIntegratedClient]:
    """A client of the running hub, without access to other machines."""
    with conf.set_temp("use_internet", False):
        client = SAMPIntegratedClient(
            name="astromorph", description="Embeddings of FITS images"
        )
        try:
            client.connect()
        except (SAMPHubError, SAMPProxyError, OSError) as error:
            raise AstromorphError(
                f"no SAMP hub is running ({error}); start TOPCAT or Aladin, wait until "
                "its window is open, and send again"
            ) from None
        try:
            yield client
        finally:
            with contextlib.suppress(SAMPHubError, SAMPProxyError, OSError):
                client.disconnect()


def _find_receivers(client: SAMPIntegratedClient, receiver: str) -> dict[str, str]:
    """The names of the programs to send to, by their ids."""
    programs = {
        client_id: _program_name(client, client_id)
        for client_id in client.get_subscribed_clients(LOAD_TABLE)
    }
    chosen = {
        client_id: name
        for client_id, name in programs.items()
        if receiver == ALL or name.lower().startswith(receiver.lower())
    }
    if not chosen:
        running = _listed(sorted(programs.values())) or "none"
        wanted = "program that loads tables" if receiver == ALL else receiver
        raise AstromorphError(
            f"--to: no {wanted} is connected to the SAMP hub; programs that load "
            f"tables: {running}; start it, or connect it in its menu of SAMP"
        )
    return chosen


def _program_name(client: SAMPIntegratedClient, client_id: str) -> str:
    metadata = client.get_metadata(client_id)
    return str(metadata.get("samp.name") or client_id)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


def _call(
    client: SAMPIntegratedClient, client_id: str, program: str, message: dict[str, Any]
) -> None:
    """Send a message and wait until the program has loaded the table."""
    try:
        answer = client.call_and_wait(client_id, message, str(TIMEOUT))
    except (SAMPProxyError, OSError) as error:
        raise AstromorphError(
            f"{program}: it has not loaded the table within {TIMEOUT} seconds ({error})"
        ) from None
    if answer.get("samp.status") != SUCCESS:
        reason = answer.get("samp.error", {}).get("samp.errortxt", "without a reason")
        raise AstromorphError(f"{program}: it could not load the table: {reason}")

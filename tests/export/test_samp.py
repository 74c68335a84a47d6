"""The command `send`: images of a run in other programs, through astropy's hub."""

import numpy as np
import pytest
from astropy.io.votable import parse_single_table
from finished_run import catalogue_rows, image_ids, write_run

from astromorph.cli import main as cli
from astromorph.errors import AstromorphError
from astromorph.export.samp import SAMPIntegratedClient, conf, send

NUMBER = 6


class Program:
    """A program that loads tables, such as TOPCAT."""

    def __init__(self, name, answer="samp.ok"):
        self.tables, self.names, self._answer = [], [], answer
        self.client = SAMPIntegratedClient(name=name)
        self.client.connect()
        self.client.bind_receive_call("table.load.votable", self._load)

    def _load(self, private_key, sender, message_id, mtype, params, extra):
        self.names.append(params["name"])
        # While the file exists, which is until the answer.
        self.tables.append(parse_single_table(params["url"].removeprefix("file://")))
        answer = {"samp.status": self._answer, "samp.result": {}}
        if self._answer != "samp.ok":
            answer["samp.error"] = {"samp.errortxt": "out of memory"}
        self.client.reply(message_id, answer)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    rows = catalogue_rows(NUMBER, ra_deg=[str(k) for k in range(NUMBER)])
    files = write_run(tmp_path_factory.mktemp("samp") / "results", rows)
    files.analysis_summary.write_text("{}")
    return files


@pytest.fixture
def no_hub(tmp_path, monkeypatch):
    """An empty place for the file by which programs find the hub."""
    monkeypatch.setenv("SAMP_HUB", f"std-lockurl:file://{tmp_path}/samp")
    with conf.set_temp("use_internet", False):
        yield


@pytest.fixture
def programs(no_hub):
    """A hub with two programs that load tables, and one that does not."""
    from astropy.samp import SAMPHubServer

    hub = SAMPHubServer(web_profile=False, addr="127.0.0.1")
    hub.start()
    other = SAMPIntegratedClient(name="Aladin's friend")
    other.connect()
    running = {"TOPCAT": Program("TOPCAT"), "Aladin": Program("Aladin")}
    yield running
    for client in (other, *(program.client for program in running.values())):
        client.disconnect()
    hub.stop()


def test_the_rows_of_a_table_are_sent_to_one_program(files, programs, tmp_path, caplog):
    """TOPCAT gets these images with all columns; unknown ids are counted."""
    ids = image_ids(NUMBER)
    chosen = tmp_path / "chosen.csv"
    chosen.write_text(f"name,image_id\na,{ids[4]}\nb,{ids[1]}\nc,unknown\nd,{ids[1]}\n")
    assert send(files, "topcat", chosen) == ("TOPCAT",)
    assert "1 of 3 ids are not analysed images" in caplog.text
    (table,) = programs["TOPCAT"].tables
    assert programs["Aladin"].tables == []
    assert programs["TOPCAT"].names == ["astromorph: 2 images"]
    array = table.array
    assert [str(name) for name in array["image_id"]] == [ids[1], ids[4]]
    np.testing.assert_array_equal(array["ra_deg"], [1.0, 4.0])
    assert array["embedding"].shape == (2, 5)
    assert table.get_field_by_id("ra_deg").ucd == "pos.eq.ra;meta.main"


def test_all_images_are_sent_to_all_programs(files, programs):
    """Only to those that load tables."""
    cli.main(["send", "--results", str(files.results)])
    for program in programs.values():
        assert len(program.tables[0].array) == NUMBER


def test_a_program_that_is_not_running(files, programs):
    """The message names those that are."""
    with pytest.raises(AstromorphError, match=r"no ds9 is connected .*Aladin, TOPCAT;"):
        send(files, "ds9")


def test_a_program_that_cannot_load_the_table(files, programs):
    """Its reason is in the message."""
    full = Program("Full", "samp.error")
    with pytest.raises(AstromorphError, match=r"Full: it could not .* out of memory"):
        send(files, "full")
    full.client.disconnect()


def test_without_a_hub_the_message_says_what_to_start(files, no_hub, tmp_path):
    """Before that, a table without any image of the run is an error."""
    with pytest.raises(
        AstromorphError, match=r"no SAMP hub is running .* start TOPCAT"
    ):
        send(files, "topcat")
    (tmp_path / "none.csv").write_text("image_id\nx\n")
    with pytest.raises(AstromorphError, match=r"none\.csv: none of its 1 ids"):
        send(files, "topcat", tmp_path / "none.csv")

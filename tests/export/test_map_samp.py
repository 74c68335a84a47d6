"""Sending tables from a page to other programs, through astropy's hub in Chromium."""

import base64
import threading
import time
from pathlib import Path

import pytest

import astromorph.export.html_map as html_map
from astromorph.export.samp import SAMPIntegratedClient, conf
from tests.export.test_map import browser  # noqa: F401

pytestmark = pytest.mark.browser

SCRIPT = Path(html_map.__file__).parent / "scripts" / "samp.js"
PAGE = """<!DOCTYPE html><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none';
script-src 'unsafe-inline'; connect-src http://localhost:21012">
<script>{script}</script>"""
TABLE = "<VOTABLE><!-- ünï & <tag> --></VOTABLE>"
SEND = "(text) => sendTable('two & <three>', text).catch((error) => error.message)"


class Dialog:
    """Answers the question of the hub whether a page may register."""

    def __init__(self, accepts):
        from astropy.samp.hub import WebProfileDialog

        self.asked = []
        answer, asked = accepts, self.asked

        class Automatic(WebProfileDialog):
            def show_dialog(self, samp_name, details, client, origin):
                asked.append((samp_name, origin))
                self.consent() if answer else self.reject()

        self.dialog = Automatic()
        self._running = True
        self._thread = threading.Thread(target=self._answer, daemon=True)
        self._thread.start()

    def _answer(self):
        while self._running:
            self.dialog.handle_queue()
            time.sleep(0.02)

    def stop(self):
        """End the thread."""
        self._running = False
        self._thread.join()


@pytest.fixture
def start_hub(tmp_path, monkeypatch):
    """A function that starts a hub with the Web Profile, on its fixed port."""
    from astropy.samp import SAMPHubServer

    monkeypatch.setenv("SAMP_HUB", f"std-lockurl:file://{tmp_path}/samp")
    running = []

    def start(accepts):
        dialog = Dialog(accepts)
        hub = SAMPHubServer(
            web_profile=True, web_profile_dialog=dialog.dialog, addr="127.0.0.1"
        )
        hub.start()
        running.append((dialog, hub))
        if hub._web_profile_server is None:
            pytest.skip("another program uses port 21012")
        return dialog

    with conf.set_temp("use_internet", False):
        yield start
        for dialog, hub in running:
            dialog.stop()
            hub.stop()


@pytest.fixture
def page(browser, tmp_path):  # noqa: F811
    """An empty page from a file, with the script and the policy of the map."""
    path = tmp_path / "page.html"
    path.write_text(PAGE.format(script=SCRIPT.read_text(encoding="utf-8")))
    page = browser.new_page()
    page.goto(path.as_uri())
    yield page
    page.close()


def test_a_table_is_sent_to_a_program(start_hub, page):
    """The program gets its name and its text, as a data URL; the page unregisters."""
    dialog = start_hub(accepts=True)
    received = []
    program = SAMPIntegratedClient(name="TOPCAT")
    program.connect()

    def load(private_key, sender, mtype, params, extra):
        received.append(params)

    program.bind_receive_notification("table.load.votable", load)
    assert page.evaluate(SEND, TABLE) == 1
    for _ in range(100):
        if received:
            break
        time.sleep(0.02)
    (parameters,) = received
    assert parameters["name"] == "two & <three>"
    start, _, data = parameters["url"].partition(",")
    assert start == "data:application/x-votable+xml;base64"
    assert base64.b64decode(data).decode("utf-8") == TABLE
    assert dialog.asked[0][0] == "astromorph map"
    clients = [program.get_metadata(c) for c in program.get_registered_clients()]
    assert "astromorph map" not in [c.get("samp.name") for c in clients]
    program.disconnect()


def test_no_program_loads_tables(start_hub, page):
    start_hub(accepts=True)
    assert page.evaluate(SEND, TABLE).startswith("No running program loads tables")


def test_the_user_refuses(start_hub, page):
    start_hub(accepts=False)
    assert "rejected by the user" in page.evaluate(SEND, TABLE)


def test_no_hub_is_running(page):
    assert "start TOPCAT or Aladin" in page.evaluate(SEND, TABLE)

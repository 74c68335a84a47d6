"""Sending tables from a page to other programs, through astropy's hub in Chromium."""

import base64
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from astropy.io.votable import parse_single_table
from finished_run import catalogue_rows, image_ids, write_run

import astromorph.export.html_map as html_map
from astromorph.export.html_map.html_map import export_map
from astromorph.export.samp import SAMPIntegratedClient, conf

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
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


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium, without a graphics card."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine")
    from playwright.sync_api import sync_playwright

    options = ["--no-sandbox", "--disable-gpu"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


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
def page(browser, tmp_path):
    """An empty page from a file, with the script and the policy of the map."""
    path = tmp_path / "page.html"
    path.write_text(PAGE.format(script=SCRIPT.read_text(encoding="utf-8")))
    page = browser.new_page()
    page.goto(path.as_uri())
    yield page
    page.close()


def connect_program():
    """A program that loads tables, and the parameters of the messages it gets."""
    received = []
    program = SAMPIntegratedClient(name="TOPCAT")
    program.connect()

    def load(private_key, sender, mtype, params, extra):
        received.append(params)

    program.bind_receive_notification("table.load.votable", load)
    return program, received


def wait_for(received):
    for _ in range(100):
        if received:
            return received.pop()
        time.sleep(0.02)
    raise TimeoutError


def test_a_table_is_sent_to_a_program(start_hub, page):
    """The program gets its name and its text, as a data URL; the page unregisters."""
    dialog = start_hub(accepts=True)
    program, received = connect_program()
    assert page.evaluate(SEND, TABLE) == 1
    parameters = wait_for(received)
    assert parameters["name"] == "two & <three>"
    start, _, data = parameters["url"].partition(",")
    assert start == "data:application/x-votable+xml;base64"
    assert base64.b64decode(data).decode("utf-8") == TABLE
    assert dialog.asked[0][0] == "astromorph map"
    clients = [program.get_metadata(c) for c in program.get_registered_clients()]
    assert "astromorph map" not in [c.get("samp.name") for c in clients]
    program.disconnect()


def test_the_list_of_the_map_is_sent(start_hub, browser, tmp_path):
    """A VOTable with numbers, texts and units; nothing else is requested."""
    rows = catalogue_rows(
        4,
        ra_deg=["10.5", "11.5", "", "12.5"],
        dec_deg=["-5"] * 4,
        name=['<b>"&', "ünï", "007", ""],
        code=["007", "1", "", "2"],
        flux=["1.5", "nan", "", "3"],
    )
    files = write_run(tmp_path / "results", rows)
    export_map(files, 16, 100, with_evaluation=False)
    start_hub(accepts=True)
    program, received = connect_program()
    page = browser.new_page()
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(files.map.as_uri())
    page.wait_for_selector("body[data-ready=yes]")
    assert page.get_by_role("button", name="Send to TOPCAT").count() == 0
    assert all(url.startswith(("file:", "data:", "blob:")) for url in requests)
    page.evaluate("setList([0, 1, 2])")
    page.get_by_role("button", name="Send to TOPCAT").click()
    page.get_by_text("3 images sent to 1 program").wait_for()
    parameters = wait_for(received)
    assert parameters["name"] == "astromorph: 3 images"
    text = base64.b64decode(parameters["url"].partition(",")[2])
    (tmp_path / "sent.vot").write_bytes(text)
    table = parse_single_table(tmp_path / "sent.vot")
    array = table.array
    assert list(array["image_id"]) == list(image_ids(3))
    np.testing.assert_array_equal(np.asarray(array["ra_deg"]), [10.5, 11.5, np.nan])
    np.testing.assert_array_equal(np.asarray(array["flux"]), [1.5, np.nan, np.nan])
    assert list(array["name"]) == ['<b>"&', "ünï", "007"]
    assert list(array["code"]) == ["007", "1", ""]
    assert array["x"].dtype == np.float64
    fields = {field.name: field for field in table.fields}
    assert fields["ra_deg"].ucd == "pos.eq.ra;meta.main"
    assert str(fields["ra_deg"].unit) == "deg"
    outside = {url for url in requests if url.startswith("http")}
    assert outside == {"http://localhost:21012/"}
    program.disconnect()
    page.close()


def test_without_a_hub_the_map_says_what_to_start(browser, tmp_path):
    """The message is that of the page, which can then be used as before."""
    files = write_run(tmp_path / "results", catalogue_rows(4))
    export_map(files, 16, 100, with_evaluation=False)
    page = browser.new_page()
    page.goto(files.map.as_uri())
    page.wait_for_selector("body[data-ready=yes]")
    page.evaluate("setList([0, 1])")
    page.get_by_role("button", name="Send to TOPCAT").click()
    page.get_by_text("start TOPCAT or Aladin on this computer").wait_for()
    page.close()


def test_no_program_loads_tables(start_hub, page):
    start_hub(accepts=True)
    assert page.evaluate(SEND, TABLE).startswith("No running program loads tables")


def test_the_user_refuses(start_hub, page):
    start_hub(accepts=False)
    assert "rejected by the user" in page.evaluate(SEND, TABLE)


def test_no_hub_is_running(page):
    assert "start TOPCAT or Aladin" in page.evaluate(SEND, TABLE)

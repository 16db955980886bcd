"""The page in a real browser, beside other servers and other campaigns."""

import csv
import http.server
import json
import os
import stat
import sys
import threading

import pytest

from .label_site import CLASSES, Site, loaded, paint, press, saved, shown, until

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")


class Stranger(http.server.BaseHTTPRequestHandler):
    """A server of somebody else: it notes what it is sent, and claims anything."""

    status, said = 404, {}

    def answer(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        self.server.requests.append((self.path, dict(self.headers), body))
        said = dict(self.server.said)
        if "operations" in body:
            said["outcomes"] = [
                {"id": each["id"], "status": "recorded", "refused": []}
                for each in body["operations"]
            ]
            said["campaign"] = self.headers.get("X-Skadma-Campaign")
        data = json.dumps(said).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = answer  # noqa: N815

    def log_message(self, *_):
        pass


@pytest.fixture
def stranger():
    """What starts such a server on a port."""
    servers = []

    def start(port=0, status=200, **said):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Stranger)
        server.requests, server.status, server.said = [], status, said
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_second_server_on_another_port(tmp_path, serve, pages, stranger):
    """It gets the cookie, as browsers have it; that opens nothing on our port."""
    httpx = pytest.importorskip("httpx")
    site = serve(tmp_path / "campaign", paint(tmp_path / "photos", 12), n=5)
    page = pages(site)
    sha256 = shown(page)
    other = stranger()
    tab = page.context.new_page()
    tab.goto(f"http://127.0.0.1:{other.server_address[1]}/")
    stored = tab.evaluate("() => Object.keys(localStorage)")
    tab.close()
    (cookie,) = {headers.get("Cookie") for _, headers, _ in other.requests}
    assert cookie.startswith(f"skadma-{site.port}=")  # or this test shows nothing
    assert stored == []  # the token's storage is our origin's
    mark = {"sha256": sha256, "mark": CLASSES[0], "before": None}
    operation = {"id": "a-strangers", "via": "keys", "marks": [mark]}
    campaign = page.evaluate("skadmaPage.queue.transport.campaign")
    for token in ({}, {"X-Skadma": "1"}):
        headers = {"Cookie": cookie, "X-Skadma-Campaign": campaign, **token}
        with httpx.Client(base_url=site.origin, headers=headers) as plain:
            plain.headers["Origin"] = site.origin
            assert plain.get(f"/img/{sha256}?size=view").status_code == 401
            answer = plain.post("/api/operations", json={"operations": [operation]})
            assert answer.status_code in (401, 415)
    assert site.held() == {}
    press(page, "1")  # the page itself goes on
    saved(page)
    assert list(site.held().values()) == [CLASSES[0]]


def unsaved(site, page, n):
    """Give `n` answers that the server does not get."""
    shown(page)
    loaded(page, n)
    site.kill()
    for _ in range(n):
        press(page, "2")
    return page.evaluate("skadmaPage.queue.outbox.size")


def kept(page):
    """How many operations the browser keeps, by campaign."""
    return page.evaluate(
        """() => Object.keys(localStorage).filter((key) => key.includes(":op:"))
          .map((key) => key.split(":")[1])"""
    )


@pytest.mark.parametrize("classes", [CLASSES, ["cat", "dog"]])
def test_two_campaigns_on_one_port(classes, tmp_path, serve, pages):
    """Unsaved answers of one never reach the other, and wait for their own."""
    first = serve(tmp_path / "first", paint(tmp_path / "photos", 20), n=10)
    page = pages(first)
    assert unsaved(first, page, 3) == 3
    mine = page.evaluate("skadmaPage.queue.transport.campaign")
    second = serve(
        tmp_path / "second", tmp_path / "photos", n=10, classes=classes, port=first.port
    )
    page.wait_for_selector(".banner:visible")
    tab = page.context.new_page()  # in the same browser, which the second lets in
    tab.goto(second.address())
    shown(tab)
    assert "3 answers for another campaign," in tab.inner_text("#others")
    with tab.expect_download() as download:
        tab.click("#others button")
    rows = list(csv.DictReader(download.value.path().open(newline="")))
    assert [row["label"] for row in rows] == [CLASSES[1]] * 3
    assert all(row["path"].endswith(".png") and row["as_of"] for row in rows)
    page.wait_for_selector(".banner:has-text('Another campaign, or another person')")
    press(tab, "1")
    saved(tab)
    assert list(second.held().values()) == [classes[0]]  # nothing of the first
    assert kept(page) == [mine] * 3
    page.on("dialog", lambda dialog: dialog.accept())
    page.reload()  # the second one's page by now, which sends nothing of the first
    shown(page)
    assert kept(page) == [mine] * 3 and len(second.held()) == 1
    second.kill()
    tab.close()
    first.start()
    assert first.port == second.port
    page.goto(first.address())  # only the fragment differs: the page loads the first's
    until(page, "window.skadmaPage?.queue.about.campaign === 'first'")
    saved(page)
    until(page, "skadmaPage.queue.state?.n_decided === 3")
    assert list(first.held().values()) == [CLASSES[1]] * 3 and kept(page) == []
    page.complaints.clear()  # Chromium's own, about servers that were not there


@pytest.mark.parametrize("status", [404, 422, 200])
def test_a_stranger_on_our_port(status, tmp_path, serve, pages, stranger):
    """Whatever it says, answers stay in the browser until the campaign has them."""
    site = serve(tmp_path / "campaign", paint(tmp_path / "photos", 20), n=10)
    page = pages(site)
    assert unsaved(site, page, 3) == 3
    other = stranger(site.port, status, error="No such page.")
    while not [path for path, _, _ in other.requests if path == "/api/operations"]:
        page.wait_for_timeout(100)
    page.wait_for_timeout(500)
    assert page.evaluate("skadmaPage.queue.outbox.size") == 3 and len(kept(page)) == 3
    assert page.locator("#refused").count() == 0
    other.shutdown()
    other.server_close()
    site.start()
    page.goto(site.address())
    saved(page)
    assert list(site.held().values()) == [CLASSES[1]] * 3
    page.complaints.clear()


def test_a_refused_answer_is_shown_and_can_be_saved(tmp_path, serve, pages):
    """Somebody else labelled the picture meanwhile."""
    from skadma import Campaign

    site = serve(tmp_path / "campaign", paint(tmp_path / "photos", 12), n=5)
    page = pages(site)
    sha256 = shown(page)
    path = page.inner_text(".caption")
    with Campaign.open(site.folder) as campaign:
        campaign.teach({path: "?not-an-image"}, train=False)
    page.keyboard.press("2")
    saved(page)
    page.wait_for_selector("#refused")
    assert f"{path}: {CLASSES[1]}." in page.inner_text("#refused")
    page.reload()
    page.wait_for_selector("#refused")  # until somebody has seen it
    with page.expect_download() as download:
        page.click("#refused button:has-text('Save')")
    (row,) = csv.DictReader(download.value.path().open(newline=""))
    assert (row["path"], row["label"], row["sha256"]) == (path, CLASSES[1], sha256)
    with Campaign.open(site.folder) as campaign:
        campaign.teach(download.value.path(), train=False)  # a label file
    assert site.held()[path] == CLASSES[1]
    page.click("#refused button:has-text('Forget')")
    page.wait_for_selector("#refused", state="detached")
    page.reload()
    shown(page)
    assert page.locator("#refused").count() == 0


def test_names_that_are_used_again(tmp_path, serve, pages):
    """Answers mean the class that had the name when they were given."""
    from skadma import Campaign

    classes = ["cat", "dog"]
    site = serve(
        tmp_path / "campaign", paint(tmp_path / "photos", 20), n=10, classes=classes
    )
    page = pages(site)
    shown(page)
    until(page, "skadmaPage.queue.items.length > 5")
    page.route("**/api/*", lambda route: route.abort())
    sha256 = shown(page)
    page.keyboard.press("2")  # a dog, not sent yet
    shown(page, sha256)
    page.click("#view-grid")
    tile = page.locator(".tile").first
    tile.focus()
    page.keyboard.press("2")  # another, not even taken
    other = tile.get_attribute("data-sha256")
    with Campaign.open(site.folder) as campaign:
        campaign.rename_class("dog", "wolf")
        campaign.rename_class("cat", "dog")
    page.unroute("**/api/*")
    until(page, "skadmaPage.queue.about.classes[1] === 'wolf'")
    saved(page)
    keys = "['dog', 'wolf'].map((name) => skadmaPage.keys.of(`class:${name}`))"
    assert page.evaluate(keys) == ["1", "2"]
    assert list(site.held().values()) == ["wolf"]
    tile = page.locator(f'.tile[data-sha256="{other}"]')
    assert tile.get_attribute("data-mark") == "wolf"
    page.keyboard.press("Enter")
    saved(page)
    assert list(site.held().values()) == ["wolf", "wolf"]
    page.complaints.clear()


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX modes and programs")
def test_the_browsers_command_line_has_no_token(tmp_path, monkeypatch):
    """It names a file for this user's eyes alone, which leads to the address."""
    called = tmp_path / "called.txt"
    browser = tmp_path / "browser"
    browser.write_text(
        f'#!/bin/sh\necho "$@" > {called}.part; mv {called}.part {called}\n'
    )
    browser.chmod(0o700)
    monkeypatch.setenv("BROWSER", str(browser))
    photos = paint(tmp_path / "photos", 12)
    old = os.umask(0)
    try:
        site = Site(tmp_path / "campaign", photos, n=5, browser=True)
    finally:
        os.umask(old)
    while not called.exists():
        assert site.process.poll() is None, site.errors
    said = called.read_text().strip()
    address, token = site.first_address, site.first_address.partition("#")[2]
    assert said.startswith("file://") and token not in said
    (page,) = site.folder.glob("open-page-*.html")
    assert said.endswith(page.name) and stat.S_IMODE(page.stat().st_mode) == 0o600
    assert f'content="0; url={address}"' in page.read_text()
    site.stop()
    assert not page.exists()

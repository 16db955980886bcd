"""Who may talk to the labelling page's server, line by line; see docs/label.md."""

import contextlib
import hashlib
import http.client
import json
import select
import socket
import threading
import time
from pathlib import Path

import pytest

import skadma.labelling.page

from .label_site import Site, paint

httpx = pytest.importorskip("httpx")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
PROC = Path("/proc")
MARKER = b"<script>alert('polyglot')</script>"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    paint(folder / "photos", 12)
    with (folder / "photos" / "002.png").open("ab") as file:
        file.write(MARKER)
    (folder / "photos" / "fake.png").write_bytes(b"<script>alert(1)</script>")
    (folder / "photos" / "secret.svg").write_text("<svg/>")
    site = Site(folder / "campaign", folder / "photos", "--label-studio")
    yield site
    site.stop()


@pytest.fixture(scope="module")
def client(site):
    client = site.client()
    yield client
    client.close()


def sync(client, **headers):
    body = {"tab": "t", "have": [], "want": 0}
    return client.post("/api/sync", json=body, headers=headers)


def raw(site, method, path, headers, body=b""):
    """A request as it stands, Host included."""
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=10)
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in headers:
        connection.putheader(name, value)
    connection.endheaders(body or None)
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, data


@pytest.mark.skipif(not PROC.is_dir(), reason="needs /proc")
def test_1_only_this_machine_is_listened_to(site):
    own = PROC / str(site.process.pid)
    links = []
    for entry in (own / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile: no listener
            links.append(str(entry.readlink()))
    inodes = {link[8:-1] for link in links if link.startswith("socket:")}
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in (own / "net" / table).read_text().splitlines()[1:]
    ]
    listening = [row[1] for row in rows if row[3] == "0A" and row[9] in inodes]
    assert listening == [f"0100007F:{site.port:04X}"]
    with socket.socket() as other:
        other.settimeout(2)
        own = socket.gethostbyname(socket.gethostname())
        if not own.startswith("127."):
            assert other.connect_ex((own, site.port)) != 0


def test_3_the_cookie_alone_opens_nothing(site, client):
    """A browser gives it to every server on this machine; and the token alone."""
    photo = (site.folder.parent / "photos" / "000.png").read_bytes()
    image = f"/img/{hashlib.sha256(photo).hexdigest()}?size=view"
    mark = {"sha256": hashlib.sha256(photo).hexdigest(), "mark": "ok", "before": None}
    operation = {"id": "a-strangers", "via": "keys", "marks": [mark]}
    stolen = {"Cookie": cookie_of(client), "Origin": site.origin}
    seen = {"X-Skadma": client.headers["X-Skadma"], "Origin": site.origin}
    n_events = len(site.log())
    campaign = {"X-Skadma-Campaign": client.headers["X-Skadma-Campaign"]}
    for headers in (stolen, {**stolen, "X-Skadma": "1"}, seen):
        with httpx.Client(base_url=site.origin, headers=headers | campaign) as other:
            for path in ("/api/about", "/api/progress", image):
                assert other.get(path).status_code == 401
            answer = other.post("/api/operations", json={"operations": [operation]})
            assert answer.status_code in (401, 415)
    assert [e for e in site.log()[n_events:] if e["kind"] == "teach"] == []


def test_3_a_token_serves_for_a_minute(monkeypatch):
    pytest.importorskip("starlette")
    from skadma.labelling.page import guard as module

    guard = module.Guard(None, 1, "c")
    now = module.time.monotonic()
    for later, opens in ((59, True), (61, False)):
        token = guard.make_one_time_token()
        monkeypatch.setattr(module.time, "monotonic", lambda: now + later)  # noqa: B023
        assert guard.takes(token) is opens
        assert guard.takes(token) is False
        monkeypatch.undo()


def test_every_request_names_the_campaign(site, client):
    for other in ("0" * 32, ""):
        answer = sync(client, **{"X-Skadma-Campaign": other})
        assert answer.status_code == 409
        assert "x-skadma-receipt" not in answer.headers
    assert sync(client).headers["x-skadma-receipt"]


def cookie_of(client):
    (cookie,) = client.cookies.jar
    return f"{cookie.name}={cookie.value}"


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "localhost",
     "127.0.0.1.evil.example:{port}", "[::1]:{port}", "0.0.0.0:{port}", ""],
)  # fmt: skip
def test_2_other_hosts_are_refused(site, client, host):
    """DNS rebinding: another site's name that leads here."""
    name = host.format(port=site.port)
    inside = [("Cookie", cookie_of(client)), ("X-Skadma", client.headers["X-Skadma"])]
    assert raw(site, "GET", "/api/about", [("Host", name), *inside])[0] == 400
    assert raw(site, "GET", "/", [("Host", name)])[0] == 400


def test_2_our_own_names_are_taken(site, client):
    inside = [("Cookie", cookie_of(client)), ("X-Skadma", client.headers["X-Skadma"])]
    for name in ("127.0.0.1", "localhost"):
        headers = [("Host", f"{name}:{site.port}"), *inside]
        assert raw(site, "GET", "/api/about", headers)[0] == 200
    host = ("Host", f"localhost:{site.port}")
    twice = [host, ("Host", "evil.example"), *inside]
    assert raw(site, "GET", "/api/about", twice)[0] == 400


def test_3_the_token_opens_and_nothing_else(site):
    token = site.token()
    assert len(token) >= 43  # 256 bits
    strange = httpx.Client(
        base_url=site.origin, headers={"Origin": site.origin, "X-Skadma": "1"}
    )
    with strange:
        for path in ("/api/about", "/api/progress", f"/img/{'0' * 64}?size=view"):
            assert strange.get(path).status_code == 401
        assert sync(strange).status_code == 401
        for wrong in ("x", token[:-1], token + "x", token.swapcase()):
            answer = strange.post("/api/session", json={"token": wrong})
            assert answer.status_code == 401 and not answer.cookies
        name = f"skadma-{site.port}"
        for cookie in (f"{name}=", f"{name}={token}", "skadma-1=x", ";;=", "ü"):
            headers = [("Host", f"localhost:{site.port}"), ("Cookie", cookie)]
            assert raw(site, "GET", "/api/about", headers)[0] == 401
        answer = strange.post("/api/session", json={"token": token})
        assert answer.status_code == 200
        cookie = answer.headers["set-cookie"]
        again = strange.post("/api/session", json={"token": token})
        assert again.status_code == 401  # it serves once
    assert cookie.startswith(f"{name}=") and token not in cookie
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))


def test_3_the_token_is_in_no_log(site, client):
    client.get("/api/about")
    errors = "".join(site.errors)
    assert client.headers["X-Skadma"] not in errors and cookie_of(client) not in errors
    assert site.first_address.partition("#")[2] not in errors


def test_4_only_our_page_changes_anything(site, client):
    assert sync(client).status_code == 200
    others = ("http://evil.example", "null", f"http://localhost:{site.port}",
              f"https://127.0.0.1:{site.port}", "http://127.0.0.1:1")  # fmt: skip
    for origin in others:
        assert sync(client, Origin=origin).status_code == 403
    assert sync(client, **{"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert sync(client, **{"Sec-Fetch-Site": "same-site"}).status_code == 403
    assert sync(client, **{"X-Skadma": ""}).status_code == 415
    assert sync(client, **{"X-Skadma": "1"}).status_code == 401
    text = json.dumps({"tab": "t", "have": [], "want": 0})
    for kind in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
    ):
        answer = client.post("/api/sync", content=text, headers={"Content-Type": kind})
        assert answer.status_code == 415
    del client.headers["Origin"]
    assert sync(client).status_code == 403
    client.headers["Origin"] = site.origin
    assert client.get("/api/operations").status_code == 405
    assert client.put("/api/operations", json={}).status_code == 405
    assert client.options("/api/operations").status_code == 405


def test_4_other_sites_may_not_read(client):
    answer = client.get("/api/about")
    assert not [n for n in answer.headers if n.startswith("access-control")]
    for site in ("cross-site", "same-site"):
        answer = client.get("/api/about", headers={"Sec-Fetch-Site": site})
        assert answer.status_code == 403


def test_5_files_are_found_by_content_only(site, client):
    photos = site.folder.parent / "photos"
    first = hashlib.sha256((photos / "000.png").read_bytes()).hexdigest()
    assert client.get(f"/img/{first}?size=view").status_code == 200
    fake = hashlib.sha256((photos / "fake.png").read_bytes()).hexdigest()
    svg = hashlib.sha256((photos / "secret.svg").read_bytes()).hexdigest()
    log = hashlib.sha256((site.folder / "campaign.sqlite").read_bytes()).hexdigest()
    assert client.get(f"/img/{fake}?size=view").status_code == 410
    for name in (
        svg,
        log,
        "0" * 64,
        first.upper(),
        "000.png",
        "..%2f..%2fetc%2fpasswd",
    ):
        assert client.get(f"/img/{name}?size=view").status_code == 404
    for path in ("/static/../app.py", "/static/..%2fapp.py", "/static/%2e%2e/app.py",
                 "/static//etc/passwd", "/static/__init__.py", "/app.py",
                 "/static/app.js%00.png"):  # fmt: skip
        headers = [
            ("Host", f"localhost:{site.port}"), ("Cookie", cookie_of(client)),
            *((n, client.headers[n]) for n in ("X-Skadma", "X-Skadma-Campaign")),
        ]  # fmt: skip
        assert raw(site, "GET", path, headers)[0] == 404
    assert client.get(f"/img/{first}?size=9999").status_code == 404


def test_5_a_file_that_was_changed_is_not_served(site, client):
    path = site.folder.parent / "photos" / "001.png"
    data = path.read_bytes()
    first = hashlib.sha256(data).hexdigest()
    path.write_bytes(data + b"\0")
    answer = client.get(f"/img/{first}?size=view")
    path.write_bytes(data)
    assert answer.status_code == 410 and "another picture" in answer.json()["error"]


def test_5_no_byte_of_a_file_is_passed_on(site, client):
    """A PNG with HTML behind its end, which some browsers would show."""
    path = site.folder.parent / "photos" / "002.png"
    data = path.read_bytes()
    assert data.endswith(MARKER)
    for size, kind in (("view", "image/png"), ("small", "image/jpeg")):
        found = client.get(f"/img/{hashlib.sha256(data).hexdigest()}?size={size}")
        assert found.headers["content-type"] == kind
        assert MARKER not in found.content


def test_6_headers_hold_the_browser_back(site, client):
    photo = (site.folder.parent / "photos" / "000.png").read_bytes()
    image = f"/img/{hashlib.sha256(photo).hexdigest()}?size=small"
    for path in ("/", "/static/app.js", "/api/about", image, "/nothing", "/img/x"):
        headers = client.get(path).headers
        policy = dict(
            part.strip().partition(" ")[::2]
            for part in headers["content-security-policy"].split(";")
        )
        assert policy == {
            "default-src": "'none'", "script-src": "'self'", "style-src": "'self'",
            "img-src": "'self' blob:", "connect-src": "'self'", "base-uri": "'none'",
            "form-action": "'none'", "frame-ancestors": "'none'",
        }  # fmt: skip
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "server" not in headers
        public = path == "/" or path.startswith("/static/")
        allowed = ("no-cache", "no-store") if public else "no-store"
        assert headers["cache-control"].startswith(allowed)


def test_7_the_page_makes_no_html_of_text(client):
    """Beside the test with a hostile name in the browser."""
    scripts = sorted(
        (Path(skadma.labelling.page.__file__).parent / "static").glob("*.js")
    )
    assert len(scripts) > 5
    for script in scripts:
        text = client.get(f"/static/{script.name}").text
        assert text == script.read_text("utf-8")
        for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write",
                     "eval(", "Function(", "ContextualFragment", "http:"):  # fmt: skip
            assert word not in text.replace("http://www.w3.org/2000/svg", "")


def test_8_there_are_limits(site, client):
    big = {"tab": "t", "have": [], "want": 0, "more": "x" * (1 << 20)}
    assert client.post("/api/sync", json=big).status_code == 413
    for body in ({"want": 10**9}, {"want": -1}, {"want": "5"}, {"want": True},
                 {"have": ["x"]}, {"have": "x"}, {"have": ["0" * 64] * 501},
                 {"tab": "x" * 65}, {"tab": ""}, {"tab": 5}):  # fmt: skip
        whole = {"tab": "t", "have": [], "want": 1, **body}
        assert client.post("/api/sync", json=whole).status_code == 422
    for text in ("", "[", "5", "null", "[]", '"x"', "\xff", "[" * 100_000):
        answer = client.post("/api/operations", content=text.encode("latin-1"),
                             headers={"Content-Type": "application/json"})  # fmt: skip
        assert answer.status_code == 422 and answer.json()["error"]
    mark = {"sha256": "0" * 64, "mark": "ok", "before": None}
    good = {"id": "a" * 8, "via": "keys", "marks": [mark]}
    for bad in ({"id": "short"}, {"id": "a b c d e f"}, {"via": "else"},
                {"marks": [mark] * 501}, {"marks": [{**mark, "sha256": "x" * 64}]},
                {"marks": [{**mark, "mark": 5}]}, {"undo": ""},
                {"undo": "x" * 65}):  # fmt: skip
        answer = client.post("/api/operations", json={"operations": [{**good, **bad}]})
        assert answer.status_code == 422
    photo = (site.folder.parent / "photos" / "000.png").read_bytes()
    path = f"/img/{hashlib.sha256(photo).hexdigest()}?size=view"
    answer = client.get(path, headers={"Range": "bytes=0-1,0-1,0-1"})
    assert answer.status_code == 200 and "content-range" not in answer.headers


def test_8_a_body_of_unknown_length_is_not_read_to_its_end(site, client):
    """It has no Content-Length and would never end: refused once it is too long."""
    headers = {"Host": f"127.0.0.1:{site.port}", "Origin": site.origin,
               "Content-Type": "application/json",
               "X-Skadma": client.headers["X-Skadma"],
               "X-Skadma-Campaign": client.headers["X-Skadma-Campaign"],
               "Cookie": cookie_of(client), "Transfer-Encoding": "chunked"}  # fmt: skip
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    with socket.create_connection(("127.0.0.1", site.port), timeout=60) as line:
        line.sendall(f"POST /api/sync HTTP/1.1\r\n{head}\r\n".encode())
        for _ in range(64):
            line.sendall(b"4000\r\n%s\r\n" % (b"x" * 0x4000))
        assert select.select([line], [], [], 1)[0] == []  # 1 MiB is allowed: it waits
        line.sendall(b"1\r\nx\r\n")  # one byte more, and no end
        answer = b""
        while part := line.recv(4096):  # until it closes
            answer += part
    assert answer.startswith(b"HTTP/1.1 413 ") and b"More than 1048576" in answer
    assert sync(client).status_code == 200


def refused_before_its_body(address, path, host, pause, *headers):
    """The answer to a PUT whose body comes late, or, with no pause, never."""
    lines = [f"PUT {path} HTTP/1.1", f"Host: {host}", *headers, "Content-Length: 90000"]
    with socket.create_connection(address, timeout=30) as line:
        line.sendall("\r\n".join([*lines, "", ""]).encode())
        for _ in range(3 if pause else 0):
            time.sleep(pause)
            line.sendall(b"x" * 30_000)  # fails where the connection was reset
        answer = http.client.HTTPResponse(line, method="PUT")
        answer.begin()
        return answer.status, answer.read(), answer.getheader("connection")


@pytest.mark.parametrize("pause", [0.3, None])
def test_what_is_refused_is_answered_though_its_body_is_late(site, pause):
    """A connection that is closed with unread bytes is reset, and loses the answer."""
    host = f"127.0.0.1:{site.port}"
    end = None if pause else "close"  # it is not waited for without end
    for path, its_host, status in (
        ("/api/operations", host, 405),
        ("/api/operations", "evil.example", 400),
    ):
        found = refused_before_its_body(("127.0.0.1", site.port), path, its_host, pause)
        assert found[0] == status and json.loads(found[1])["error"] and found[2] == end


BEGUN = (b"", b"GET / HT", b"POST /api/session HTTP/1.1\r\nHost: x\r\n"
         b"Content-Length: 9\r\n\r\n{")  # fmt: skip


def test_9_silent_connections_keep_nobody_out(site, client):
    """As many as one likes: those that wait the longest make room."""
    with contextlib.ExitStack() as stack:
        for number in range(200):
            line = socket.create_connection(("127.0.0.1", site.port), timeout=30)
            stack.enter_context(line).sendall(BEGUN[number % len(BEGUN)])
        began = time.monotonic()
        for _ in range(5):
            assert sync(client).status_code == 200
        with httpx.Client(base_url=site.origin) as other:
            assert other.get("/").status_code == 200
        assert time.monotonic() - began < 10


def test_9_what_never_ends_is_ended(monkeypatch):
    """The time for a request is limited, and for the client to read the answer."""
    uvicorn = pytest.importorskip("uvicorn")
    from skadma.labelling.page import protocol

    monkeypatch.setattr(protocol, "SECONDS_TO_ASK", 1.0)
    monkeypatch.setattr(protocol, "SECONDS_TO_ANSWER", 3.0)

    async def app(scope, receive, send):
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        n = 1 << 26 if scope["path"] == "/long" else 3
        await send({"type": "http.response.body", "body": b"x" * n})

    config = uvicorn.Config(app, http=protocol.LimitedProtocol, lifespan="off",
                            log_level="critical", timeout_keep_alive=60)  # fmt: skip
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        for begun in BEGUN:
            with socket.create_connection(address, timeout=20) as line:
                line.sendall(begun)
                assert ended(line)
        with socket.create_connection(address, timeout=20) as line:
            line.sendall(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n")
            time.sleep(8)  # nobody reads
            n = 0
            with contextlib.suppress(ConnectionResetError):
                while part := line.recv(1 << 20):
                    n += len(part)
            assert n < 1 << 26
        with httpx.Client(base_url=f"http://127.0.0.1:{address[1]}") as good:
            for _ in range(5):  # a connection that is used may last
                assert good.get("/").text == "xxx"
                time.sleep(0.4)
        server.should_exit = True
        thread.join(20)


def ended(line):
    """Whether the server closes a connection."""
    with contextlib.suppress(ConnectionResetError):
        while line.recv(4096):
            pass
    return True


def test_a_wrong_operation_changes_nothing(site, client):
    n_events = len(site.log())
    mark = {"sha256": "0" * 64, "mark": "ok", "before": None}
    operation = {"id": "unknown-1", "via": "keys", "marks": [mark]}
    answer = client.post("/api/operations", json={"operations": [operation]}).json()
    assert "no such picture" in answer["outcomes"][0]["refused"][0]["reason"]
    assert [e for e in site.log()[n_events:] if e["kind"] == "teach"] == []


def test_label_studio_is_served_below_a_secret_path_only(site, client):
    site.address()
    assert "Ctrl-C" in site.said[0]
    said = site.said[1]
    assert said.startswith(f"For Label Studio: {site.origin}/label-studio/")
    path = said.split()[-1].removeprefix(site.origin)
    assert len(path) > 50
    host = ("Host", f"127.0.0.1:{site.port}")
    status, data = raw(site, "GET", f"{path}/health", [host])
    assert status == 200 and json.loads(data)["status"] == "UP"
    for wrong in ("/label-studio/health", path[:-1] + "/health", "/health", path):
        assert raw(site, "GET", wrong, [host])[0] == 401
    assert raw(site, "GET", f"{path}/health", [("Host", "evil.example")])[0] == 400
    server = ("127.0.0.1", site.port)
    found = refused_before_its_body(server, f"{path}/predict", host[1], 0.2)
    assert found[0] == 405 and found[2] is None
    for inside in ("api/about", "static/app.js", "../api/about", "..%2fapi/about"):
        status, _ = raw(site, "GET", f"{path}/{inside}", [host])
        assert status in (401, 404)  # the page is not reached that way


def test_10_the_page_writes_where_nothing_is(site, client, tmp_path):
    """To sort, below a folder that is new or empty; and it moves nothing."""
    before = {p: p.read_bytes() for p in (site.folder.parent / "photos").iterdir()}
    full, link = tmp_path / "full", tmp_path / "link"
    full.mkdir()
    (full / "000.png").write_text("mine")
    link.symlink_to(full)

    def sort(into, how="copy", unsure=0.5, name="sort", **headers):
        body = json.dumps({"name": name, "arguments": [str(into), how, unsure]})
        headers["Content-Type"] = "application/json"
        return client.post("/api/job", content=body, headers=headers).status_code

    def jobs():
        return client.get("/api/test").json()["jobs"]

    def refused():
        while (job := jobs()["sort"])["state"] == "running":
            time.sleep(0.05)
        return job["state"] == "failed"

    new = tmp_path / "new"
    for into in (full, link, tmp_path / "a/b", "relative", site.folder.parent):
        assert sort(into) == 200 and refused()
    for given in ((new, "move"), (new, "copy", "0.5"), ("",)):
        assert sort(*given) == 200 and refused()
    assert sort(new, name="system") == sort(new, name="\ud800") == 422
    assert sort(tmp_path / "\ud800") == 200 and refused()
    assert sort(new, unsure=None) == sort(new, unsure=[]) == 422
    assert sort(new, Origin="http://example.org") == 403
    assert {p.name for p in tmp_path.iterdir()} == {"full", "link"}
    assert [p.read_text() for p in full.iterdir()] == ["mine"]
    assert {p: p.read_bytes() for p in before} == before

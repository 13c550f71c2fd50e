"""The server of the viewer answers its own page, and nothing else: 200 hostile requests get nothing."""

import contextlib
import http.client
import json
import socket
from itertools import product

import numpy as np
import pytest

from exengine.kernel.errors import DatasetAccessError, DatasetDamagedError
from exengine.viewer.server import ViewServer

SECRET = "the content of a file outside the dataset"
PIXELS = np.arange(12, dtype=np.uint16).reshape(3, 4)


@pytest.fixture
def storage(disk_storage, tmp_path):
    (tmp_path / "secret.txt").write_text(SECRET)
    with disk_storage(tmp_path / "data") as storage:
        for time in range(3):
            metadata = {"big": 2**60, "small": 7, "time": time}
            storage.put({"time": time}, PIXELS + time, metadata)
        yield storage


@pytest.fixture
def server(storage):
    with ViewServer(storage, lambda: {"path": storage.path, "rate": float("inf")}) as server:
        yield server


def ask(server, name, method="GET", headers=None, token=None):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        connection.request(method, f"/{token or server.token}/{name}", headers=headers or {})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def ask_raw(server, request):
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(request)
        with contextlib.suppress(
            OSError
        ):  # the server may have refused the request and closed the connection
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    return answer


# -- answers -------------------------------------------------------------------------------------


def test_the_page_and_its_files_are_served_with_their_types(server):
    status, headers, body = ask(server, "")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8") and b"<main>" in body
    for name, kind in (("app.js", "text/javascript"), ("style.css", "text/css"), ("icon.svg", "image/svg")):
        assert f'"{name}"'.encode() in body
        status, headers, _ = ask(server, name)
        assert status == 200 and headers["Content-Type"].startswith(kind)


def test_a_frame_has_the_pixels_of_the_dataset(server, storage):
    for number in range(3):
        status, headers, body = ask(server, f"frame/{number}")
        head = json.loads(headers["X-Picture"])
        assert status == 200 and head == {"shape": [3, 4], "dtype": "uint16", "step": 1, "note": ""}
        pixels = np.frombuffer(body, "<u2").reshape(head["shape"])
        assert np.array_equal(pixels, storage.get_data({"time": number}))
    assert len(ask(server, "thumbnail/0")[2]) == 24


def test_numbers_that_javascript_cannot_parse_exactly_are_sent_as_text(server):
    assert json.loads(ask(server, "metadata/1")[2]) == {"value": {"big": str(2**60), "small": 7, "time": 1}}
    assert json.loads(ask(server, "facts")[2])["value"]["rate"] == "inf"


def test_new_frames_and_the_status_are_reported(server, storage):
    def frames(start):
        return json.loads(ask(server, f"frames?from={start}")[2].partition(b"\0")[0])

    assert (frames(0)["frames"], frames(0)["finished"]) == (3, False)
    storage.put({"time": 3}, PIXELS, None)
    assert (frames(3)["frames"], frames(3)["axes"][0]["positions"]) == (4, [["3"]])
    storage.finish()
    assert (frames(4)["status"], frames(4)["finished"]) == ("complete", True)


def test_a_frame_that_cannot_be_read_is_an_answer_with_the_reason(server, storage, monkeypatch):
    def damaged(_):
        raise DatasetDamagedError("the frame is damaged")

    monkeypatch.setattr(storage, "get_data", damaged)
    for name in ("frame/0", "thumbnail/0"):
        status, headers, body = ask(server, name)
        assert (status, json.loads(body)) == (200, {"error": "the frame is damaged"})
        assert "X-Picture" not in headers


def test_an_error_of_a_faulty_backend_is_an_answer_too(server, storage, monkeypatch):
    def faulty(_):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(storage, "get_metadata", faulty)
    assert "a bug" in json.loads(ask(server, "metadata/0")[2])["error"]
    assert ask(server, "frame/0")[0] == 200


def test_a_head_request_has_no_body(server):
    status, headers, body = ask(server, "frame/0", "HEAD")
    assert (status, headers["Content-Length"], body) == (200, "24", b"")


def test_two_servers_have_different_tokens_and_a_used_port_is_refused(server, storage):
    with ViewServer(storage, dict) as other:
        assert other.token != server.token and len(other.token) >= 32
    with pytest.raises(DatasetAccessError, match="choose another port"):
        ViewServer(storage, dict, server.port)


def test_every_answer_forbids_other_sites_to_embed_or_read_it(server):
    for name in ("", "frame/0", "facts", "nothing"):
        headers = ask(server, name)[1]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["Referrer-Policy"] == "no-referrer" and headers["Cache-Control"] == "no-store"
        assert "Access-Control-Allow-Origin" not in headers


# -- other web sites -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "app.js", "frame/0", "frames?from=0", "facts", "metadata/0"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_servers_own_page_is_answered(server, name, host):
    own = f"{host}:{server.port}"
    headers = {"Host": own, "Origin": f"http://{own}", "Sec-Fetch-Site": "same-origin"}
    assert ask(server, name, headers=headers)[0] == 200
    assert ask(server, name, headers={"Host": own, "Sec-Fetch-Site": "none"})[0] == 200


FOREIGN = [
    {"Host": "evil.example"},
    {"Host": "evil.example:{port}"},
    {"Host": "127.0.0.1.evil.example:{port}"},
    {"Host": "localhost.evil.example"},
    {"Host": "127.0.0.1:{port}@evil.example"},
    {"Host": "evil.example#127.0.0.1"},
    {"Host": "0.0.0.0:{port}"},
    {"Host": "127.1:{port}"},
    {"Host": "2130706433"},
    {"Host": "[::1]:{port}"},
    {"Host": "LOCALHOST"},
    {"Host": "localhost."},
    {"Host": ""},
    {"Host": "127.0.0.1:"},
    {"Host": "127.0.0.1:80:80"},
    {"Host": "127.0.0.1:evil"},
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "http://127.0.0.1"},
    {"Origin": "http://127.0.0.1:1"},
    {"Origin": "https://127.0.0.1:{port}"},
    {"Origin": "http://127.0.0.1:{port}.evil.example"},
    {"Origin": "http://localhost:{port}"},
    {"Origin": "http://127.0.0.1:{port} http://evil.example"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "script"},
    {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Dest": "image"},
]


@pytest.mark.parametrize("name", ["app.js", "frame/0", "frames", "facts"])
def test_other_sites_and_other_host_names_are_refused_even_with_the_token(server, name):
    for headers in FOREIGN:
        wanted = {key: value.format(port=server.port) for key, value in headers.items()}
        status, answer, body = ask(server, name, headers=wanted)
        assert (status, body) == (403, b"") and "X-Picture" not in answer, headers


def test_a_link_on_another_site_opens_the_page_but_cannot_embed_it(server):
    from_link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}
    assert ask(server, "", headers=from_link)[0] == 200
    for kind in ("iframe", "embed", "object", "empty", "image"):
        assert ask(server, "", headers={**from_link, "Sec-Fetch-Dest": kind})[0] == 403
    assert ask(server, "", headers={**from_link, "Host": "evil.example"})[0] == 403


def test_a_request_with_two_hosts_or_none_is_refused(server):
    line = f"GET /{server.token}/facts HTTP/1.1\r\n".encode()
    for hosts in (b"", b"Host: 127.0.0.1\r\nHost: evil.example\r\n", b"Host: evil\r\nHost: localhost\r\n"):
        answer = ask_raw(server, line + hosts + b"Connection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 403 ")


# -- 200 hostile requests ------------------------------------------------------------------------

UP = ("..", "%2e%2e", "%252e%252e", "..%2f", "..%5c", "....//", ".%2e", "%c0%ae%c0%ae", "..;", "..%00")
TARGETS = ("secret.txt", "data/0.npy", "../../../../etc/passwd", "exengine.json", "server.py", "__init__.py")
NAMES = [
    *(f"{up}/{target}" for up, target in product(UP, TARGETS)),
    *(f"page/{up}/{target}" for up, target in product(UP[:5], TARGETS)),
    *(f"frame/{up}/{target}" for up, target in product(UP[:5], TARGETS)),
    *(f"/{target}" for target in TARGETS),
    *("/etc/passwd", "//etc/passwd", "file:///etc/passwd", "C:\\Windows\\win.ini", "~/.ssh/id_rsa"),
    *("index.html", "index.html/", "app.js/", "APP.JS", "app.js%00", "app.js%2f", "./app.js", "app%2ejs"),
    *(f"frame/{number}" for number in ("", "-1", "3", "00", "+0", "0x0", "1e0", "0.0", "\uff10", "\u00b2", "9" * 400)),
    *(f"metadata/{number}" for number in ("", "-1", "99", "0/", "0/..", "0%00", "0%0a", "0;1", "0,1", " 0")),
    *("thumbnail", "thumbnail/", "thumbnail/0/0", "frame", "frames/0", "facts/", "FACTS", "facts%20", "shutdown"),
]  # fmt: skip


def requests(server):
    """Yield different requests; none of them may get anything from the server."""
    host = f"Host: 127.0.0.1:{server.port}\r\nConnection: close\r\n\r\n"
    token = server.token
    for name in NAMES:
        yield f"GET /{token}/{name} HTTP/1.1\r\n{host}"
    wrong = ["", "x" * 32, token[:-1], token + "x", token.swapcase(), token[::-1], f"{token}%00", f"%{token}"]
    for each, name in product(wrong, ("", "app.js", "frame/0", "facts")):
        yield f"GET /{each}{'/' if each else ''}{name} HTTP/1.1\r\n{host}"
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH", "PROPFIND", "get", "X"):
        yield f"{method} /{token}/facts HTTP/1.1\r\n{host}"
    yield f"GET {token}/facts HTTP/1.1\r\n{host}"
    yield f"GET http://evil.example/{token}/facts HTTP/1.1\r\n{host}"
    yield f"GET //evil.example/{token}/facts HTTP/1.1\r\n{host}"
    yield f"GET /{token} HTTP/1.1\r\n{host}"
    yield f"GET /{token}/{'x' * 5000} HTTP/1.1\r\n{host}"
    yield f"GET /{token}/facts?{'x' * 100_000} HTTP/1.1\r\n{host}"
    yield f"GET /{token}/facts HTTP/9.9\r\n{host}"
    yield f"GET /{token}/facts\r\n\r\n"
    yield f"GET /{token}/facts HTTP/1.1\r\n{'X: y' * 20_000}\r\n{host}"
    yield f"GET /{token}/facts HTTP/1.1\r\n{'A: b' + chr(13) + chr(10)}" * 1 + "C: d\r\n" * 200 + host
    yield "\r\n\r\n"
    yield "\0" * 100
    yield "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"  # the start of a TLS connection


def test_200_hostile_requests_get_nothing(server, storage):
    sent = list(requests(server))
    assert len(set(sent)) == len(sent) >= 200
    _, _, facts = ask(server, "facts")
    for request in sent:
        answer = ask_raw(server, request.encode("utf-8"))
        head, _, body = answer.partition(b"\r\n\r\n")
        assert not head.startswith(b"HTTP/1.1 2") and not head.startswith(b"HTTP/1.1 3"), request
        for leak in (
            SECRET.encode(),
            b"root:",
            facts,
            b"X-Picture",
            server.token.encode(),
            b"import ",
            b"NUMPY",
        ):
            assert leak not in answer, request
        assert str(storage.path).encode() not in body
    assert ask(server, "frame/0")[0] == 200  # the server still answers


def test_a_silent_connection_does_not_keep_others_waiting(server):
    with socket.create_connection(("127.0.0.1", server.port)) as silent:
        silent.sendall(b"GET /")
        assert ask(server, "frame/0")[0] == 200

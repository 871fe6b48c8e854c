"""The server that the tests of downloads rely on: right by default, with a true record."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import struct
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlsplit

import pytest
from servers.asking import ask, exchange
from servers.faulty import FaultyServer
from servers.runner import ServerProcess

CONTENT = bytes(range(256)) * 40  # 10240 bytes
OTHER = CONTENT[::-1]


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer({"/a.bin": CONTENT, "b.bin": OTHER, "/empty": b""}) as server:
        yield server


# A correct server


def test_the_whole_file(server: FaultyServer) -> None:
    status, headers, body, _ = ask(server.url("/a.bin"))
    assert (status, body) == (200, CONTENT)
    assert headers["Content-Length"] == "10240"
    assert headers["Accept-Ranges"] == "bytes"
    assert headers["ETag"].startswith('"')
    assert parsedate_to_datetime(headers["Last-Modified"]).year == 2026
    assert ask(server.url("/empty")).body == b""
    assert ask(server.url("/none")).status == 404
    refused = ask(server.url("/a.bin"), "POST")
    assert (refused.status, refused.headers["Allow"], refused.headers["Connection"]) == (405, "GET", "close")


def test_head_tells_the_same_without_a_body(server: FaultyServer) -> None:
    get, head = ask(server.url("/a.bin")), ask(server.url("/a.bin"), "HEAD", Range="bytes=0-9")
    assert (head.status, head.body) == (200, b"")
    for name in ("Content-Length", "ETag", "Last-Modified", "Accept-Ranges"):
        assert head.headers[name] == get.headers[name]


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        ("bytes=10000-", 10000, 10240),
        ("bytes=10239-99999", 10239, 10240),
        ("bytes=-5", 10235, 10240),
        ("bytes=-99999", 0, 10240),
    ],
)
def test_parts(server: FaultyServer, asked: str, start: int, stop: int) -> None:
    status, headers, body, _ = ask(server.url("/a.bin"), Range=asked)
    assert (status, body) == (206, CONTENT[start:stop])
    assert headers["Content-Range"] == f"bytes {start}-{stop - 1}/10240"
    assert headers["Content-Length"] == str(stop - start)


@pytest.mark.parametrize("asked", ["bytes=10240-", "bytes=99999-100000", "bytes=-0"])
def test_parts_outside_the_file(server: FaultyServer, asked: str) -> None:
    answer = ask(server.url("/a.bin"), Range=asked)
    assert (answer.status, answer.headers["Content-Range"]) == (416, "bytes */10240")


@pytest.mark.parametrize("asked", ["bytes=5-2", "bytes=a-b", "bytes=-", "items=0-5", "bytes=0-1,5-6"])
def test_ranges_that_are_ignored(server: FaultyServer, asked: str) -> None:
    assert ask(server.url("/a.bin"), Range=asked)[::2] == (200, CONTENT)


def test_if_range_compares_strongly(server: FaultyServer) -> None:
    first = ask(server.url("/a.bin"))
    etag, date = first.headers["ETag"], first.headers["Last-Modified"]

    def status(condition: str) -> int:
        return ask(server.url("/a.bin"), Range="bytes=10-", If_Range=condition).status

    assert [status(etag), status(date)] == [206, 206]
    assert [status('"other"'), status(f"W/{etag}"), status("Sat, 01 Jan 2000 00:00:00 GMT")] == [
        200,
        200,
        200,
    ]
    server.put("/a.bin", CONTENT[:-1])
    assert [status(etag), status(date)] == [200, 200]
    server.fault(ignore_if_range=True)
    assert status(etag) == 206


def test_a_connection_is_kept(server: FaultyServer) -> None:
    with contextlib.closing(http.client.HTTPConnection(urlsplit(server.address).netloc)) as connection:
        for part in ("bytes=0-9", "bytes=10-19"):
            exchange(connection, "/a.bin", Range=part)
        exchange(connection, "/none")
        exchange(connection, "/a.bin", "HEAD")
    ask(server.url("/a.bin"), Connection="close")
    assert [request.connection for request in server.requests] == [1, 1, 1, 1, 2]


def test_files_on_disk_and_folders(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "with space.bin").write_bytes(CONTENT)
    (tmp_path.parent / "outside.bin").write_bytes(b"secret")
    with FaultyServer({"/file": tmp_path / "below" / "with space.bin"}, root=tmp_path) as server:
        assert ask(server.url("/file"), Range="bytes=5-9").body == CONTENT[5:10]
        assert ask(server.url("/below/with%20space.bin")).body == CONTENT
        assert ask(server.url("/../outside.bin")).status == 404
        (tmp_path / "late").write_bytes(b"")
        assert ask(server.url("/late"))[::2] == (200, b"")


def test_the_record(server: FaultyServer) -> None:
    ask(server.url("/a.bin?x=1"), Range="bytes=0-99", Authorization="Bearer t")
    ask(server.url("/none"), "HEAD")
    server.wait_idle()
    first, second = server.requests
    assert (first.method, first.path, first.query, first.range) == ("GET", "/a.bin", "x=1", "bytes=0-99")
    assert (first.status, first.sent, first.finished) == (206, 100, True)
    assert (first.authorization, second.authorization) == ("Bearer t", None)
    assert (second.method, second.status, second.sent) == ("HEAD", 404, 0)
    assert (server.sent("/a.bin"), server.sent("/b.bin"), server.sent()) == (100, 0, 100)
    server.reset()
    assert (server.requests, server.sent()) == ([], 0)


def test_bytes_of_an_answer_from_before_a_reset_do_not_count(server: FaultyServer) -> None:
    server.fault(stall_after=3000, stall_seconds=0.1)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, server.url("/a.bin"))
        server.wait_sent(3000)
        server.reset()
        ask(server.url("/empty"))
        assert answer.result().body == CONTENT
    assert server.sent("/a.bin") == 0


def test_counts_from_many_threads(server: FaultyServer) -> None:
    with ThreadPoolExecutor(16) as pool:
        parts = list(
            pool.map(
                lambda i: ask(server.url("/a.bin"), Range=f"bytes={i * 160}-{i * 160 + 159}").body, range(64)
            )
        )
    server.wait_idle()
    assert b"".join(parts) == CONTENT
    assert (server.sent("/a.bin"), len(server.requests)) == (10240, 64)


def test_a_client_may_take_it_for_a_proxy(server: FaultyServer) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": server.address}))
    with opener.open("http://far.invalid/a.bin?x=1") as answer:
        assert answer.read() == CONTENT
    (request,) = server.requests
    assert (request.target, request.path, request.query) == ("http://far.invalid/a.bin?x=1", "/a.bin", "x=1")


def test_transport_security() -> None:
    def opener(context: ssl.SSLContext) -> urllib.request.OpenerDirector:
        direct, secure = urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        return urllib.request.build_opener(direct, secure)

    with FaultyServer({"/a.bin": CONTENT}, tls=True, name="localhost") as server:
        assert server.address.startswith("https://localhost:")
        trusting = ssl.create_default_context(cafile=str(server.certificate))
        with opener(trusting).open(server.url("/a.bin")) as answer:
            assert answer.read() == CONTENT
        with pytest.raises(URLError, match="CERTIFICATE_VERIFY_FAILED"):
            opener(ssl.create_default_context()).open(server.url("/a.bin"))


# Which requests


def test_rules_add_up_and_are_used_up_at_their_stage(server: FaultyServer) -> None:
    burst = server.fault(status=503, times=2)
    drop = server.fault(path="/a.*", truncate_after=100, times=1)
    assert [ask(server.url("/a.bin"), "HEAD").status for _ in range(3)] == [503, 503, 200]
    assert ask(server.url("/b.bin"))[::2] == (200, OTHER)
    assert (server.hits(burst), server.hits(drop)) == (2, 0)
    assert ask(server.url("/a.bin"))[2:] == (CONTENT[:100], "incomplete")
    assert ask(server.url("/a.bin"))[2:] == (CONTENT, "")
    assert server.hits(drop) == 1


def test_rules_for_some_requests(server: FaultyServer) -> None:
    server.fault(method="HEAD", status=500)
    server.fault(ranges="later", status=502)
    server.fault(when=lambda request: request.headers.get("x-part") == "7", status=429)
    url = server.url("/a.bin")
    assert [ask(url, "HEAD").status, ask(url).status, ask(url, X_Part="7").status] == [500, 200, 429]
    later = [
        ask(url, Range=text).status
        for text in ("bytes=0-9", "bytes=00-", "bytes=1-", "bytes=05-9", "bytes=-3")
    ]
    assert later == [206, 206, 502, 502, 502]
    server.clear_faults()
    server.fault(ranges="any", status=500)
    server.fault(ranges="none", status=501)
    assert [ask(url, Range="bytes=0-").status, ask(url).status] == [500, 501]


def test_rules_that_wake_later_and_end(server: FaultyServer) -> None:
    rule = server.fault(after_requests=2, times=1, status=500)
    assert [ask(server.url("/a.bin")).status for _ in range(4)] == [200, 200, 500, 200]
    server.remove(rule)
    server.reset()
    server.fault(path="/a.bin", after_bytes=15000, status=500)
    assert [ask(server.url("/a.bin")).status for _ in range(3)] == [200, 200, 500]
    assert ask(server.url("/b.bin")).status == 200


def test_the_younger_rule_counts(server: FaultyServer) -> None:
    server.fault(status=500)
    younger = server.fault(status=503, headers={"X-Young": "yes"})
    answer = ask(server.url("/a.bin"))
    assert (answer.status, answer.headers["X-Young"]) == (503, "yes")
    server.remove(younger)
    assert ask(server.url("/a.bin")).status == 500
    with pytest.raises(KeyError):
        server.hits(younger)


def test_names_are_checked(server: FaultyServer) -> None:
    with pytest.raises(ValueError, match=r"no such fault: dorp_after; there are .*drop_after"):
        server.fault(dorp_after=1)
    with pytest.raises(ValueError, match="a rule needs a fault"):
        server.fault(path="/a.bin", times=1)


# The server itself


def test_it_says_nothing_and_ends_cleanly(capfd: pytest.CaptureFixture[str]) -> None:
    with FaultyServer({"/a.bin": CONTENT}) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as silent:
            silent.sendall(b"nonsense\r\n\r\n")
        with socket.create_connection(("127.0.0.1", server.port)) as rude:
            rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            rude.sendall(b"GET /a.bin HTTP/1.1\r\n\r\n")
        idle = socket.create_connection(("127.0.0.1", server.port))
        assert ask(server.url("/a.bin")).body == CONTENT
    with idle:
        assert idle.recv(1) == b""
    assert capfd.readouterr() == ("", "")
    with FaultyServer({"/a.bin": OTHER}, port=server.port) as again:
        assert ask(again.url("/a.bin")).body == OTHER


def test_its_own_failures_are_told() -> None:
    with (
        pytest.raises(RuntimeError, match="the test server failed"),
        FaultyServer({"/a.bin": CONTENT}) as server,
    ):
        server.fault(when=lambda request: 1 // 0 == 0, status=500)
        with pytest.raises(http.client.RemoteDisconnected):
            ask(server.url("/a.bin"))


def test_in_a_process_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(CONTENT)
    with ServerProcess(tmp_path) as server:
        rule = server.fault(path="/a.bin", truncate_after=5000, times=1)
        assert ask(server.url("/a.bin")).body == CONTENT[:5000]
        assert ask(server.url("/a.bin"), Range="bytes=5000-").body == CONTENT[5000:]
        server.wait_idle()
        assert (server.hits(rule), server.sent("/a.bin"), server.wait_sent(10240)) == (1, 10240, 10240)
        assert [request.range for request in server.requests] == [None, "bytes=5000-"]
        server.put("/mine", b"\x00\xff", etag='"e"')
        server.put("/linked", tmp_path / "a.bin")
        assert ask(server.url("/mine")).headers["ETag"] == '"e"'
        assert ask(server.url("/linked")).body == CONTENT
        with pytest.raises(ValueError, match="no such fault: nothing"):
            server.fault(nothing=1)
        with pytest.raises(TimeoutError, match="1000000 bytes were not sent"):
            server.wait_sent(10**6, timeout=0.01)
        with pytest.raises(TimeoutError, match="99 requests did not come"):
            server.wait_requests(99, timeout=0.01)
        server.reset()
        ask(server.url("/a.bin"))
        server.wait_requests(1)
        server.remove(rule)
        server.fault(status=500)
        server.clear_faults()
        server.reset()
        assert (server.requests, server.sent()) == ([], 0)
        assert ask(server.url("/a.bin")).status == 200
    assert server.process.returncode == 0


def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path)
    assert server.process.stdin is not None
    server.process.stdin.close()  # As the system does it when the starter is killed.
    assert server.process.wait(timeout=30) == 0
    server.process.stdin = None
    server.close()

"""Each fault of the server that the tests of downloads rely on is what its name says, seen from a client."""

from __future__ import annotations

import contextlib
import email
import gzip
import http.client
import re
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from urllib.error import HTTPError
from urllib.parse import urlsplit

import pytest
from servers.asking import ask, ask_raw, exchange
from servers.faulty import FaultyServer
from servers.ledger import Pace

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
CONTENT = bytes(range(256)) * 40  # 10240 bytes
OTHER = CONTENT[::-1]


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer({"/a.bin": CONTENT, "b.bin": OTHER}) as server:
        yield server


# Statuses


def test_bursts_with_retry_after(server: FaultyServer) -> None:
    server.fault(status=429, retry_after=7, times=1)
    server.fault(status=503, retry_after=60, retry_after_date=True, times=2)
    asked = time.time()
    first, second, third = (ask(server.url("/a.bin")) for _ in range(3))
    assert first.status == second.status == 503
    wait = parsedate_to_datetime(first.headers["Retry-After"]).timestamp() - asked
    assert 60 <= wait < 120
    assert third.body == CONTENT


def test_retry_after_in_seconds(server: FaultyServer) -> None:
    server.fault(status=429, retry_after=0.5, times=1)
    server.fault(status=500, times=1, after_requests=1)
    first, second = (ask(server.url("/a.bin")) for _ in range(2))
    assert (first.status, first.headers["Retry-After"]) == (429, "0.5")
    assert (second.status, second.headers["Retry-After"]) == (500, None)


def test_a_status_without_a_body_has_none(server: FaultyServer) -> None:
    server.fault(status=304)
    head, body, _ = ask_raw(server.url("/a.bin"), Connection="close")
    assert (head[:13], body) == (b"HTTP/1.1 304 ", b"")


def test_tokens(server: FaultyServer) -> None:
    server.fault(path="/a.bin", required_token="right")
    server.fault(path="/b.bin", required_token="right", without_token=404, wrong_token=401)
    for path, statuses in (("/a.bin", [401, 403, 200]), ("/b.bin", [404, 401, 200])):
        tokens = ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer right"})
        assert [ask(server.url(path), **token).status for token in tokens] == statuses


def test_headers_are_set_and_left_out(server: FaultyServer) -> None:
    server.fault(headers={"etag": '"mine"', "Accept-Ranges": "none", "Last-Modified": None})
    headers = ask(server.url("/a.bin"), "HEAD").headers
    assert (headers["ETag"], headers["Accept-Ranges"], headers["Last-Modified"]) == ('"mine"', "none", None)


# Redirects


def test_redirects(server: FaultyServer) -> None:
    with FaultyServer({"/far.bin": OTHER}, name="localhost") as far:
        server.fault(path="/absolute", redirect=far.url("/far.bin"))
        server.fault(path="/relative", redirect="a.bin", redirect_status=307)
        server.fault(path="/loop", redirect="/loop", redirect_status=301)
        server.fault(path="/file", redirect="file:///etc/hosts", redirect_status=308)
        far.fault(path="/down", redirect=server.url("/a.bin"), redirect_status=303)
        found = [ask(server.url(path)) for path in ("/absolute", "/relative", "/loop", "/file")]
        assert [(answer.status, answer.headers["Location"]) for answer in found] == [
            (302, far.url("/far.bin")),
            (307, "a.bin"),
            (301, "/loop"),
            (308, "file:///etc/hosts"),
        ]
        assert DIRECT.open(server.url("/absolute")).read() == OTHER
        assert DIRECT.open(far.url("/down")).read() == CONTENT
        with pytest.raises(HTTPError, match="infinite loop"):
            DIRECT.open(server.url("/loop"))
        assert [request.path for request in far.requests] == ["/far.bin", "/down"]


def test_signed_addresses_expire(server: FaultyServer) -> None:
    with FaultyServer({"/far.bin": OTHER}) as far:
        far.fault(needs_signature=True)
        server.fault(path="/uses", redirect=far.url("/far.bin"), signature_uses=2)
        server.fault(path="/old", redirect=far.url("/far.bin?x=1"), signature_seconds=-1)
        server.fault(path="/good", redirect=far.url("/far.bin"), signature_seconds=1000)
        first = ask(server.url("/uses")).headers["Location"]
        assert [ask(first).status for _ in range(3)] == [200, 200, 403]
        anew = ask(server.url("/uses")).headers["Location"]
        assert anew != first
        assert [ask(anew).status, ask(first).status] == [200, 403]
        assert ask(far.url("/far.bin")).status == 403
        old = ask(server.url("/old")).headers["Location"]
        assert re.search(r"/far\.bin\?x=1&sig=\d+&until=\d+\.\d+$", old)
        assert ask(old).status == 403
        assert ask(ask(server.url("/good")).headers["Location"]).body == OTHER


# Heads


def test_what_a_server_may_lack(server: FaultyServer) -> None:
    server.fault(no_etag=True, no_last_modified=True, no_accept_ranges=True, no_head=True)
    answer = ask(server.url("/a.bin"), Range="bytes=0-9")
    assert answer.status == 206
    assert not {"etag", "last-modified", "accept-ranges"} & {name.lower() for name in answer.headers}
    assert ask(server.url("/a.bin"), "HEAD").status == 405


def test_ranges_ignored_and_weak_etags(server: FaultyServer) -> None:
    server.fault(ignore_range=True, times=1)
    assert ask(server.url("/a.bin"), Range="bytes=5-9")[::2] == (200, CONTENT)
    server.fault(weak_etag=True)
    etag = ask(server.url("/a.bin")).headers["ETag"]
    assert etag.startswith('W/"')
    assert ask(server.url("/a.bin"), Range="bytes=5-9", If_Range=etag).status == 200


def test_etag_and_content_change(server: FaultyServer) -> None:
    etag = ask(server.url("/a.bin")).headers["ETag"]
    server.fault(path="/a.bin", etag='"other"', after_bytes=11000, times=1)
    server.fault(path="/a.bin", serve="/b.bin", after_bytes=30000)
    server.fault(path="/a.bin", truncate_after=1000, times=1)
    ask(server.url("/a.bin"))
    answers = [ask(server.url("/a.bin"), Range="bytes=1000-", If_Range=etag) for _ in range(3)]
    assert [(answer.status, answer.body) for answer in answers] == [
        (200, CONTENT),
        (206, CONTENT[1000:]),
        (200, OTHER),
    ]
    assert answers[0].headers["ETag"] == '"other"'
    assert answers[2].headers["ETag"] == ask(server.url("/b.bin")).headers["ETag"]


def test_wrong_lengths(server: FaultyServer) -> None:
    server.fault(length_off=5, times=1)
    _, headers, body, error = ask(server.url("/a.bin"))
    assert (headers["Content-Length"], body, error) == ("10245", CONTENT, "incomplete")
    server.fault(length_off=-5)
    head, body, _ = ask_raw(server.url("/a.bin"), Connection="close")
    assert b"Content-Length: 10235\r\n" in head
    assert body == CONTENT


def test_wrong_content_ranges(server: FaultyServer) -> None:
    def told(**fault: object) -> tuple[str | None, bytes]:
        rule = server.fault(**fault)
        answer = ask(server.url("/a.bin"), Range="bytes=100-199")
        server.remove(rule)
        return answer.headers["Content-Range"], answer.body

    assert told(range_shift=50) == ("bytes 150-249/10240", CONTENT[150:250])
    assert told(range_shift=-150) == ("bytes 0-49/10240", CONTENT[0:50])
    assert told(content_range_shift=-100) == ("bytes 0-99/10240", CONTENT[100:200])
    assert told(content_range="bytes {start}-{end}/*") == ("bytes 100-199/*", CONTENT[100:200])
    assert told(content_range="") == (None, CONTENT[100:200])


def test_multipart(server: FaultyServer) -> None:
    server.fault(multipart=True)
    status, headers, body, _ = ask(server.url("/a.bin"), Range="bytes=0-4,100-")
    assert (status, headers["Content-Length"]) == (206, str(len(body)))
    message = email.message_from_bytes(f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode() + body)
    parts = message.get_payload()
    assert [part["Content-Range"] for part in parts] == ["bytes 0-4/10240", "bytes 100-10239/10240"]
    assert CONTENT[100:] in body
    assert ask(server.url("/a.bin")).body == CONTENT


@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_unknown_sizes(server: FaultyServer, framing: str) -> None:
    server.fault(framing=framing)
    status, headers, body, error = ask(server.url("/a.bin"))
    assert (status, headers["Content-Length"], body, error) == (200, None, CONTENT, "")
    assert headers["Transfer-Encoding"] == ("chunked" if framing == "chunked" else None)
    assert ask(server.url("/a.bin"), "HEAD").headers["Content-Length"] is None
    assert server.sent() == 10240


def test_a_chunked_body_cut_off_has_no_last_chunk(server: FaultyServer) -> None:
    server.fault(framing="chunked", truncate_after=5000)
    assert ask(server.url("/a.bin"))[2:] == (CONTENT[:5000], "incomplete")


def test_compressed_although_identity_was_asked(server: FaultyServer) -> None:
    server.fault(gzip=True)
    _, headers, body, _ = ask(server.url("/a.bin"), Accept_Encoding="identity")
    assert (headers["Content-Encoding"], headers["Content-Length"]) == ("gzip", str(len(body)))
    assert gzip.decompress(body) == CONTENT


def test_answers_that_are_no_http(server: FaultyServer) -> None:
    server.fault(garbage=True, times=1)
    with pytest.raises(http.client.BadStatusLine):
        ask(server.url("/a.bin"))
    server.fault(endless_head=True)
    with pytest.raises(http.client.HTTPException, match="more than 100 headers"):
        ask(server.url("/a.bin"))


# Bodies


@pytest.mark.parametrize("after", [0, 1, 5000, 10240])
def test_resets_come_after_the_last_byte(server: FaultyServer, after: int) -> None:
    server.fault(drop_after=after)
    assert ask_raw(server.url("/a.bin"))[1:] == (CONTENT[:after], "reset")
    assert server.sent() == after


@pytest.mark.parametrize("after", [0, 5000])
def test_orderly_ends_too_early(server: FaultyServer, after: int) -> None:
    server.fault(truncate_after=after)
    head, body, end = ask_raw(server.url("/a.bin"), Range="bytes=100-")
    assert (body, end) == (CONTENT[100 : 100 + after], "closed")
    assert b"Content-Length: 10140" in head


def test_resets_wait_for_slow_readers(server: FaultyServer) -> None:
    server.put("/large", bytes(200_000))
    server.fault(drop_after=150_000)
    assert ask_raw(server.url("/large"), slow=True)[1:] == (bytes(150_000), "reset")


def test_a_slow_reader_fills_all_buffers_and_gets_everything(server: FaultyServer) -> None:
    server.put("/large", bytes(8_000_000))
    assert ask_raw(server.url("/large"), slow=True, Connection="close")[1:] == (bytes(8_000_000), "closed")


def test_a_drop_behind_the_end_never_comes(server: FaultyServer) -> None:
    server.fault(drop_after=10241)
    assert ask(server.url("/a.bin"))[2:] == (CONTENT, "")


def test_a_wrong_bit(server: FaultyServer) -> None:
    server.fault(flip_at=5000, ranges="later")
    wrong = bytearray(CONTENT)
    wrong[5000] ^= 1
    assert ask(server.url("/a.bin")).body == CONTENT
    assert ask(server.url("/a.bin"), Range="bytes=0-").body == CONTENT
    assert ask(server.url("/a.bin"), Range="bytes=4999-5001").body == wrong[4999:5002]
    assert ask(server.url("/a.bin"), Range="bytes=5000-5000").body == wrong[5000:5001]
    assert ask(server.url("/a.bin"), Range="bytes=5001-").body == CONTENT[5001:]


def test_too_much(server: FaultyServer) -> None:
    server.fault(extra_body=70000, times=1)
    answer = ask(server.url("/a.bin"))
    assert (answer.headers["Content-Length"], answer.body) == ("80240", CONTENT + bytes(70000))
    server.fault(extra_body=10, length_off=-10)
    assert ask_raw(server.url("/a.bin"), Connection="close")[1] == CONTENT + bytes(10)


def test_no_end_until_the_client_goes(server: FaultyServer) -> None:
    server.fault(endless_body=True)
    response = DIRECT.open(server.url("/a.bin"))
    assert response.read(300_000) == CONTENT + bytes(300_000 - len(CONTENT))
    response.close()
    server.wait_idle()
    assert server.sent() >= 300_000


def test_silence_ends_when_the_client_goes(server: FaultyServer) -> None:
    server.fault(stall_after=3000)
    with pytest.raises(TimeoutError):
        ask(server.url("/a.bin"), timeout=0.2)
    server.wait_idle()
    assert server.sent() == 3000


def test_silence_ends_when_the_server_closes() -> None:
    with FaultyServer({"/a.bin": CONTENT}) as server:
        server.fault(path="/a.bin", stall_after=3000)
        server.fault(path="/slow", delay=3600)
        with ThreadPoolExecutor(2) as pool:
            body = pool.submit(ask_raw, server.url("/a.bin"))
            head = pool.submit(ask_raw, server.url("/slow"))
            server.wait_requests(2)
            server.wait_sent(3000)
            server.close()
            assert body.result()[1] == CONTENT[:3000]
            assert head.result()[0] == b""
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("faulty-")] == []


def test_silence_that_ends(server: FaultyServer) -> None:
    server.fault(stall_after=3000, stall_seconds=0.05, delay=0.01)
    assert ask(server.url("/a.bin")).body == CONTENT


def test_one_byte_at_a_time(server: FaultyServer) -> None:
    server.fault(framing="chunked", trickle=0.0001, trickle_after=10230)
    _, chunks, _ = ask_raw(server.url("/a.bin"), Connection="close")
    assert chunks.count(b"\r\n1\r\n") == 10
    assert ask(server.url("/a.bin")).body == CONTENT


@pytest.mark.parametrize("name", ["bytes_per_second", "bytes_per_second_total"])
@pytest.mark.parametrize(
    ("size", "rate", "largest"), [(2_000_000, 20_000_000, 65_536), (50_000, 1_000_000, 10_000)]
)
def test_throttled_bodies_flow_in_small_blocks(name: str, size: int, rate: int, largest: int) -> None:
    with FaultyServer({"/a.bin": bytes(size)}) as server:
        server.fault(framing="chunked", **{name: rate})
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(b"GET /a.bin HTTP/1.1\r\nHost: x\r\n\r\n")
            with connection.makefile("rb") as file:
                while file.readline() != b"\r\n":
                    pass
                sizes = []
                while count := int(file.readline(), 16):
                    sizes.append(count)
                    file.read(count + 2)
    assert (sum(sizes), max(sizes)) == (size, largest)


@pytest.mark.parametrize(
    ("fault", "fewest", "most"),
    [
        ({"trickle": 3600.0, "trickle_after": 3000}, 3000, 3000),
        ({"bytes_per_second": 1.0}, 0, 1000),
        ({"bytes_per_second_total": 1.0}, 0, 1000),
    ],
)
def test_bytes_wait_for_their_time(
    server: FaultyServer, fault: dict[str, float], fewest: int, most: int
) -> None:
    server.fault(**fault)
    with pytest.raises(TimeoutError):
        ask(server.url("/a.bin"), timeout=0.1)
    server.wait_idle()
    assert fewest <= server.sent() <= most


def test_a_pace_spaces_bytes_out() -> None:
    waits = [Pace().wait(1000, 10.0)]
    shared = Pace()
    waits += [shared.wait(1000, 10.0) for _ in range(2)]
    # 1000 bytes at 10 bytes a second, of which a late sender may catch up a moment.
    assert [round(wait) for wait in waits] == [100, 100, 200]


def test_too_many_connections(server: FaultyServer) -> None:
    server.fault(max_connections=2, retry_after=3)
    address = urlsplit(server.address).netloc
    first, second, third = (http.client.HTTPConnection(address) for _ in range(3))
    with contextlib.closing(first), contextlib.closing(second), contextlib.closing(third):
        assert [exchange(each, "/a.bin").status for each in (first, second)] == [200, 200]
        refused = exchange(third, "/a.bin")
        assert (refused.status, refused.headers["Retry-After"], refused.headers["Connection"]) == (
            503,
            "3",
            "close",
        )
        assert exchange(first, "/a.bin").status == 200
    for _ in range(1000):
        if ask(server.url("/a.bin")).status == 200:
            return
        time.sleep(0.01)
    pytest.fail("closed connections still count")

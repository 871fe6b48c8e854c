"""Transfers against a server that does everything wrong: the content is right in the end, and cheap."""

import hashlib
import random
import threading
from dataclasses import replace

import pytest
from servers.faulty import FaultyServer

from zoo.errors import DoesNotFit
from zoo.store.download.parts import Part, bytes_here, journal_path
from zoo.store.download.patience import Policy
from zoo.store.download.transfer import SizeDiffers, Wanted, transfer
from zoo.store.download.web import Rejected, Target, Trouble

MIB = 1 << 20
SIZE = 5 * MIB + 12345

#: Small pieces and short times, so that everything that happens to gigabytes happens to a few megabytes.
POLICY = Policy(connections=4, piece=MIB, silence=0.6, attempts=5, pause=0.01, longest_pause=0.05)
ALONE = replace(POLICY, connections=1)

CONTENT = random.Random(7).randbytes(SIZE)
OTHER = random.Random(8).randbytes(SIZE)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def server():
    with FaultyServer({"/f": CONTENT, "/other": OTHER, "/short": CONTENT[:1000], "/empty": b""}) as running:
        yield running


class Fetched:
    """One transfer into a part below a folder, and what was said meanwhile."""

    def __init__(self, server, folder, *, path="/f", size=SIZE, known=True, policy=POLICY, headers=()):
        self.said, self.progress, self.workers = [], [], []
        self.part_path = folder / "x.part"
        wanted = Wanted(Target(server.url(path), dict(headers)), size, known)
        with Part(self.part_path, "x") as part:
            self.sha256, self.size = transfer(wanted, part, policy, self._advanced, self.said.append)
            part.finish(self.size)
        self.content = self.part_path.read_bytes()

    def _advanced(self, done, total):
        self.progress.append((done, total))
        self.workers.append(sum(thread.name == "zoo-transfer" for thread in threading.enumerate()))


def overhead(server, path="/f"):
    return server.sent(path) / SIZE


@pytest.mark.parametrize("size", [SIZE, None])
@pytest.mark.parametrize("policy", [POLICY, ALONE])
def test_a_file_comes_complete_and_once(server, tmp_path, size, policy):
    fetched = Fetched(server, tmp_path, size=size, policy=policy)
    assert fetched.content == CONTENT
    assert (fetched.sha256, fetched.size) == (sha256(CONTENT), SIZE)
    assert server.sent("/f") == SIZE
    assert fetched.progress[-1] == (SIZE, SIZE)
    assert not journal_path(fetched.part_path).exists()


@pytest.mark.parametrize(("policy", "most"), [(POLICY, 4), (ALONE, 1)])
def test_ranges_are_asked_for_side_by_side(server, tmp_path, policy, most):
    server.fault(bytes_per_second=3 * MIB)
    fetched = Fetched(server, tmp_path, policy=policy)
    assert max(fetched.workers) == most
    assert len({request.range for request in server.requests}) == len(server.requests) == 6


@pytest.mark.parametrize("path", ["/short", "/empty"])
@pytest.mark.parametrize("known_size", [True, False])
def test_small_files(server, tmp_path, path, known_size):
    content = {"/short": CONTENT[:1000], "/empty": b""}[path]
    fetched = Fetched(server, tmp_path, path=path, size=len(content) if known_size else None)
    assert fetched.content == content
    assert fetched.sha256 == sha256(content)


FAULTS = {
    "dropped": {"drop_after": 300_000, "times": 8},
    "truncated": {"truncate_after": 300_000, "times": 8},
    "length too large": {"length_off": 5000, "times": 3},
    "length too small": {"length_off": -5000, "times": 3},
    "status 500": {"status": 500, "times": 3},
    "status 502": {"status": 502, "times": 3},
    "status 503": {"status": 503, "times": 3, "retry_after": 0},
    "status 429": {"status": 429, "times": 3, "retry_after": 0},
    "stalled": {"stall_after": 200_000, "times": 2},
    "trickling": {"trickle": 0.2, "trickle_after": 200_000, "times": 1},
    "garbage": {"garbage": True, "times": 2},
    "few connections": {"max_connections": 1},
    "weak tag": {"weak_etag": True},
    "no validator": {"no_etag": True, "no_last_modified": True},
    "does not announce ranges": {"no_accept_ranges": True},
    "answers nothing at first": {"delay": 1.0, "times": 1},
    "too long": {"extra_body": 100},
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
@pytest.mark.parametrize("policy", [POLICY, ALONE], ids=["four", "one"])
def test_a_fault_costs_at_most_a_tenth(server, tmp_path, fault, policy):
    rule = server.fault(**fault)
    fetched = Fetched(server, tmp_path, policy=policy)
    assert server.hits(rule) > 0
    assert fetched.content == CONTENT
    assert fetched.sha256 == sha256(CONTENT)
    assert overhead(server) <= 1.1


def test_a_server_without_ranges_sends_the_whole_file_once(server, tmp_path):
    server.fault(ignore_range=True)
    assert Fetched(server, tmp_path).content == CONTENT
    assert overhead(server) == 1


def test_a_server_without_ranges_that_breaks_off_is_asked_again(server, tmp_path):
    server.fault(ignore_range=True)
    server.fault(ignore_range=True, drop_after=MIB, times=2)
    assert Fetched(server, tmp_path).content == CONTENT
    assert len(server.requests) == 3


@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_a_file_of_unknown_size(server, tmp_path, framing):
    server.fault(ignore_range=True, framing=framing)
    fetched = Fetched(server, tmp_path, size=None)
    assert fetched.content == CONTENT
    assert fetched.progress[0] == (0, None)


def test_a_chunked_file_that_breaks_off_is_asked_again(server, tmp_path):
    server.fault(ignore_range=True, framing="chunked")
    server.fault(ignore_range=True, framing="chunked", drop_after=MIB, times=1)
    assert Fetched(server, tmp_path, size=None).content == CONTENT


@pytest.mark.parametrize(
    "shift", [{"content_range_shift": 10}, {"range_shift": 10}, {"content_range": "bytes */9"}]
)
def test_ranges_that_were_not_asked_for_are_not_believed(server, tmp_path, shift):
    server.fault(ranges="any", **shift)
    try:
        assert Fetched(server, tmp_path).content == CONTENT
    except Rejected as rejected:
        assert "does not name" in rejected.reason


def test_another_tag_for_the_same_content_loses_nothing(server, tmp_path):
    server.fault(etag='"other"', after_bytes=2 * MIB)
    fetched = Fetched(server, tmp_path)
    assert fetched.content == CONTENT
    assert overhead(server) <= 1.1


@pytest.mark.parametrize("known", [True, False])
def test_a_file_that_changes_half_way_is_never_mixed(server, tmp_path, known):
    server.fault(serve="/other", after_bytes=2 * MIB)
    fetched = Fetched(server, tmp_path, known=known)
    assert fetched.content == OTHER
    assert fetched.sha256 == sha256(OTHER)
    assert any("changed" in text for text in fetched.said)


def test_a_file_that_changes_without_a_tag_is_never_mixed_by_a_later_transfer(server, tmp_path):
    server.fault(no_etag=True, no_last_modified=True)
    interrupted(server, tmp_path, 2 * MIB, known=False)
    server.fault(serve="/other", no_etag=True, no_last_modified=True)
    assert Fetched(server, tmp_path, known=False).content == OTHER


def test_a_file_that_changes_its_length(server, tmp_path):
    interrupted(server, tmp_path, 2 * MIB, known=False)
    server.fault(serve="/short")
    assert Fetched(server, tmp_path, size=None, known=False).content == CONTENT[:1000]


def interrupted(server, folder, after, **options):
    """A transfer that breaks off for good after about so many bytes."""
    rule = server.fault(status=404, after_bytes=after)
    with pytest.raises(Rejected):
        Fetched(server, folder, policy=ALONE, **options)
    server.remove(rule)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("size", [SIZE, None])
def test_a_later_transfer_goes_on_where_one_stopped(server, tmp_path, known, size):
    interrupted(server, tmp_path, 3 * MIB, known=known, size=size)
    assert bytes_here(tmp_path / "x.part") == 3 * MIB
    assert Fetched(server, tmp_path, known=known, size=size).content == CONTENT
    assert overhead(server) <= 1.02


def test_going_on_is_conditional(server, tmp_path):
    interrupted(server, tmp_path, 3 * MIB)
    tag = server.requests[0]
    server.reset()
    Fetched(server, tmp_path)
    assert "if-range" not in tag.headers
    assert server.requests[0].headers["if-range"].startswith('"')


def test_a_server_that_does_not_know_its_own_tag(server, tmp_path):
    """Some answer If-Range with the whole file whatever it holds; plain ranges work."""
    interrupted(server, tmp_path, 3 * MIB)
    server.fault(ignore_range=True, when=lambda request: "if-range" in request.headers)
    assert Fetched(server, tmp_path, policy=ALONE).content == CONTENT
    assert sum(request.status == 206 for request in server.requests) >= 5


def test_a_part_of_another_file_is_thrown_away(server, tmp_path):
    interrupted(server, tmp_path, 3 * MIB)
    with Part(tmp_path / "x.part", "y") as part:
        assert part.done == 0


def test_a_complete_part_costs_no_request(server, tmp_path):
    Fetched(server, tmp_path)
    with Part(tmp_path / "x.part", "x") as part:
        part.write(0, CONTENT)
    server.reset()
    assert Fetched(server, tmp_path).sha256 == sha256(CONTENT)
    assert server.requests == []


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_final(server, tmp_path, status):
    server.fault(status=status)
    with pytest.raises(Rejected) as refusal:
        Fetched(server, tmp_path)
    assert refusal.value.status == status
    assert len(server.requests) == 1


@pytest.mark.parametrize("fault", [{"status": 503}, {"drop_after": 0}, {"garbage": True}, {"stall_after": 0}])
def test_a_server_that_never_gets_better_is_given_up(server, tmp_path, fault):
    server.fault(**fault)
    policy = replace(ALONE, attempts=3, silence=0.05)
    with pytest.raises(Trouble):
        Fetched(server, tmp_path, policy=policy)
    assert len(server.requests) == 3


def test_a_pause_that_a_server_asks_for_is_kept_and_bounded(server, tmp_path):
    server.fault(status=503, times=1, retry_after=1)
    Fetched(server, tmp_path)
    first, second = (request.at for request in server.requests[:2])
    assert second - first >= 1
    server.fault(status=503, retry_after=4000)
    with pytest.raises(Trouble, match="4000 s"):
        Fetched(server, tmp_path / "again")


def test_a_file_of_another_size_is_refused_before_it_is_read(server, tmp_path):
    with pytest.raises(SizeDiffers) as error:
        Fetched(server, tmp_path, size=SIZE + 1)
    assert (error.value.expected, error.value.got) == (SIZE + 1, SIZE)


def test_compressed_answers_are_refused(server, tmp_path):
    server.fault(gzip=True)
    with pytest.raises(Rejected, match="gzip"):
        Fetched(server, tmp_path)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_token_goes_to_its_own_origin_only(server, tmp_path, status):
    with FaultyServer({"/g": CONTENT}) as elsewhere:
        server.fault(redirect=elsewhere.url("/g"), redirect_status=status)
        fetched = Fetched(server, tmp_path, headers={"Authorization": "Bearer secret"}.items())
        assert fetched.content == CONTENT
        assert {request.authorization for request in server.requests} == {"Bearer secret"}
        assert {request.authorization for request in elsewhere.requests} == {None}


def test_a_token_stays_with_redirects_on_its_origin(server, tmp_path):
    server.put("/moved", CONTENT)
    server.fault(path="/f", redirect="/moved")
    server.fault(path="/moved", required_token="secret")
    fetched = Fetched(server, tmp_path, headers={"Authorization": "Bearer secret"}.items())
    assert fetched.content == CONTENT


def test_a_signed_address_that_expires_is_asked_for_anew(server, tmp_path):
    with FaultyServer({"/g": CONTENT}) as elsewhere:
        server.fault(redirect=elsewhere.url("/g"), signature_uses=2)
        elsewhere.fault(needs_signature=True)
        assert Fetched(server, tmp_path, policy=ALONE).content == CONTENT
        assert 3 <= len(server.requests) < len(elsewhere.requests)


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://192.0.2.1/x", "//", ""]
)
def test_redirects_lead_nowhere_else(server, tmp_path, location):
    server.fault(redirect=location)
    with pytest.raises(Rejected):
        Fetched(server, tmp_path)


def test_a_circle_of_redirects_ends(server, tmp_path):
    server.fault(redirect="/f")
    with pytest.raises(Rejected, match="more than 10 redirects"):
        Fetched(server, tmp_path)


def test_nobody_is_reached(tmp_path):
    with FaultyServer({}) as gone:
        address = gone.url("/f")
    with pytest.raises(Trouble) as trouble, Part(tmp_path / "x.part", "x") as part:
        transfer(
            Wanted(Target(address), SIZE, True), part, POLICY, lambda done, total: None, lambda text: None
        )
    assert trouble.value.unreachable


def test_a_full_disk_stops_the_transfer_and_keeps_what_came(server, tmp_path, monkeypatch):
    real, room = Part.write, 2 * MIB

    def write(part, offset, block):
        if offset + len(block) > room:
            raise OSError(28, "No space left on device")
        real(part, offset, block)

    with monkeypatch.context() as patched, pytest.raises(DoesNotFit):
        patched.setattr(Part, "write", write)
        Fetched(server, tmp_path, policy=ALONE)
    assert bytes_here(tmp_path / "x.part") > MIB
    server.reset()
    assert Fetched(server, tmp_path).content == CONTENT
    assert server.sent("/f") < SIZE - MIB


def test_no_thread_is_left(server, tmp_path):
    Fetched(server, tmp_path)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("zoo-")]


def test_requests_go_through_the_proxy_of_the_environment(server, tmp_path, monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", server.address)
    part_path = tmp_path / "x.part"
    with Part(part_path, "x") as part:
        # Nobody listens there: only the proxy can have answered.
        wanted = Wanted(Target("http://127.0.0.1:9/f"), SIZE, True)
        digest, _ = transfer(wanted, part, POLICY, lambda done, total: None, lambda text: None)
    assert digest == sha256(CONTENT)
    assert {request.target for request in server.requests} == {"http://127.0.0.1:9/f"}


def test_https_with_certificates_of_the_users_own(server, tmp_path, monkeypatch):
    with FaultyServer({"/f": CONTENT}, tls=True) as secure:
        with pytest.raises(Rejected, match="certificate is not valid"):
            Fetched(secure, tmp_path)
        monkeypatch.setenv("SSL_CERT_FILE", str(secure.certificate))
        assert Fetched(secure, tmp_path).content == CONTENT
        secure.fault(redirect=server.url("/f"))
        with pytest.raises(Rejected, match="from https to http"):
            Fetched(secure, tmp_path / "again")
    assert server.requests == []

"""Parts: what a killed process or a crashed machine leaves behind is what the next one goes on with."""

import itertools
import os
import random

import pytest

from zoo.store.download import parts
from zoo.store.download.intervals import Intervals
from zoo.store.download.parts import Part, bytes_here, discard, journal_path


@pytest.mark.parametrize("seed", range(20))
def test_intervals_are_sets_of_numbers(seed):
    draw = random.Random(seed)
    intervals, numbers = Intervals(), set()
    for _ in range(60):
        start = draw.randrange(100)
        end = start + draw.randrange(20)
        if draw.random() < 0.7:
            intervals.add(start, end)
            numbers |= set(range(start, end))
        else:
            intervals.remove(start, end)
            numbers -= set(range(start, end))
        ranges = list(intervals)
        assert {number for a, b in ranges for number in range(a, b)} == numbers
        assert all(b < c for (_, b), (c, _) in itertools.pairwise(ranges))
        assert intervals.total == len(numbers)
        assert intervals.prefix == next(number for number in range(200) if number not in numbers)
        missing = [number for number in range(100) if number not in numbers]
        gap = intervals.first_gap(100)
        assert (gap is None) == (not missing)
        if gap is not None:
            assert gap[0] == missing[0]
            assert all(number not in numbers for number in range(*gap))
            assert gap[1] == 100 or gap[1] in numbers
        assert list(intervals.clipped(50)) == list(Intervals((a, min(b, 50)) for a, b in ranges if a < 50))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "parts" / "x.part"


def fill(path, *blocks, origin="x"):
    """Write blocks and leave without closing, as a killed process does."""
    part = Part(path, origin)
    part.describe(100, '"tag"')
    for offset, data in blocks:
        part.write(offset, data)
    return part


def test_everything_is_known_again(path):
    fill(path, (0, b"abc"), (10, b"defg"))
    assert bytes_here(path) == 7
    with Part(path, "x") as part:
        assert part.ranges() == [(0, 3), (10, 14)]
        assert (part.done, part.prefix, part.total, part.validator) == (7, 3, 100, '"tag"')
        assert part.read(10, 4) == b"defg"
        assert part.missing(20, Intervals([(3, 5)])) == (5, 10)


def test_after_a_crash_of_the_machine_only_what_was_synced_counts(path, monkeypatch):
    part = fill(path, (0, b"abc"))
    part.sync()
    part.write(3, b"def")
    monkeypatch.setattr(parts, "_boot_identity", lambda: "another start of the machine")
    assert bytes_here(path) == 3


def test_a_system_that_does_not_tell_its_starts_is_not_trusted(path, monkeypatch):
    monkeypatch.setattr(parts, "_boot_identity", lambda: "")
    part = fill(path, (0, b"abc"))
    assert bytes_here(path) == 0
    part.sync()
    assert bytes_here(path) == 3


def test_bytes_of_another_file_do_not_count(path):
    fill(path, (0, b"abc"))
    with Part(path, "y") as part:
        assert (part.done, part.total, part.validator) == (0, None, None)


def test_restarting_forgets_every_byte(path):
    part = fill(path, (0, b"abc"))
    generation = part.generation
    part.restart()
    assert part.generation == generation + 1
    assert (part.done, part.total, path.stat().st_size, bytes_here(path)) == (0, None, 0, 0)


def test_a_file_shorter_than_its_journal_is_believed(path):
    fill(path, (0, b"abcdef"))
    os.truncate(path, 4)
    assert bytes_here(path) == 4


@pytest.mark.parametrize(
    "journal",
    [
        b"",
        b"{",
        b"[]\n",
        b"{}\n",
        b'{"origin": 3}\n',
        b"\xff\xfe\n",
        b"null\nw 0 3\n",
        b"[" * 100_000 + b"\n",
    ],
)
def test_a_journal_that_makes_no_sense_counts_as_none(path, journal):
    fill(path, (0, b"abc"))
    journal_path(path).write_bytes(journal)
    assert bytes_here(path) == 0
    with Part(path, "x") as part:
        assert part.done == 0


def test_torn_and_strange_lines_are_passed_over(path):
    fill(path, (0, b"abcdef"))
    with journal_path(path).open("ab") as journal:
        journal.write(b"w 7\nw -1 4\nhello\nw 99999999999999999999 1\nw 50 1")
    assert bytes_here(path) == 6


def test_finishing_leaves_the_file_alone(path):
    part = fill(path, (0, b"abcdef"))
    assert part.finish(4) == path
    assert path.read_bytes() == b"abcd"
    assert not journal_path(path).exists()
    with pytest.raises(ValueError, match="is closed"):
        part.write(0, b"x")


def test_a_part_that_was_moved_away_is_noticed(path):
    part = fill(path, (0, b"abcdef"))
    assert part.seal(4)
    assert path.read_bytes() == b"abcd"
    path.rename(path.with_name("elsewhere"))
    assert not part.seal(4)
    path.write_bytes(b"another")
    assert not part.seal(4)
    assert path.read_bytes() == b"another"


def test_discarding(path):
    fill(path, (0, b"abc"))
    discard(path)
    assert list(path.parent.iterdir()) == []
    discard(path)

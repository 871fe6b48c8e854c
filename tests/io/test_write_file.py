import errno
import os
import stat
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from zoo.errors import OutputExists, OutputNotWritable
from zoo.io.files import new_file, write_file


@pytest.fixture(params=["hard links", "no hard links"])
def file_system(request, monkeypatch):
    """Both sorts of file system: on FAT and many network ones os.link fails."""
    if request.param == "no hard links":

        def refuse(source, target):
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.usefixtures("file_system")
def test_writes_the_bytes_and_nothing_else(tmp_path):
    assert write_file(tmp_path / "a" / "b" / "x.bin", b"data") == tmp_path / "a" / "b" / "x.bin"
    assert (tmp_path / "a" / "b" / "x.bin").read_bytes() == b"data"
    assert listing(tmp_path / "a" / "b") == ["x.bin"]


def test_the_file_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    write_file(tmp_path / "x.bin", b"data")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "x.bin")}
    assert len(modes) == 1


@pytest.mark.usefixtures("file_system")
def test_never_overwrites_silently(tmp_path):
    target = tmp_path / "x.bin"
    target.write_bytes(b"old")
    with pytest.raises(OutputExists, match=r"x\.bin"):
        write_file(target, b"new")
    assert target.read_bytes() == b"old"
    assert listing(tmp_path) == ["x.bin"]


@pytest.mark.usefixtures("file_system")
def test_a_dangling_link_counts_as_existing(tmp_path):
    (tmp_path / "x.bin").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputExists):
        write_file(tmp_path / "x.bin", b"new")
    assert listing(tmp_path) == ["x.bin"]


def test_overwrites_when_asked(tmp_path):
    target = tmp_path / "x.bin"
    target.write_bytes(b"old")
    write_file(target, b"new", overwrite=True)
    assert target.read_bytes() == b"new"
    assert listing(tmp_path) == ["x.bin"]


@pytest.mark.usefixtures("file_system")
def test_of_many_writers_exactly_one_wins(tmp_path):
    target = tmp_path / "x.bin"

    def attempt(number):
        try:
            write_file(target, b"%d" % number * 1000)
        except OutputExists:
            return None
        return number

    with ThreadPoolExecutor(8) as pool:
        winners = [number for number in pool.map(attempt, range(32)) if number is not None]
    assert len(winners) == 1
    assert target.read_bytes() == b"%d" % winners[0] * 1000
    assert listing(tmp_path) == ["x.bin"]


@pytest.mark.parametrize("below", ["x.bin", "folder/x.bin"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_as_parent_is_named(tmp_path, below, overwrite):
    (tmp_path / "parent").write_bytes(b"old")
    with pytest.raises(OutputNotWritable, match="parent is a file, not a folder"):
        write_file(tmp_path / "parent" / below, b"data", overwrite=overwrite)
    assert (tmp_path / "parent").read_bytes() == b"old"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_in_the_place_is_kept(tmp_path, overwrite):
    (tmp_path / "x.bin").mkdir()
    with pytest.raises(OutputNotWritable, match="is a folder"):
        write_file(tmp_path / "x.bin", b"data", overwrite=overwrite)
    assert listing(tmp_path) == ["x.bin"] and (tmp_path / "x.bin").is_dir()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_device_or_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputNotWritable, match="not a regular file"):
        write_file(tmp_path / "pipe", b"data", overwrite=True)
    assert (tmp_path / "pipe").is_fifo()


@pytest.fixture
def locked_folder(mode):
    """A folder of the given mode, met by one whom it binds: root becomes another user meanwhile."""
    if not hasattr(os, "geteuid"):
        pytest.skip("needs POSIX permissions")
    user = os.geteuid()
    # Not tmp_path: other users cannot enter pytest's own folders.
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, mode)
        if user == 0:
            os.seteuid(65534)
        yield Path(folder)
        os.seteuid(user)
        os.chmod(folder, 0o700)


@pytest.mark.parametrize("mode", [0o555, 0o000], ids=["read-only", "not searchable"])
@pytest.mark.parametrize("below", ["x.bin", "folder/x.bin"])
def test_no_permission_is_named(locked_folder, below):
    with pytest.raises(OutputNotWritable, match="permission denied"):
        write_file(locked_folder / below, b"data")


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_write_that_breaks_off_leaves_nothing_behind(tmp_path, overwrite):
    resource = pytest.importorskip("resource")
    target = tmp_path / "x.bin"
    if overwrite:
        target.write_bytes(b"old")
    before = listing(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OutputNotWritable, match="file too large"):
            write_file(target, bytes(1_000_000), overwrite=overwrite)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert listing(tmp_path) == before
    assert not overwrite or target.read_bytes() == b"old"


def test_a_reserved_name_is_given_back_when_the_move_fails(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OutputNotWritable, match="operation not permitted"):
        write_file(tmp_path / "x.bin", b"data")
    assert listing(tmp_path) == []


def test_permissions_are_those_of_any_new_file(tmp_path):
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    with new_file(tmp_path / "written") as temporary:
        temporary.unlink()
        temporary.touch(mode=0o600)
    assert (tmp_path / "written").stat().st_mode == ordinary.stat().st_mode

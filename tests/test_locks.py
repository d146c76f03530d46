"""Claims: who is refused, who is not, and file systems that have no locks."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from videopool import locks, notes
from videopool.features import DiskStore
from videopool.features.space import evict
from videopool.results import PointBusy, PointFolder, RecordLog, is_claimed, read_records
from videopool.results.records import ReplyStore

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EIO, errno.EBADF, errno.EPERM)
BUSY = (errno.EWOULDBLOCK, errno.EAGAIN)
POINT = ("p", "f" * 64)


@pytest.fixture
def failing(monkeypatch):
    """Lets flock fail."""
    monkeypatch.setattr(notes, "_noted", set())

    def fail(number):
        def flock(file, kind):
            raise OSError(number, "as told")

        monkeypatch.setattr(fcntl, "flock", flock)

    return fail


@pytest.mark.parametrize("number", NO_LOCKS, ids=errno.errorcode.get)
def test_without_locks_every_claim_is_granted_and_one_line_says_so(tmp_path, failing, capsys, number):
    failing(number)
    for _ in range(2):
        with PointFolder(tmp_path, *POINT) as folder:
            folder.write_manifest({})
            assert not is_claimed(folder.path)
            log = RecordLog(folder.path / "records.jsonl")
            log.append([{"id": "a", "status": "ok"}])
    ReplyStore(tmp_path / "replies.jsonl").add("key", "reply", {})
    DiskStore(tmp_path / "features", 10**6).finish()
    evict(tmp_path / "features", 0)
    assert [one["id"] for one in read_records(folder.path / "records.jsonl")] == ["a"]
    told = capsys.readouterr()
    assert told.err.count("\n") == 1
    assert "no locks (as told)" in told.err
    assert told.out == ""


def test_a_claim_that_has_ended_is_free_though_a_fork_lives_on(tmp_path):
    """As loaders do for some seconds, once the process of their device was killed."""
    for number, held in enumerate((PointFolder(tmp_path, *POINT), locks.locked(tmp_path / "file"))):
        with held:
            fork = os.fork()
            if not fork:
                time.sleep(60)
                os._exit(0)
        try:
            path = (tmp_path / "p-ffffffff" / "lock", tmp_path / "file")[number]
            with path.open() as file:
                assert not locks.is_claimed(file.fileno())
        finally:
            os.kill(fork, signal.SIGKILL)
            os.waitpid(fork, 0)


@pytest.mark.parametrize("number", BUSY, ids=errno.errorcode.get)
def test_what_would_block_is_busy(tmp_path, failing, capsys, number):
    folder = PointFolder(tmp_path, *POINT)
    with folder:
        pass
    failing(number)
    with pytest.raises(PointBusy), folder:
        pass
    assert is_claimed(folder.path)
    assert capsys.readouterr().err == ""


def test_looking_never_refuses_a_claim(tmp_path):
    """Several processes look as fast as they can, as sweeps do that wait; each claim is granted all the same."""
    folder = PointFolder(tmp_path, *POINT)
    with folder:
        assert is_claimed(folder.path)
    look = (
        "import sys; from pathlib import Path; from videopool.results import is_claimed\n"
        "print('looking', flush=True)\nwhile True: is_claimed(Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", look, str(folder.path)]
    lookers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        for looker in lookers:
            assert looker.stdout.readline() == "looking\n"
        for _ in range(100):
            with folder:
                pass
    finally:
        for looker in lookers:
            looker.kill()
            looker.communicate()
    assert not is_claimed(folder.path)


def test_looks_do_not_hinder_each_other(tmp_path):
    path = tmp_path / "lock"
    path.touch()
    with path.open("rb") as one, path.open("rb") as other:
        fcntl.flock(one, fcntl.LOCK_SH)  # somebody who looks
        assert not locks.is_claimed(other.fileno())


def test_a_claim_waits_for_a_look_to_end(tmp_path):
    path = tmp_path / "lock"
    path.touch()
    with path.open("rb") as look, path.open("ab") as file:
        fcntl.flock(look, fcntl.LOCK_SH)
        threading.Timer(0.1, fcntl.flock, (look, fcntl.LOCK_UN)).start()
        assert locks.claim(file.fileno())


def test_a_point_whose_lock_is_gone_or_unreadable_is_not_waited_for(tmp_path):
    assert not is_claimed(tmp_path)
    (tmp_path / "lock").mkdir()
    assert not is_claimed(tmp_path)

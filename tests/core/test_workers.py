"""Processes that read images: in order, one set for a job, deaf to signals, and never waited for without a limit."""

import gc
import os
import signal
import time
from contextlib import suppress
from functools import partial
from itertools import islice

import pytest

from relish.core import workers as module
from relish.core.errors import ImageError, WorkerFailed
from relish.core.workers import Workers
from tests.processes import wait_until

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the processes of other systems are not signalled like this")


def square(number: int) -> int:
    return number * number


def process_of(_: int) -> int:
    return os.getpid()


def slowly_named(_: int) -> int:
    time.sleep(0.02)
    return os.getpid()


def taking_its_time(number: int) -> int:
    time.sleep(0.2)
    return number


def refuse(number: int) -> None:
    raise ImageError(f"{number}.png", "cut short")


def starve(_: int) -> None:
    raise MemoryError


def fail(_: int) -> None:
    raise ValueError("of the user's own")


def miss(_: int) -> None:
    raise FileNotFoundError(2, "No such file or directory")


def is_gone(pid: int) -> bool:
    """Whether a process has ended, all threads of it; it may wait for its parent to hear of it."""
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat") as stat:
            state = stat.read().rsplit(")", 1)[1].split()
        return state[0] == "Z" and int(state[17]) < 2  # the first thread may be a zombie before the others end
    except OSError:
        return True


def pids(workers: Workers) -> set[int]:
    return set(workers.map(slowly_named, range(64)))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_answers_come_in_order_whoever_works(count):
    workers = Workers(count)
    assert list(workers.map(square, range(100))) == [n * n for n in range(100)]
    assert list(workers.map(square, [])) == []


def test_one_set_of_processes_serves_a_whole_job():
    workers = Workers(2)
    first = pids(workers)
    assert os.getpid() not in first
    assert len(first) == 2
    list(islice(workers.map(square, range(1000)), 3))  # the rest is not asked for
    assert pids(workers) == first


def test_what_cannot_be_pickled_is_inherited():
    offset, workers = 5, Workers(2)
    assert list(workers.map(lambda number: number + offset, range(20))) == list(range(5, 25))
    assert list(workers.map(partial(pow, 2), range(20))) == [2**n for n in range(20)]


def test_works_that_take_turns_do_not_mix():
    workers = Workers(2)
    some = [
        workers.map(lambda n: n, range(200)),
        workers.map(square, range(200)),
        workers.map(lambda n: -n, range(200)),
    ]
    assert [next(one) for _ in range(200) for one in some] == [f for n in range(200) for f in (n, n * n, -n)]


def test_signals_to_the_whole_group_do_not_reach_them():
    workers = Workers(2)
    mine = pids(workers)
    for pid in mine:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(pid, number)
    assert pids(workers) == mine


def test_a_worker_that_is_killed_is_one_error_at_once_and_the_next_job_has_new_ones():
    workers = Workers(2)
    victim = min(pids(workers))
    answers = workers.map(slowly_named, range(1000))
    next(answers)
    os.kill(victim, signal.SIGKILL)
    with pytest.raises(WorkerFailed, match=f"process {victim}, which read pictures, was ended by SIGKILL"):
        list(answers)
    assert victim not in pids(workers)


def test_a_worker_that_is_killed_between_two_jobs_is_one_error_too():
    workers = Workers(2)
    victim = min(pids(workers))
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: is_gone(victim))
    with pytest.raises(WorkerFailed, match=f"process {victim}, which read pictures, was ended by SIGKILL"):
        list(workers.map(square, range(8)))
    assert list(workers.map(square, range(8))) == [n * n for n in range(8)]


def test_a_worker_that_says_nothing_is_given_up(monkeypatch):
    workers = Workers(1)
    (stuck,) = pids(workers)
    monkeypatch.setattr(module, "SILENT_SECONDS", 0.3)
    os.kill(stuck, signal.SIGSTOP)
    with pytest.raises(WorkerFailed, match=rf"process {stuck}, .* no sign of life for 0.3 s"):
        list(workers.map(square, range(10)))
    wait_until(lambda: is_gone(stuck))


def test_the_time_in_which_the_whole_group_is_stopped_does_not_count(monkeypatch):
    """Ctrl-Z, and later `fg`."""
    monkeypatch.setattr(module, "SILENT_SECONDS", 1.0)
    reading, writing = os.pipe()
    main = os.fork()
    if main == 0:
        with suppress(BaseException):
            os.setpgid(0, 0)
            for n in Workers(1).map(taking_its_time, range(3)):
                os.write(writing, b"%d" % n)
        os._exit(0)
    os.close(writing)
    said = os.read(reading, 1)
    os.killpg(main, signal.SIGSTOP)
    time.sleep(1.3)
    os.killpg(main, signal.SIGCONT)
    os.waitpid(main, 0)
    while more := os.read(reading, 10):
        said += more
    os.close(reading)
    assert said == b"012"


def test_processes_that_cannot_be_started_are_said(monkeypatch):
    def full(*_: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(module, "_Worker", full)
    with pytest.raises(WorkerFailed, match=r"no process can be started .*Cannot allocate memory") as told:
        list(Workers(2).map(square, range(10)))
    assert "--workers 0" in told.value.hint


def test_errors_keep_their_kind_on_the_way():
    workers = Workers(1)
    with pytest.raises(ImageError) as told:
        list(workers.map(refuse, [7]))
    assert (told.value.name, told.value.reason) == ("7.png", "cut short")
    with pytest.raises(MemoryError):
        list(workers.map(starve, [1]))
    with pytest.raises(ValueError, match="of the user's own") as raised:
        list(workers.map(fail, [1]))
    assert "in fail" in raised.value.__notes__[0]
    with pytest.raises(FileNotFoundError):  # no sign that the process has ended
        list(workers.map(miss, [1]))
    assert list(workers.map(square, [3])) == [9]


def test_they_end_with_the_object():
    workers = Workers(2)
    mine = pids(workers)
    del workers
    gc.collect()
    wait_until(lambda: all(map(is_gone, mine)))


def test_they_end_with_a_main_process_that_is_killed():
    reading, writing = os.pipe()
    main = os.fork()
    if main == 0:
        with suppress(BaseException):
            workers = Workers(2)
            os.write(writing, " ".join(map(str, pids(workers))).encode())
            time.sleep(600)
        os._exit(0)
    mine = [int(word) for word in os.read(reading, 100).split()]
    os.kill(main, signal.SIGKILL)
    os.waitpid(main, 0)
    os.close(reading), os.close(writing)
    assert len(mine) == 2
    wait_until(lambda: all(map(is_gone, mine)))

"""When a job is asked to stop, and when memory lacks: what counts as either, and what is done about it."""

import errno
import resource
import signal
import sys

import numpy as np
import pytest
import torch

from relish.core import runtime
from relish.core.errors import Failed, Interruption, Stopped, TooLittleMemory, stopped_by
from relish.core.runtime import StopFlag, free_memory, in_smaller_parts, is_out_of_memory, raise_if_no_memory

pytestmark = pytest.mark.usefixtures("hears_sighup")

ALL = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.mark.parametrize("number", ALL)
def test_a_signal_sets_the_flag_and_the_former_handlers_come_back(number):
    before = [signal.getsignal(n) for n in ALL]
    with StopFlag() as stop:
        assert not stop
        signal.raise_signal(number)
        assert (bool(stop), stop.number) == (True, number)
    assert [signal.getsignal(n) for n in ALL] == before


def test_a_signal_that_comes_twice_is_one_wish_but_ctrl_c_later_ends_at_once(monkeypatch):
    monkeypatch.setattr(runtime, "AGAIN_SECONDS", 600.0)
    with StopFlag() as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)  # `timeout` sends it to the process, then to its group
        signal.raise_signal(signal.SIGINT)
        assert stop.number == signal.SIGTERM
        monkeypatch.setattr(runtime, "AGAIN_SECONDS", -1.0)
        signal.raise_signal(signal.SIGHUP)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_where_nothing_has_to_be_finished_the_signal_is_raised():
    with StopFlag() as stop, pytest.raises(Interruption) as told, stop.at_once():
        signal.raise_signal(signal.SIGHUP)
    assert stopped_by(told.value, "stopped.", "").exit_code == 129
    with StopFlag() as stop:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interruption), stop.at_once():
            raise AssertionError("asked before")


def test_the_outer_flag_knows_what_the_inner_one_heard():
    with StopFlag() as outer, outer.at_once():
        with StopFlag():
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)  # the same wish: not raised
        assert outer.number == signal.SIGTERM


def test_a_closed_terminal_that_nohup_ignores_is_ignored():
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopFlag() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop
    finally:
        signal.signal(signal.SIGHUP, former)


def test_ctrl_c_of_pythons_own_is_130():
    assert stopped_by(KeyboardInterrupt(), "stopped.", "").exit_code == Stopped("").exit_code == 130


def too_large_for_torch():
    torch.empty(2**60, dtype=torch.uint8)


def too_large_for_numpy():
    np.empty(2**60, dtype=np.uint8)


@pytest.mark.parametrize("ask", [too_large_for_torch, too_large_for_numpy])
def test_libraries_lack_memory_in_words_that_are_understood(ask):
    with pytest.raises((RuntimeError, MemoryError)) as told:
        ask()
    assert is_out_of_memory(told.value)


@pytest.mark.parametrize(
    ("error", "lacks"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("MPS backend out of memory"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("can't start new thread"), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), True),
        (TooLittleMemory("one picture"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (Failed("not enough memory to be a MemoryError"), False),
        (KeyboardInterrupt("out of memory"), False),
    ],
)
def test_what_is_a_lack_of_memory(error, lacks):
    assert is_out_of_memory(error) is lacks


@pytest.mark.parametrize("room", [1, 3, 8])
def test_work_is_done_in_parts_as_small_as_memory_asks_for(room):
    def work(size: int) -> str:
        if size > room:
            raise MemoryError
        return "done"

    found, size = in_smaller_parts(work, 8)
    assert found == "done"
    assert size <= room
    with pytest.raises(MemoryError):
        in_smaller_parts(lambda _: work(100), 8)


def test_another_error_is_not_tried_again():
    tried = []

    def work(size: int) -> None:
        tried.append(size)
        raise ValueError

    with pytest.raises(ValueError):
        in_smaller_parts(work, 8)
    assert tried == [8]
    raise_if_no_memory(ValueError(), "for this")
    with pytest.raises(TooLittleMemory, match="too little memory for this"):
        raise_if_no_memory(MemoryError(), "for this")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_the_limit_of_ulimit_counts():
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = free_memory()
    try:
        with open("/proc/self/statm") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + 200 * 2**20, hard))
        assert free_memory() <= min(used + 2**30, 210 * 2**20)
        assert not runtime.keep_freed_memory()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))

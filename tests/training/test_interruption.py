"""Ctrl-C and SIGTERM: noted while a run is on, and only then."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from conftest import ROOT

from deblur_gan.training.interruption import Interruption


@pytest.fixture(autouse=True)
def heard():
    """A shell lets what it starts in the background ignore Ctrl-C, these tests too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def handlers():
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_and_the_handlers_put_back(number, capfd):
    before, files = handlers(), sorted(os.listdir("/dev/fd"))
    with Interruption() as interruption:
        assert interruption.signal_number is None
        signal.raise_signal(number)
        wait_for(lambda: interruption.signal_number)
        assert interruption.signal_number == number
    assert handlers() == before
    assert signal.set_wakeup_fd(-1) == -1
    assert number.name in capfd.readouterr().err
    assert "interruption" not in {thread.name for thread in threading.enumerate()}
    assert sorted(os.listdir("/dev/fd")) == files


def test_another_thread_leaves_the_handlers_alone():
    found = []

    def run():
        with Interruption() as interruption:
            found.extend([handlers(), interruption.signal_number])

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [handlers(), None]


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            signal.raise_signal(signal.SIGINT)
            time.sleep(0.05)
            assert interruption.signal_number is None and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_one_leaves_at_once_whatever_the_step_does(number):
    """The main thread is kept in C, as by a step that takes minutes: there Python calls no handler."""
    program = """
import ctypes, sys
from deblur_gan.training.interruption import Interruption
with Interruption():
    print("begun", flush=True)
    for _ in range(100):
        ctypes.CDLL(None).sleep(30)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "begun\n"
    process.send_signal(number)
    assert process.stderr.readline() == "\n" and number.name in process.stderr.readline()
    assert process.poll() is None
    process.send_signal(number)
    assert process.wait(20) == 128 + number
    process.communicate()

"""Ctrl-C and SIGTERM while a run is on: noted at once, obeyed where the run says so."""

import os
import signal
import socket
import sys
import threading


class Interruption:
    """Notes SIGINT and SIGTERM for as long as it is entered; a second one ends the process at once.

    A step of training can keep Python's own handlers waiting for minutes. So a thread listens to what the
    interpreter's C handler writes, and answers while the step is still going on. Outside the main thread, where
    Python allows no handlers, nothing is noted. A signal that is ignored stays ignored.

    Attributes:
        signal_number: int, the signal that came; None as long as none has.
    """

    def __init__(self):
        self.signal_number = None

    def __enter__(self):
        self._before = {}
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in (signal.SIGINT, signal.SIGTERM):
            # None: a handler that was not installed from Python, and could not be put back.
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                self._before[number] = signal.signal(number, lambda *_: None)
        self._received, self._sent = socket.socketpair()
        self._sent.setblocking(False)
        self._wakeup_before = signal.set_wakeup_fd(self._sent.fileno(), warn_on_full_buffer=False)
        self._listener = threading.Thread(target=self._listen, name="interruption", daemon=True)
        self._listener.start()
        return self

    def _listen(self):
        while number := self._received.recv(1)[0]:
            if number not in self._before:
                continue
            if self.signal_number is not None:
                os._exit(128 + number)
            self.signal_number = number
            print(
                f"\n{signal.Signals(number).name}: the state is saved when this step is done; "
                "the same again leaves at once",
                file=sys.stderr,
                flush=True,
            )

    def __exit__(self, *_):
        if threading.current_thread() is not threading.main_thread() or not hasattr(self, "_sent"):
            return
        signal.set_wakeup_fd(self._wakeup_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._sent.send(b"\0")  # no signal has this number: the thread ends
        self._listener.join()
        self._sent.close()
        self._received.close()

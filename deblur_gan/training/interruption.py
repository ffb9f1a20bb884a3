"""Ctrl-C and SIGTERM during a run: noted at once, obeyed after the current step."""

import os
import signal
import socket
import sys
import threading


class Interruption:
    """Notes SIGINT and SIGTERM inside its `with` block; a second one ends the process at once.

    Python's own handlers wait until a training step ends, which can take minutes. So a thread reads the file
    descriptor to which the interpreter's C handler writes, and answers during the step. Python allows handlers in the
    main thread only; in another thread nothing is noted. A signal that is ignored stays ignored.
    """

    def __init__(self):
        self.signal_number = None  # the first signal

    def __enter__(self):
        self._before = {}
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in (signal.SIGINT, signal.SIGTERM):
            # None is a handler that was not installed from Python and could not be restored.
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
                f"\n{signal.Signals(number).name}: the state is saved after this step; a second signal ends at once",
                file=sys.stderr,
                flush=True,
            )

    def __exit__(self, *_):
        if threading.current_thread() is not threading.main_thread() or not hasattr(self, "_sent"):
            return
        signal.set_wakeup_fd(self._wakeup_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._sent.send(b"\0")  # no signal has this number; it ends the thread
        self._listener.join()
        self._sent.close()
        self._received.close()

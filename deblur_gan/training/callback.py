"""The steps of a run: progress bar, checks for finite losses, checkpoints within an epoch, and an end on all ranks."""

import contextlib
import sys
import threading
import time

import numpy as np
from tqdm import tqdm

from deblur_gan.backend import keras
from deblur_gan.training import distributed
from deblur_gan.training.gan import LOSSES

# Several processes compare signals and failures about this often, as each comparison stops all their devices.
SECONDS_BETWEEN_CHECKS = 10


class Stopped(RuntimeError):
    """A run that ended before its last epoch; the message is one line with the reason and the command that resumes it.

    Attributes:
        signal_number: int, the signal that ended it; None if none did.
    """

    def __init__(self, message, signal_number=None):
        super().__init__(message)
        self.signal_number = signal_number


class RunCallback(keras.callbacks.Callback):
    """Watches the steps of `fit`, one epoch at a time; updates `progress` at each checkpoint.

    Of several processes only the main one shows a progress bar and writes checkpoints. All stop at the same step.

    Attributes:
        failure: str, the reason why the run must end early; None at first. Set it on any rank and in any thread: the
            next `check` raises it on all ranks.
        signal_number: int, the signal that a `check` found on any rank; None if there is none.
        saved: str, the place in the run that `state.npz` holds.
    """

    # Keras may call `on_train_batch_end` in a thread while the next step runs, and does not wait for it.
    async_safe = True

    def __init__(self, folder, progress, options, steps_per_epoch, interruption):
        super().__init__()
        self.folder = folder
        self.progress = progress
        self.options = options
        self.steps_per_epoch = steps_per_epoch
        self.interruption = interruption
        self.failure = None
        self.signal_number = None
        self.saved = str(progress)
        self.bar = None
        self.checked_step = 0
        self.lock = threading.Lock()

    def on_train_begin(self, logs=None):
        # `fit` resets the means of the losses, which those of an interrupted epoch must not be.
        self.means = [np.asarray(variable) for variable in self.model.metrics_variables]

    def on_epoch_begin(self, epoch, logs=None):
        self.first_step = self.progress.step
        if self.first_step:
            for variable, value in zip(self.model.metrics_variables, self.means, strict=True):
                variable.assign(value)
        self.began = time.monotonic() - self.progress.seconds
        self.saved_at = self.checked_at = time.monotonic()
        self.checked_step = self.next_check = 0

    def on_train_batch_begin(self, batch, logs=None):
        if batch >= self.next_check:
            self.next_check = batch + self.check(batch)
        due = self.signal_number or time.monotonic() - self.saved_at > 60 * self.options.checkpoint_minutes
        if due and distributed.is_main():
            if hasattr(self.model, "jax_state_sync"):
                self.model.jax_state_sync()
            self.progress.step = self.first_step + batch
            self.progress.seconds = self.seconds()
            with self.noting_failures():
                self.save_state()
        if self.signal_number:
            raise Stopped("interrupted", self.signal_number)

    def on_train_batch_end(self, batch, logs=None):
        broken = [name for name in LOSSES if not np.isfinite(logs[name])]
        if broken:
            self.failure = f"Stopped in epoch {self.progress.epoch + 1}: {broken[0]} is no longer finite"
        elif distributed.is_main():
            with self.lock:
                self.show(self.first_step + batch + 1, logs)

    def check(self, batch=0):
        """Compares signals and failures of all ranks; a collective. Raises `Stopped` on all if one has a `failure`.

        Returns the number of steps until the next comparison: 1 for one process, which compares at no cost; several
        agree on it from the pace of the main one.
        """
        steps = 1
        if distributed.size() > 1 and batch > self.checked_step:
            pace = (time.monotonic() - self.checked_at) / (batch - self.checked_step)
            steps = int(min(max(1, SECONDS_BETWEEN_CHECKS / max(pace, 1e-6)), 10_000))
            self.checked_at, self.checked_step = time.monotonic(), batch
        found = distributed.all_gather([self.interruption.signal_number or 0, self.failure is not None, steps])
        signals, failed, steps = found.T
        self.signal_number = int(max(signals)) or None
        if any(failed):
            other = f"process {np.argmax(failed)} of {len(failed)} had to stop; its output gives the reason"
            raise Stopped(self.failure or other)
        return int(steps[0])

    @contextlib.contextmanager
    def noting_failures(self):
        """Notes as `failure` that the folder cannot be written to, or that a weight is no longer finite."""
        try:
            yield
        except FloatingPointError as error:
            self.failure = f"Stopped in epoch {self.progress.epoch + 1}: {error}"
        except OSError as error:
            self.failure = f"{self.folder.path}: cannot be written to ({error.strerror or error})"

    def save_state(self):
        """Writes `state.npz`."""
        self.folder.save_state(self.model, self.progress)
        self.saved = str(self.progress)
        self.saved_at = time.monotonic()

    def seconds(self):
        """Returns the seconds that the current epoch has taken, before an interruption too."""
        return time.monotonic() - self.began

    def show(self, step, logs):
        """Moves the progress bar, which appears after the first step: its compilation would spoil the time left."""
        done = self.progress.epoch * self.steps_per_epoch + step
        if self.bar is None:
            self.bar = tqdm(
                total=self.options.n_epochs * self.steps_per_epoch,
                initial=done,
                unit="step",
                smoothing=0,  # the mean over all steps, because validation interrupts them
                dynamic_ncols=True,
                # A terminal is redrawn often; a log file gets a line a minute.
                mininterval=0.5 if sys.stderr.isatty() else 60,
                # Without the bar, of no width here, tqdm before 4.68 does not cut the line to the terminal's width.
                bar_format="{desc} {percentage:3.0f}% {remaining} left{postfix} {rate_fmt}{bar:0}",
            )
        self.bar.set_description_str(f"epoch {self.progress.epoch + 1}/{self.options.n_epochs}", refresh=False)
        losses = " ".join(f"{label} {logs[name]:.3g}" for name, label in LOSSES.items())
        self.bar.set_postfix_str(losses, refresh=False)
        self.bar.update(max(0, done - self.bar.n))  # threads may finish in another order than steps

    def close(self):
        """Removes the progress bar from the screen."""
        if self.bar is not None:
            self.bar.close()

"""What happens beside the steps of a run: rates, the progress bar, validation, checkpoints."""

import contextlib
import sys
import threading
import time

import numpy as np
from tqdm import tqdm

from deblur_gan.backend import keras
from deblur_gan.data.split import evenly
from deblur_gan.evaluation.measure import measure, summarize
from deblur_gan.restoring.deblur import deblur
from deblur_gan.training import gradients
from deblur_gan.training.run_folder import LOSSES, OF_BLURRED, SCORES

# Pixels each way of what a picture shows of an image.
PICTURE_SIZE = 256


class Recorder(keras.callbacks.Callback):
    """Sets the learning rate, shows how it goes, validates, and lets the folder keep what the run leaves behind.

    Of several processes only the first shows, validates and keeps anything. All of them stop behind the same step,
    whichever has a reason to.

    Args:
        team: `processes.Team`.
        folder: `RunFolder`.
        progress: `Progress` from which the run goes on; it is kept up to date.
        gan: compiled `DeblurGAN`.
        product: generator that the first process validates and saves: `gan.averaged_generator`, or a float32 one on
            one device.
        validation: list of `(blurred, sharp)`, uint8 `(H, W, 3)`; may be empty.
        pictured: such a list, not empty, three of which are pictured after every epoch.
        steps_per_epoch: int.
        n_epochs: int.
        rate_of: function from an epoch, counted from 0, to its learning rate.
        save_every, checkpoint_minutes: as in `options.Options`.
        trained_by: dict, the options to be told in the weight files.
        interruption: entered `Interruption`.

    Attributes:
        failure: str, why the run must end early; None as long as it need not. Whoever sets it need not end anything:
            the processes tell each other.
        signal_number: int, the signal that ended the run, in whichever process; None if none did.
        saved: str, the epoch and the step of what `state.npz` holds.
    """

    # `on_train_batch_end` may run in a thread beside the next step, which then does not wait for it.
    async_safe = True

    def __init__(
        self,
        team,
        folder,
        progress,
        gan,
        product,
        validation,
        *,
        pictured,
        steps_per_epoch,
        n_epochs,
        rate_of,
        save_every,
        checkpoint_minutes,
        trained_by,
        interruption,
    ):
        super().__init__()
        self.team = team
        self.folder = folder
        self.progress = progress
        self.product = product
        self.validation = [(str(number), *images) for number, images in enumerate(validation)]
        self.pictured = evenly(pictured, 3)
        self.steps_per_epoch = steps_per_epoch
        self.n_epochs = n_epochs
        self.rate_of = rate_of
        self.save_every = save_every
        self.checkpoint_minutes = checkpoint_minutes
        self.trained_by = trained_by
        self.interruption = interruption
        # `fit` sets the means of an epoch to zero when it begins, also of one that was interrupted.
        self.means = [np.asarray(variable) for variable in gan.metrics_variables]
        self.failure = None
        self.signal_number = None
        self.saved = str(progress)
        self.bar = None
        self.lock = threading.Lock()
        self.blurred_scores = {}
        if team.first:
            folder.prepare(progress)

    def close(self):
        """Takes the progress bar off the screen."""
        if self.bar is not None:
            self.bar.close()

    def on_epoch_begin(self, epoch, logs=None):
        self.model.optimizer.learning_rate = self.rate_of(epoch)
        self.first_step = self.progress.step
        self.began = time.monotonic() - self.progress.seconds
        self.saved_at = time.monotonic()
        if self.first_step:
            for variable, value in zip(self.model.metrics_variables, self.means, strict=True):
                variable.assign(value)

    def on_train_batch_begin(self, batch, logs=None):
        if self._must_stop():
            return
        due = self.signal_number or time.monotonic() - self.saved_at > 60 * self.checkpoint_minutes
        if due and self.team.first:
            if hasattr(self.model, "jax_state_sync"):
                self.model.jax_state_sync()
            self.progress.step = self.first_step + batch
            self.progress.seconds = time.monotonic() - self.began
            with self._writing():
                self._save_state()
        if self.signal_number:
            raise KeyboardInterrupt

    def on_train_batch_end(self, batch, logs=None):
        if self._finite(logs) and self.team.first:
            with self.lock:
                self._count(batch, logs)

    def on_epoch_end(self, epoch, logs=None):
        self._finite(logs)
        if self._must_stop():
            return
        # What the first process does alone must not be shared among the devices of all: nobody would take part in it.
        with self._writing(), gradients.devices(shared=False):
            summary = self._keep(epoch, logs) if self.team.first else None
            self.progress.epoch, self.progress.step, self.progress.seconds = epoch + 1, 0, 0.0
            if self.team.first:
                self._save_state()
                tqdm.write(summary)
        self._must_stop()

    def _must_stop(self):
        """Whether a process has failed; if so, this step is the last. All are told the same, at the same step."""
        found = self.team.gather([self.interruption.signal_number or 0, self.failure is not None])
        signals, failed = found.T
        self.signal_number = int(max(signals)) or None
        if any(failed):
            self.failure = self.failure or f"process {np.argmax(failed)} of {self.team.count} had to stop; it says why"
            self.model.stop_training = True
        return any(failed)

    @contextlib.contextmanager
    def _writing(self):
        """Notes what keeps the folder from being written to, so that all processes stop."""
        try:
            yield
        except FloatingPointError as error:
            self.failure = f"Stopped in epoch {self.progress.epoch + 1}: {error}"
        except OSError as error:
            self.failure = f"{self.folder.path}: cannot be written to ({error.strerror or error})"

    def _keep(self, epoch, logs):
        """Validates and writes what an epoch leaves behind; returns the line that is printed after it."""
        seconds = time.monotonic() - self.began
        self.folder.require_fit(self.model)
        scores, n_perfect, picture = self._validate()
        row = {"epoch": epoch + 1, **{name: logs[name] for name in LOSSES}, **scores}
        row |= {"learning_rate": self.rate_of(epoch), "seconds": round(seconds, 1)}
        self.folder.append(row, picture)
        best = self.progress.best_psnr
        is_best = row["val_psnr"] is not None and (best is None or row["val_psnr"] > best)
        is_kept = (epoch + 1) % self.save_every == 0 or epoch + 1 == self.n_epochs
        training = {name: row[name] for name in ("epoch", *LOSSES, *SCORES)} | {"options": self.trained_by}
        critic = self.model.critic if self.model.critic_updates else None
        self.folder.save_networks(self.product, critic, row, training, is_kept, is_best)
        if is_best:
            self.progress.best_psnr = row["val_psnr"]
        return _summary(row, self.n_epochs, n_perfect)

    def _count(self, batch, logs):
        """Moves the progress bar; it appears after the first step, which is compiled and would spoil the time left."""
        done = self.progress.epoch * self.steps_per_epoch + self.first_step + batch + 1
        if self.bar is None:
            self.bar = tqdm(
                total=self.n_epochs * self.steps_per_epoch,
                initial=done,
                unit="step",
                smoothing=0,  # the mean over all steps, because validation comes seldom
                dynamic_ncols=True,
                # A log file needs fewer lines than a terminal needs pictures.
                mininterval=0.5 if sys.stderr.isatty() else 60,
                bar_format="{desc}: {percentage:3.0f}%|{bar:10}| {n_fmt}/{total_fmt} "
                "[{remaining} left, {rate_fmt}{postfix}]",
            )
        self.bar.set_description_str(f"epoch {self.progress.epoch + 1}/{self.n_epochs}", refresh=False)
        self.bar.set_postfix_str(
            f"critic {logs['critic_loss']:.4g}, penalty {logs['gradient_penalty']:.4g}, "
            f"generator {logs['generator_loss']:.4g}, perceptual {logs['perceptual_loss']:.4g}",
            refresh=False,
        )
        self.bar.update(max(0, done - self.bar.n))  # threads may come in another order than steps

    def _finite(self, logs):
        broken = [name for name in LOSSES if not np.isfinite(logs[name])]
        if broken:
            self.failure = f"Stopped in epoch {self.progress.epoch + 1}: {broken[0]} is no longer finite"
        return not broken

    def _validate(self):
        """Restores as `deblur` does for users.

        Returns:
            `(scores, n_perfect, picture)`: dict of the means over the validation images, None where none counts; the
            number of those that no PSNR can be given for, see `evaluation.summarize`; uint8 `(H, W, 3)`.
        """
        if self.product is not self.model.averaged_generator:
            self.product.set_weights(self.model.averaged_generator.get_weights())
        scores, n_perfect, rows = dict.fromkeys((*SCORES, *OF_BLURRED.values())), 0, []
        if self.validation:
            measured = measure(
                self.product, self.validation, metrics=("psnr", "ssim"), blurred_scores=self.blurred_scores
            )
            summary = summarize(list(measured))
            n_perfect = summary["n_perfect"]
            for name in SCORES:
                metric = name.removeprefix("val_")
                scores[name], scores[OF_BLURRED[name]] = (summary[kind][metric] for kind in ("restored", "blurred"))
        for blurred, sharp in self.pictured:
            blurred, sharp = (_middle(image, PICTURE_SIZE) for image in (blurred, sharp))
            rows.append((blurred, deblur(self.product, blurred), sharp))
        return scores, n_perfect, _table(rows)

    def _save_state(self):
        self.folder.save_state(self.model, self.progress)
        self.saved = str(self.progress)
        self.saved_at = time.monotonic()


def _middle(image, size):
    top, left = (max(0, (side - size) // 2) for side in image.shape[:2])
    return image[top : top + size, left : left + size]


def _table(rows, gap=4):
    """Pictures side by side and below each other, with white between them."""

    def padded(image, right, below):
        return np.pad(image, ((0, below), (0, right), (0, 0)), constant_values=255)

    rows = [np.hstack([padded(image, gap, gap) for image in row]) for row in rows]
    width = max(row.shape[1] for row in rows)
    rows = [padded(row, width - row.shape[1], 0) for row in rows]
    return np.vstack(rows)[:-gap, :-gap]


def _summary(row, n_epochs, n_perfect):
    """The line that is printed after an epoch."""
    parts = [f"{name} {row[name]:.4g}" for name in LOSSES]
    if row["val_psnr"] is not None:
        parts.append(f"val_psnr {row['val_psnr']:.2f} dB (blurred {row['blurred_psnr']:.2f})")
    if row["val_ssim"] is not None:
        parts.append(f"val_ssim {row['val_ssim']:.4f} (blurred {row['blurred_ssim']:.4f})")
    if n_perfect:
        parts.append(f"{n_perfect} validation images without PSNR, being equal to the sharp ones")
    return f"epoch {row['epoch']}/{n_epochs}: {', '.join(parts)} ({row['seconds']:.0f} s)"

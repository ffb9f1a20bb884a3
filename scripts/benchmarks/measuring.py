"""Shared by the benchmarks: a step of given sizes, timing in turn, a description of the machine."""

import contextlib
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from deblur_gan.training.options import Options

ROOT = Path(__file__).resolve().parent.parent.parent


class Setting(NamedTuple):
    """The sizes and options of a step that is timed; each is a flag of `benchmark.py`."""

    generator: str
    ngf: int
    ndf: int
    image_size: int
    batch_size: int
    precision: str
    critic_updates: int
    jit_compile: bool

    @property
    def image_shape(self):
        return self.image_size, self.image_size, 3

    def networks(self, dropout=Options.dropout):
        """Builds a generator of any size and a critic, with random weights."""
        import keras

        from deblur_gan.networks import critic_model, generator_model

        if self.jit_compile and keras.backend.backend() == "torch":
            dropout = 0.0
        return (
            generator_model(self.generator, self.ngf, dtype=self.precision, dropout=dropout),
            critic_model("paper", self.ndf, self.image_shape, dtype=self.precision),
        )

    def gan(self, networks, perceptual_loss=None, critic_updates=None):
        """Builds a compiled `DeblurGAN`; without a perceptual loss it learns from the pixels, as l2.

        Raises:
            click.ClickException: if PyTorch cannot compile.
        """
        import click
        import keras

        from deblur_gan.training.gan import DeblurGAN

        losses = {} if perceptual_loss else {"perceptual_weight": 0.0, "pixel_weight": 1.0, "pixel_loss": "l2"}
        gan = DeblurGAN(
            *networks,
            perceptual_loss or (lambda sharp, restored: keras.ops.zeros(())),
            critic_updates=self.critic_updates if critic_updates is None else critic_updates,
            **losses,
        )
        optimizers = [keras.optimizers.Adam(1e-4, beta_1=0.5) for _ in networks]
        try:
            gan.compile(*optimizers, jit_compile=self.jit_compile or "auto")
        except ValueError as error:
            raise click.ClickException(str(error)) from None
        return gan

    def batch(self):
        """Returns blurred and sharp images: float32 array `(2, B, H, W, 3)` in [-1, 1]."""
        import numpy as np

        shape = 2, self.batch_size, *self.image_shape
        return np.random.default_rng(0).uniform(-1, 1, shape).astype("float32")


def time_in_turn(kinds, n_steps):
    """Measures wall and processor seconds, A B A B, so that the load of the machine is the same for all.

    Args:
        kinds: dict from name to function.

    Returns:
        `(wall, cpu)`: dicts from name to list of `n_steps` float, after two calls that compile.
    """
    wall, cpu = {name: [] for name in kinds}, {name: [] for name in kinds}
    for function in kinds.values():
        function()
        function()
    for _ in range(n_steps):
        for name, function in kinds.items():
            began, began_cpu = time.perf_counter(), time.process_time()
            function()
            wall[name].append(time.perf_counter() - began)
            cpu[name].append(time.process_time() - began_cpu)
    return wall, cpu


def about():
    """Returns one line: commit, processor or GPU, backend and versions."""
    import keras

    from deblur_gan.backend import versions

    said = [f"{keras.backend.backend()} on {gpu()[0] or processor()}"]
    if (ROOT / ".git").exists():
        describe = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            said.append(f"commit {subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip()}")
    said += [f"{name} {version}" for name, version in versions().items()]
    return ", ".join([*said, f"Python {platform.python_version()}"])


def processor():
    """Returns the name of the processor, and how many of its cores this process may use."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores"


def gpu():
    """Returns name and peak bytes of memory of the GPU that the backend computes on; `(None, None)` without."""
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        for device in tf.config.list_physical_devices("GPU"):
            name = tf.config.experimental.get_device_details(device).get("device_name", device.name)
            return name, tf.config.experimental.get_memory_info("GPU:0")["peak"]
    if backend == "jax":
        import jax

        device = jax.devices()[0]
        if device.platform != "cpu":
            return device.device_kind, (device.memory_stats() or {}).get("peak_bytes_in_use")
    if backend == "torch":
        import torch

        if torch.cuda.is_available():
            return torch.cuda.get_device_name(), torch.cuda.max_memory_allocated()
    return None, None

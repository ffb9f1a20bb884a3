"""Measures training and restoring in a table: samples per second, memory, hours."""

import multiprocessing
import signal
import statistics
import sys

import click
from benchmarks.measuring import about, gpu, time_in_turn

from deblur_gan.training.options import Options

# GoPro's training set, Nah et al., https://arxiv.org/abs/1612.02177, section 3
N_PAIRS = 2103

OUT_OF_MEMORY = "out of memory"


def print_table(settings, n_steps):
    """Prints a row for each setting as soon as it is measured, then one for restoring with each generator width.

    Each is measured in a process of its own, so that memory is counted for each, and only that process ends if there
    is not enough.
    """
    for number, setting in enumerate(settings):
        said, *found = in_a_process(_measure_training, setting, n_steps)
        if not number:
            click.echo(f"{said}\n")
            click.echo(
                f"Training a {setting.generator} generator against a PatchGAN of {setting.ndf} channels"
                f"{', compiled' if setting.jit_compile else ''}; medians of {n_steps}. Step: {setting.critic_updates} "
                "updates of the critic and one of the generator, with VGG16. Only the generator: pixel loss.\n"
            )
            click.echo(
                "| ngf | crop | batch | precision | step, samples/s | only the generator, samples/s | memory, GiB "
                f"| {Options.n_epochs} epochs of GoPro, h |"
            )
            click.echo("|---:|---:|---:|---|---:|---:|---:|---:|")
        click.echo(training_row(setting, *found))
    for number, ngf in enumerate(dict.fromkeys(setting.ngf for setting in settings)):
        said, *found = in_a_process(_measure_restoring, settings[0].generator, ngf, n_steps)
        if not number:
            click.echo(f"\nRestoring a photograph of 1280x720, in float32: {said}\n")
            click.echo("| ngf | s | memory, GiB |\n|---:|---:|---:|")
        click.echo(restoring_row(ngf, *found))
    click.echo(
        f"\nMemory is the peak of the GPU, without one that of the process. {Options.n_epochs} epochs of "
        f"GoPro: {N_PAIRS} pairs, each once in an epoch; without validation."
    )


def training_row(setting, generator_step=OUT_OF_MEMORY, step=OUT_OF_MEMORY):
    """Returns a row of the table.

    Args:
        generator_step, step: `(seconds, bytes)` of a step of only the generator and of a full one, or `OUT_OF_MEMORY`.
    """
    sizes = f"| {setting.ngf} | {setting.image_size} | {setting.batch_size} | {setting.precision} "
    without_critic = OUT_OF_MEMORY
    if generator_step != OUT_OF_MEMORY:
        without_critic = _digits(setting.batch_size / generator_step[0])
    if step == OUT_OF_MEMORY:
        return f"{sizes}| {OUT_OF_MEMORY} | {without_critic} | | |"
    seconds, peak = step
    n_steps = Options.n_epochs * max(1, N_PAIRS // setting.batch_size)
    hours = _digits(n_steps * seconds / 3600)
    return f"{sizes}| {_digits(setting.batch_size / seconds)} | {without_critic} | {_gibibytes(peak)} | {hours} |"


def restoring_row(ngf, found=OUT_OF_MEMORY):
    """Returns a row of the table; `found` is `(seconds, bytes)` or `OUT_OF_MEMORY`."""
    if found == OUT_OF_MEMORY:
        return f"| {ngf} | {OUT_OF_MEMORY} | |"
    return f"| {ngf} | {found[0]:.2f} | {_gibibytes(found[1])} |"


def _digits(number):
    """Formats a positive number with three significant digits."""
    return f"{float(f'{number:.3g}'):g}"


def _gibibytes(size):
    return f"{size / 2**30:.2f}" if size else "unknown"


def _measure_training(setting, n_steps):
    """Yields the machine, then `(seconds, bytes)` of the generator's step, then those of a full one."""
    from deblur_gan.backend import start_backend

    start_backend(training=True)
    from deblur_gan.training.losses import PerceptualLoss

    yield about()
    networks, batch = setting.networks(), setting.batch()
    for perceptual_loss, critic_updates in ((None, 0), (PerceptualLoss(weights=None), setting.critic_updates)):
        gan = setting.gan(networks, perceptual_loss, critic_updates)
        wall, _ = time_in_turn({"step": lambda gan=gan: gan.train_on_batch(*batch)}, n_steps)
        yield statistics.median(wall["step"]), _peak()


def _measure_restoring(generator, ngf, n_times):
    """Yields the machine, then `(seconds, bytes)` of a photograph, on the backend that restores."""
    from deblur_gan.backend import start_backend

    start_backend(restoring=True)
    import numpy as np

    from deblur_gan.networks import generator_model
    from deblur_gan.restoring.deblur import deblur

    yield about()
    network = generator_model(generator, ngf)
    photograph = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), np.uint8)
    wall, _ = time_in_turn({"deblur": lambda: deblur(network, photograph)}, n_times)
    yield statistics.median(wall["deblur"]), _peak()


def _peak():
    """Returns the peak memory in bytes, of the GPU or else of this process; None if it is unknown."""
    name, peak = gpu()
    if name:
        return peak
    try:
        import resource
    except ImportError:  # on Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def in_a_process(function, *arguments):
    """Runs a generator function in a process of its own.

    Returns:
        list of the yielded values; shorter if memory ended before the function did.

    Raises:
        click.ClickException: if it ended for another reason.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, function, *arguments))
    process.start()
    sender.close()
    found = []
    try:
        while True:
            found.append(receiver.recv())
    except EOFError:
        process.join()
    if found and isinstance(found[-1], click.ClickException):
        raise found[-1]
    # The system kills a process that uses up its memory.
    if process.exitcode not in (0, -getattr(signal, "SIGKILL", 9)):
        raise click.ClickException(f"a measurement ended with exit code {process.exitcode}")
    return found


def _send(sender, function, *arguments):
    try:
        for result in function(*arguments):
            sender.send(result)
    except click.ClickException as error:
        sender.send(error)
    except KeyboardInterrupt:  # the process that waits for this one has been interrupted, too
        pass
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        if not any(words in said.lower() for words in ("memoryerror", "exhausted", "out of memory", "oom when")):
            raise

"""Times restoring and training in turn with the same networks in plain PyTorch: python tests/benchmark_torch.py"""

import statistics
import time

import click


@click.command(context_settings={"show_default": True})
@click.option("--ngf", type=click.IntRange(1), default=64, help="Channels of generator and critic.")
@click.option("--image_size", type=click.IntRange(32), default=256, help="Height and width of a crop, pixels.")
@click.option("--batch_size", type=click.IntRange(1), default=1, help="Pairs in a step.")
@click.option("--precision", type=click.Choice(["float32", "mixed_bfloat16"]), default="float32", help="Dtype of both.")
@click.option("--jit_compile", is_flag=True, help="Compile our steps, as train.py --jit_compile does.")
@click.option("--n_times", type=click.IntRange(3), default=9, help="How often each is timed.")
@click.option("--kind", "kinds", multiple=True, help="One of the rows, such as 'critic step'; several times. [all]")
def benchmark_torch(ngf, image_size, batch_size, precision, jit_compile, n_times, kinds):
    """Prints, for the `paper` networks, how our time compares with that of plain PyTorch, eager and compiled.

    Rows: restoring a photograph of 256x256 and of 1280x720; a step of the generator alone, which learns from the
    pixels; a step with five updates of the critic. No dropout, no VGG. The three are timed in turn, so that what else
    the machine does meets all alike. A ratio is the median of the ratios of each turn, with the smallest and largest;
    below 1, ours is faster. KERAS_BACKEND selects our backend.
    """
    from deblur_gan.backend import start_backend

    start_backend(training=True)
    import keras
    import numpy as np
    import torch
    from authors_pytorch import patch_critic, resnet_generator

    from deblur_gan.gan import DeblurGAN
    from deblur_gan.networks import critic_model, generator_model

    half = precision != "float32"
    generator = generator_model("paper", ngf, dtype=precision, dropout=0.0)
    plain = resnet_generator(torch, ngf, 9, dropout=False).to(memory_format=torch.channels_last)
    shape = (image_size, image_size, 3)
    rng = np.random.default_rng(0)

    def restoring(height, width):
        image = rng.uniform(-1, 1, (1, height, width, 3)).astype("float32")
        tensor = _channels_first(image)

        def restore(network):
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
                return network(tensor)

        compiled = torch.compile(plain)
        return lambda: generator.predict_on_batch(image), lambda: restore(plain), lambda: restore(compiled)

    def step(critic_updates):
        batch = rng.uniform(-1, 1, (2, batch_size, *shape)).astype("float32")
        tensors = [_channels_first(images) for images in batch]
        critic = critic_model("paper", ngf, shape, dtype=precision)
        gan = DeblurGAN(
            generator, critic, _no_loss, critic_updates=critic_updates, perceptual_weight=0.0, pixel_weight=1.0,
            pixel_loss="l2",
        )  # fmt: skip
        gan.compile(*(keras.optimizers.Adam(1e-4, beta_1=0.5) for _ in range(2)), jit_compile=jit_compile or "auto")
        steps = [
            _plain_step(network, patch_critic(torch, ngf).to(memory_format=torch.channels_last), critic_updates, half)
            for network in (plain, torch.compile(plain))
        ]
        return lambda: gan.train_on_batch(*batch), lambda: steps[0](*tensors), lambda: steps[1](*tensors)

    def _no_loss(sharp, restored):
        return keras.ops.zeros(())

    rows = {
        "restore 256x256": lambda: restoring(256, 256),
        "restore 1280x720": lambda: restoring(720, 1280),
        "generator step": lambda: step(0),
        "critic step": lambda: step(5),
    }
    for kind in kinds:
        if kind not in rows:
            raise click.UsageError(f"--kind {kind!r}: must be one of {', '.join(rows)}")
    what = f"{keras.backend.backend()}{', compiled' if jit_compile else ''}, ngf {ngf}, {precision}"
    click.echo(f"{what}; steps: {batch_size} of {image_size}x{image_size}; {torch.get_num_threads()} threads")
    click.echo("| | ours | PyTorch | compiled | ours : PyTorch | ours : compiled |\n|---|---:|---:|---:|---:|---:|")
    for kind in kinds or rows:
        times = _time_in_turn(rows[kind](), n_times)
        medians = " | ".join(f"{statistics.median(seconds):.3f} s" for seconds in times)
        click.echo(f"| {kind} | {medians} | {_ratio(times[0], times[1])} | {_ratio(times[0], times[2])} |")


def _plain_step(generator, critic, critic_updates, half):
    """The step as one writes it in PyTorch: `function(blurred, sharp)`.

    The critic is not compiled, in PyTorch either: compiled, it would have no second derivative.
    """
    import torch

    optimizers = [torch.optim.Adam(network.parameters(), 1e-4, betas=(0.5, 0.999)) for network in (generator, critic)]

    def descend(optimizer, loss):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def scored(images):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            return critic(images).float().mean((1, 2, 3))

    def step(blurred, sharp):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            restored = generator(blurred).float()
        fake = restored.detach()
        for _ in range(critic_updates):
            fake_scores, sharp_scores = scored(torch.cat([fake, sharp])).chunk(2)
            epsilon = torch.rand(len(sharp), 1, 1, 1)
            point = (epsilon * sharp + (1 - epsilon) * fake).requires_grad_()
            (gradient,) = torch.autograd.grad(scored(point).sum(), point, create_graph=True)
            penalty = ((gradient.square().sum((1, 2, 3)) + 1e-12).sqrt() - 1).square().mean()
            descend(optimizers[1], fake_scores.mean() - sharp_scores.mean() + 10 * penalty)
        loss = (restored - sharp).square().mean()
        if critic_updates:
            loss = loss - scored(restored).mean()
        descend(optimizers[0], loss)

    return step


def _channels_first(images):
    import torch

    return torch.tensor(images).permute(0, 3, 1, 2)


def _time_in_turn(functions, n_times):
    """Seconds of each function: a list of `n_times` for each, after two calls that compile."""
    times = [[] for _ in functions]
    for turn in range(-2, n_times):
        for function, seconds in zip(functions, times, strict=True):
            began = time.perf_counter()
            function()
            if turn >= 0:
                seconds.append(time.perf_counter() - began)
    return times


def _ratio(ours, theirs):
    ratios = [our / their for our, their in zip(ours, theirs, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


if __name__ == "__main__":
    benchmark_torch()

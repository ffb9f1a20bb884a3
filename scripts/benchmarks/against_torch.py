"""Times the `paper` networks and the training step in turn with the same in plain PyTorch."""

import statistics
import sys

import click
from benchmarks.measuring import ROOT, about, time_in_turn

# Its module authors_pytorch has the networks as their authors write them.
sys.path.append(str(ROOT / "tests" / "weights"))

ROWS = ("restore 256x256", "restore 1280x720", "generator step", "full step")


def print_ratios(settings, n_steps, kinds):
    """Prints a table for each setting, with our time next to that of plain PyTorch, eager and compiled.

    Rows: restoring a photograph of 256x256 and of 1280x720; a step of only the generator, which learns from the
    pixels; a full step, with the updates of the critic and the gradient penalty. No dropout, no VGG. A ratio is the
    median of the ratios of each turn, with the smallest and largest; below 1, ours is faster.

    Args:
        kinds: sequence of str, the rows that are wanted; empty for all.
    """
    from deblur_gan.backend import start_backend

    for kind in kinds:
        if kind not in ROWS:
            raise click.UsageError(f"--kind {kind!r}: must be one of {', '.join(ROWS)}")
    for setting in settings:
        if setting.generator != "paper" or setting.precision == "mixed_float16":
            raise click.UsageError("--against torch: must be of the paper generator, in float32 or mixed_bfloat16")
    try:
        import torch
        import torch._dynamo  # it imports triton, which crashes the process after TensorFlow
    except ImportError as error:
        raise click.ClickException(f"--against torch: needs PyTorch ({error}); pip install torch") from None
    start_backend(training=True)

    device = "cuda" if torch.cuda.is_available() else "cpu"
    click.echo(f"{about()}; compared with PyTorch {torch.__version__} on {device}, {torch.get_num_threads()} threads")
    click.echo(
        f"Medians of {n_steps} in turn, (smallest to largest); full step: {settings[0].critic_updates} updates of "
        "the critic with penalty and one of the generator; no VGG, no dropout"
    )
    for setting in settings:
        rows = _rows(setting, device)
        size = f"{setting.batch_size} of {setting.image_size}x{setting.image_size}"
        compiled = ", ours compiled" if setting.jit_compile else ""
        click.echo(f"\nngf {setting.ngf}, ndf {setting.ndf}, {setting.precision}{compiled}; steps: {size}\n")
        click.echo("| | ours | PyTorch | compiled | ours : PyTorch | ours : compiled |\n|---|---:|---:|---:|---:|---:|")
        for kind in kinds or ROWS:
            torch.compiler.reset()  # each row is compiled for its own shape
            times, _ = time_in_turn(dict(zip(("ours", "eager", "compiled"), rows[kind](), strict=True)), n_steps)
            medians = " | ".join(f"{statistics.median(seconds):.3f} s" for seconds in times.values())
            ratios = " | ".join(ratio(times["ours"], times[other]) for other in ("eager", "compiled"))
            click.echo(f"| {kind} | {medians} | {ratios} |")


def _rows(setting, device):
    """Returns a dict from the name of a row to a function that returns three: ours, PyTorch's, PyTorch's compiled."""
    import numpy as np
    import torch
    from authors_pytorch import patch_critic, resnet_generator

    half = setting.precision != "float32"
    generator, critic = setting.networks(dropout=0.0)
    plain = _on(device, resnet_generator(torch, setting.ngf, 9, dropout=False))

    def restoring(height, width):
        image = np.random.default_rng(0).uniform(-1, 1, (1, height, width, 3)).astype("float32")

        def restore(network):
            with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=half):
                return network(_channels_first(image, device)).float().cpu()

        compiled = torch.compile(plain, dynamic=False)
        return lambda: generator.predict_on_batch(image), lambda: restore(plain), lambda: restore(compiled)

    def step(critic_updates):
        batch = setting.batch()
        gan = setting.gan((generator, critic), critic_updates=critic_updates)
        steps = [
            _plain_step(network, _on(device, patch_critic(torch, setting.ndf)), critic_updates, half, device)
            for network in (plain, torch.compile(plain, dynamic=False))
        ]
        return lambda: gan.train_on_batch(*batch), lambda: steps[0](*batch), lambda: steps[1](*batch)

    makers = (
        lambda: restoring(256, 256),
        lambda: restoring(720, 1280),
        lambda: step(0),
        lambda: step(setting.critic_updates),
    )
    return dict(zip(ROWS, makers, strict=True))


def _plain_step(generator, critic, critic_updates, half, device):
    """Returns the step as one writes it in PyTorch: `function(blurred, sharp)`, which returns the loss.

    The critic is not compiled, because it would have no second derivative then.
    """
    import torch

    optimizers = [torch.optim.Adam(network.parameters(), 1e-4, betas=(0.5, 0.999)) for network in (generator, critic)]

    def descend(optimizer, loss):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def scored(images):
        with torch.autocast(device, torch.bfloat16, enabled=half):
            return critic(images).float().mean((1, 2, 3))

    def step(*batch):
        blurred, sharp = (_channels_first(images, device) for images in batch)
        with torch.autocast(device, torch.bfloat16, enabled=half):
            restored = generator(blurred).float()
        fake = restored.detach()
        for _ in range(critic_updates):
            fake_scores, sharp_scores = scored(torch.cat([fake, sharp])).chunk(2)
            epsilon = torch.rand(len(sharp), 1, 1, 1, device=device)
            point = (epsilon * sharp + (1 - epsilon) * fake).requires_grad_()
            (gradient,) = torch.autograd.grad(scored(point).sum(), point, create_graph=True)
            penalty = ((gradient.square().sum((1, 2, 3)) + 1e-12).sqrt() - 1).square().mean()
            descend(optimizers[1], fake_scores.mean() - sharp_scores.mean() + 10 * penalty)
        loss = (restored - sharp).square().mean()
        if critic_updates:
            loss = loss - scored(restored).mean()
        descend(optimizers[0], loss)
        return loss.item()

    return step


def _on(device, network):
    import torch

    return network.to(device, memory_format=torch.channels_last)


def _channels_first(images, device):
    import torch

    return torch.tensor(images, device=device).permute(0, 3, 1, 2)


def ratio(ours, theirs):
    """Returns the median of the ratios of each turn, the smallest and the largest."""
    ratios = [our / their for our, their in zip(ours, theirs, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"

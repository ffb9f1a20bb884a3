"""`deblur-gan serve`: a page in a browser that restores photographs."""

import importlib.util
import signal
import webbrowser
from pathlib import Path

import click


@click.command()
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to be reached at; 0.0.0.0 lets other machines in. There is no password.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=7860, show_default=True, help="0 takes a free one.")
@click.option(
    "--weight_path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Weights of a generator that the page offers first, before those that come with the package.",
)
@click.option("--open/--no-open", "opens", default=False, show_default=True, help="Open the page in a browser.")
def serve(host, port, weight_path, opens):
    """Serves a page on which photographs are dropped and restored, and an API that does the same. Ctrl-C ends it.

    Photographs are restored on this machine. They are kept in a temporary folder, which is removed at the end; nothing
    is asked of another host.
    """
    if importlib.util.find_spec("gradio") is None:
        raise click.ClickException('the page needs Gradio, which is not installed: pip install "deblur-gan[web]"')
    from deblur_gan.backend import start_backend

    start_backend(restoring=True)
    from deblur_gan.files import printable
    from deblur_gan.images.photographs import BadImage
    from deblur_gan.web import page
    from deblur_gan.weights import BadWeights

    try:
        listener = page.listen(host, port)
    except OSError as error:
        raise click.ClickException(
            f"--host {printable(host)} --port {port}: cannot be served at ({error.strerror}); choose another"
        ) from None

    def ready(_):
        name, number = listener.getsockname()[:2]
        address = f"http://{f'[{name}]' if ':' in name else name}:{number}/"
        click.echo(f"Restoring photographs at {address} until Ctrl-C")
        if opens:
            webbrowser.open(address)

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # it cleans up as Ctrl-C does
    try:
        page.serve(listener, page.weights_in_the_box(weight_path), ready)
    except KeyboardInterrupt:  # it does not come where the shell had let the process ignore Ctrl-C
        pass
    except (BadImage, BadWeights, OSError) as error:
        raise click.ClickException(printable(error)) from None
    click.echo("Closed")

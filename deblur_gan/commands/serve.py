"""`deblur-gan serve`: a page in a browser, and one address for programs, that restore photographs."""

import contextlib
import re
import webbrowser
from pathlib import Path

import click

from deblur_gan.commands import command
from deblur_gan.files import printable


def _host_names(context, parameter, names):
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+", name):
            raise click.BadParameter(f"{name!r} is not a host name or address; give it without scheme and port")
    return names


def _root_path(context, parameter, path):
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*", path):
        raise click.BadParameter(f"{path!r} is not a path such as /deblur")
    return path


@command()
@click.option(
    "--host",
    default="127.0.0.1",
    help="Address to listen at. 0.0.0.0 lets other machines in, without a password; it needs --allow_host.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=7860, help="0 takes a free one.")
@click.option(
    "--allow_host",
    "allowed_hosts",
    multiple=True,
    callback=_host_names,
    help="Name or address at which visitors reach this server, besides localhost. Can be given several times.",
)
@click.option(
    "--root_path",
    default="",
    show_default=False,
    callback=_root_path,
    help="Path under which a proxy publishes the page, such as /deblur, if the proxy does not remove it.",
)
@click.option(
    "--weight_path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Weights of a generator that the page offers first, before those that come with the package.",
)
@click.option("--open/--no-open", "opens", default=False, help="Open the page in a browser.")
def serve(host, port, allowed_hosts, root_path, weight_path, opens):
    """Serves a page on which photographs are dropped and restored. Ctrl-C ends it.

    Programs send a photograph with one request:
    curl -F photograph=@blurred.jpg http://127.0.0.1:7860/restore -o restored.jpg

    Photographs are restored on this machine, in memory. Nothing is written to disk or sent to another host.
    """
    from deblur_gan.web.server import LOCAL_HOSTS, listen, offered_weights
    from deblur_gan.web.server import serve as serve_page

    if host not in LOCAL_HOSTS and not allowed_hosts:
        raise click.UsageError(
            f"--host {printable(host)}: lets other machines in, without a password; add --allow_host and the name or "
            "address that visitors type"
        )
    try:
        listener = listen(host, port)
    except OSError as error:
        raise click.ClickException(
            f"--host {printable(host)} --port {port}: cannot be opened ({error.strerror}); choose another"
        ) from None

    def ready(*_):
        name, number = listener.getsockname()[:2]
        address = f"http://{f'[{name}]' if ':' in name else name}:{number}{root_path}/"
        click.echo(f"Restoring photographs at {address} until Ctrl-C")
        if host not in LOCAL_HOSTS:
            click.echo(f"Whoever reaches this machine as {' or '.join(allowed_hosts)} can restore photographs here")
        if opens:
            webbrowser.open(address)

    with contextlib.suppress(KeyboardInterrupt):  # it does not come if the shell lets the process ignore Ctrl-C
        serve_page(listener, *offered_weights(weight_path), allowed_hosts, root_path, ready)
    click.echo("Closed")

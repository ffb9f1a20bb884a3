"""What keeps Gradio to this machine and to one folder, whatever a browser or a program sends it."""

import contextlib
import os
import sys
import tempfile
import textwrap
from pathlib import Path

from deblur_gan.files import printable, reason

# The browser refuses whatever the page, or Gradio, might ask of another host.
_POLICY = b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'"


@contextlib.contextmanager
def temporary_folder():
    """A folder for all that Gradio and the libraries below it write; the environment is how Gradio is told."""
    with tempfile.TemporaryDirectory(prefix="deblur-gan-", ignore_cleanup_errors=True) as folder:
        folder = Path(folder).resolve()
        settings = {
            "GRADIO_TEMP_DIR": str(folder / "cache"),
            "GRADIO_EXAMPLES_CACHE": str(folder / "examples"),
            "GRADIO_ANALYTICS_ENABLED": "False",
            "GRADIO_RUN_HISTORY": "False",
            "HF_HUB_OFFLINE": "1",
        }
        before = {name: os.environ.get(name) for name in settings}
        tempfile_before, tempfile.tempdir = tempfile.tempdir, str(folder)
        os.environ.update(settings)
        (folder / "cache").mkdir()
        try:
            yield folder
        finally:
            tempfile.tempdir = tempfile_before
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})


def guarded(app):
    """An ASGI application that adds a content policy to its answers, and fetches nothing for others.

    Gradio hands on what it is asked for by an address in place of a file's path.
    """

    async def answer(scope, receive, send):
        async def send_with_policy(message):
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (b"content-security-policy", _POLICY)]
            await send(message)

        if scope["type"] == "http" and "://" in scope["path"]:
            await send_with_policy({"type": "http.response.start", "status": 403})
            await send({"type": "http.response.body"})
        else:
            await app(scope, receive, send_with_policy)

    return answer


def take_uploads_alone(component, folder):
    """Makes a `gr.File` hand on `(path, name)` of each upload, and take no file from outside of a folder.

    The name is the one that the file had with the visitor; the path lacks what a shell might take for its own. Not a
    subclass, because Gradio writes a file beside the source of each.
    """
    import gradio as gr

    move = component.async_move_resource_to_block_cache

    async def move_uploaded(path):
        """Every path that a visitor sends comes by here."""
        if not Path(os.path.realpath(path)).is_relative_to(folder):
            raise gr.Error("Only photographs that were uploaded to this page are restored.", print_exception=False)
        return await move(path)

    component.async_move_resource_to_block_cache = move_uploaded
    component.preprocess = lambda files: [
        (Path(file.path), Path(file.orig_name or file.path).name) for file in files or []
    ]
    component.example_payload = lambda: [{"path": "photo.jpg", "meta": {"_type": "gradio.FileData"}}]


def refuse_in_one_line(blocks):
    """Makes `gr.Blocks` say in one line, here and to the visitor, why a call came to nothing.

    Gradio prints a traceback of each call that its components refuse, and anyone can send such calls.
    """
    import gradio as gr

    process = blocks.process_api

    async def process_or_refuse(*arguments, **options):
        try:
            return await process(*arguments, **options)
        except Exception as error:
            if isinstance(error, gr.Error) and not error.print_exception:
                raise
            said = error.message if isinstance(error, gr.Error) else reason(error)
            said = printable(textwrap.shorten(said, 300))
            print(f"A call of the page was refused: {said}", file=sys.stderr, flush=True)
            raise gr.Error(said, print_exception=False) from None

    blocks.process_api = process_or_refuse

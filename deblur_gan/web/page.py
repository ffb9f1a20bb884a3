"""The page in a browser: photographs that are dropped on it are restored on the machine that serves it.

Gradio draws it and takes the calls of its API. It is imported when the page is made, not before: it keeps what it finds
in the environment then.
"""

import functools
import os
import secrets
import socket
import threading
from importlib import resources
from pathlib import Path

from PIL import Image

from deblur_gan import shipped_generator
from deblur_gan.backend import dtype_to_restore_in
from deblur_gan.data.samples import write_sample_images
from deblur_gan.files import printable, reason
from deblur_gan.images.photographs import IMAGE_EXTENSIONS, MAX_PIXELS, BadImage, read_photograph, write_photograph
from deblur_gan.restoring.deblur import deblur
from deblur_gan.restoring.photograph import restored_copy
from deblur_gan.web.guard import guarded, refuse_in_one_line, take_uploads_alone, temporary_folder
from deblur_gan.weights import BadWeights, describe, load_generator

# What browsers show as it is; of others the page shows a copy as PNG.
_SHOWN = ("JPEG", "PNG", "WEBP", "AVIF", "BMP")

# More bytes than the largest photograph that is read has without compression, at 16 bits in four channels.
_LARGEST_FILE = 8 * MAX_PIXELS

# Files that a visitor left behind go after a day; they are looked for every hour.
_HOUR = 3600


def weights_in_the_box(weight_path=None):
    """The weights that the page offers.

    Args:
        weight_path: str or Path of a weight file that comes first, or None.

    Returns:
        dict from name to Path: that file, then `generator.h5` and the other generators that come with the package.
    """
    shipped = shipped_generator()
    files = [shipped, *filter(_is_generator, sorted(shipped.parent.glob("*.h5")))]
    weights = {}
    for path in files if weight_path is None else [Path(weight_path), *files]:
        weights.setdefault(printable(path.name), path)
    return weights


def _is_generator(path):
    try:
        return describe(path)["network"] == "generator"
    except BadWeights:
        return False


def listen(host, port):
    """Takes the port of the page, before anything slow is done.

    Args:
        host: str, name or address of this machine to be reached at.
        port: int; 0 takes a free one.

    Returns:
        `socket.socket`, to be handed to `serve`.

    Raises:
        OSError: if the port is taken, not allowed or the address is not this machine's.
    """
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family)
    try:
        if os.name != "nt":  # where the option would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def serve(listener, weights, ready=lambda server: None):
    """Serves the page until the process is interrupted.

    Everything that is written, uploads too, is in one temporary folder, which is removed in the end.

    Args:
        listener: `socket.socket` from `listen`; closed in the end.
        weights: dict from str to Path, as `weights_in_the_box` returns it; the first are loaded at once.
        ready: callable that is handed the `uvicorn.Server` when it is about to answer; `should_exit` ends it from
            another thread.

    Raises:
        BadWeights: if the first weights cannot be used.
        OSError: if the temporary folder or the samples cannot be written.
        ImportError: if Gradio is not installed.
        KeyboardInterrupt: on SIGINT and SIGTERM, when the server has closed.
    """
    with temporary_folder() as folder, listener:
        import uvicorn

        stopping = threading.Event()
        app = _app(folder, weights, stopping)
        # Pages that are open hold a connection each, and would keep the server waiting.
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1))
        ready(server)
        try:
            server.run(sockets=[listener])
        finally:
            stopping.set()  # what is being restored is given up at its next tile


def _app(folder, weights, stopping):
    """The web application: the page, and Gradio's API below `gradio_api/`."""
    import fastapi
    import gradio as gr

    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(guarded)
    blocks = _blocks(folder, weights, stopping)
    # Gradio believes any path of a page that it did not launch itself.
    blocks.has_launched = True
    return gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        theme=gr.themes.Default(
            primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
        ),
        css=resources.files("deblur_gan.web").joinpath("page.css").read_text(encoding="utf-8"),
        head=f"<script>{resources.files('deblur_gan.web').joinpath('page.js').read_text(encoding='utf-8')}</script>",
        footer_links=["api"],
        max_file_size=_LARGEST_FILE,
        pwa=False,
        ssr_mode=False,
        mcp_server=False,
    )


class _Darkroom:
    """Restores what is handed in at the page, with the weights that were chosen.

    Args:
        cache: Path of the folder that Gradio serves files from.
        weights: dict from str to Path.
        stopping: `threading.Event`, set when the server closes.
    """

    def __init__(self, cache, weights, stopping):
        self.cache, self.weights, self.stopping = cache, weights, stopping
        self.generators = {}
        self.results = {}
        self.generator(next(iter(weights)))

    def generator(self, name):
        if name not in self.generators:
            self.generators[name] = load_generator(self.weights[name], dtype_to_restore_in())
        return self.generators[name]

    def restore(self, path, name, weights, strength, ensemble, progress):
        """Restores one photograph, or finds what it was restored to with the same weights, strength and ensemble.

        Args:
            path: Path of the photograph, which is called `name`.
            progress: as `deblur` takes it.

        Returns:
            `(restored, shown, notes)`: Path of the restored photograph, Paths of what a browser shows of both, and list
            of str.

        Raises:
            BadImage, OSError, FloatingPointError, MemoryError: if it cannot be restored.
        """
        asked = path, name, weights, strength, ensemble
        if asked in self.results and all(file.exists() for file in (self.results[asked][0], *self.results[asked][1])):
            return self.results[asked]

        def watched(tiles):
            for tile in progress(tiles):
                if self.stopping.is_set():
                    raise BadImage("the page is closing")
                yield tile

        photograph = read_photograph(path)
        how = {"progress": watched, "strength": strength, "ensemble": ensemble}
        result = restored_copy(functools.partial(deblur, self.generator(weights), **how), photograph)
        folder = self.cache / secrets.token_hex(16)
        folder.mkdir()
        restored = folder / name
        write_photograph(restored, result)
        shown = path, restored
        if photograph.format not in _SHOWN:
            shown = folder / "before.png", folder / "after.png"
            for file, image in zip(shown, (photograph, result), strict=True):
                Image.fromarray(image.pixels).save(file, compress_level=1)
        self.results[asked] = restored, shown, photograph.notes
        return self.results[asked]


def _blocks(folder, weights, stopping):
    """The page and its endpoint `restore`, as `gradio.Blocks`."""
    import gradio as gr

    darkroom = _Darkroom(folder / "cache", weights, stopping)
    write_sample_images(folder / "samples")
    samples = [*sorted((folder / "samples/test/A").glob("*.png")), folder / "samples/real/clock_motion.png"]

    def restore(photographs, strength, weights, ensemble, progress=gr.Progress()):  # noqa: B008 (Gradio's way)
        """Restores photographs at their own size: the files, the strength from 0 to 1, the weights, the ensemble."""
        restored, shown, notes = [], [], []
        for number, (path, name) in enumerate(photographs, 1):
            title = printable(name) if len(photographs) == 1 else f"{number} of {len(photographs)}: {printable(name)}"
            progress(0, desc=title)
            try:
                file, pair, remarks = darkroom.restore(
                    path,
                    name,
                    weights,
                    strength,
                    ensemble,
                    lambda tiles, title=title: progress.tqdm(tiles, title, unit="tiles"),
                )
                restored.append(str(file))
                shown.append((name, *map(str, pair)))
                notes += [f"{printable(name)}: restored, but {remark}" for remark in remarks]
            # Whatever one photograph meets (no memory left, a full disk), the next one gets its chance.
            except Exception as error:
                said = str(error).removeprefix(f"{printable(path)}: ") if isinstance(error, BadImage) else reason(error)
                notes.append(printable(f"{name}: {said}"))
        return restored or None, "\n".join(notes), shown

    def show(said, shown):
        """Lays the first result before the visitor, with a choice where there are several, and what was said."""
        names = [(f"{number}. {printable(name)}", number - 1) for number, (name, *_) in enumerate(shown, 1)]
        return (
            gr.update(value=shown[0][1:] if shown else None, visible=bool(shown)),
            gr.update(choices=names, value=0 if shown else None, visible=len(shown) > 1),
            gr.update(visible=bool(said)),
        )

    with gr.Blocks(
        title="Restore blurred photographs", analytics_enabled=False, delete_cache=(_HOUR, 24 * _HOUR), fill_width=True
    ) as blocks:
        gr.HTML(
            "<h1>Restore blurred photographs</h1><p>Drop photographs anywhere on this page, paste one, or click a "
            "sample. They are restored on the machine that serves the page, go nowhere else, and are removed when it "
            "closes, after a day at the latest.</p>"
        )
        with gr.Row(elem_id="room"):
            with gr.Column(scale=1, min_width=300):
                photographs = gr.File(
                    label="Blurred photographs",
                    file_count="multiple",
                    file_types=["image", *sorted(IMAGE_EXTENSIONS)],
                    height=180,
                    elem_id="photographs",
                )
                strength = gr.Slider(0, 1, 1, step=0.05, label="Strength", elem_id="strength")
                chosen = gr.Dropdown(list(weights), label="Weights", visible=len(weights) > 1, elem_id="weights")
                ensemble = gr.Radio(
                    [("fast", 1), ("finer, 4 times as long", 4), ("finest, 8 times as long", 8)],
                    value=1,
                    label="Quality",
                    elem_id="ensemble",
                )
                sample = gr.Dataset(
                    components=[gr.Image(render=False)],
                    samples=[[str(path)] for path in samples],
                    type="index",
                    label="Samples to click",
                    elem_id="samples",
                )
            with gr.Column(scale=3, min_width=300):
                notes = gr.Textbox(
                    label="Please note", lines=1, max_lines=20, interactive=False, elem_id="notes", visible=False
                )
                slider = gr.ImageSlider(
                    label="Blurred | restored",
                    type="filepath",
                    interactive=False,
                    buttons=["fullscreen"],
                    max_height=700,
                    visible=False,
                    elem_id="slider",
                )
                which = gr.Dropdown([], label="Shown", visible=False, interactive=True, elem_id="which")
                restored = gr.File(
                    label="Restored photographs", file_count="multiple", interactive=False, elem_id="restored"
                )
        take_uploads_alone(photographs, folder)
        results = gr.State([])

        calls = gr.on(
            [photographs.change, strength.release, chosen.change, ensemble.change],
            restore,
            [photographs, strength, chosen, ensemble],
            [restored, notes, results],
            api_name="restore",
            trigger_mode="always_last",
            concurrency_limit=1,
        )
        calls.then(
            show,
            [notes, results],
            [slider, which, notes],
            api_visibility="private",
            show_progress="hidden",
        )
        which.input(
            lambda shown, number: shown[number][1:],
            [results, which],
            slider,
            api_visibility="private",
            show_progress="hidden",
        )
        sample.click(
            lambda number: [str(samples[number])],
            sample,
            photographs,
            api_visibility="private",
            show_progress="hidden",
        )
    refuse_in_one_line(blocks)
    return blocks.queue()

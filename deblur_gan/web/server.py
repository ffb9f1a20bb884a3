"""The HTTP server: `GET /` is the page, `POST /restore` takes a photograph and answers with the restored one."""

import asyncio
import functools
import json
import math
import os
import socket
from importlib import resources
from urllib.parse import quote, urlsplit

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from deblur_gan import shipped_generator
from deblur_gan.web.restorer import VIEWS, Job, Restorer
from deblur_gan.web.uploads import LARGEST_UPLOAD, LONGEST_PAUSE, Budget, Refusal, Upload, one_line

LONGEST_QUEUE = 32

# The networks that come with the package: label on the page, and file next to `generator.h5`.
NETWORKS = {
    "faithful": ("Faithful", "generator.h5"),
    "crisper": ("Crisper", "generator_gan.h5"),
    "meudec": ("Meudec's network", "meudec_generator.h5"),
}
SAMPLES = ("rocket", "camera", "coffee", "chelsea")
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")

# The `Accept` header of a program that wants lines of JSON about the progress before the bytes.
LINES = "application/x-ndjson"
_SECONDS_PER_LINE = 0.2
_CHUNK = 256 * 1024

_FILES = {
    "": ("web", "page.html", "text/html"),
    "page.css": ("web", "page.css", "text/css"),
    "page.js": ("web", "page.js", "text/javascript"),
    "icon.svg": ("web", "icon.svg", "image/svg+xml"),
    "slider.css": ("evaluation", "slider.css", "text/css"),
    "slider.js": ("evaluation", "slider.js", "text/javascript"),
}
_HEADERS = {
    # The browser refuses every request to another host.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def offered_weights(weight_path=None):
    """Returns what visitors choose from: dict from the name in a request to Path, and from the name to the label.

    The weight file at `weight_path` comes first, under its name.

    >>> weights, labels = offered_weights()
    >>> labels["faithful"]
    'Faithful'
    """
    weights, labels = {}, {}
    if weight_path is not None:
        name = one_line(weight_path.stem)
        weights[name], labels[name] = weight_path, one_line(weight_path.name)
    for name, (label, file) in NETWORKS.items():
        path = shipped_generator().with_name(file)
        if path.exists() and name not in weights:
            weights[name], labels[name] = path, label
    return weights, labels


def listen(host, port):
    """Opens the port of the server, or a free one for 0; raises OSError if it cannot be had."""
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family)
    try:
        if os.name != "nt":  # where the option would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(256)
    except OSError:
        listener.close()
        raise
    return listener


def serve(listener, weights, labels, allowed_hosts=(), root_path="", ready=lambda server, restorer: None):
    """Serves the page until the process is interrupted. It answers at once, and loads the network meanwhile.

    `listener` comes from `listen`, and is closed at the end; `weights` and `labels` come from `offered_weights`.
    `allowed_hosts` are names under which the server is reached besides `LOCAL_HOSTS`. At `root_path`, such as
    "/deblur", the page is found, too. `ready` gets the `uvicorn.Server`, which `should_exit = True` ends from another
    thread, and the `Restorer`.

    Raises what loading the backend and the first weights raises, and KeyboardInterrupt on SIGINT and SIGTERM, after
    the server has closed.
    """
    import uvicorn

    def stop():
        server.should_exit = True

    with listener:
        restorer = Restorer(weights)
        app = application(restorer, labels, allowed_hosts, root_path)
        # A photograph that is being restored holds a connection, for which the server would wait.
        options = {"log_level": "critical", "ws": "none", "lifespan": "off", "server_header": False}
        server = uvicorn.Server(uvicorn.Config(app, timeout_graceful_shutdown=1, **options))
        ready(server, restorer)
        restorer.start(failed=stop)
        try:
            server.run(sockets=[listener])
        finally:
            restorer.close()
    if restorer.error:
        raise restorer.error


def application(restorer, labels, allowed_hosts=(), root_path=""):
    """Returns the ASGI application of a `Restorer`; the other arguments are as for `serve`."""
    budget = Budget()

    async def status(request):
        about = {"ready": restorer.ready, "in_queue": len(restorer.jobs), "bytes_held": budget.held}
        choices = {"weights": labels, "views": VIEWS, "samples": SAMPLES, "largest_upload": LARGEST_UPLOAD}
        return JSONResponse(about | choices)

    async def refused(request, error):
        return _error(error.status_code, f"{request.url.path}: {error.detail}")

    async def failed(request, error):
        print(one_line(f"{request.url.path}: {type(error).__name__}: {error}"), flush=True)
        return _error(500, f"{request.url.path}: failed; the server has printed the reason")

    routes = [
        *(Route(f"/{name}", functools.partial(_file, *file)) for name, file in _FILES.items()),
        Route("/status", status),
        Route("/samples/{name}.png", _sample),
        Route("/restore", _Restoring(restorer, budget), methods=["POST"]),
    ]
    if root_path:
        routes.append(Mount(root_path, routes=list(routes)))
    guard = Middleware(_Guard, {*LOCAL_HOSTS, *map(str.lower, allowed_hosts)})
    return Starlette(routes=routes, middleware=[guard], exception_handlers={HTTPException: refused, Exception: failed})


async def _file(folder, name, media_type, request):
    content = resources.files(f"deblur_gan.{folder}").joinpath(name).read_bytes()
    return Response(content, media_type=media_type)


async def _sample(request):
    if request.path_params["name"] not in SAMPLES:
        raise HTTPException(404)
    return Response(await run_in_threadpool(_blurred_sample, request.path_params["name"]), media_type="image/png")


@functools.cache
def _blurred_sample(name):
    from deblur_gan.data.samples import blurred_sample

    return blurred_sample(name)


def _error(status, sentence):
    headers = {"retry-after": "10"} if status in (429, 503) else {}
    return JSONResponse({"error": one_line(sentence)}, status, headers)


class _Guard:
    """ASGI middleware that refuses requests for other hosts than the allowed ones, and photographs from foreign pages.

    A foreign page can make its own name point to this machine (DNS rebinding); the Host header has that name then.
    Programs such as curl send no Origin.
    """

    def __init__(self, app, allowed_hosts):
        self.app, self.allowed_hosts = app, allowed_hosts

    async def __call__(self, scope, receive, send):
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host, origin = headers.get(b"host", ""), headers.get(b"origin")

        async def send_with_headers(message):
            if message["type"] == "http.response.start":
                ours = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *ours]
            # A visitor that does not read must not keep the answer in memory for ever.
            async with asyncio.timeout(LONGEST_PAUSE):
                await send(message)

        app = self.app
        if _split(f"//{host}")[0] not in self.allowed_hosts:
            app = _error(403, f"host {host!r}: is not allowed; start the server with --allow_host and this name")
        elif scope["method"] not in ("GET", "HEAD") and origin is not None and _split(origin)[1] != host.lower():
            app = _error(403, f"origin {origin!r}: is another page; only this server's own may send photographs")
        await app(scope, receive, send_with_headers)


def _split(address):
    """`(hostname, host and port)` of an address, in lower case."""
    try:
        return urlsplit(address).hostname, urlsplit(address).netloc.lower()
    except ValueError:
        return None, None


class _Restoring:
    """ASGI application of `POST /restore`."""

    def __init__(self, restorer, budget):
        self.restorer, self.budget = restorer, budget

    async def __call__(self, scope, receive, send):
        with Upload(scope, receive, self.budget) as upload:
            try:
                job = self._job(scope, *await upload.read())
                job.with_copies = LINES in upload.headers.get("accept", "")
                await run_in_threadpool(job.look)
                if len(self.restorer.jobs) >= LONGEST_QUEUE:
                    raise Refusal(429, f"{job.name}: {LONGEST_QUEUE} photographs are waiting; try again later")
                self.restorer.submit(job)
                gone = asyncio.ensure_future(receive())  # after the body, the one message left is of the end
                future = asyncio.wrap_future(job.future)
                try:
                    if job.with_copies:
                        answer = StreamingResponse(self._lines_and_bytes(job, future, upload), media_type=LINES)
                    else:
                        await asyncio.wait({future, gone}, return_when=asyncio.FIRST_COMPLETED)
                        if gone.done():
                            return
                        result = future.result()
                        upload.hold(result.n_bytes)
                        answer = StreamingResponse(_chunks(result.content), headers=_about(job, result))
                    await answer(scope, lambda: asyncio.shield(gone), send)
                finally:
                    future.cancel()
                    gone.cancel()
                    self.restorer.cancel(job)
            except Refusal as refusal:
                print(one_line(f"Refused ({refusal.status}): {refusal}"), flush=True)
                await upload.discard()
                await _error(refusal.status, refusal)(scope, receive, send)
            except ClientDisconnect:
                pass

    def _job(self, scope, fields, name, content):
        """Returns the `Job` of what was uploaded, with the fields of the form and of the query; raises Refusal."""
        fields = {"name": name} | dict(QueryParams(scope["query_string"])) | fields
        choices = {"weights": list(self.restorer.weights), "views": list(VIEWS)}
        for field, value in fields.items():
            if field not in ("name", "strength", "scale", *choices):
                raise Refusal(422, f"field {field!r}: is not known; take strength, weights, scale or views")
            if field in choices and value not in choices[field]:
                raise Refusal(422, f"{field} {value!r}: must be one of {', '.join(choices[field])}")
        chosen = {field: fields.get(field, names[0]) for field, names in choices.items()}
        scale = fields.get("scale", "auto")
        return Job(
            content,
            _file_name(fields["name"]),
            strength=_number("strength", fields.get("strength", "1"), 0, 1),
            scale=scale if scale == "auto" else _number("scale", scale, 0.01, 4),
            **chosen,
        )

    async def _lines_and_bytes(self, job, future, upload):
        """Yields a line of JSON whenever the state of a job changes, one that describes the result, and the bytes."""
        last = None
        while not future.done():
            if (state := self.restorer.state(job)) != last:
                yield _line(last := state)
            await asyncio.wait({future}, timeout=_SECONDS_PER_LINE)
        try:
            result = future.result()
        except Refusal as refusal:
            print(one_line(f"Refused ({refusal.status}): {refusal}"), flush=True)
            yield _line({"error": str(refusal), "status": refusal.status})
            return
        upload.hold(result.n_bytes)
        yield _line(
            {
                "state": "restored",
                "name": job.name,
                "type": result.media_type,
                "size": result.size,
                "working_size": job.working_size,
                "seconds": result.seconds,
                "times": self.restorer.times(job),
                "notes": result.notes,
                "bytes": len(result.content),
                "copies": [len(copy) for copy in result.copies],
            }
        )
        for content in (result.content, *result.copies):
            async for chunk in _chunks(content):
                yield chunk


def _about(job, result):
    """Returns the headers of a restored photograph."""
    ascii_name = job.name.encode("ascii", "replace").decode().replace('"', "'").replace("\\", "_")
    headers = {
        "content-type": result.media_type,
        "content-length": str(len(result.content)),
        "content-disposition": f"attachment; filename=\"{ascii_name}\"; filename*=UTF-8''{quote(job.name, safe='')}",
    }
    if result.notes:
        headers["x-notes"] = "; ".join(result.notes).encode("ascii", "backslashreplace").decode()
    return headers


def _line(value):
    return json.dumps(value).encode() + b"\n"


async def _chunks(content):
    for start in range(0, len(content), _CHUNK):
        yield content[start : start + _CHUNK]


def _file_name(name):
    """Returns the last part of a path of any system, printable, or "photograph"."""
    name = one_line(name.replace("\\", "/").rpartition("/")[2])
    return name if name.strip(". ") else "photograph"


def _number(field, text, lowest, highest):
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not lowest <= value <= highest:
        raise Refusal(422, f"{field} {text!r}: must be a number from {lowest:g} to {highest:g}")
    return value

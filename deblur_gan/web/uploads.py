"""Reads requests into memory, within bounds for each and for all together. Nothing is written to disk."""

import asyncio
from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from starlette.datastructures import Headers
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from deblur_gan.files import printable, reason, shortened

MEGABYTE = 2**20
LARGEST_UPLOAD = 256 * MEGABYTE
# Uploads and results of all visitors together, without the pixels of the photograph that is being restored.
LARGEST_TOTAL = 768 * MEGABYTE
# Seconds without a byte after which an upload or a download ends, and seconds for a whole upload.
LONGEST_PAUSE = 30
LONGEST_UPLOAD = 900


class Refusal(Exception):
    """A request that is refused, with an HTTP status and one sentence of at most 300 printable characters."""

    def __init__(self, status, sentence):
        super().__init__(one_line(sentence))
        self.status = status


def one_line(text):
    """Returns a text as one printable line of at most 300 characters, shortened in the middle."""
    return shortened(printable(" ".join(str(text).split())))


@dataclass
class Budget:
    """Counts the bytes that all requests hold."""

    held: int = 0


class Upload:
    """The body of one request, and the bytes that the request holds until it is answered.

    Use it as a context manager: on leaving, its bytes are free again. `scope` and `receive` are those of ASGI.
    """

    def __init__(self, scope, receive, budget):
        self.headers = Headers(scope=scope)
        self._receive, self._budget = receive, budget
        self._held, self._more = 0, True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.hold(-self._held)

    def hold(self, n_bytes):
        """Adds to the bytes that this request holds."""
        self._held += n_bytes
        self._budget.held += n_bytes

    async def read(self):
        """Reads a form or, of any other content type, the bytes of a photograph: `(fields, name, content)`.

        Raises Refusal: 400 if the form is malformed, 408 if it comes too slowly, 413 if it is too large, 422 if the
        photograph is missing or there are several, 503 if all requests hold too much. Raises ClientDisconnect if the
        visitor goes away.
        """
        declared = self.headers.get("content-length", "")
        self._require_room(int(declared[:20]) if declared.isdecimal() else 0)
        fields, name, content = {}, "", b""
        try:
            async with asyncio.timeout(LONGEST_UPLOAD):
                if self.headers.get("content-type", "").lower().startswith("multipart/form-data"):
                    form = await _FormInMemory(self.headers, self._chunks(), max_files=1, max_fields=8).parse()
                    for field, value in form.multi_items():
                        if isinstance(value, str):
                            fields[field] = value
                        elif field == "photograph":
                            name, content = value.filename, await value.read()
                        else:
                            raise Refusal(422, f"field {field!r}: is not known; send the file as 'photograph'")
                else:
                    content = b"".join([chunk async for chunk in self._chunks()])
        except TimeoutError:
            raise Refusal(408, "the upload: is too slow; send it again") from None
        except (MultiPartException, FormParserError, LookupError, ValueError) as error:
            raise Refusal(400, f"the form: cannot be read ({reason(error)}); send multipart/form-data") from None
        if not content:
            raise Refusal(422, "photograph: is missing or empty; send a file in the field 'photograph', or its bytes")
        return fields, name, content

    async def _chunks(self):
        while self._more:
            async with asyncio.timeout(LONGEST_PAUSE):
                message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            self._more = message.get("more_body", False)
            chunk = message.get("body", b"")
            self._require_room(len(chunk))
            self.hold(len(chunk))
            yield chunk

    def _require_room(self, n_bytes):
        if self._held + n_bytes > LARGEST_UPLOAD:
            raise Refusal(413, f"photograph: is larger than {LARGEST_UPLOAD // MEGABYTE} MB; send a smaller file")
        if self._budget.held + n_bytes > LARGEST_TOTAL:
            raise Refusal(503, "photograph: other uploads take the memory; try again later")

    async def discard(self):
        """Reads what a visitor still sends: most programs look for an answer only after they have sent everything."""
        if "expect" in self.headers:  # such a program has asked before it sends
            return
        try:
            async with asyncio.timeout(LONGEST_PAUSE):
                while self._more:
                    self._more = (await self._receive()).get("more_body", False)
        except TimeoutError:
            pass


class _FormInMemory(MultiPartParser):
    spool_max_size = LARGEST_UPLOAD + 1  # what is larger goes to a temporary file

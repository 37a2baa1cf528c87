"""A local file server with the faults of real ones, and small archives of official layouts."""

import hashlib
import http.server
import io
import tarfile
import threading
import zipfile

import numpy as np
from PIL import Image


class Served:
    """Files by path; `log` holds (path, Range header) of every request.

    Attributes:
        cut: bytes after which the connection is closed, for the next `cuts` answers.
        ranges: whether Range requests are honoured.
        tags: whether answers carry an ETag.
    """

    def __init__(self):
        self.files, self.log = {}, []
        self.cut, self.cuts, self.ranges, self.tags = 0, 0, True, True
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, path):
        return f"http://127.0.0.1:{self.server.server_address[1]}/{path}"

    def put(self, path, content):
        self.files[path] = content
        return self.url(path)

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def _handler(served):  # not self: the handler has its own
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                path, wanted = self.path.lstrip("/"), self.headers.get("Range")
                served.log.append((path, wanted))
                if path not in served.files:
                    self.send_error(404)
                    return
                content = served.files[path]
                tag = '"' + hashlib.md5(content).hexdigest() + '"'
                same = self.headers.get("If-Range", tag) == tag
                start = int(wanted[6:-1]) if wanted and served.ranges and same else 0
                if start >= len(content):
                    self.send_error(416)
                    return
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(content) - start))
                if served.tags:
                    self.send_header("ETag", tag)
                self.end_headers()
                body = content[start:]
                if served.cuts and served.cut:
                    served.cuts -= 1
                    body = body[: served.cut]
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        return Handler


def pixels(i, height=20, width=20):
    """A reproducible noise image, (H, W, 3)."""
    return np.random.default_rng(i).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(i, height, width):
    """A reproducible image without fine detail, (H, W, 3): survives JPEG nearly unchanged."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin((y + 3 * c) / 17 + i) + np.cos((x - 2 * c) / 23 + i) for c in range(3)]
    return np.stack([(w * 55 + 128) for w in waves], -1).round().astype(np.uint8)


def encoded(array, kind="PNG", **options):
    """The bytes of an image file."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def zipped(files):
    """A zip of {name: bytes}."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(files, mode="w"):
    """A tar (mode `w:gz`: compressed) of {name: bytes}."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def change(source, **fields):
    """Points a frozen Source elsewhere; returns what undoes it."""
    before = {name: getattr(source, name) for name in fields}
    for name, value in fields.items():
        object.__setattr__(source, name, value)
    return lambda: change(source, **before)


class Shop:
    """Serves small archives in place of a source's own, and puts the source back afterwards."""

    def __init__(self):
        self.served, self.undo = Served(), []

    def offer(self, source, content, *, known=True):
        """`content` under the source's first address; its hash is the published one if `known`."""
        url = self.served.put(source.file, content)
        sha256 = hashlib.sha256(content).hexdigest() if known else ""
        fields = {"urls": (url,), "size": len(content), "md5": "", "sha256": sha256}
        self.undo.append(change(source, **fields))

    def close(self):
        for undo in reversed(self.undo):
            undo()
        self.served.close()

"""What nobody sends by accident: each is refused with a clear 4xx, on both databases, and the service lives on."""

import io
import json
import socket
import struct
import zlib
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from app.storage.engine import Database
from tests.app.work import Queue
from tests.service import make_settings

JSON = {"content-type": "application/json"}
SURROGATE = b'"\\ud800"'


@pytest.fixture(scope="module")
def service(module_database: Database, tmp_path_factory, serve_module) -> tuple[httpx.Client, str]:
    """A service with one checkpoint, of an untrained network for digits."""
    folder = tmp_path_factory.mktemp("hostile")
    checkpoint = Queue(module_database, folder).trained()
    return serve_module(make_settings(data_dir=folder, database_url=module_database.url, max_upload_mib=4)), checkpoint


@pytest.fixture
def refused(service, problem_of):
    """`refused(response, status, ...)`: one of the statuses, and neither a server path nor a trace in it."""

    def check(response: httpx.Response, *statuses: int) -> dict[str, Any]:
        assert response.status_code in statuses, (response.status_code, response.text[:500])
        assert "hostile" not in response.text  # the data folder's name
        problem = problem_of(response, response.status_code)
        assert service[0].get("/runs?limit=1").status_code == 200
        return problem

    return check


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bomb(side: int, *, rows: int = 0) -> bytes:
    """A PNG of a few kilobytes that says it is `side` pixels square."""
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    packed = zlib.compress(bytes((1 + 3 * side) * rows), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def picture(form: str) -> bytes:
    made = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(made, form)
    return made.getvalue()


def text_bomb() -> bytes:
    """A compressed comment that grows to a hundred megabytes."""
    plain = picture("PNG")
    grown = chunk(b"zTXt", b"Comment\x00\x00" + zlib.compress(bytes(100 * 2**20), 9))
    return plain[:33] + grown + plain[33:]


IMAGES: dict[str, bytes] = {
    "bomb of 50,000 x 50,000": bomb(50_000), "bomb with pixels": bomb(12_000, rows=300),
    "largest side": bomb(2**31 - 1),
    "no pixels": bomb(0), "bomb in a comment": text_bomb(), "half a PNG": picture("PNG")[:48],
    "a PNG's first bytes": picture("PNG")[:8], "half a JPEG": picture("JPEG")[:100], "GIF": picture("GIF"),
    "WebP": picture("WEBP"), "TIFF": picture("TIFF"), "BMP": picture("BMP"), "nothing": b"",
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "text": b"hello", "zeros": bytes(10_000),
    "PNG with a broken sum": picture("PNG")[:40] + b"\x00\x00" + picture("PNG")[42:],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "filename"),
    [*((name, "image.png") for name in IMAGES),
     *(("GIF", odd) for odd in ("../../etc/passwd", "a\x00b.png", 'a"\r\nX: y.png', ""))],
)  # fmt: skip
def test_an_image_that_is_none_is_refused(service, refused, name: str, filename: str) -> None:
    api, checkpoint = service
    files = {"images": (filename, IMAGES[name], "image/png")}
    refused(api.post(f"/checkpoints/{checkpoint}/predict", files=files), 413, 415, 422)


def nested(depth: int, inside: bytes = b"1") -> bytes:
    return b"[" * depth + inside + b"]" * depth


DOCUMENTS: dict[str, bytes] = {
    "10 MB of JSON": b'{"dataset": "digits", "name": "' + b"x" * 10_000_000 + b'"}',
    "10 MB of spaces": b" " * 10_000_000, "10,000 deep": nested(10_000),
    "10,000 deep in a field": b'{"dataset": "digits", "name": ' + nested(10_000) + b"}",
    "900 deep": b'{"dataset": "digits", "seeds": ' + nested(900) + b"}",
    "980 deep": b'{"dataset": "digits", "decoder": ' + nested(980) + b"}",
    "objects 10,000 deep": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "NaN": b'{"dataset": "digits", "decoder": {"beta": NaN}}', "NaN alone": b"NaN", "-Infinity": b"-Infinity",
    "Infinity as a seed": b'{"dataset": "digits", "seeds": [Infinity]}',
    "a huge integer": b'{"dataset": "digits", "seeds": [' + b"9" * 4000 + b"]}",
    "a huge float": b'{"dataset": "digits", "training": {"learning_rate": 1e400}}',
    "a huge exponent": b'{"dataset": "digits", "evaluation": {"eps": ["1e999999999"]}}',
    "a fraction of giants": b'{"dataset": "digits", "evaluation": {"eps": ["1/' + b"9" * 90 + b'"]}}',
    "half a character": b'{"dataset": ' + SURROGATE + b"}",
    "half a character in a list": b'{"dataset": "digits", "checkpoints": [' + SURROGATE + b"]}",
    "half a character as a recipe": b'{"dataset": "digits", "training": {"recipe": ' + SURROGATE + b"}}",
    "half a character as a parameter":
    b'{"dataset": "digits", "evaluation": {"attacks": [{"name": "pgd", "parameters": {'
    + SURROGATE + b": 1}}]}}",
    "NUL": b'{"dataset": "a\\u0000b"}', "NUL in a list": b'{"dataset": "digits", "checkpoints": ["\\u0000"]}',
    "one key ten thousand times": b'{"dataset": "x"' + b', "dataset": "y"' * 10_000 + b"}",
}  # fmt: skip


@pytest.mark.parametrize("name", DOCUMENTS)
@pytest.mark.parametrize("place", ["experiment", "verification", "prediction", "attack"])
def test_a_document_that_is_none_is_refused(service, refused, name: str, place: str) -> None:
    api, checkpoint = service
    paths = {"experiment": "/experiments", "verification": f"/checkpoints/{checkpoint}/verify",
             "prediction": f"/checkpoints/{checkpoint}/predict",
             "attack": f"/checkpoints/{checkpoint}/attack"}  # fmt: skip
    refused(api.post(paths[place], content=DOCUMENTS[name], headers=JSON), 413, 422)


PIXELS: dict[str, bytes] = {
    "NaN": nested(2, b"NaN"), "Infinity": nested(2, b"Infinity"), "1e400": nested(2, b"1e400"),
    "10,000 deep": nested(10_000), "100 deep": nested(100), "a huge integer": nested(2, b"9" * 4000), "text": b'"abc"',
    "an object": b"{}", "nothing": b"[]", "empty lists": b"[" + b"[]," * 7 + b"[]]", "half a character": SURROGATE,
    "of unequal length": b"[[1], [1, 2]]", "a list in a row": json.dumps([[[1]] * 8] + [[0] * 8] * 7).encode(),
    "a million numbers": json.dumps([[0] * 1000] * 1000).encode(),
}  # fmt: skip


@pytest.mark.parametrize("name", PIXELS)
def test_pixels_that_are_none_are_refused(service, refused, name: str) -> None:
    api, checkpoint = service
    body = b'{"images": [' + PIXELS[name] + b"]}"
    refused(api.post(f"/checkpoints/{checkpoint}/predict", content=body, headers=JSON), 413, 422)


NAMES = ["../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd", "..", "%2e%2e", "/etc/passwd",
         "%2fetc%2fpasswd", "..%5c..%5cwindows", "a%00b", "%ff%fe", "%ed%a0%80", "a%0d%0aSet-Cookie:%20a=b", "%00",
         "x" * 5000, "C:%5c", "file:%2f%2f%2fetc%2fpasswd", "~root", "%252e%252e%252f", "\u202e", "'%20OR%201=1--",
         "${jndi:x}", "{{7*7}}"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_leads_elsewhere_leads_nowhere(service, refused, name: str) -> None:
    api, _ = service
    for path in ("/datasets/{}", "/architectures/{}", "/checkpoints/{}", "/checkpoints/{}/file", "/runs/{}",
                 "/runs/{}/adversarial.npz", "/runs/{}/gallery.png", "/experiments/{}", "/leaderboard?dataset={}",
                 "/curves?dataset={}", "/curves?dataset=digits&attack={}", "/compare?a={}&b=b"):  # fmt: skip
        answer = api.get(path.format(name))
        if answer.status_code == 200:  # `..` was taken away on the way: what is left is a list
            assert path.format(name).count("..") or "%2e%2e" in name
            continue
        refused(answer, 404, 422)
        assert "set-cookie" not in answer.headers
        assert "root:" not in answer.text


@pytest.mark.parametrize("name", ["../../etc", "/etc", "..", ".", "a/b", "a\\b", "\x00", "~", "CON", "", " ", "a\nb"])
def test_a_data_set_that_leads_elsewhere_is_refused(service, refused, name: str) -> None:
    refused(service[0].post("/experiments", json={"dataset": name}), 422)
    refused(service[0].post("/checkpoints", data={"dataset": name}, files={"file": b"x"}), 422)


@pytest.mark.parametrize(
    "fields",
    [{"name": "a\x00b"}, {"name": "x" * 1000}, {"seed": "9" * 5000}, {"seed": "-1"}, {"mean": "nan"}, {"std": "inf"},
     {"mean": nested(10_000).decode()}, {"decoder": nested(10_000).decode()}, {"decoder": '{"beta": NaN}'},
     {"image_size": "9" * 30}, {"epochs": "<" + "9" * 50 + ">"}, {"../../x": "1"}, {"architecture": "../x"}],
    ids=lambda fields: next(iter(fields)) + "=" + next(iter(fields.values()))[:10],
)  # fmt: skip
def test_what_is_said_of_weights_is_read_with_care(service, refused, fields: dict[str, str]) -> None:
    said = {"dataset": "digits", "architecture": "resnet20", **fields}
    refused(service[0].post("/checkpoints", data=said, files={"file": ("../../x", b"x")}), 422)


def header_of(size: int, text: bytes) -> bytes:
    return struct.pack("<Q", size) + text


@pytest.mark.parametrize(
    "content",
    [b"", b"\x00" * 8, header_of(2**63, b"{}"), header_of(10**9, b"{}"), header_of(2, b"{}"),
     header_of(20_001, nested(10_000)),
     header_of(6, b'"\xff\xff"'), b"\x80\x04\x95cos\nsystem\n", b"PK\x03\x04" + bytes(100),
     header_of(70, b'{"a":{"dtype":"F32","shape":[99999999999],"data_offsets":[0,4]}}      ') + bytes(4)],
    ids=["nothing", "zeros", "endless head", "large head", "no tensors", "deep", "not UTF-8", "pickle", "zip", "giant"],
)  # fmt: skip
def test_a_file_of_weights_that_is_none_is_refused(service, refused, content: bytes) -> None:
    said = {"dataset": "digits", "architecture": "resnet20"}
    refused(service[0].post("/checkpoints", data=said, files={"file": ("x.safetensors", content)}), 415, 422)


@pytest.mark.parametrize(
    "query",
    ["limit=" + "9" * 5000, "limit=1e3", "limit=-1", "limit=NaN", "cursor=" + "%ff" * 30, "cursor=%00",
     "state=%ed%a0%80", "kind=" + "x" * 1000, "limit=1&limit=x"],
    ids=lambda query: query[:12],
)  # fmt: skip
def test_a_query_that_is_none_is_refused(service, refused, query: str) -> None:
    answer = service[0].get(f"/runs?{query}")
    if query.startswith("cursor=%ff"):
        assert answer.status_code in (200, 422)
    else:
        refused(answer, 404, 422)


@pytest.mark.parametrize(
    ("path", "status"),
    [("/leaderboard?dataset=digits&images=" + "9" * 5000, 422), ("/leaderboard?dataset=digits&eps=1e999999999", 422),
     ("/leaderboard?dataset=digits&eps=1/" + "9" * 40, 422), ("/leaderboard?dataset=digits&eps=nan", 422),
     ("/curves?dataset=digits&norm=%00", 404), ("/leaderboard?dataset=digits&freeze_depth=" + "1" * 50, 422)],
    ids=lambda value: str(value)[:45],
)  # fmt: skip
def test_a_number_that_no_one_needs_is_refused(service, refused, path: str, status: int) -> None:
    answer = service[0].get(path)
    if answer.status_code != 200:  # a tiny radius is a radius
        refused(answer, status)


@pytest.mark.parametrize("options", ["draws=" + "9" * 5000, "seed=-1", f"seed={2**64}", "top=0", "draws=1e9"])
def test_options_that_no_one_needs_are_refused(service, refused, options: str) -> None:
    api, checkpoint = service
    refused(api.post(f"/checkpoints/{checkpoint}/predict?{options}", json={"images": [[[0.0] * 8] * 8]}), 422)


def raw(api: httpx.Client, request: bytes) -> bytes:
    """What the server answers to these very bytes."""
    with socket.create_connection((api.base_url.host, api.base_url.port), timeout=10) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        found = b""
        while piece := connection.recv(65536):
            found += piece
    return found


@pytest.mark.parametrize(
    "head",
    [b"GET /runs\r\nX-Evil: 1 HTTP/1.1\r\nHost: localhost", b"GET /runs HTTP/1.1\r\nHost: localhost\r\nX: a\x00b",
     b"GET /runs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2",
     b"POST /experiments HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1",
     b"POST /experiments HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999",
     b"POST /experiments HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked, gzip", b"GET /runs HTTP/9.9",
     b"\xff" * 100,
     b"GET http://evil.example/runs HTTP/1.1\r\nHost: evil.example", b"GET /runs HTTP/1.1",
     b"GET /runs HTTP/1.1\r\nHost: localhost\r\nHost: evil.example",
     b"GET /runs HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: a\rSet-Cookie: b=c"],
    ids=lambda head: head[:60].decode("latin-1").encode("unicode_escape").decode(),
)  # fmt: skip
def test_a_request_that_is_none_is_a_4xx_or_closed(service, head: bytes) -> None:
    api, _ = service
    answer = raw(api, head + b"\r\nConnection: close\r\n\r\n")
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), answer[:200]
    assert b"Set-Cookie" not in answer.partition(b"\r\n\r\n")[0]
    assert api.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    "name", ["Idempotency-Key", "If-None-Match", "Accept", "Authorization", "Content-Type", "Cookie"]
)
@pytest.mark.parametrize("value", [b"\xff\xfe", b"a" * 5000, b"a;" * 500, b'"', b"Bearer \xe9", b"*/*;q=9e9"])
def test_an_odd_header_is_no_fault_of_ours(service, problem_of, name: str, value: bytes) -> None:
    api, checkpoint = service
    headers = [(name.encode(), value), (b"Content-Length", b"2")]
    for method, path in (("GET", "/leaderboard?dataset=digits"), ("GET", f"/checkpoints/{checkpoint}/file")):
        assert api.request(method, path, headers=headers[:1]).status_code in (200, 401, 422)
    for path in ("/experiments", f"/checkpoints/{checkpoint}/predict", "/checkpoints"):
        answer = api.post(path, content=b"{}", headers=headers)
        problem_of(answer, answer.status_code)
        assert answer.status_code in (401, 415, 422)

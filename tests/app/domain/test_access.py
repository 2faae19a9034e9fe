"""Which role a request needs, and which addresses are this machine's."""

import pytest

from app.domain.access import covers, is_loopback, keys_needed, name_in, role_needed


@pytest.mark.parametrize(
    ("method", "path", "role"),
    [
        ("GET", "/runs", "reader"), ("HEAD", "/runs", "reader"), ("OPTIONS", "/runs", "reader"),
        ("POST", "/experiments", "submitter"), ("POST", "/checkpoints/c/predict", "reader"),
        ("POST", "/v2/models/c/infer", "reader"), ("POST", "/checkpoints/c/verify", "submitter"),
        ("POST", "/checkpoints/c/predict/x", "submitter"), ("POST", "/checkpoints/a/b/predict", "submitter"),
        ("DELETE", "/experiments/e", "admin"), ("PUT", "/x", "admin"), ("PATCH", "/x", "admin"),
        ("BREW", "/x", "admin"), ("get", "/runs", "admin"), ("GET", "/trail", "admin"),
        ("HEAD", "/trail", "admin"), ("GET", "/healthz", None),
        ("GET", "/readyz", None), ("GET", "/metrics", None), ("GET", "/healthz/x", "reader"), ("GET", "/", "reader"),
    ],
)  # fmt: skip
def test_a_request_needs_what_its_method_says_but_for_the_exceptions(method: str, path: str, role: str | None) -> None:
    assert role_needed(method, path) == role


def test_each_role_may_do_what_those_before_it_may() -> None:
    assert covers("admin", "reader")
    assert covers("submitter", "submitter")
    assert not covers("reader", "submitter")
    assert not covers("submitter", "admin")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost", "LOCALHOST", "a.localhost"])
def test_this_machines_own_addresses_need_no_key(host: str) -> None:
    assert is_loopback(host)
    assert not keys_needed("auto", host)
    assert keys_needed("always", host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "", "10.0.0.1", "127.0.0.1.example.org", "localhost.example.org", "0177.0.0.1", "lab"]
)
def test_every_other_address_needs_keys(host: str) -> None:
    assert not is_loopback(host)
    assert keys_needed("auto", host)


@pytest.mark.parametrize(
    ("header", "name"),
    [("lab:8000", "lab"), ("[::1]:8000", "::1"), ("LAB.", "lab"), ("http://lab:1", "lab"), ("", ""), ("[::", ""),
     ("evil@localhost", ""), ("null", "null")],
)  # fmt: skip
def test_the_name_is_found_in_a_header(header: str, name: str) -> None:
    assert name_in(header) == name

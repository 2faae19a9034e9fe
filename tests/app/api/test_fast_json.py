"""JSON answers say what the standard library's would."""

import json
import math

import pytest

from app.api.fast_json import FastJson

VALUES = [
    0.1,
    1 / 3,
    1e-5,
    1e22,
    5e-324,
    -0.0,
    2**60,
    None,
    True,
    "",
    "ü </script>  \x00 😀",
    [],
    {},
    {"a": [{"b": (1, 2.5)}]},
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_what_is_read_is_what_was_written(value) -> None:
    answer = FastJson({"value": value}, headers={"Vary": "Accept"})
    assert json.loads(answer.body) == json.loads(json.dumps({"value": value}))
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["vary"] == "Accept"


def test_what_json_has_no_number_for_is_null() -> None:
    assert json.loads(FastJson([math.nan, math.inf, -math.inf]).body) == [None] * 3


def test_what_is_no_json_is_an_error() -> None:
    with pytest.raises(ValueError, match="serialize"):
        FastJson({"a": object()})

"""The attack radius: read from numbers or fractions, compared as a fraction.

`"8/255"`, `0.03137254901960784` and `"0.0313725490196"` name one radius.
"""

import re
from fractions import Fraction

_NUMBER = r"(\d{1,20}\.?\d{0,20}|\.\d{1,20})(?:[eE][-+]?\d{1,2})?"
_RADIUS = re.compile(rf"\s*({_NUMBER})\s*(?:/\s*({_NUMBER})\s*)?", re.ASCII)
_LARGEST_DENOMINATOR = 10**6  # fine enough for the study's grids x .225
_CLOSE = 1e-12  # a float this near to a simple fraction is meant as that fraction
_FINEST = 10**12  # no radius has a larger denominator: its text stays short, and is read back as the same one


def parse_epsilon(value: float | str) -> Fraction:
    """`parse_epsilon("8/255")` -> Fraction(8, 255).

    Raises ValueError, with what is allowed, for anything but a positive finite number.
    """
    try:
        exact = _read(value)
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        allowed = "give a number such as 0.03 or a fraction such as '8/255'"
        raise ValueError(f"{value!r} is not a radius; {allowed}") from error
    radius = _simplest(exact)
    if radius <= 0:
        raise ValueError(f"a radius must be greater than 0, and at least 1e-12, not {value!r}")
    return radius


def _simplest(exact: Fraction) -> Fraction:
    simple = exact.limit_denominator(_LARGEST_DENOMINATOR)
    close = abs(simple - exact) <= _CLOSE and simple > 0
    return simple if close else exact.limit_denominator(_FINEST)


def _read(value: float | str) -> Fraction:
    if not isinstance(value, str):
        return Fraction(value)
    match = _RADIUS.fullmatch(value)
    if match is None:
        raise ValueError(value)
    return Fraction(match[1]) / Fraction(match[3] or 1)


def format_epsilon(value: Fraction) -> str:
    """As people write it, and exact: `"8/255"`, `"0.5/255"`, `"0.225"`, else a fraction such as `"1/7"`."""
    short = f"{float(value):.12g}"
    if Fraction(short) == value:
        return short
    over_255 = f"{float(value * 255):.6g}"
    return f"{over_255}/255" if Fraction(over_255) / 255 == value else str(value)

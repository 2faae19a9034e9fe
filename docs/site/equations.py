"""LaTeX to MathML while the site is built: no script, no fonts."""

import re
from collections.abc import Callable
from html import unescape

from latex2mathml.converter import convert

_INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
_BLOCK = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)


def as_mathml(html: str, *, where: str) -> str:
    """`html` of pymdownx.arithmatex with each equation drawn. Raises ValueError naming page and equation."""

    def drawn(display: str) -> Callable[[re.Match[str]], str]:
        def one(found: re.Match[str]) -> str:
            latex = unescape(found[1]).strip()
            try:
                return convert(latex, display=display)
            except Exception as error:
                raise ValueError(f"{where}: the equation {latex!r} cannot be read: {error}") from error

        return one

    html = _BLOCK.sub(drawn("block"), html)
    return _INLINE.sub(drawn("inline"), html)

"""A table as CSV, Markdown and LaTeX.

CSV has the raw fractions of the JSON, a column each and nothing else in a cell; Markdown and LaTeX have per cent with
deviations, and say below what was measured.
"""

import csv
import io
import re
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from app.reports.tables import Table

Format = Literal["csv", "md", "latex"]
MEDIA_TYPES: dict[Format, str] = {"csv": "text/csv", "md": "text/markdown", "latex": "application/x-latex"}
_TEX = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
        "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
        "|": r"\textbar{}", '"': "''", "[": "{[}", "*": "{*}", "±": r"$\pm$", "−": "$-$", "–": "--",
        "≤": r"$\le$", "≥": r"$\ge$", "∞": r"$\infty$", "…": r"\dots{}", "µ": r"$\mu$", "μ": r"$\mu$",
        "×": r"$\times$", "→": r"$\to$", "·": r"$\cdot$", "²": "$^2$", "—": "---"}  # fmt: skip
_ACCENTS = {"\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0308": '"',
            "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0327": "c", "\u0328": "k"}  # fmt: skip
_LETTERS = 45  # that fit beside each other on a page of `article` for certain; a gap of columns counts as two
_FITTED = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}"
_NUMBER = re.compile(r"[+−–-]?(\d.*)?")


def render(table: "Table", form: Format) -> str:
    """The table as text of that form."""
    return {"csv": _csv, "md": _markdown, "latex": _latex}[form](table)


def markdown_text(text: str) -> str:
    """Plain text that stays plain in Markdown, in a cell of a table too."""
    return re.sub(r"([\\|*`\[\]])", r"\\\1", " ".join(text.split())).replace("&", "&amp;").replace("<", "&lt;")


def latex_text(text: str) -> str:
    """Plain text that LaTeX sets as it is: any engine, without packages. A letter that plain LaTeX has not is named by
    its number."""
    return "".join(_TEX.get(ch) or _tex_letter(ch) for ch in " ".join(text.split()))


def _tex_letter(ch: str) -> str:
    if ch.isascii():
        return ch if ch.isprintable() else " "
    parts = unicodedata.normalize("NFD", ch)
    if len(parts) == 2 and parts[0].isascii() and parts[0].isalpha() and parts[1] in _ACCENTS:
        return f"\\{_ACCENTS[parts[1]]}{{{parts[0]}}}"
    return f"U+{ord(ch):04X}"


def _csv(table: "Table") -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=table.columns)
    writer.writeheader()
    writer.writerows(table.records)
    return out.getvalue()


def _markdown(table: "Table") -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(map(markdown_text, cells)) + " |\n"

    rule = "|" + "".join("---:|" if right else "---|" for right in _numeric(table)) + "\n"
    note = f"\n{markdown_text(table.note)}\n" if table.note else ""
    return line(table.header) + rule + "".join(map(line, table.rows)) + note


def _latex(table: "Table") -> str:
    def line(cells: Sequence[str]) -> str:
        return " & ".join(map(latex_text, cells)) + " \\\\\n"

    columns = "".join("r" if right else "l" for right in _numeric(table))
    body = line(table.header) + "\\midrule\n" + "".join(map(line, table.rows))
    note = f"% {latex_text(table.note)}\n" if table.note else ""
    table_text = f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{body}\\bottomrule\n\\end{{tabular}}"
    if not _may_be_wide(table):
        return f"% needs \\usepackage{{booktabs}}\n{note}{table_text}\\par\n"
    needs = "% needs \\usepackage{booktabs} and \\usepackage{graphicx}, which keeps it within the column\n"
    return f"{needs}{note}\\noindent{_FITTED}{{%\n{table_text}}}\\par\n"


def _may_be_wide(table: "Table") -> bool:
    columns = zip(table.header, *table.rows, strict=True)
    return sum(max(map(len, cells)) + 2 for cells in columns) > _LETTERS


def _numeric(table: "Table") -> list[bool]:
    """Which columns hold numbers alone (or nothing, said with a dash): they are set to the right."""
    columns = zip(*table.rows, strict=True) if table.rows else ([] for _ in table.header)
    return [any(cells) and all(_NUMBER.fullmatch(cell) for cell in cells) for cells in map(list, columns)]

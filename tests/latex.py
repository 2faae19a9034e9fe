"""A real LaTeX, where there is one."""

import shutil
import subprocess
from pathlib import Path

from tests.conftest import skip_or_fail


def compile_latex(folder: Path, body: str) -> str:
    """What LaTeX said; fails where it did not make a page of it, or something stands over its margin."""
    engine = shutil.which("pdflatex")
    if engine is None:
        skip_or_fail("there is no pdflatex on the PATH (Debian: texlive-latex-base), so no table can be set")
    packages = "\\usepackage{booktabs}\n\\usepackage{graphicx}\n"
    document = f"\\documentclass{{article}}\n{packages}\\begin{{document}}\n{body}\n\\end{{document}}\n"
    (folder / "page.tex").write_text(document)
    command = [engine, "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull \\hbox" not in done.stdout, done.stdout[-2000:]
    assert (folder / "page.pdf").stat().st_size > 5000
    return done.stdout

"""What MkDocs calls while it builds the site: the order of pages, what is written from the code, equations.

A page says `<!-- from the code: settings -->` where something generated stands: `parts.PARTS` has the names. Pages that
no list here names, such as a new result, are put at the end of their folder's section by themselves.
"""

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]  # this folder, the product

from equations import as_mathml  # noqa: E402
from parts import PARTS, excerpts  # noqa: E402

# Section -> its folder, and the pages that come first, in this order; index.md before all.
SECTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "How to": ("how-to", ("own-data.md", "own-weights.md", "extending.md", "client.md", "predictions.md", "reports.md",
                          "watching.md", "looking-after.md", "lab-server.md", "keys.md", "several-machines.md",
                          "offline.md", "troubleshooting.md")),
    "Reference": ("reference", ("experiments.md", "api.md", "commands.md", "settings.md", "attacks.md", "suites.md",
                                "diagnostics.md", "architectures.md")),
    "Explanation": ("explanation", ("evaluation.md", "masking.md", "spiking-attacks.md", "the-study.md",
                                    "as-published.md", "nothing-is-lost.md")),
    "Results": ("results", ()),
    "Decisions": ("decisions", ()),
}
FIRST = ("index.md", "tutorial.md")
NEWEST_FIRST = ("results",)
PLACE = re.compile(r"^<!-- from the code: (?P<name>[a-z0-9-]+) -->$", re.MULTILINE)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Lays out the navigation from the files that are there."""
    config["nav"] = navigation(Path(config["docs_dir"]))
    return config


def navigation(docs: Path) -> list[Any]:
    """MkDocs' `nav`. A page at the top that is none of FIRST goes to the explanations."""
    nav: list[Any] = [name for name in FIRST if (docs / name).exists()]
    for title, (folder, first) in SECTIONS.items():
        rest = sorted((p.name for p in (docs / folder).glob("*.md")), reverse=folder in NEWEST_FIRST)
        ordered = dict.fromkeys([n for n in ("index.md", *first) if n in rest] + rest)
        pages = [f"{folder}/{name}" for name in ordered]
        if title == "Explanation":
            pages += sorted(p.name for p in docs.glob("*.md") if p.name not in FIRST)
        nav.append({title: pages})
    return nav


def on_page_markdown(markdown: str, page: Any, config: MkDocsConfig, files: Any) -> str:
    """Puts what is written from the code into its places."""

    def written(place: re.Match[str]) -> str:
        name = place["name"]
        if name in ("results", "decisions"):
            return excerpts(Path(config["docs_dir"]) / name, newest_first=name in NEWEST_FIRST)
        if name not in PARTS:
            raise PluginError(f"{page.file.src_uri}: nothing is called {name!r}; there are {', '.join(sorted(PARTS))}")
        return PARTS[name]()

    return PLACE.sub(written, markdown)


def on_page_content(html: str, page: Any, config: MkDocsConfig, files: Any) -> str:
    """Equations as MathML, which browsers draw themselves."""
    return as_mathml(html, where=page.file.src_uri)

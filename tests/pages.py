"""The README and the pages of the documentation, as tests read them."""

from __future__ import annotations

import re
import types
from pathlib import Path
from typing import Any, Final

REPOSITORY: Final = Path(__file__).parents[1]

PAGES: Final = {
    path.relative_to(REPOSITORY).as_posix(): path.read_text("utf-8")
    for path in (
        *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
        *sorted((REPOSITORY / "docs").rglob("*.md")),
    )
}


def blocks(page: str, language: str) -> list[str]:
    """Return the blocks of a language, whether or not they have a caption."""
    text = PAGES[page]
    pattern = rf"^```(?:{language}|\{{code-block\}} {language}(?:\n:[^\n]*)*)\n(.*?)^```$"
    return re.findall(pattern, text, re.DOTALL | re.MULTILINE)


def block_with(page: str, words: str) -> str:
    """Return the one block of Python on a page that has these words."""
    (block,) = (block for block in blocks(page, "python") if words in block)
    return block


def table(page: str, first_column: str) -> list[list[str]]:
    """Return the rows of the table whose first column has this title."""
    lines = iter(PAGES[page].splitlines())
    for line in lines:
        if line.startswith(f"| {first_column} |"):
            break
    next(lines)
    rows: list[list[str]] = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return rows


def names_in(cell: str) -> list[str]:
    """Return what is written as code in a cell."""
    return re.findall(r"`([^`]+)`", cell)


def loaded(source: str, names: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run the source as a module that has these names already, and return its names."""
    module = types.ModuleType("example")
    module.__dict__.update(names or {})
    exec(compile(source, "an example", "exec"), module.__dict__)
    return module.__dict__

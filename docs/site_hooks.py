"""Hooks of mkdocs: the README is the start page; links out of docs/ become links to the source, or plain text."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"(?<!!)\[([^]]*)\]\(([^()\s]+)\)")
_CODE = re.compile(r"(^ *```.*?^ *```)", re.MULTILINE | re.DOTALL)
_SOURCE = os.environ.get("VACANCY_SOURCE_URL", "").rstrip("/")
"""Where the repository can be read, such as https://host/vacancy/blob/main; empty: nowhere that is known."""


def on_files(files: Files, config: Any) -> Files:
    """Adds the start page."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "index.md", content=outside(text, ROOT)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Changes the links of a page that lead out of docs/."""
    del config, files
    if page.file.src_uri == "index.md":
        return markdown
    return outside(markdown, (ROOT / "docs" / page.file.src_uri).parent)


def outside(markdown: str, folder: Path) -> str:
    """A page of that folder with links that work in the site."""

    def changed(match: re.Match[str]) -> str:
        text, link = match.groups()
        if re.match(r"[a-z]+:|#", link):
            return match[0]
        path, hash_, anchor = link.partition("#")
        target = (folder / path).resolve()
        docs = ROOT / "docs"
        if target.is_relative_to(docs) and target != docs:
            if target.is_dir():
                target /= "README.md"
            base = docs if folder == ROOT else folder
            return f"[{text}]({os.path.relpath(target, base)}{hash_}{anchor})"
        if target == ROOT / "README.md":
            return f"[{text}]({os.path.relpath(docs / 'index.md', folder)}{hash_}{anchor})"
        return f"[{text}]({_SOURCE}/{target.relative_to(ROOT)})" if _SOURCE else text

    parts = _CODE.split(markdown)
    parts[::2] = [_LINK.sub(changed, part) for part in parts[::2]]
    text = "".join(parts)
    return text.replace("](docs/", "](") if folder == ROOT else text  # pictures

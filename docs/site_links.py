"""A hook of mkdocs: what a page links to outside docs/ is named on the site, not linked.

The repository shows such links; the pages may stand on any server, and know no address of it.
"""

import posixpath
import re
from typing import Any


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """The page's text, without links that lead out of its folder."""
    folder = posixpath.dirname(page.file.src_uri)

    def named(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link[2]))
        return link[1] if target.startswith("../") else link[0]

    return re.sub(r"\[([^]]+)\]\(([^)\s:]+)\)", named, markdown)

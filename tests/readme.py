"""README.md from nbs/index.ipynb, without Quarto: `python tests/readme.py` writes it."""
import re
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parent.parent


def readme() -> str:
    "The index notebook as GitHub markdown: hidden cells gone, code fenced as python, outputs as plain text."
    nb = nbformat.read(ROOT / "nbs" / "index.ipynb", as_version=4)
    nb.cells = [c for c in nb.cells if not re.search(r"(?m)^#\|\s*hide\s*$", c.source)]
    for cell in nb.cells:
        if "#| echo: false" in cell.source:  # what it says, not how
            cell.metadata["transient"] = {"remove_source": True}
        for output in cell.get("outputs", []):
            if "text/plain" in output.get("data", {}):
                output.data.pop("text/html", None)
    nb.metadata["language_info"] = {"name": "python"}
    text, _ = MarkdownExporter().from_notebook_node(nb)
    # an indented block outside a fence is an output
    text = re.sub(r"(?ms)(^```.*?^```$)|^((?: {4}[^\n]*\n|\n)+)", lambda m: m[1] or plain(m[2]), text)
    # the README stands a folder higher than the index
    text = re.sub(r"\]\((?=[\w/]+\.(?:ipynb|png)\))", "](nbs/", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def plain(block: str) -> str:
    "An indented block as a fence that GitHub does not colour."
    lines = [l[4:].rstrip() for l in block.strip("\n").splitlines()]
    return "\n```text\n" + "\n".join(lines) + "\n```\n\n" if any(lines) else block


if __name__ == "__main__":
    (ROOT / "README.md").write_text(readme(), encoding="utf-8")

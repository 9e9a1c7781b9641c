"""README.md from nbs/index.ipynb, without Quarto: `python tests/readme.py` writes it."""
import re
import tempfile
from pathlib import Path

from nbconvert import MarkdownExporter
from nbdev.processors import *  # noqa: F401,F403  (the processors nbdev registers)
from nbdev.process import NBProcessor

ROOT = Path(__file__).resolve().parent.parent


def readme() -> str:
    "The index notebook as GitHub markdown: hidden cells gone, code fences in python, outputs as text."
    from execnb.nbio import read_nb
    import nbformat

    nb = read_nb(ROOT / "nbs" / "index.ipynb")
    nb.cells = [c for c in nb.cells if not re.search(r"(?m)^#\|\s*hide\s*$", c.source)]
    for c in nb.cells:
        c.source = re.sub(r"(?m)^#\|.*\n?", "", c.source)
    with tempfile.TemporaryDirectory() as d:
        path = Path(d) / "index.ipynb"
        from execnb.nbio import write_nb
        write_nb(nb, path)
        text, _ = MarkdownExporter().from_notebook_node(nbformat.read(path, as_version=4))
    text = re.sub(r"(?m)^```ipython3$|^```(?=\n(?:from|import|sim|tweets))", "```python", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


if __name__ == "__main__":
    (ROOT / "README.md").write_text(readme(), encoding="utf-8")

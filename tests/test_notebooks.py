"""Notebooks as a newcomer runs them: in a Jupyter kernel, from the folder they lie in; and again, with the same outputs."""
import base64
import copy
import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest
import warm

ROOT = Path(__file__).resolve().parent.parent
code, text = nbformat.v4.new_code_cell, nbformat.v4.new_markdown_cell


def rerun(folder: Path, name: str) -> subprocess.CompletedProcess:
    "What `make notebooks` does, for one notebook of a folder."
    script = str(ROOT / "tests" / "rerun.py")
    return warm.run(f"import runpy, sys; sys.argv[0] = {script!r}; runpy.run_path({script!r}, run_name='__main__')", folder, name, cwd=folder.parent, timeout=200)


@pytest.fixture
def nbs(tmp_path):
    "A folder of notebooks of its own, with the settings that nbdev_clean wants."
    shutil.copy(ROOT / "settings.ini", tmp_path)
    (tmp_path / "nbs").mkdir()
    return tmp_path / "nbs"


def outputs(path: Path) -> list:
    return [c.get("outputs") for c in nbformat.read(path, 4).cells if c.cell_type == "code"]


def test_the_same_outputs_again(nbs):
    "Twice the same bytes, pictures too; a cell that is not evaluated keeps its output, one that fell silent does not."
    old = [nbformat.v4.new_output("stream", text="measured once\n")]
    cells = [code("import numpy as np, matplotlib.pyplot as plt\nfrom behaviour_sim.core import plot_style, seed_everything"),
             code("rng = seed_everything(1)\nrng.normal(size=3).round(3)"), code("plot_style()\nplt.plot(rng.normal(size=20).cumsum());"),
             code("#| eval: false\nraise SystemExit", outputs=old), code("x = 1", outputs=copy.deepcopy(old)), text("Words.")]
    path = nbs / "00_small.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}}), path)
    done = rerun(nbs, "00_small")
    assert done.returncode == 0, done.stderr
    first, (_, array, figure, kept, silent) = path.read_bytes(), outputs(path)
    assert "array" in array[0].data["text/plain"] and len(base64.b64decode(figure[0].data["image/png"])) > 2000
    assert "measured once" in kept[0].text and silent == []
    assert rerun(nbs, "00_small").returncode == 0 and path.read_bytes() == first


def test_an_error_stops_it_and_leaves_the_file(nbs):
    path = nbs / "00_small.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[code("1/0")]), path)
    before = path.read_bytes()
    done = rerun(nbs, "00_small")
    assert done.returncode != 0 and "ZeroDivisionError" in done.stderr and path.read_bytes() == before


@pytest.mark.parametrize("name", ["31_manifest", "50_prompts"])
def test_what_is_stored_is_what_comes_out(nbs, name):
    "The stored words of a notebook are those of a fresh run. Pictures differ between machines and are not compared."
    nb = nbformat.read(next((ROOT / "nbs").rglob(f"{name}.ipynb")), 4)
    nb.cells.pop()                                          # it exports, and there is nowhere to
    nbformat.write(nb, nbs / f"{name}.ipynb")
    done = rerun(nbs, name)
    assert done.returncode == 0, done.stderr
    words = lambda o: [(x.get("text"), x.get("data", {}).get("text/plain")) for x in o]
    assert [words(o) for o in outputs(nbs / f"{name}.ipynb")] == [words(c.get("outputs")) for c in nb.cells if c.cell_type == "code"]


def test_in_a_jupyter_kernel():
    "Restart and run all, as JupyterLab does it: a kernel of its own whose folder is `nbs`."
    from nbclient import NotebookClient
    nb = nbformat.read(ROOT / "nbs" / "00_core.ipynb", 4)
    assert "nbdev_export" in nb.cells.pop().source
    stored = copy.deepcopy(nb)
    NotebookClient(nb, timeout=120, kernel_name=nb.metadata.kernelspec.name, resources={"metadata": {"path": str(ROOT / "nbs")}}).execute()
    ran = [c for c in nb.cells if c.cell_type == "code"]
    assert all(c.execution_count for c in ran) and not [o for c in ran for o in c.outputs if o.output_type == "error"]
    assert not [c.source for c, old in zip(ran, (c for c in stored.cells if c.cell_type == "code")) if old.outputs and not c.outputs]

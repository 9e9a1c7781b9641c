"""The cells of every notebook run, each notebook in a process of its own, by the rules of nbdev_test about which cells to skip."""
import json
import os
import subprocess
from pathlib import Path

import pytest
import warm
from changed import ROOT, dependents, notebooks
from conftest import unit

# The frame around a notebook: nbdev's own `test_nb`, called as `nbdev_test` calls it
RUN = """import sys; from pathlib import Path
from nbdev.config import get_config
from nbdev.test import test_nb
config = get_config(path=sys.argv[2])
sys.exit(not test_nb(Path(sys.argv[1]), skip_flags=config.tst_flags.split(), basepath=config.config_path)[0])"""


def run(path: Path, root: Path = ROOT) -> subprocess.CompletedProcess:
    "Run the cells of a notebook."
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    return warm.run(RUN, path, root, cwd=path.parent, env=env, timeout=900)


@pytest.mark.parametrize("path", notebooks(), ids=lambda p: p.stem)
def test_cells(path):
    done = run(path)
    assert done.returncode == 0, (done.stderr or done.stdout)[-6000:]


def notebook(place: Path, name: str, *cells: str) -> Path:
    "A notebook in a project of its own."
    path = place/"nbs"/f"{name}.ipynb"
    path.parent.mkdir(exist_ok=True)
    (place/"settings.ini").write_text((ROOT/"settings.ini").read_text(encoding="utf-8"), encoding="utf-8")
    cell = lambda s, i: dict(cell_type="code", id=f"c{i}", metadata={}, execution_count=None, outputs=[], source=s)
    meta = dict(kernelspec=dict(name="python3", display_name="python3", language="python"))
    path.write_text(json.dumps(dict(nbformat=4, nbformat_minor=5, metadata=meta, cells=[cell(s, i) for i, s in enumerate(cells)])), encoding="utf-8")
    return path


def test_a_failing_cell_fails_and_is_shown(tmp_path):
    done = run(notebook(tmp_path, "00_a", "x = 1", "#| hide\nassert x == 2, 'two was expected'"), tmp_path)
    assert done.returncode != 0 and "two was expected" in done.stderr


def test_which_cells_are_skipped(tmp_path):
    "Those that say `eval: false` or carry the flag of the settings, and the one that exports."
    cells = "#| eval: false\n1/0", "#| notest\n1/0", "import nbdev; nbdev.nbdev_export(1/0)", "#| export\nx = 1", "#| hide\nassert x == 1"
    assert run(notebook(tmp_path, "00_a", *cells), tmp_path).returncode == 0


def test_what_a_change_concerns(tmp_path):
    "The notebook itself and those that import from it, through others too."
    notebook(tmp_path, "00_a", "#| default_exp a"), notebook(tmp_path, "01_b", "#| default_exp b\nfrom behaviour_sim.a import x")
    notebook(tmp_path, "02_c", "def f():\n    from behaviour_sim.b import y"), notebook(tmp_path, "03_d", "#| default_exp d")
    concerned = lambda name: {p.stem for p in dependents({tmp_path/"nbs"/f"{name}.ipynb"}, tmp_path)}
    assert concerned("00_a") == {"00_a", "01_b", "02_c"} and concerned("02_c") == {"02_c"} and concerned("03_d") == {"03_d"}


def test_a_notebook_runs_in_a_process_of_its_own(tmp_path):
    "Forked with the heavy libraries imported, the package not; what one leaves behind, in memory or the environment, no other sees."
    cells = ("import os, sys\nassert not [m for m in sys.modules if m.startswith('behaviour_sim')]", "assert 'MARK' not in os.environ and not hasattr(sys, 'mark')",
             "os.environ['MARK'] = '1'; sys.mark = 1")
    path = notebook(tmp_path, "00_a", *cells)
    for _ in range(2):
        done = run(path, tmp_path)
        assert done.returncode == 0, done.stderr


def test_what_goes_to_one_process():
    "A file of tests with its fixtures, or one notebook."
    assert {unit(f"tests/test_splits.py::{t}") for t in ("test_a", "test_b[x::y]", "test_c[a@b]")} == {"test_splits"}
    assert unit("tests/test_cells.py::test_cells[86_app]") == "86_app"
    assert unit("tests/test_cells.py::test_which_cells_are_skipped") == "test_cells"

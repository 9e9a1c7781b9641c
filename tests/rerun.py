"""Run notebooks again in place, with nbdev_test's rules about which cells to skip, and clean them: `python tests/rerun.py nbs [name …]`."""
import os
import re
import subprocess
import sys
from pathlib import Path

from execnb.nbio import read_nb, write_nb
from execnb.shell import CaptureShell

SKIP = re.compile(r"(?m)^\s*#\|\s*eval:\s*false")


def rerun(path: Path) -> None:
    "Execute the cells of a notebook from first to last and store their outputs; stop at the first error."
    nb, here = read_nb(path), Path.cwd()
    for cell in nb.cells:  # a cell that falls silent must not keep what it said before
        if cell.cell_type == "code" and not SKIP.search(cell.source):
            cell["outputs"] = []
    os.chdir(path.parent)
    try:
        shell = CaptureShell(path=".", mpl_format="png")
        shell.run_all(nb, exc_stop=True, preproc=lambda c: c.cell_type != "code" or bool(SKIP.search(c.source)))
    finally:
        os.chdir(here)
    write_nb(nb, path)
    subprocess.run([str(Path(sys.executable).with_name("nbdev_clean")), "--fname", str(path)], check=True)


if __name__ == "__main__":
    root, names = Path(sys.argv[1]).resolve(), sys.argv[2:]
    for path in sorted(root.rglob("*.ipynb")):
        if path.name.startswith("_") or ".ipynb_checkpoints" in path.parts or (names and path.stem not in names):
            continue
        print(path.relative_to(root), flush=True)
        # a process for each: one notebook's imports and seeds are not the next one's
        if len(names) == 1:
            rerun(path)
        else:
            subprocess.run([sys.executable, __file__, str(root), path.stem], check=True)

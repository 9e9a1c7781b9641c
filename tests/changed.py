"""Which notebooks a change concerns: those that differ from the branch `main`, and those that import from them."""
import json
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IMPORT = re.compile(r"(?m)^\s*(?:from|import)\s+behaviour_sim\.([\w.]+)")


def notebooks(root: Path = ROOT) -> list:
    "The notebooks of the project, in the order of their numbers."
    return sorted(p for p in (root/"nbs").rglob("*.ipynb") if not any(x.startswith((".", "_")) for x in p.relative_to(root).parts))


def code(path: Path) -> str:
    "The code cells of a notebook as one text."
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")


def dependents(changed: set, root: Path = ROOT) -> set:
    "The changed notebooks and all that import from them, directly or through others."
    sources = {p: code(p) for p in notebooks(root)}
    module = {m[1]: p for p, s in sources.items() if (m := re.search(r"#\|\s*default_exp\s+(\S+)", s))}
    needs = {p: {module[m] for m in IMPORT.findall(s) if m in module} for p, s in sources.items()}
    found, new = set(), {p for p in sources if p in changed}
    while new:
        found |= new
        new = {p for p, n in needs.items() if n & new} - found
    return found


def changed(root: Path = ROOT) -> set:
    "The notebooks that differ from `main`, committed or not; against the last commit where there is no `main`."
    git = lambda *a: subprocess.run(["git", *a], cwd=root, capture_output=True, text=True).stdout.splitlines()
    base = next((b for b in ("main", "origin/main") if git("rev-parse", "--verify", "--quiet", b)), "HEAD")
    start = (git("merge-base", base, "HEAD") or ["HEAD"])[0]
    names = git("diff", "--name-only", start, "--", "nbs") + git("ls-files", "--others", "--exclude-standard", "nbs")
    return {root/n for n in names if n.endswith(".ipynb")}

"""The site, without Quarto: `python tests/docs.py` renders `nbs/` to `_docs/` and refuses a site with a broken link.

nbdev processes the notebooks (`nbdev_proc_nbs`: doclinks, `show_doc`), this script puts them under the names that
doclinks point to, and smalldocs renders them. The same notebooks and `_quarto.yml` are what `nbdev_docs` gives to Quarto.
`python tests/docs.py --check DIR` judges a site that is there."""
import argparse
import ast
import json
import multiprocessing
import os
import posixpath
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import warnings
import zlib
from functools import lru_cache
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import yaml

ROOT = Path(__file__).resolve().parent.parent
KATEX = re.compile(r"https://cdn\.jsdelivr\.net/npm/katex@[\d.]+/dist/(?:contrib/)?")
# A folder of nbs/: its name in the sidebar, and what happens in it. The notebooks beside index.ipynb are the core.
FOLDERS = {
    "tutorials": ("Tutorials", "Whole tasks from beginning to end."),
    "pages": ("Results", "What was measured on real tweets, each figure with the command that makes it."),
    "": ("Core", "Seeds, devices, atomic writes, caches, safe HTML, the names that `import behaviour_sim` offers, presets, model directories, opening pictures, storing vectors, reading and writing tables, and the keys by which names and ids are compared."),
    "1_corpus": ("Corpus", "Synthetic tweets of invented brands, their drawn pictures, and likes from a known process."),
    "2_data": ("Data", "Posts of any export are read, validated, cleaned, split and explored."),
    "3_features": ("Features", "Media are downloaded; text and pictures become vectors, captions and a feature table; habits are found that go with more likes."),
    "4_likes": ("Likes", "Regressors and account history become `LikesSimulator`, with intervals and explanations."),
    "5_text": ("Text", "A language model and a retriever become `ContentSimulator`, which writes tweets; with the likes simulator it plans a week."),
    "6_images": ("Images", "A Stable Diffusion XL LoRA learns how the pictures of a brand look, and becomes `ImageSimulator`, which draws new ones."),
    "7_scale": ("Scale", "The same jobs on Ray, and trees that read from disk."),
    "8_apps": ("Apps", "The report of a run, the page for drafts, the reproduced report of Team 83, and the command line."),
    "9_bench": ("Benchmarks", "Quality and speed are measured; no other notebook imports these."),
}


# ---- which page stands where

def notebooks(folder: Path) -> list[Path]:
    "The notebooks below a folder, relative to it, in the order of their numbers."
    found = (p.relative_to(folder) for p in folder.rglob("*.ipynb"))
    return sorted(p for p in found if not any(part[0] in "._" for part in p.parts))


def page_of(path: Path) -> Path:
    "The name nbdev gives a page: 2_data/20_tweets.ipynb is 2_data/tweets.ipynb."
    return path.with_name(re.sub(r"^\d+[a-zA-Z0-9]*_", "", path.name.lower()))


def module_of(page: str) -> str:
    "The module that a page documents: 2_data/tweets is data.tweets."
    return ".".join(re.sub(r"^\d+_", "", part) for part in page.split("/"))


def folder_of(path: Path) -> str:
    "The key of a notebook's folder in FOLDERS; a new folder needs a line there."
    folder = path.parent.as_posix().removeprefix(".")
    if folder not in FOLDERS:
        raise SystemExit(f"nbs/{folder} has no name and sentence in FOLDERS of tests/docs.py")
    return folder


def sidebar(paths: list[Path]) -> list:
    "The sidebar in Quarto's form: the front page, then a section for each folder, in the order of FOLDERS."
    core = lambda p: len(p.parts) > 1 or re.match(r"\d", p.name)
    top, rest = [p for p in paths if not core(p)], [p for p in paths if core(p)]
    inside = {f: [p.as_posix() for p in rest if folder_of(p) == f] for f in FOLDERS}
    return [p.as_posix() for p in top] + [dict(section=FOLDERS[f][0], contents=c) for f, c in inside.items() if c]


def sidebar_yml(contents: list) -> str:
    "The text of sidebar.yml."
    return yaml.safe_dump({"website": {"sidebar": {"contents": contents}}}, sort_keys=False, allow_unicode=True)


# ---- from processed notebooks to what smalldocs renders

def symbols() -> dict[str, dict[str, str]]:
    "For every page its names and their places: {'2_data/tweets': {'read_tweets': '2_data/tweets.html#read_tweets'}}."
    text = (ROOT / "behaviour_sim" / "_modidx.py").read_text(encoding="utf-8")
    index = ast.literal_eval(text[text.index("{"):])["syms"]
    found = {}
    for module, names in index.items():
        for name, (at, _) in names.items():
            found.setdefault(at.partition(".html")[0], {})[name.removeprefix(module + ".")] = at
    return found


def page_id(page: Path) -> str:
    "A page's path without its ending."
    return page.with_suffix("").as_posix()


def text_of(cell: dict) -> str:
    return "".join(cell["source"])


class Stage:
    "The processed notebooks on their way to the renderer."

    def __init__(self, proc: Path, to: Path):
        self.proc, self.to = proc, to
        self.pages = {p: page_of(p) for p in notebooks(proc)}
        twice = [p for p in self.pages if sum(page_of(p) == q for q in self.pages.values()) > 1]
        if twice:
            raise SystemExit(f"two notebooks make one page: {', '.join(map(str, twice))}")
        config = yaml.safe_load((proc / "nbdev.yml").read_text(encoding="utf-8"))["website"]
        self.home, self.symbols = config["site-url"].rstrip("/") + "/", symbols()
        self.nbs = {p: json.loads((proc / p).read_text(encoding="utf-8")) for p in self.pages}
        self.docs = {n: d for m, places in self.symbols.items() for n, _, d in documented(m, places)}
        shown = lambda nb: {n for c in nb["cells"] for n in re.findall(r"(?m)^show_doc\(([\w.]+)", text_of(c))}
        self.shown = {page_id(self.pages[p]): shown(nb) for p, nb in self.nbs.items()}

    def run(self) -> None:
        "Write all of it."
        for src, page in self.pages.items():
            (self.to / page).parent.mkdir(parents=True, exist_ok=True)
            (self.to / page).write_text(json.dumps(self.notebook(self.nbs[src], page)), encoding="utf-8")
        for name in ("_quarto.yml", "nbdev.yml", "styles.css", "favicon.svg"):
            shutil.copy(self.proc / name, self.to / name)
        if (ROOT / "nbs" / "images").is_dir():
            shutil.copytree(ROOT / "nbs" / "images", self.to / "images")
        contents = sidebar(list(self.pages))
        (self.to / "api.md").write_text(self.api(contents), encoding="utf-8")
        renamed = [dict(c, contents=[page_of(Path(p)).as_posix() for p in c["contents"]]) if isinstance(c, dict) else c for c in contents]
        top = [c for c in renamed if isinstance(c, str)]
        (self.to / "sidebar.yml").write_text(sidebar_yml([*top, "api.md", *renamed[len(top):]]), encoding="utf-8")

    def notebook(self, nb: dict, page: Path) -> dict:
        "One notebook: its links relative, its figures with alt text and caption."
        cells = nb["cells"]
        front = next(c for c in cells if c["cell_type"] == "raw")
        front["source"] = re.sub(r"(?m)^output-file:.*\n", "", text_of(front))
        known = self.known(nb, page)
        cells[:] = in_order(cells, self.places_of(page_id(page)))
        for cell in cells:
            if cell["cell_type"] == "markdown":
                cell["source"] = self.links(text_of(cell), page, known)
            for output in cell.get("outputs", []):
                data = output.get("data", {})
                if "text/html" in data:
                    data["text/html"] = scoped(align("".join(data["text/html"])))
                if "text/markdown" in data:
                    text = self.links("".join(data["text/markdown"]), page, known)
                    data["text/markdown"] = text if SHOWN.search(text_of(cell)) else without_headings(text)
        describe_figures(cells, self.docs)
        return nb

    def places_of(self, page: str) -> dict[str, int]:
        "The line of every definition of a page's module, by its name."
        return {d.name: d.line for d in definitions(page)} if page in self.symbols else {}

    def known(self, nb: dict, page: Path) -> set[str]:
        "The names a notebook defines or imports."
        code = "\n".join(text_of(c) for c in nb["cells"] if c["cell_type"] == "code")
        # Processing drops the cells that only import, so they are read from the source
        for src, p in self.pages.items():
            if p == page and (ROOT / "nbs" / src).exists():
                raw = json.loads((ROOT / "nbs" / src).read_text(encoding="utf-8"))
                code += "\n".join(text_of(c) for c in raw["cells"] if c["cell_type"] == "code")
        imported = re.findall(r"(?m)^\s*from\s+behaviour_sim[\w.]*\s+import\s+\(?([^)\n]*(?:\([^)]*\))?)", code)
        return {*self.symbols.get(page_id(page), ()), *re.findall(r"\w+", " ".join(imported))}

    def links(self, text: str, page: Path, known: set[str]) -> str:
        "Links to the site itself made relative, and to notebooks by the names of their pages."
        here = page.parent.as_posix()

        def doclink(m: re.Match) -> str:
            # nbdev links every code word that some module exports. A plain word such as `caption` is as often a column:
            # it stays a link only where its notebook knows the name.
            word, (target, _, anchor) = m[1], m[2].partition(".html#")
            place = self.place(target, anchor)
            if not place or (re.fullmatch(r"[a-z]+", word) and word not in known):
                return f"`{word}`"
            return f"[`{word}`]({posixpath.relpath(target, here)}.ipynb#{place})"

        def relative(m: re.Match) -> str:
            target = posixpath.normpath(posixpath.join(here, m[1]))
            renamed = self.pages.get(Path(target))
            return f"]({posixpath.relpath(renamed.as_posix(), here)}" if renamed else m[0]

        link = rf"\[`([^`\]]+)`\]\({re.escape(self.home)}([\w/]+\.html#[^)\s]+)\)"
        # inside a fence a link would be shown as it is written
        text = re.sub(r"(?ms)^```.*?^```", lambda m: re.sub(link, r"`\1`", m[0]), text)
        text = re.sub(link, doclink, text)
        text = text.replace(f"]({self.home}", "](/")
        return re.sub(r"\]\((?![a-z]+:|/|#)([^)#\s]+\.ipynb)", relative, text)

    def place(self, page: str, anchor: str) -> str:
        "Where a name is shown on its page: at its own heading, else at that of its class, else nowhere."
        headings = {n.lower() for n in self.shown.get(page, ())}
        return next((a for a in (anchor, anchor.rpartition(".")[0]) if a in headings), "")

    def api(self, contents: list) -> str:
        "A page that lists every public name, classes with their methods, each with its signature."
        lines = ["---", "title: API reference", "description: Every public name, by module; classes with their methods.", "---", ""]
        sentences = dict(FOLDERS.values())
        for group in (c for c in contents if isinstance(c, dict)):
            pages = [p for p in (page_id(page_of(Path(c))) for c in group["contents"]) if p in self.symbols]
            found = {p: [d for d in definitions(p) if d.public and self.place(p, d.name.lower())] for p in pages}
            if any(found.values()):
                lines += [f"## {group['section']}", "", sentences[group["section"]], ""]
            for page in (p for p in pages if found[p]):
                module = module_of(page)
                lines += [f"### [{module}]({page}.ipynb) {{#module-{module.replace('.', '-')}}}", ""]
                lines += [line for d in found[page] for line in self.entry(page, d)]
        return "\n".join(lines)

    def entry(self, page: str, d: "Definition") -> list[str]:
        "A name of the API page: a link to where it is shown, the first line of its docstring, its signature."
        link = f"[`{d.name}`]({page}.ipynb#{self.place(page, d.name.lower())})"
        doc = cell_text(d.doc)
        code = ["```python", d.signature, "```", ""] if d.signature else []
        return [f"{link}{': ' if doc else ''}{doc}", "", *code]


class Definition(NamedTuple):
    "A function, a class or a method of a module."
    name: str       # With its class, such as LikesSimulator.fit
    line: int       # In the module
    doc: str        # First line of the docstring
    signature: str  # As it is written, with the comment behind each parameter; '' for a class without parameters
    public: bool    # Nothing in its name begins with an underscore


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@lru_cache
def definitions(page: str) -> list[Definition]:
    "The functions and classes of a page's module, and after each class its methods, in the order of the source."
    source = (ROOT / "behaviour_sim" / (module_of(page).replace(".", "/") + ".py")).read_text(encoding="utf-8")
    lines, found = source.splitlines(), {}

    def add(node: ast.AST, name: str, signature: str) -> None:
        doc = (ast.get_docstring(node) or "").split("\n")[0]
        found[name] = Definition(name, node.lineno, doc, signature, not any(p.startswith("_") for p in name.split(".")))

    for node in ast.parse(source).body:
        if isinstance(node, FUNCTIONS):
            owner = patched(node)
            add(node, f"{owner}.{node.name}" if owner else node.name, header(node, lines, bool(owner)))
        elif isinstance(node, ast.ClassDef):
            methods = [n for n in node.body if isinstance(n, FUNCTIONS)]
            first = next((header(n, lines, True).replace("def __init__", node.name, 1) for n in methods if n.name == "__init__"), "")
            add(node, node.name, first or fields(node, lines))
            for n in methods:
                kinds = {ast.unparse(d) for d in n.decorator_list}
                add(n, f"{node.name}.{n.name}", "" if "property" in kinds else header(n, lines, "staticmethod" not in kinds))
    return list(found.values())


def patched(node: ast.FunctionDef) -> str:
    "The class that `@patch` gives a function to, or ''."
    if not any(ast.unparse(d).startswith("patch") for d in node.decorator_list) or not node.args.args:
        return ""
    given = node.args.args[0].annotation
    return ast.unparse(given) if given is not None else ""


def header(node: ast.FunctionDef, lines: list[str], method: bool) -> str:
    "The lines of a function before its body; of a method without `self`."
    start, first = node.lineno - 1, node.body[0]
    if first.lineno - 1 > start:
        part = lines[start:first.lineno - 1]
    else:
        part = [lines[start].encode()[:first.col_offset].decode().rstrip()]
    text = re.sub(r"\n\s*\n", "\n", textwrap.dedent("\n".join(part)).rstrip())
    return re.sub(r"\((?:self|cls)(?::\s*\w+)?,?[ ]*", "(", text, count=1) if method else text


def fields(node: ast.ClassDef, lines: list[str]) -> str:
    "The fields of a dataclass, as they are written."
    own = [n for n in node.body if isinstance(n, ast.AnnAssign)]
    if not own or not any(ast.unparse(d).startswith("dataclass") for d in node.decorator_list):
        return ""
    return "\n".join([lines[node.lineno - 1], *lines[own[0].lineno - 1:own[-1].end_lineno]])


def documented(page: str, places: dict[str, str]) -> list[tuple[str, str, str]]:
    "The public functions and classes of a page's module, in its order: name, place, first line of the docstring."
    return [(d.name, places[d.name], d.doc) for d in definitions(page) if d.public and d.name in places and "." not in d.name]


SHOWN = re.compile(r"(?m)^show_doc\(([\w.]+)")
SOURCE = '#| code-summary: "Exported source"'


def in_order(cells: list[dict], lines: dict[str, int]) -> list[dict]:
    "Cells, those that show several definitions of one source cell in the order of the source, and above it; nbdev turns it round."
    out, run = [], []
    for cell in [*cells, None]:
        if cell is not None and cell["cell_type"] == "code" and (SHOWN.search(text_of(cell)) or SOURCE in text_of(cell)):
            run.append(cell)
            continue
        out += arranged(run, lines)
        run = []
        out += [cell] if cell is not None else []
    return out


def arranged(run: list[dict], lines: dict[str, int]) -> list[dict]:
    "Cells that show definitions, or source code, by line; a source cell follows the last definition in it."
    shown = [SHOWN.search(text_of(c)) for c in run]
    at, keys = {m[1]: lines.get(m[1], 0) for m in shown if m}, []
    for cell, m in zip(run, shown):
        inside = set(re.findall(r"(?m)^\s*(?:async )?(?:def|class) (\w+)", text_of(cell)))
        before = keys[-1][0] if keys else 0
        keys.append((at[m[1]], 0) if m else (max((l for n, l in at.items() if n.rpartition(".")[2] in inside), default=before), 1))
    return [run[i] for i in sorted(range(len(run)), key=keys.__getitem__)]


def without_headings(text: str) -> str:
    "An output's Markdown with its headings as bold lines: they are no part of the page's outline."
    parts = re.split(r"(?ms)(^```.*?^```)", text)
    return "".join(p if i % 2 else re.sub(r"(?m)^#{1,6}[ \t]+(.+?)[ \t]*#*$", r"**\1**", p) for i, p in enumerate(parts))


def cell_text(doc: str) -> str:
    "A docstring's line as a cell of a Markdown table."
    return re.sub(r"([|<*\[\]])", r"\\\1", doc)


TITLE = re.compile(r"""(?:set_title|suptitle|\.title)\(\s*f?(['"])(.+?)\1|\btitle\s*=\s*f?(['"])(.+?)\3""")
CAPTION = re.compile(r"\A\*(?!\*)((?:[^*\n]|\n(?!\n))+)\*(?=\s*(?:\n\n|\Z)|\s+\S)")


def plain(text: str) -> str:
    "Markdown as plain text."
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return re.sub(r"\s+", " ", re.sub(r"[`*]|^#+ |^> ", "", text, flags=re.M)).strip()


def describe_figures(cells: list[dict], docs: dict[str, str]) -> None:
    """Give every picture an alt text, and the line in italics below it as its caption.

    A cell may say `#| fig-alt:` and `#| fig-cap:` itself; Quarto reads those too. Otherwise the alt text is the
    figure's title, which states its finding, else what the function that drew it says of itself, else a sentence nearby."""
    before, heading = "", ""
    for i, cell in enumerate(cells):
        source = text_of(cell)
        if cell["cell_type"] == "markdown":
            for line in re.findall(r"(?m)^#+ (.+)$", source):
                heading = plain(line)
            paragraphs = [plain(p) for p in re.split(r"\n\s*\n", source) if not re.match(r"\s*(#|\||```|<!--|\$\$)", p)]
            before = paragraphs[-1] if paragraphs and paragraphs[-1] else heading
            continue
        if not any(k.startswith("image/") for o in cell.get("outputs", []) for k in o.get("data", {})):
            continue
        options = "\n".join(re.findall(r"(?m)^#\|.*$", source))
        added = []
        caption = ""
        after = cells[i + 1] if i + 1 < len(cells) else None
        if "fig-cap" not in options and after and after["cell_type"] == "markdown":
            m = CAPTION.match(text_of(after))
            if m and "$" not in m[1] and not m[1].endswith(":"):
                caption = plain(m[1])
                after["source"] = text_of(after)[m.end():].lstrip()
                added.append(f"#| fig-cap: {json.dumps(caption, ensure_ascii=False)}")
        if "fig-alt" not in options:
            said = [re.sub(r"\{[^}]*\}", "…", t[1] or t[3]) for t in TITLE.findall(source) if "\\" not in t[1] + t[3]]
            said = said or [docs[n] for n in re.findall(r"\b(?:plot|draw)_\w+", source) if docs.get(n)]
            scenes = re.search(r"show_scenes\(([^)]*)\)", source)
            said = said or (["Drawn scenes: " + ", ".join(re.findall(r"'(\w+)'", scenes[1]))] if scenes else [])
            alt = ". ".join(dict.fromkeys(x.rstrip(".") for x in said)) or re.split(r"(?<=[.?!])\s", caption or before or heading or "A figure")[0]
            added.append(f"#| fig-alt: {json.dumps(alt[:400], ensure_ascii=False)}")
        cell["source"] = "\n".join([*added, source])


NUMBER = re.compile(r"[-+−±]?[\d.,]*\d(?:e[-+]?\d+)?(?:\s?[%×]|[kMG])?|[-+]?(?:nan|inf)|NaN|NaT|None|—|-|", re.I)


def align(text: str) -> str:
    "A data frame's HTML with its columns of numbers marked, to stand right-aligned; pandas aligns text and numbers alike."
    text = re.sub(r"<style scoped>.*?</style>\s*", "", text, flags=re.S)
    # the name of the index gets no row of its own, but the head's empty corner
    text = re.sub(r"<th></th>((?:(?!</tr>).)*</tr>)\s*<tr>\s*<th>([^<]+)</th>(?:\s*<th></th>)+\s*</tr>(?=\s*</thead>)", r"<th>\2</th>\1", text, flags=re.S)

    def table(m: re.Match) -> str:
        if "colspan" in m[0] or "rowspan" in m[0]:
            return m[0]
        rows = re.findall(r"<tr.*?</tr>", m[0], flags=re.S)
        cells = [re.findall(r"<(t[hd])[^>]*>(.*?)</t[hd]>", r, flags=re.S) for r in rows]
        body = [c for c in cells if any(tag == "td" for tag, _ in c)]
        width = max(map(len, body), default=0)
        column = lambda k: [c[k] for c in body if k < len(c)]
        right = {k for k in range(width) if all(tag == "td" and NUMBER.fullmatch(x.strip()) for tag, x in column(k)) and any(x.strip() for _, x in column(k))}

        def row(r: re.Match) -> str:
            k = iter(range(width + 1))
            marked = re.sub(r"<(t[hd])(?=[ >])", lambda c: f'<{c[1]} class="n"' if next(k, -1) in right else c[0], r[0])
            return re.sub(r"<(t[hd])>(?=\d{4}-\d\d-\d\d)", r'<\1 class="d">', marked)
        return re.sub(r"<tr.*?</tr>", row, m[0], flags=re.S)
    return re.sub(r"<table[^>]*dataframe.*?</table>", table, text, flags=re.S)


def scoped(text: str) -> str:
    "An output's HTML with its own style sheet, if it has one, held to that output; it would restyle the whole page."
    if "<style" not in text:
        return text
    name = f"own-{zlib.crc32(text.encode()):x}"

    def style(m: re.Match) -> str:
        rules = re.sub(r"(?<![-\w.#])(?::root|html|body)(?=\s*[,{])", "&", m[1])
        return f"<style>.{name} {{ {rules} }}</style>"
    return f'<div class="{name}">' + re.sub(r"<style[^>]*>(.*?)</style>", style, text, flags=re.S) + "</div>"


# ---- rendering

def processed(told: Path) -> None:
    "In a process of its own: nbdev's work, one notebook after the other; what it prints goes to a file."
    with open(told, "w") as f:
        for fd in (1, 2): os.dup2(f.fileno(), fd)
    os.environ.update(OMP_NUM_THREADS="1", BEHAVIOUR_SIM_QUIET="1")
    warnings.simplefilter("ignore")
    os.chdir(ROOT)
    from nbdev import serve, serve_drv
    from nbdev.quarto import refresh_quarto_yml
    one, before = serve_drv.main, dict(os.environ)

    def main(o):
        try: one(o)
        finally: # what a notebook changes of the process is not the next one's
            os.chdir(ROOT)
            os.environ.clear(); os.environ.update(before)

    serve_drv.main = main
    refresh_quarto_yml()
    serve.proc_nbs(n_workers=0)


def process() -> Path:
    "Process the notebooks with nbdev; only those that changed."
    with tempfile.TemporaryDirectory() as tmp:
        told = Path(tmp) / "told"
        child = multiprocessing.get_context("fork").Process(target=processed, args=(told,))
        child.start(); child.join()
        if child.exitcode:
            raise SystemExit(f"nbdev could not process the notebooks:\n{told.read_text()[-4000:]}")
    proc = ROOT / "_proc"
    for gone in {*notebooks(proc)} - {*notebooks(ROOT / "nbs")}:
        (proc / gone).unlink()
    return proc


def render(stage: Path) -> Path:
    "Render a staged folder with smalldocs, and bring in what it would load from the web."
    from smalldocs.site import build
    site = build(stage, quiet=True)
    for warning in site.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    out = site.out
    shutil.copytree(ROOT / "nbs" / "_katex", out / "site_libs" / "katex")
    for theme in (out / "site_libs" / "themes").rglob("*.css"):
        theme.write_text(re.sub(r"@import url\(https?:[^)]*\);", "", theme.read_text(encoding="utf-8")), encoding="utf-8")
    for page in out.rglob("*.html"):
        offset = posixpath.relpath(".", page.parent.relative_to(out).as_posix())
        text = KATEX.sub(f"{offset}/site_libs/katex/", page.read_text(encoding="utf-8"))
        page.write_text(text, encoding="utf-8")
    (out / ".nojekyll").touch()
    return out


# ---- judging

class Page(HTMLParser):
    "What a page refers to, and what can be referred to in it."

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.ids, self.links, self.loads, self.no_alt, self.pictures = set(), [], [], 0, 0
        self.open_link, self.nested, self.verbatim, self.raw, self.titles = "", [], 0, [], 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        self.verbatim += tag in ("pre", "code", "script", "style")
        self.titles += tag == "h1"
        self.ids.update(filter(None, (a.get("id"), a.get("name") if tag == "a" else None)))
        if tag == "a" and a.get("href") is not None:
            self.links.append(a["href"])
            self.nested += [self.open_link] if self.open_link else []
            self.open_link = a["href"]
        if tag == "link" and not {"canonical", "alternate"} & set((a.get("rel") or "").split()):
            self.loads.append(a.get("href") or "")
        if tag in ("img", "script", "iframe", "source", "video", "audio", "embed") and a.get("src"):
            self.loads.append(a["src"])
        if tag == "img":
            self.pictures += 1
            self.no_alt += not (a.get("alt") or "").strip()

    def handle_endtag(self, tag):
        self.verbatim -= tag in ("pre", "code", "script", "style")
        if tag == "a":
            self.open_link = ""

    def handle_data(self, data):
        if "](" in data and not self.verbatim:
            self.raw.append(data[data.index("]("):][:60])


def faults(site: Path, home: str = "") -> tuple[list[str], dict[str, int]]:
    "Every link to nowhere, everything loaded from the web and every picture without words, and how much was looked at."
    pages = {p: Page(p.read_text(encoding="utf-8")) for p in sorted(site.rglob("*.html"))}
    found, n = [], dict(pages=len(pages), links=0, pictures=0)

    def look(at: Path, where: str, url: str, load: bool) -> None:
        n["links"] += 1
        parts = urlsplit(url)
        if parts.scheme in ("data", "mailto", "javascript", "blob"):
            return
        if parts.scheme or parts.netloc:
            if load:
                found.append(f"{where}: loads {url[:100]} from the web")
            elif home and url.startswith(home):
                found.append(f"{where}: {url} is a page of this site and should be a relative link")
            return
        target = (site / parts.path.lstrip("/") if parts.path.startswith("/") else at.parent / unquote(parts.path)).resolve() if parts.path else at
        if target.is_dir():
            target /= "index.html"
        if not target.is_relative_to(site) or not target.is_file():
            found.append(f"{where}: {url} leads nowhere")
        elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
            found.append(f"{where}: {url} has no such place on its page")

    for path, page in pages.items():
        where = path.relative_to(site).as_posix()
        for url in page.links:
            look(path, where, url, False)
        for url in page.loads:
            look(path, where, url, True)
        n["pictures"] += page.pictures
        found += [f"{where}: the link to {url} holds another link" for url in page.nested]
        found += [f"{where}: a link inside a link, shown as it is written: {said!r}" for said in page.raw]
        if page.titles > 1:
            found.append(f"{where}: {page.titles} headings of the first order; one of them is in an output")
        if page.no_alt:
            found.append(f"{where}: {page.no_alt} picture(s) without alt text")
    for path in sorted(site.rglob("*.css")):
        where = path.relative_to(site).as_posix()
        text = re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.S)
        for url in re.findall(r"""(?:@import\s+|url\(\s*)['"]?([^'")\s]+)""", text):
            look(path, where, url.partition("url(")[2] or url, True)
    search = site / "search.json"
    for entry in json.loads(search.read_text(encoding="utf-8")) if search.exists() else []:
        look(search, "search.json", entry["href"], False)
    return list(dict.fromkeys(found)), n


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "_docs", help="where the site goes (default _docs)")
    parser.add_argument("--check", type=Path, metavar="DIR", help="judge the site in DIR and build nothing")
    args = parser.parse_args()
    if args.check:
        return report(args.check.resolve(), "")
    with tempfile.TemporaryDirectory(prefix=".docs-", dir=args.out.resolve().parent) as tmp:
        stage = Stage(process(), Path(tmp) / "stage")
        stage.to.mkdir()
        stage.run()
        site = render(stage.to).resolve()
        if report(site, stage.home):
            return 1
        shutil.rmtree(args.out, ignore_errors=True)
        shutil.move(site, args.out)
    if args.out == ROOT / "_docs":
        # for Quarto, which nbdev gives this file when custom_sidebar is on
        (ROOT / "nbs" / "sidebar.yml").write_text(sidebar_yml(sidebar(notebooks(ROOT / "nbs"))), encoding="utf-8")
    print(f"open {os.path.relpath(args.out / 'index.html')}")
    return 0


def report(site: Path, home: str) -> int:
    "Print what is wrong with a site, or that nothing is."
    found, n = faults(site, home)
    for fault in found:
        print(fault, file=sys.stderr)
    print(f"{n['pages']} pages, {n['links']} links, {n['pictures']} pictures, {len(found)} fault(s)")
    return 1 if found or not n["pages"] else 0


if __name__ == "__main__":
    sys.exit(main())

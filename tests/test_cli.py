"""The command line as a person meets it: exit codes, one line on stderr, files that are whole or absent."""
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import warm
from commands import refused, told

from behaviour_sim.corpus.synthetic import account_profiles, sample_tweets
from behaviour_sim.data.tweets import write_tweets


def call(*args, cwd=None, **env):
    "The same in a process, where all that a library writes is on stderr too."
    p = warm.run('from behaviour_sim.apps.cli import main; main()', *args, cwd=cwd, env={**os.environ, **env})
    return p.returncode, p.stdout, p.stderr


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    "A folder with known.csv, new.csv and the model m."
    d, t = tmp_path_factory.mktemp('cli'), sample_tweets(420)
    write_tweets(t.iloc[:320], d/'known.csv')
    write_tweets(t.iloc[320:], d/'new.csv')
    code, out, err = call('fit', 'known.csv', '--model', 'm', '--preset', 'tiny', cwd=d)
    assert (code, err) == (0, ''), err
    return d


def test_help_is_light():
    code, out, err = call('--help')
    assert code == 0 and all(c in out for c in ('run', 'fit', 'predict', 'evaluate', 'explain', 'what-if'))
    loaded = "import sys; from behaviour_sim.apps import cli; print([m for m in ('torch', 'pandas', 'lightgbm', 'matplotlib') if m in sys.modules])"
    assert subprocess.run([sys.executable, '-c', loaded], capture_output=True, text=True).stdout.strip() == '[]'


def commands():
    "Name → what click makes of it, for every command."
    import typer
    from behaviour_sim.apps.cli import app
    return typer.main.get_command(app).commands


@pytest.mark.parametrize('command', commands())
def test_every_command_has_help_with_an_example(command):
    "The example calls this very command, with options that it has and all that it needs."
    from typer.testing import CliRunner
    from behaviour_sim.apps.cli import app
    done = CliRunner().invoke(app, [command, '--help'], env=dict(COLUMNS='200', TERMINAL_WIDTH='200'))
    assert done.exit_code == 0
    words = re.search(r'Example: behaviour-sim (.+)', done.output)[1].split()
    options = {o: p for p in commands()[command].params for o in p.opts if o.startswith('--')}
    used = {w for w in words if w.startswith('--')}
    assert words[0] == command and used <= set(options), used - set(options)
    assert {o for o, p in options.items() if p.required} <= used
    assert all(p.help for p in options.values()), 'an option says nothing of itself'


def test_the_shell_completes():
    "What bash asks, and is told: the commands, then the options of one; and the lines that set it up."
    script = Path(sys.executable).with_name('behaviour-sim')
    if not script.is_file(): pytest.skip('the console script is not installed (make setup)')
    def ask(line, **env): return subprocess.run([script], env={**os.environ, '_BEHAVIOUR_SIM_COMPLETE': 'complete_bash', 'COMP_WORDS': line, 'COMP_CWORD': str(line.count(' ')), **env}, capture_output=True, text=True, timeout=120)
    assert ask('behaviour-sim ').stdout.split() == list(commands())
    assert set(ask('behaviour-sim fit').stdout.split()) == {c for c in commands() if c.startswith('fit')}
    assert {'--model', '--out'} <= set(ask('behaviour-sim predict --').stdout.split())
    done = subprocess.run([script, '--show-completion', 'bash'], capture_output=True, text=True, timeout=120, env={**os.environ, '_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION': '1'})
    assert done.returncode == 0 and 'complete -o default -F _behaviour_sim_completion behaviour-sim' in done.stdout


def test_long_work_shows_a_bar_to_a_person_only(place):
    "On a terminal; not in a file, and not when BEHAVIOUR_SIM_QUIET says so."
    import fcntl, pty, select, struct, termios
    def told(**env):
        a, b = pty.openpty()
        fcntl.ioctl(b, termios.TIOCSWINSZ, struct.pack('4H', 24, 80, 0, 0))
        subprocess.run([sys.executable, '-c', 'from behaviour_sim.core import progress\nfor x in progress(range(3), "fitting"): pass'], stderr=b, env={**os.environ, 'TERM': 'xterm', **env}, timeout=120, check=True)
        said = os.read(a, 10_000).decode() if select.select([a], [], [], 1)[0] else ''
        os.close(a), os.close(b)
        return said
    assert 'fitting' in told(BEHAVIOUR_SIM_QUIET='') and told(BEHAVIOUR_SIM_QUIET='1') == ''
    err = call('predict', 'new.csv', '--model', 'm', '--out', 'bar.csv', cwd=place, BEHAVIOUR_SIM_QUIET='')[2]
    assert all('never seen' in l for l in err.splitlines()) and '%' not in err and '\r' not in err


@pytest.mark.parametrize('args', [['nonsense'], ['fit'], ['fit', 'x.csv'], ['fit', 'x.csv', '--model'], ['predict', 'x.csv', '--model', 'm'], ['run', '--n', 'many'], ['run', '--n', '5'], ['evaluate', '--nonsense', 'x']])
def test_bad_usage(args, tmp_path): refused(told(*args, cwd=tmp_path))


@pytest.mark.parametrize('command', [['fit', 'none.csv', '--model', 'other'], ['predict', 'none.csv', '--model', 'm', '--out', 'p.csv'], ['evaluate', 'none.csv', '--model', 'm']])
def test_a_file_that_is_not_there(place, command):
    for ask in (call, told): refused(ask(*command, cwd=place), 'none.csv')


BROKEN = {'no-likes': lambda t: t.drop(columns='likes'), 'no-account': lambda t: t.drop(columns='username'), 'negative': lambda t: t.assign(likes=-1),
    'bad-date': lambda t: t.assign(date='soon'), 'twice': lambda t: t.assign(id=1), 'empty': lambda t: t.iloc[:0]}


@pytest.mark.parametrize('name', BROKEN)
def test_bad_input_leaves_nothing_behind(place, name):
    BROKEN[name](pd.read_csv(place/'known.csv', keep_default_na=False)).to_csv(place/f'{name}.csv', index=False)
    before = sorted(p.name for p in place.iterdir())
    refused(told('fit', f'{name}.csv', '--model', 'other', cwd=place), name)
    assert sorted(p.name for p in place.iterdir()) == before


def test_models_that_cannot_be_used(place, tmp_path):
    refused(told('predict', 'new.csv', '--model', 'none', '--out', 'p.csv', cwd=place), 'none')
    (tmp_path/'model.json').write_text('{}')
    refused(told('predict', 'new.csv', '--model', tmp_path, '--out', 'p.csv', cwd=place))
    (tmp_path/'full').mkdir(); (tmp_path/'full'/'holiday.jpg').write_text('x')
    refused(told('fit', 'known.csv', '--model', tmp_path/'full', '--preset', 'tiny', cwd=place), 'something else')
    refused(told('fit', 'known.csv', '--model', 'x', '--preset', 'huge', cwd=place), 'huge')
    refused(told('fit', 'known.csv', '--model', 'x', '--preset', 'tiny', '--effort', 'huge', cwd=place), 'quick, default, best')
    assert not (place/'p.csv').exists() and not (place/'x').exists()


def test_predictions_keep_ids_and_order(place):
    code, out, err = call('predict', 'new.csv', '--model', 'm', '--out', 'p.csv', cwd=place)
    assert code == 0 and all('never seen' in l for l in err.splitlines()), err
    p, t = pd.read_csv(place/'p.csv'), pd.read_csv(place/'new.csv')
    assert list(p) == ['id', 'likes', 'lower', 'upper', 'case'] and (p['id'] == t['id']).all()
    assert (p['lower'] <= p['likes']).all() and (p['likes'] <= p['upper']).all()


def test_two_drafts_are_compared_and_many_ranked(place):
    code, out, err = told('compare', 'new.csv', '--model', 'm', '--ids', '321,322', cwd=place)
    back = told('compare', 'new.csv', '--model', 'm', '--ids', '322, 321', cwd=place)[1]
    shares = [dict(re.findall(r'│ (\d+) │ +[\d.,]+ │ +([\d.]+) │', o)) for o in (out, back)]
    assert code == 0 and shares[0] == shares[1] and set(shares[0]) == {'321', '322'}, (out, back)
    assert sum(map(float, shares[0].values())) == pytest.approx(1, abs=.002)
    refused(told('compare', 'new.csv', '--model', 'm', '--ids', '321', cwd=place), '--ids', '321')
    refused(told('compare', 'new.csv', '--model', 'm', '--ids', '321,nobody', cwd=place), 'nobody')
    assert told('rank', 'new.csv', '--model', 'm', '--out', 'order.csv', cwd=place)[0] == 0
    ranked, t = pd.read_csv(place/'order.csv'), pd.read_csv(place/'new.csv')
    assert list(ranked) == ['rank', 'id', 'likes', 'lower', 'upper', 'case', 'beats_next'] and set(ranked['id']) == set(t['id'])
    assert ranked['likes'].is_monotonic_decreasing and ranked['beats_next'][:-1].between(.5, 1).all()


@pytest.mark.parametrize('missing', [['content'], ['media'], ['likes'], ['content', 'media', 'likes', 'caption']])
def test_drafts_may_lack_columns(place, missing):
    t = pd.read_csv(place/'new.csv', keep_default_na=False).drop(columns=missing)
    t.to_csv(place/'draft.csv', index=False)
    code, _, err = told('predict', 'draft.csv', '--model', 'm', '--out', 'd.csv', cwd=place)
    assert code == 0 and all('never seen' in l for l in err.splitlines()), err
    assert len(pd.read_csv(place/'d.csv')) == len(t)


def test_hostile_ids_are_no_formulas(place):
    t = pd.read_csv(place/'new.csv', keep_default_na=False).iloc[:2].assign(id=['=1+1', '@SUM(1)'])
    t.to_csv(place/'hostile.csv', index=False)
    assert told('predict', 'hostile.csv', '--model', 'm', '--out', 'h.csv', cwd=place)[0] == 0
    assert pd.read_csv(place/'h.csv')['id'].tolist() == ["'=1+1", "'@SUM(1)"]


def test_evaluation_has_the_contract_s_figures(place):
    code, out, err = call('evaluate', 'new.csv', '--model', 'm', '--json', 'e.json', cwd=place)
    assert (code, err) == (0, '') and 'account_mean' in out and 'no post-publication features' in out
    e, keys = json.loads((place/'e.json').read_text()), {'n', 'rmse_log1p', 'mae_log1p', 'spearman', 'r2_log1p', 'rmse_likes', 'coverage_90'}
    assert keys <= set(e) and {'constant', 'company_mean', 'account_mean'} == set(e['baselines']) and all(keys <= set(b) for b in e['baselines'].values())
    p, t = (pd.read_csv(place/f) for f in ('p.csv', 'new.csv'))
    assert e['rmse_log1p'] == pytest.approx(np.sqrt(np.mean((np.log1p(p['likes']) - np.log1p(t['likes']))**2)), abs=1e-3)


def test_explain_and_what_if(place):
    id = pd.read_csv(place/'new.csv')['id'].iloc[3]
    code, out, err = call('explain', 'new.csv', '--model', 'm', '--id', id, cwd=place)
    assert (code, err) == (0, '') and all(g in out for g in ('account', 'time', 'text', 'image'))
    code, out, err = told('what-if', 'new.csv', '--model', 'm', '--id', id, '--set', 'hour=9', cwd=place)
    assert (code, err) == (0, '') and 'Best hours first' in out
    refused(told('explain', 'new.csv', '--model', 'm', '--id', 'nobody', cwd=place), 'nobody')
    refused(told('what-if', 'new.csv', '--model', 'm', '--id', id, '--set', 'hour=99', cwd=place), 'hour')
    refused(told('what-if', 'new.csv', '--model', 'm', '--id', id, '--set', 'likes=9', cwd=place), 'likes')


def test_captions_and_profiles_are_read(place):
    pd.read_csv(place/'known.csv')[['id', 'caption']].to_csv(place/'captions.csv', index=False)
    account_profiles().to_csv(place/'profiles.csv', index=False)
    code, _, err = told('fit', 'known.csv', '--model', 'm2', '--preset', 'tiny', '--effort', 'quick', '--captions', 'captions.csv', '--profiles', 'profiles.csv', '--post-publication', cwd=place)
    assert code == 0 and '320 of 320 tweets have a caption' in err and 'of 320 tweets are of accounts with a profile' in err and err.count('\n') == 2, err
    assert 'effort quick' in (place/'m2/MODEL_CARD.md').read_text(encoding='utf-8')
    assert 'with views' in told('evaluate', 'new.csv', '--model', 'm2', cwd=place)[1]
    refused(told('fit', 'known.csv', '--model', 'm3', '--profiles', 'captions.csv', cwd=place), 'username')


def test_the_whole_job(tmp_path):
    code, out, err = call('run', '--preset', 'tiny', '--n', 100, '--pictures', 2, '--out', 'r', cwd=tmp_path, BEHAVIOUR_SIM_QUIET='1')
    assert (code, err) == (0, '') and 'unseen_company' in out
    assert sorted(p.name for p in (tmp_path/'r').iterdir()) == ['generated.csv', 'images', 'index.html', 'metrics.json', 'model', 'predictions.csv']
    assert set(json.loads((tmp_path/'r'/'metrics.json').read_text())['splits']) == {'random', 'unseen_company', 'unseen_time', 'unseen_both'}


def test_the_whole_job_on_a_file_with_hostile_tweets(tmp_path, monkeypatch):
    monkeypatch.setenv('BEHAVIOUR_SIM_QUIET', '1')
    t = sample_tweets(100)
    t['content'] = '<script>alert(1)</script> \u202e' + t['content'].astype(str)
    write_tweets(t, tmp_path/'t.csv')
    code, _, err = told('run', '--preset', 'tiny', '--data', 't.csv', '--pictures', 2, '--out', 'r', cwd=tmp_path)
    assert (code, err) == (0, '')
    page = (tmp_path/'r'/'index.html').read_text()
    assert '<script' not in page and '\u202e' not in page and '&lt;script&gt;' in page


# --- What is replaced, and what is never written over ---

@pytest.fixture
def model(place, tmp_path):
    "A folder with the tables and a copy of the model m."
    for name in ('known.csv', 'new.csv'): shutil.copy(place/name, tmp_path)
    shutil.copytree(place/'m', tmp_path/'m')
    return tmp_path


def snapshot(folder): return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob('*') if p.is_file()}


def foreign(name):
    def make(folder): (folder/name).parent.mkdir(parents=True, exist_ok=True); (folder/name).write_text('mine')
    return make


STRANGE = {'a table': foreign('p.csv'), 'a hidden file': foreign('.notes'), 'a file in a part': foreign('new_company/thesis.txt'), 'a file in a folder of its own': foreign('photos/1.jpg'),
    'a link': lambda f: (f/'link').symlink_to(f.parent), 'a dangling link': lambda f: (f/'link').symlink_to('nowhere'),
    'the card of another program': lambda f: [shutil.rmtree(f), f.mkdir(), (f/'model.json').write_text('{"kind": "LikesSimulator", "layers": 3}'), foreign('weights.bin')(f)],
    'a card that is no JSON': lambda f: (f/'model.json').write_text('['*100_000), 'a card that is a list': lambda f: (f/'model.json').write_text('[1]'),
    'a content model': lambda f: (f/'model.json').write_text(json.dumps(json.loads((f/'model.json').read_text()) | dict(kind='ContentSimulator')))}


@pytest.mark.parametrize('name', STRANGE)
def test_fit_replaces_a_model_of_its_kind_only(model, name):
    "A directory with anything that the card does not name, or with another model, stays as it is; said before the work."
    STRANGE[name](model/'m')
    before = snapshot(model)
    refused(told('fit', 'known.csv', '--model', 'm', '--preset', 'tiny', cwd=model), 'm: ')
    assert snapshot(model) == before


@pytest.mark.parametrize('command', [('fit-content', 'known.csv', '--lm', 'none'), ('fit-image', 'known.csv')], ids=lambda c: c[0])
def test_another_kind_of_model_is_not_replaced(model, command):
    before = snapshot(model)
    refused(told(*command, '--model', 'm', cwd=model), 'another model')
    assert snapshot(model) == before


def test_a_whole_model_of_the_kind_is_replaced(model):
    "Also one of which a file is missing: to fit again is what the sentence about it tells the person to do."
    whole = snapshot(model)
    (model/'m'/'MODEL_CARD.md').unlink()
    assert told('fit', 'known.csv', '--model', 'm', '--preset', 'tiny', cwd=model)[0] == 0
    assert snapshot(model) == whole


def test_a_model_that_cannot_be_moved_into_place_leaves_the_old_one(model, monkeypatch):
    from behaviour_sim.apps.cli import _loaded
    from behaviour_sim.apps.terminal import _save_model
    sim, whole, move = _loaded(model/'m'), snapshot(model), Path.rename
    def fails(self, target):
        if self.name == 'model': raise OSError(28, 'No space left on device')
        return move(self, target)
    monkeypatch.setattr(Path, 'rename', fails)
    with pytest.raises(OSError): _save_model(sim, model/'m')
    assert snapshot(model) == whole


@pytest.mark.parametrize('command', [('predict', 'new.csv', '--model', 'm', '--out', 'new.csv'), ('predict', 'new.csv', '--model', 'm', '--out', 'm/p.csv'), ('predict', 'new.csv', '--model', 'm', '--out', 'link.csv'),
    ('predict', 'new.csv', '--model', 'm', '--captions', 'known.csv', '--out', './m/../known.csv'), ('evaluate', 'new.csv', '--model', 'm', '--json', 'new.csv'), ('evaluate', 'new.csv', '--model', 'm', '--json', 'm/model.json'),
    ('score-text', 'known.csv', 'new.csv', '--json', 'known.csv'), ('download', 'results.csv', '--out', '.'), ('run', '--data', 'predictions.csv', '--out', '.')], ids=' '.join)
def test_no_output_is_an_input(model, command):
    os.link(model/'new.csv', model/'link.csv')
    for name in ('results.csv', 'predictions.csv'): shutil.copy(model/'known.csv', model/name)
    before = snapshot(model)
    refused(told(*command, cwd=model))
    assert snapshot(model) == before


# --- The machine ---

def test_a_terminal_of_ascii_will_do(model):
    "Accents, an emoji and the dash of an empty cell are spelled out where the encoding lacks them."
    shutil.copy(model/'new.csv', model/'café ☕.csv')
    def ask(*args):
        env = {**os.environ, 'PYTHONIOENCODING': 'ascii', 'PYTHONUTF8': '1'}
        code = 'from behaviour_sim.apps.cli import main; main()'
        done = subprocess.run([sys.executable, '-c', code, *args], cwd=model, env=env, capture_output=True, timeout=300)
        return done.returncode, done.stdout.decode('ascii'), done.stderr.decode('ascii')
    assert ask('predict', 'café ☕.csv', '--model', 'm', '--out', 'né ☕.csv')[:2] == (0, 'n\\xe9 \\u2615.csv: 100 predictions\n')
    assert (model/'né ☕.csv').is_file()
    code, out, err = ask('predict', 'né.csv', '--model', 'm', '--out', 'p.csv')
    assert (code, out) == (2, '') and 'n\\xe9.csv' in err


@pytest.mark.parametrize('encoding, dash', [('ascii', '-'), ('utf-8', '–')])
def test_a_table_in_any_encoding(encoding, dash, monkeypatch):
    from behaviour_sim.apps.terminal import _print_table, _write_anything
    raw = io.BytesIO()
    monkeypatch.setattr(sys, 'stdout', io.TextIOWrapper(raw, encoding=encoding))
    _write_anything(), _print_table(pd.DataFrame(dict(model=['café'], spearman=[np.nan])), 'two — tables'), sys.stdout.flush()
    said = raw.getvalue().decode(encoding)
    assert dash in said.splitlines()[-2] and ('caf\\xe9' if encoding == 'ascii' else 'café') in said


def test_a_home_that_cannot_be_written_names_the_variable(model):
    "Said with the name of the variable that helps, and helped by it and by XDG_CACHE_HOME."
    (model/'home').write_text('a file')
    without = dict(HOME=str(model/'home'), BEHAVIOUR_SIM_CACHE='', XDG_CACHE_HOME='')
    predict = 'predict', 'known.csv', '--model', 'm', '--out', 'p.csv'
    code, _, err = call(*predict, cwd=model, **without)
    assert code == 0 and 'BEHAVIOUR_SIM_CACHE' in err and err.count('\n') == 1
    code, _, err = call(*predict, cwd=model, **{**without, 'XDG_CACHE_HOME': str(model/'xdg')})
    assert (code, err) == (0, '') and any((model/'xdg'/'behaviour_sim').rglob('*.vectors'))


#: In a process of its own: without the superuser's right to write anywhere, one command after the other, one model of the app
WITHOUT_CACHE = """
import ctypes, logging, os, sys, tempfile
from pathlib import Path
if os.geteuid() == 0 and sys.platform == 'linux': # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    head, data = (ctypes.c_uint32*2)(0x20080522, 0), (ctypes.c_uint32*6)()
    assert not ctypes.CDLL(None).capget(head, data)
    for i in (0, 1): data[i] &= ~6
    assert not ctypes.CDLL(None).capset(head, data)
from behaviour_sim.apps.cli import main
out = sys.argv[1]
for args in (['predict', 'pictured.csv', '--model', 'm', '--out', f'{out}.csv'], ['explain', 'new.csv', '--model', 'm', '--id', '321'], ['caption', 'pictures', '--out', f'{out}-said.csv', '--preset', 'tiny']):
    try: main(args)
    except SystemExit as e: assert not e.code, args
from behaviour_sim.features.manifest import _made_once
from behaviour_sim.core import cache_dir
for _ in range(2): print((_made_once(cache_dir('app')/'demo', lambda folder: (folder/'f').write_text('made'))/'f').read_text())
from behaviour_sim.text.simulator import ContentSimulator
print(Path(ContentSimulator.load('writer').adapter).is_relative_to(tempfile.gettempdir()))
"""


@pytest.fixture(scope='module')
def writer(place):
    "A content simulator with an adapter, which is unpacked into the cache; pictures; and a table that names one."
    from behaviour_sim.corpus.pictures import draw_picture
    from behaviour_sim.text.simulator import ContentSimulator
    ContentSimulator('tiny', 'tiny-bloom').fit(sample_tweets(120), minutes=None, steps=1, rows=20, quiet=True).save(place/'writer')
    (place/'pictures').mkdir()
    draw_picture('product', seed=1).save(place/'pictures'/'1.png')
    pd.read_csv(place/'new.csv').assign(image_path='pictures/1.png').head(9).to_csv(place/'pictured.csv', index=False)
    return place


@pytest.fixture(scope='module')
def usual(writer):
    "The predictions of the command with the cache of every day."
    p = warm.run(WITHOUT_CACHE.partition('for args')[0] + "main(['predict', 'pictured.csv', '--model', 'm', '--out', 'usual.csv'])", '', cwd=writer)
    assert p.returncode == 0, p.stderr
    return (writer/'usual.csv').read_bytes()


def kept(place, name, mode):
    "A cache that is there, with all that the commands need or with nothing, and can be read but not written to."
    folder = place/name
    folder.mkdir()
    if name == 'warm':
        p = warm.run(WITHOUT_CACHE, 'first', cwd=place, env={**os.environ, 'BEHAVIOUR_SIM_CACHE': str(folder)})
        assert p.returncode == 0, p.stderr
    for d in (*[d for d in folder.rglob('*') if d.is_dir()], folder): d.chmod(mode)
    return folder


CACHES = {'below a file': lambda d: d/'known.csv'/'cache', 'no file system': lambda d: '/proc/nothing/cache', 'read-only and empty': lambda d: kept(d, 'cold', 0o500), 'read-only and full': lambda d: kept(d, 'warm', 0o500)}


@pytest.mark.skipif(sys.platform != 'linux', reason='the superuser is held to what a folder permits by prctl')
@pytest.mark.parametrize('name', CACHES)
def test_without_a_cache_all_goes_on_with_one_warning(writer, usual, name):
    place = CACHES[name](writer)
    before = snapshot(Path(place)) if Path(place).is_dir() else None
    p = warm.run(WITHOUT_CACHE, name.replace(' ', '-'), cwd=writer, env={**os.environ, 'BEHAVIOUR_SIM_CACHE': str(place), 'TMPDIR': str(writer)})
    assert p.returncode == 0 and p.stdout.endswith('made\nmade\nTrue\n'), p.stderr
    assert p.stderr.count('BEHAVIOUR_SIM_CACHE') == 1 and 'Traceback' not in p.stderr, p.stderr
    assert len(pd.read_csv(writer/f"{name.replace(' ', '-')}-said.csv")) == 1
    assert (before is None or snapshot(Path(place)) == before) and not list(writer.glob('behaviour_sim-*'))
    assert usual == (writer/f"{name.replace(' ', '-')}.csv").read_bytes()


def test_what_is_written_keeps_to_the_umask(model):
    "A table and every file of a model, for a person who lets nobody read, and for one who lets all."
    pd.read_csv(model/'known.csv', keep_default_na=False).head(60).to_csv(model/'few.csv', index=False)
    before = os.umask(0o077)
    try:
        for mask in (0o077, 0o022):
            os.umask(mask)
            assert told('predict', 'known.csv', '--model', 'm', '--out', f'{mask}.csv', cwd=model)[0] == 0
            assert told('fit', 'few.csv', '--model', f'm{mask}', '--preset', 'light', cwd=model)[0] == 0
            modes = {p.stat().st_mode & 0o777 for p in [model/f'{mask}.csv', *(model/f'm{mask}').rglob('*')] if p.is_file()}
            assert modes == {0o666 & ~mask}, list(map(oct, modes))
    finally: os.umask(before)


@pytest.mark.parametrize('odd', ['\x1b[31mred', '\x1b]0;title\x07', '\u202egpj.exe', 'a\x9bz', '\u2066x', '\r overwritten'])
def test_the_terminal_is_not_obeyed(odd, tmp_path, capsys):
    "Names and cells with what a terminal obeys are spelled out, on both streams."
    from behaviour_sim.apps.terminal import _echo, _print_table
    refusal = told('predict', f'{odd}.csv', '--model', f'{odd}', '--out', 'p.csv', cwd=tmp_path)
    _echo(f'{odd}: done'); _print_table(pd.DataFrame({odd: [odd]}), odd)
    shown = capsys.readouterr().out + refusal[2]
    assert refusal[0] == 2 and not [c for c in '\x1b\x07\x9b\r\u202e\u2066' if c in shown]


# ---- pictures, captions, presets

def test_pictures_are_captioned_and_learned_from(tmp_path):
    "The captions are a table that `--captions` reads; `fit --images` counts what it finds and learns from it."
    from behaviour_sim.likes.simulator import LikesSimulator
    t = sample_tweets(60, image_dir=tmp_path/'drawn')
    (tmp_path/'pictures').mkdir()
    for id, p in zip(t['id'], t['image_path']):
        if p: shutil.copy(p, tmp_path/'pictures'/f'{id}{Path(p).suffix}')
    (tmp_path/'pictures'/'broken.png').write_bytes(b'no picture')
    write_tweets(t.drop(columns=['image_path', 'caption']), tmp_path/'t.csv')
    code, out, err = told('caption', 'pictures', '--out', 'c.csv', '--preset', 'tiny', cwd=tmp_path)
    c = pd.read_csv(tmp_path/'c.csv', dtype=str, keep_default_na=False)
    assert code == 0 and list(c) == ['id', 'caption'] and set(c['id']) == {*t['id'].astype(str)[t['image_path'] != ''], 'broken'}
    assert err == 'behaviour-sim: 1 pictures cannot be read and get no caption\n' and c.set_index('id')['caption']['broken'] == ''
    code, out, err = told('fit', 't.csv', '--images', 'pictures', '--captions', 'c.csv', '--model', 'm', '--preset', 'tiny', cwd=tmp_path)
    assert code == 0 and f"pictures of {(t['image_path'] != '').sum()} of 60 tweets" in err
    assert 'image.e' in LikesSimulator.load(tmp_path/'m').table.compressors
    refused(told('fit', 't.csv', '--images', 'nowhere', '--model', 'm2', '--preset', 'tiny', cwd=tmp_path), 'no such folder')
    refused(told('caption', 'nowhere', '--out', 'c2.csv', cwd=tmp_path), 'no picture')

@pytest.mark.parametrize('args,want', [(['--preset', 'paper'], ('bloom-7b1', 'report', dict(minutes=None, rows=None))), (['--preset', 'paper', '--minutes', '5'], ('bloom-7b1', 'report', dict(minutes=5., rows=None))),
    (['--preset', 'paper', '--lm', 'none'], (None, 'brief', {})), (['--preset', 'tiny'], ('tiny-bloom', 'brief', {})), ([], ('smollm2', 'brief', {}))])
def test_a_preset_reaches_the_language_model_its_prompt_and_its_limits(place, monkeypatch, args, want):
    from behaviour_sim.text.simulator import ContentSimulator
    seen = []
    def fit(self, tweets, captions=None, **limits): seen.append((self.lm, self.style, limits)); raise ValueError('enough')
    monkeypatch.setattr(ContentSimulator, 'fit', fit)
    assert told('fit-content', 'known.csv', '--model', 'w', *args, cwd=place)[0] == 1
    assert seen == [want]

"""Many processes on Ray give what one gives (vectors and indexes: `70_ray_data` and `71_ray_train`); one that is killed costs nothing; and trees from disk where memory is short."""
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import warm

from behaviour_sim.core import data_dir
from behaviour_sim.corpus.synthetic import sample_tweets
from behaviour_sim.data.tweets import read_tweets, write_tweets
from behaviour_sim.likes.evaluation import to_log1p
from behaviour_sim.features.table import TweetFeatures
from behaviour_sim.likes.regressors import XGBoostModel
from behaviour_sim.scale.ray_data import _cut_tweets, process_tweets, ray_session, read_shards
from behaviour_sim.scale.ray_train import fit_xgboost_on_ray

ray = pytest.importorskip('ray', reason="Ray is not installed: pip install 'behaviour_sim[scale]'")


@pytest.fixture(scope='module')
def tweets():
    "A few hundred real tweets, or embedded ones where there are none."
    d = data_dir()
    t = read_tweets(d/'behaviour_simulation_train.csv').sample(640, random_state=0) if d else sample_tweets(640)
    return t.reset_index(drop=True)


@pytest.fixture(scope='module')
def session(tmp_path_factory):
    "One Ray for all tests, with a cache of its own."
    before = os.environ.get('BEHAVIOUR_SIM_CACHE')
    os.environ['BEHAVIOUR_SIM_CACHE'] = str(tmp_path_factory.mktemp('cache'))
    with ray_session(cpus=2, memory=200 << 20) as r: yield r
    if before is None: os.environ.pop('BEHAVIOUR_SIM_CACHE')
    else: os.environ['BEHAVIOUR_SIM_CACHE'] = before


def test_the_same_model(session, tweets):
    "One worker grows the very trees of this process; that two agree in their error is shown in `71_ray_train`."
    X, _ = TweetFeatures('tiny').fit(tweets, quiet=True).transform(tweets, quiet=True)
    y = to_log1p(tweets['likes'])
    settings = dict(params=dict(objective='reg:squarederror', tree_method='hist', learning_rate=.1, max_depth=4), rounds=40)
    here = XGBoostModel(**settings).fit(X[:500], y[:500])
    assert np.sqrt(np.mean((here.predict(X[500:]) - y[500:])**2)) < np.std(y[500:])
    np.testing.assert_array_equal(fit_xgboost_on_ray(X[:500], y[:500], XGBoostModel(**settings), workers=1).predict(X), here.predict(X))


def workers_of(name):
    "Processes of Ray's actors of a class."
    found = subprocess.run(['ps', '-eo', 'pid,args'], capture_output=True, text=True).stdout.splitlines()
    return [int(line.split()[0]) for line in found if 'ray::' in line and name in line]


def test_a_worker_is_killed_in_the_middle(session, tweets, tmp_path):
    "The job ends, every tweet is there once, in its order, with the vectors of an undisturbed run; a further run does nothing."
    pieces = _cut_tweets(tweets, tmp_path/'pieces', 32)
    killed, end = [], threading.Event()
    def kill():
        while not end.is_set() and not killed:
            if any((tmp_path/'out').glob('*.parquet')) and (found := workers_of('EmbedTweets')):
                os.kill(found[0], signal.SIGKILL); killed.append(found[0])
            time.sleep(.02)
    murderer = threading.Thread(target=kill); murderer.start()
    try: told = process_tweets(pieces, tmp_path/'out', 'tiny', engine='ray', workers=1, quiet=True)
    finally: end.set(); murderer.join()
    assert killed, 'the job was over before a worker could be killed'
    assert told == dict(pieces=len(pieces), rows=len(tweets), found=0)
    shards = list((tmp_path/'out').iterdir())
    assert len(shards) == len(pieces) and not [p for p in shards if p.name.startswith('.')]
    table = read_shards(pieces, tmp_path/'out', 'tiny')
    assert table['id'].to_pylist() == tweets['id'].tolist()
    process_tweets(pieces[:4], tmp_path/'undisturbed', 'tiny', quiet=True)
    assert read_shards(pieces[:4], tmp_path/'undisturbed', 'tiny').equals(read_shards(pieces[:4], tmp_path/'out', 'tiny'))
    assert process_tweets(pieces, tmp_path/'out', 'tiny', engine='ray', quiet=True) == dict(pieces=len(pieces), rows=0, found=len(pieces))


def test_a_second_run_does_what_is_missing(session, tweets, tmp_path):
    pieces = _cut_tweets(tweets[:160], tmp_path/'pieces', 32)
    process_tweets(pieces, tmp_path/'out', 'tiny', quiet=True)
    shards = sorted((tmp_path/'out').iterdir())
    shards[0].unlink(); shards[1].write_bytes(shards[1].read_bytes()[:-1])
    kept = {p: p.stat().st_mtime_ns for p in shards[2:]}
    assert process_tweets(pieces, tmp_path/'out', 'tiny', engine='ray', workers=1, quiet=True) == dict(pieces=5, rows=64, found=3)
    assert {p: p.stat().st_mtime_ns for p in kept} == kept and sorted((tmp_path/'out').iterdir()) == shards


def call(*args, cwd, **env):
    p = warm.run('from behaviour_sim.apps.cli import main; main()', *args, cwd=cwd, env={**os.environ, **env}, timeout=300)
    return p.returncode, p.stdout, p.stderr


def test_the_command_line_names_the_engine(session, tmp_path):
    "The same predictions, from a cache that was empty."
    write_tweets(sample_tweets(160), tmp_path/'t.csv')
    assert call('fit', 't.csv', '--model', 'm', '--preset', 'tiny', cwd=tmp_path, BEHAVIOUR_SIM_CACHE='a')[0] == 0
    code, _, err = call('predict', 't.csv', '--model', 'm', '--out', 'far.csv', '--engine', 'ray', cwd=tmp_path, BEHAVIOUR_SIM_CACHE='b')
    assert code == 0 and 'Traceback' not in err and list((tmp_path/'b').rglob('*.vectors'))
    assert call('predict', 't.csv', '--model', 'm', '--out', 'near.csv', cwd=tmp_path, BEHAVIOUR_SIM_CACHE='a')[0] == 0
    assert (tmp_path/'far.csv').read_bytes() == (tmp_path/'near.csv').read_bytes()
    for wrong, words in ((['--engine', 'spark'], 'local, ray'), (['--address', '127.0.0.1:1'], '--engine ray')):
        code, out, err = call('predict', 't.csv', '--model', 'm', '--out', 'p.csv', *wrong, cwd=tmp_path)
        assert (code, out) == (2, '') and words in err and err.count('\n') == 1


OUT_OF_CORE = '''
import sys, resource
import numpy as np
from pathlib import Path
from behaviour_sim.scale.out_of_core import fit_parts, _read_part
from behaviour_sim.likes.regressors import XGBoostModel
import xgboost
paths = sorted(Path('parts').glob('*.npy'))
limit = int(sys.argv[2])
if limit: resource.setrlimit(resource.RLIMIT_DATA, (limit << 20,)*2)
model = XGBoostModel(params=dict(objective='reg:squarederror', tree_method='hist', learning_rate=.3, max_depth=3, max_bin=64), rounds=4, n_threads=1)
if sys.argv[1] == 'disk': model = fit_parts(paths, model, n_threads=1)
else:
    M, y = map(np.concatenate, zip(*map(_read_part, paths)))
    model = model.fit(M, y)
M, y = _read_part(Path('held.npy'))
print(np.sqrt(np.mean((model.predict(M) - y)**2)))
'''


@pytest.mark.skipif(sys.platform != 'linux', reason='limits of memory are set as Linux knows them')
def test_trees_from_disk_where_memory_is_short(tmp_path):
    "240 MiB of features under a limit of 560 MiB: from disk the error of a process without a limit, in memory no result."
    from behaviour_sim.scale.out_of_core import _write_part
    (tmp_path/'parts').mkdir()
    rng, d = np.random.default_rng(0), 200
    def rows(n):
        M = rng.normal(size=(n, d)).astype('float32')
        return M, 2*M[:, 0] + np.sin(3*M[:, 1]) + .3*rng.standard_normal(n)
    for i in range(20): _write_part(*rows(16_000), tmp_path/'parts'/f'{i:02}.npy')
    _write_part(*rows(2000), tmp_path/'held.npy')
    go = lambda *a: subprocess.run([sys.executable, '-c', OUT_OF_CORE, *map(str, a)], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    free, tight, full = go('memory', 0), go('disk', 560), go('memory', 560)
    assert free.returncode == 0 and tight.returncode == 0, free.stderr[-800:] + tight.stderr[-800:]
    assert abs(float(tight.stdout)/float(free.stdout) - 1) < .02
    assert full.returncode != 0 and ('MemoryError' in full.stderr or 'bad_alloc' in full.stderr or 'nable to allocate' in full.stderr), full.stderr[-800:]

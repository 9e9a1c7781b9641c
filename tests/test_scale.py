"""Many tweets: the whole job under a limit of memory, and the guards that make it possible.

The long form, 300,000 tweets under 4 GiB: BEHAVIOUR_SIM_SCALE=1 pytest -s tests/test_scale.py prints the peak of each stage"""
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pandas as pd
import pytest

from behaviour_sim.likes import new_company
from behaviour_sim.corpus.synthetic import sample_tweets
from behaviour_sim.likes.history import AccountHistory
from behaviour_sim.likes.known_account import _history_facts
from behaviour_sim.likes.simulator import LikesSimulator

JOB = '''
import resource, sys
n, limit = int(sys.argv[1]), int(float(sys.argv[2])*2**30)
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
from behaviour_sim.data.cleaning import clean_text
from behaviour_sim.corpus.synthetic import sample_tweets
from behaviour_sim.data.tweets import read_tweets, write_tweets
from behaviour_sim.features.embeddings import embed
from behaviour_sim.likes.simulator import LikesSimulator
from behaviour_sim.bench.peers import _measured
def stage(name, job):
    value, cost = _measured(job)
    print(name, cost['peak'], flush=True)
    return value
stage('writing', lambda: write_tweets(sample_tweets(n), 'tweets.parquet'))
tweets = stage('reading', lambda: read_tweets('tweets.parquet', need_likes=True))
vectors = stage('embedding', lambda: embed(clean_text(tweets['content']), 'tiny-distilbert', quiet=True))
assert vectors.shape == (n, 64)
del vectors
k = int(.9*n)
sim = stage('fitting', lambda: LikesSimulator('tiny').fit(tweets.iloc[:k], quiet=True))
result = stage('evaluating', lambda: sim.evaluate(tweets.iloc[k:], quiet=True))
stage('saving', lambda: sim.save('model'))
print(result['rmse_log1p'], result['baselines']['account_mean']['rmse_log1p'])
'''

def whole_job(n, gib, folder):
    "What counts is what is used: the allocators of Arrow and polars would set aside more than a GiB of addresses each, and keep what is free."
    env = os.environ | dict(BEHAVIOUR_SIM_CACHE=str(folder/'cache'), BEHAVIOUR_SIM_QUIET='1', OMP_NUM_THREADS='2', ARROW_DEFAULT_MEMORY_POOL='system',
        _RJEM_MALLOC_CONF='retain:false,dirty_decay_ms:0,muzzy_decay_ms:0')
    r = subprocess.run([sys.executable, '-c', JOB, str(n), str(gib)], cwd=folder, env=env, capture_output=True, text=True)
    assert r.returncode == 0, r.stderr[-2000:]
    *stages, errors = map(str.split, r.stdout.splitlines())
    peaks, (rmse, mean) = {name: float(peak) for name, peak in stages}, map(float, errors)
    print(*(f'{name}: {peak:.2f} GiB' for name, peak in peaks.items()), sep='\n')
    assert rmse < mean and len(peaks) == 6 and max(peaks.values()) < gib

@pytest.mark.skipif(sys.platform != 'linux', reason='limits of memory are set as Linux knows them')
def test_the_whole_job_under_a_limit(tmp_path): whole_job(6000, 1.5, tmp_path)

@pytest.mark.skipif(sys.platform != 'linux' or not os.environ.get('BEHAVIOUR_SIM_SCALE'), reason='the long form: BEHAVIOUR_SIM_SCALE=1')
def test_300_000_tweets_under_4_gib(tmp_path): whole_job(300_000, 4, tmp_path)

def peak(f):
    "The most memory that Python and numpy held during a call, in bytes."
    tracemalloc.start()
    try: f(); return tracemalloc.get_traced_memory()[1]
    finally: tracemalloc.stop()

def history(n, rng, y=True):
    return pd.DataFrame(dict(account='KiteCo', company='kite co', day=rng.uniform(0, 900, n), kind=0., tool=0., hour=rng.uniform(0, 24, n), y=rng.normal(5, 1, n) if y else np.nan))

def test_the_history_holds_a_bounded_matrix_at_a_time(monkeypatch):
    rng = np.random.default_rng(0)
    known, new = history(300, rng), history(6000, rng, False)
    past = AccountHistory().fit(known)
    whole = past.predict(new)
    monkeypatch.setattr(AccountHistory, 'cells', 50_000)
    parts = past.predict(new)
    for a, b in zip(whole, parts): np.testing.assert_allclose(a, b, rtol=1e-9)
    assert peak(lambda: past.predict(new)) < 30e6 # 300 × 6,000 numbers are 14 MB, and a dozen such matrices are at work

def test_a_company_has_a_memory_of_bounded_length():
    known = history(2600, np.random.default_rng(0))
    past = AccountHistory().fit(known)
    assert len(past.table) == AccountHistory.most == 2000 and past.table['day'].min() == known['day'].nlargest(2000).min()

def test_the_facts_of_an_account_do_not_compare_all_pairs():
    rng = np.random.default_rng(0)
    known, new = history(8000, rng), history(8000, rng, False)
    assert peak(lambda: _history_facts(new, known)) < 60e6 # all pairs would be 512 MB
    some = _history_facts(new.head(50), known)
    far = np.abs(new['day'].to_numpy()[:50, None] - known['day'].to_numpy()[None])
    np.testing.assert_allclose(some['account.nearest'], known['y'].to_numpy()[far.argmin(1)], rtol=1e-6)

def test_trees_grow_on_a_part_of_very_many_tweets(monkeypatch):
    "And the part is enough to be nearly as good."
    tweets = sample_tweets(800)
    known, new = tweets.iloc[:640], tweets.iloc[640:]
    full = LikesSimulator('tiny').fit(known, quiet=True).evaluate(new, quiet=True)
    seen = []
    monkeypatch.setattr(new_company._some_rows, '__defaults__', (260,))
    grow = new_company.LightGBMModel.fit
    monkeypatch.setattr(new_company.LightGBMModel, 'fit', lambda self, X, *a, **k: (seen.append(len(X)), grow(self, X, *a, **k))[1])
    part = LikesSimulator('tiny').fit(known, quiet=True)
    # five models of new companies with habits, five alone, four of new accounts; each tweet with and without text
    assert len(part.new_company.prior.with_text) == 640 and max(seen[:14]) <= 520
    assert part.evaluate(new, quiet=True)['rmse_log1p'] < full['rmse_log1p'] + .15

"""The table of speed: every row is there with its goal, both sides give the same result, and the figures are computed as said. Never the clock."""
import importlib
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from behaviour_sim.bench import growth, likes_quality, speed
from behaviour_sim.data.cleaning import CLEAN_STEPS, REPORT_STEPS, clean_text
from behaviour_sim.corpus.synthetic import sample_tweets
from behaviour_sim.features.embeddings import embed, _on_all_cores
from behaviour_sim.bench.growth import _apart, _exponent, measure_growth, _memory
from behaviour_sim.likes.neighbours import REPORT_FAISS, NeighbourModel, build_index, _loop_predict, _search_by_cell

ROOT = Path(__file__).resolve().parents[1]

@pytest.fixture(scope='module')
def tweets(): return sample_tweets(600)


# --- The table ---

@pytest.mark.parametrize('work', speed._GOALS)
def test_a_row_is_reached_from_its_goal_on(work):
    "The goal itself is reached, a ratio just below it is not; each is printed beside what it is held against."
    against, goal = speed._GOALS[work]
    for ratio, said in ((.99*goal, False), (goal, True)):
        row = speed._row(work, 1000, ratio, 'the same')
        assert row['reached'] is said and row['goal'] == goal
        cells = [c.strip() for c in speed._speed_markdown(pd.DataFrame([row]).set_index('work')).splitlines()[-1].strip('|').split('|')]
        assert cells == [work, '1,000', against, f'{ratio:.3g}']

def test_side_by_side_counts_the_share(monkeypatch):
    "The median of turns, each in proportion to the work that the reference did."
    took = iter([1., 2., 1., 4., 1., 30.])
    monkeypatch.setattr(growth, '_timed', lambda f: (next(took), f()))
    assert growth._side_by_side(lambda: 'a', lambda: 'b', share=.1, repeats=3) == (40., 'a', 'b')

def test_the_table_on_file_is_one_that_the_bench_makes(monkeypatch):
    "Every row of a full run, with the goals of today, reached where the ratio is at least the goal."
    monkeypatch.chdir(ROOT)
    rows = likes_quality._kept('speed', 'jobs')
    assert list(rows.index) == list(speed._GOALS)
    for work, (against, goal) in speed._GOALS.items():
        r = rows.loc[work]
        assert (r['against'], r['goal'], r['reached']) == (against, goal, r['ratio'] >= goal), work

def test_every_bench_target_calls_a_function_that_exists():
    lines = re.findall(r'(?m)^(bench-\w+):.*\n\t.*-c "from (\S+) import (\w+); (\w+)\((?:\'\$\(ONLY\)\'(?:, \'\$\(OLD\)\')?)?\)"', (ROOT/'Makefile').read_text(encoding='utf-8'))
    assert {target for target, *_ in lines} == {'bench-quality', 'bench-studies', 'bench-report', 'bench-content', 'bench-images', 'bench-speed'}
    for _, module, name, called in lines: assert name == called and callable(getattr(importlib.import_module(module), name))


# --- The same result on both sides ---

def test_cleaning(tweets): assert speed._cleaning_row(tweets['content'], 1)['agreement'].startswith('100')

@pytest.mark.parametrize('steps', [REPORT_STEPS, tuple(s for s in CLEAN_STEPS if s != 'spelling'), ('lower', 'emoji', 'punctuation')])
def test_a_long_column_is_cleaned_like_a_short_one(tweets, steps):
    "The query that runs on all cores gives what each row gives alone, in order."
    texts = pd.concat([tweets['content']]*40, ignore_index=True)
    assert len(texts) > 20_000
    whole = clean_text(texts, steps)
    parts = pd.concat([clean_text(texts.iloc[i:i + 5000], steps) for i in range(0, len(texts), 5000)])
    pd.testing.assert_series_equal(whole, parts)
    one_by_one = texts.head(600)
    for s in steps: one_by_one = clean_text(one_by_one, s)
    assert whole.head(600).tolist() == one_by_one.tolist()

def test_media(tweets):
    r = speed._media_row(tweets['media'], .5, 1)
    assert r['n'] == 600 and '300 rows' in r['agreement']
    for bad in ("__import__('os')", "[open('x')]", "[Photo('a')]", '[1+1]'):
        with pytest.raises(ValueError): speed._ast_items(bad)

def test_a_wrong_table_is_noticed(tweets, monkeypatch):
    monkeypatch.setattr(speed, 'media_table', lambda media, **k: pd.DataFrame([speed._ast_row(s) for s in media]).assign(count=9))
    with pytest.raises(AssertionError): speed._media_row(tweets['media'].head(20), 1., 1)

def test_text_embedding(tweets):
    first, again = speed._text_rows(tweets['content'].drop_duplicates().tolist()[:12], 1., 1)
    assert 'cosine' in first['agreement'] and again['agreement'] == 'the same vectors'

def test_batches_side_by_side_are_in_order(tweets):
    import torch
    before = torch.get_num_threads()
    assert list(_on_all_cores(lambda b: (b, torch.get_num_threads()), [[i] for i in range(50)])) == [([i], 1) for i in range(50)] or before == 1
    assert torch.get_num_threads() == before
    texts = tweets['content'].head(90).tolist()
    a, b = (embed(texts, 'tiny-distilbert', cache=False, batch_size=n, quiet=True) for n in (8, 90))
    np.testing.assert_allclose(a, b, atol=1e-5)

def test_a_fault_in_a_batch_is_raised_and_the_threads_are_given_back():
    import torch
    before = torch.get_num_threads()
    def fault(b): raise RuntimeError('no')
    with pytest.raises(RuntimeError): list(_on_all_cores(fault, [1, 2, 3]))
    assert torch.get_num_threads() == before

def test_pictures(tmp_path): assert 'cosine' in speed._image_row(sample_tweets(3, image_dir=tmp_path)['image_path'].tolist(), 1)['agreement']

@pytest.mark.parametrize('metric', ['l2', 'cosine'])
@pytest.mark.parametrize('k', [1, 15, 200])
def test_neighbours_by_cell_are_those_of_the_index(metric, k):
    "Also where cells hold fewer than k, and where vectors are repeated."
    V = np.random.default_rng(1).normal(size=(900, 12)).astype('float32')
    if metric == 'cosine': V /= np.linalg.norm(V, axis=1, keepdims=True)
    ix = build_index(V, 'ivf', metric, nlist=12)
    (D, I), (E, J) = _search_by_cell(ix, V[:200], k), ix.search(V[:200], k)
    assert ((I >= 0) == (J >= 0)).all() and (I == J).mean() > .995
    np.testing.assert_allclose(D[I >= 0], E[I >= 0], atol=1e-4)

def test_faiss():
    same, default = speed._faiss_rows(np.random.default_rng(0).normal(size=(300, 32)).astype('float32'), 2500, 300, 200, 1, 'hnsw')
    assert same['n'] == default['n'] == 300 and float(default['agreement'].split()[-1]) >= .99

def test_from_50_000_vectors_on_the_default_is_a_graph():
    import faiss
    V = np.random.default_rng(0).normal(size=(50_000, 2)).astype('float32')
    assert isinstance(build_index(V), faiss.IndexRefineFlat) and type(build_index(V[:49_999])) is faiss.IndexFlat

@pytest.mark.parametrize('metric', ['cosine', 'l2'])
@pytest.mark.parametrize('kind', ['flat', 'steep', 'far from the origin', 'large numbers', 'few columns', 'one column', 'all alike'])
def test_the_graph_finds_the_true_neighbours(kind, metric):
    "Whatever the directions hold; of vectors that are all alike any will do."
    rng = np.random.default_rng(4)
    V = rng.normal(size=(2200, {'few columns': 3, 'one column': 1}.get(kind, 48)))
    V = {'steep': V/np.arange(1, V.shape[1] + 1), 'far from the origin': V + 30, 'large numbers': V*1e7, 'all alike': V*0 + 1}.get(kind, V).astype('float32')
    y = rng.normal(size=2000)
    exact, graph = (NeighbourModel(i, metric, k=15).fit(V[:2000], y) for i in ('flat', 'hnsw'))
    (_, D), (J, E) = (m._search(m._vectors(V[2000:]), 15) for m in (exact, graph))
    far = D[:, -1:]*(1 + 1e-4) + 1e-6
    assert (E <= far).mean() > .95 and (J >= 0).all() # as near as the fifteenth
    np.testing.assert_allclose(np.sort(E), E)

def test_the_reports_regressor_is_still_its_loop():
    rng = np.random.default_rng(3)
    X, y = rng.normal(size=(1200, 16)).astype('float32'), rng.normal(5, 2, 1200)
    m = NeighbourModel(**REPORT_FAISS).fit(X, y)
    np.testing.assert_allclose(m.predict(X[:150]), _loop_predict(m, X[:150]), atol=1e-5)

def test_training_and_the_line_through_its_rounds(tweets, monkeypatch):
    monkeypatch.setattr(speed, '_timed', lambda f: ((3 + .5*f()), None))
    start, slope, straight = speed._rounds_of(lambda k: k, (2, 7, 12))
    assert abs(start - 3) < 1e-9 and abs(slope - .5) < 1e-9 and straight > .999
    X, y = speed._wide_table(tweets, np.zeros((600, 384)))
    assert X.shape == (600, 400) and X.dtype == np.float32

def test_the_cache_is_put_back(monkeypatch):
    monkeypatch.setenv('BEHAVIOUR_SIM_CACHE', 'mine')
    with pytest.raises(RuntimeError), speed._empty_cache(): raise RuntimeError
    import os
    assert os.environ['BEHAVIOUR_SIM_CACHE'] == 'mine'


# --- Growth ---

def test_exponents():
    n = np.array([1e4, 3e4, 1e5, 3e5])
    for k in (.9, 1, 1.1, 2): assert abs(_exponent(n, 7*n**k) - k) < 1e-9

def test_the_peak_is_that_of_its_own_process():
    "A quarter of a GiB held here is not counted there; one held there is."
    here = np.ones(2**28, 'uint8')
    small = _apart(300, 'whole', False)
    wide = _apart(4000, 'wide', False)
    assert _memory() > .25 and small['gib'] < .2 < here.nbytes/2**30
    assert wide['gib'] > 4000*400*4/2**30 and wide['peak'] > wide['gib']

def test_growth_gives_a_row_for_each_size(monkeypatch):
    monkeypatch.setattr('behaviour_sim.bench.growth._apart', lambda n, job, look: dict(n=n, seconds=n/1e4, gib=1., peak=2.))
    t = measure_growth((200, 400), False)
    assert t['n'].tolist() == [200, 400] and list(t) == ['n', 'seconds', 'gib', 'peak'] and _exponent(t['n'], t['seconds']) > .999

"""The audit and the peers: what needs shuffled labels, other processes, or the real rows."""
import importlib.util, os, subprocess, sys
from pathlib import Path

import numpy as np, pandas as pd, pytest
from hypothesis import given, settings, strategies as st

from behaviour_sim.apps.report_choices import (_AS_COMPUTED, _REPAIRED, _TARGETS, _epsilon_to_log1p, _fold_rows, _log_epsilon,
    _positional_split, replace, _report_features, _smoothed_means)
from behaviour_sim.bench.audit import Audit
from behaviour_sim.bench.audit_table import _audit_table
from behaviour_sim.features.effort import _same_path
from behaviour_sim.core import BadInput, data_dir
from behaviour_sim.corpus.synthetic import sample_tweets
from behaviour_sim.likes.evaluation import Baselines, likes_metrics
from behaviour_sim.bench import likes_quality, likes_studies
from behaviour_sim.bench.likes_quality import judge
from behaviour_sim.bench.peers import _PEERS, _PRIOR_REPORTED, _PriorBaseline, compare_peers, _measure_peer, _real_rows

real = pytest.mark.skipif(data_dir() is None, reason='the real rows are not here: set BEHAVIOUR_SIM_DATA')
rng = np.random.default_rng(0)

@pytest.fixture(scope='module')
def tweets(): return sample_tweets(800)

@pytest.fixture(scope='module')
def text(tweets): return np.random.default_rng(1).normal(size=(len(tweets), 8)).astype(np.float32)

@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=50))
def test_both_targets_go_there_and_back(likes):
    for there, back in _TARGETS.values(): np.testing.assert_allclose(back(there(likes)), np.log1p(likes), atol=1e-6)

@given(st.floats(-1e6, 1e6))
def test_any_prediction_has_a_log1p(p): assert 0 <= float(_epsilon_to_log1p(p)) < np.inf

@settings(max_examples=100, deadline=None)
@given(st.floats(1e-5, .3), st.integers(2, 3000), st.integers(1, 300))
def test_a_capped_path_shrinks_by_the_same_factor(rate, rounds, cap):
    r, n = _same_path(rate, rounds, cap)
    assert n == min(rounds, cap) and 0 < r <= 1
    assert (1 - r)**n == pytest.approx((1 - rate)**rounds, rel=1e-6, abs=1e-9)

def test_means_do_not_see_their_own_answer():
    keys, y = np.repeat(np.arange(40), 5), rng.normal(size=200)
    train = rng.permutation(200)[:150]
    told = _smoothed_means(keys, y, train)
    for i in train[:20]:
        other = y.copy(); other[i] += 100
        assert _smoothed_means(keys, other, train)[i] == told[i]
    hidden = y.copy(); hidden[np.setdiff1d(np.arange(200), train)] = np.nan
    np.testing.assert_array_equal(_smoothed_means(keys, hidden, train), told)

def test_folds_cover_the_training_rows_once():
    train = rng.permutation(500)[:300]
    pairs = _fold_rows(train)
    assert sorted(np.concatenate([h for _, h in pairs])) == sorted(train)
    assert all(not set(a) & set(h) and set(a) <= set(train) and len(a) == 168 for a, h in pairs)

def test_shuffled_likes_leave_no_skill(tweets, text):
    shuffled = tweets.assign(likes=rng.permutation(tweets['likes']))
    a = Audit(shuffled, text, cap=40)
    r = a.row('', '', a.trees(_REPAIRED), '')
    assert r['rmse_log1p'] > .97*r['constant'] and abs(r['spearman']) < .2
    n = a.row('', '', a.neighbours(), '')
    assert n['rmse_log1p'] > .97*n['constant']

def test_the_account_is_worth_more_than_any_text_here(tweets, text):
    a = Audit(tweets, text, cap=40)
    without, kept = [a.row('', '', a.trees(replace(_AS_COMPUTED, target='log1p', account=k)), '')['rmse_log1p'] for k in (False, True)]
    assert kept < .7*without

def test_the_leak_looks_good_until_it_is_used(tweets, text):
    a = Audit(tweets, text, cap=60)
    seen, used = [a.row('', '', a.trees(replace(_AS_COMPUTED, target='log1p', folds=0, leak=k)), '')['rmse_log1p'] for k in ('likes', 'id')]
    assert seen < .5*used

def test_same_seed_same_answer(tweets, text):
    one, two = [Audit(tweets, text, cap=20).trees(_REPAIRED) for _ in range(2)]
    np.testing.assert_array_equal(one, two)

def test_positional_split_is_positional(tweets):
    s = _positional_split(tweets)
    assert s.train.max() + 1 == s.test.min() and len(s.train) + len(s.test) == len(tweets)

def test_missing_captions_are_missing(tweets, text):
    c = np.zeros((len(tweets), 3), np.float32); c[0] = 1
    X = _report_features(tweets, text, c)
    assert X[['c0', 'c1', 'c2']].iloc[0].eq(1).all() and X['c0'].iloc[1:].isna().all()

def test_a_peer_is_measured_alone_and_gives_the_same(tweets):
    train, test = tweets.iloc[:600], tweets.iloc[600:]
    big = np.ones(100_000_000)   # 800 MB in this process must not show in the other
    answers, _, cost = _measure_peer(_PEERS['prior_baseline'], train, dict(a=test))
    assert cost['peak_mb'] < big.nbytes/1e6 and cost['fit_seconds'] > 0
    np.testing.assert_allclose(answers['a'], _PriorBaseline().fit(train).predict(test), atol=1e-9)

def test_a_peer_that_fails_says_why(tweets):
    t = compare_peers(tweets.iloc[:500], dict(a=tweets.iloc[500:]), dict(nobody='behaviour_sim.bench.peers:Nobody'))
    assert 'Nobody' in t.loc['nobody', 'note'] and t.loc['constant', 'note'] == ''

def test_shuffled_likes_leave_no_skill_to_the_baseline(tweets):
    shuffled = tweets.assign(likes=rng.permutation(tweets['likes']))
    train, test = shuffled.iloc[:600], shuffled.iloc[600:]
    m = likes_metrics(test['likes'], _PriorBaseline().fit(train).predict(test))
    assert abs(m['spearman']) < .2 and m['r2_log1p'] < .05

def test_importing_is_light():
    code = "import sys, behaviour_sim.bench.audit_table, behaviour_sim.bench.peers; print([m for m in ('torch', 'catboost', 'skrub', 'xgboost', 'faiss', 'matplotlib.pyplot') if m in sys.modules])"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout.strip() == '[]'

@real
def test_the_prior_baseline_is_met_on_the_real_rows():
    train, tests = _real_rows()
    assert len(tests['random']) == 2000 and not set(train['id']) & set(tests['random']['id'])
    model = _PriorBaseline().fit(train)
    for name, near in dict(random=.02, unseen_time=.03).items():
        assert likes_metrics(tests[name]['likes'], model.predict(tests[name]))['rmse_log1p'] == pytest.approx(_PRIOR_REPORTED[name], abs=near)

@real
def test_a_constant_beats_the_printed_figures_on_the_printed_scale():
    train, tests = _real_rows()
    p = Baselines().fit(train).predict(tests['random'])
    assert likes_metrics(tests['random']['likes'], p['constant'])['rmse_log1p'] < 3.6929
    assert _log_epsilon([0])[0] < -23

def test_no_real_rows_is_one_sentence(tmp_path):
    with pytest.raises(BadInput): _audit_table(tmp_path)

def test_two_training_sets_of_one_size_do_not_share_a_simulator(tweets):
    "Each of two halves is evaluated by the simulator of the other one, whatever was fitted before."
    one, two, shared = tweets.iloc[:120], tweets.iloc[120:240], {}
    for known, judged in ((one, two), (two, one)):
        together, alone = (judge(s, known, judged, preset='tiny', effort='quick', quiet=True) for s in (shared, {}))
        assert together == pytest.approx(alone, nan_ok=True)
    assert len(shared) == 2

def test_the_ablation_fits_each_training_set_on_its_own(tweets, monkeypatch):
    "Whatever has the same number of tweets; what `quality_table` has fitted is used again."
    class Means:
        fits = 0
        def __init__(self, preset, post_publication=False, effort='default'): pass
        def fit(self, known, profiles=None, quiet=None): self.mean, Means.fits = known['likes'].mean(), Means.fits + 1; return self
        def evaluate(self, judged, quiet=None): return dict(rmse_log1p=self.mean)
    monkeypatch.setattr(likes_quality, 'LikesSimulator', Means)
    one, two, fitted = tweets.iloc[:50], tweets.iloc[50:100], {}
    table = likes_studies._ablation(dict(a=(one, two), b=(two, one)), 'tiny', quiet=True)
    assert Means.fits == 10 and table['a'].eq(one['likes'].mean()).all() and table['b'].eq(two['likes'].mean()).all()
    likes_quality._fitted(fitted, one, 'tiny'), likes_quality._fitted(fitted, one, 'tiny', True)
    likes_studies._ablation(dict(a=(one, two)), 'tiny', fitted, quiet=True)
    assert Means.fits == 10 + 2 + 4 and len(fitted) == 2

def test_the_ensemble_of_the_report_blends_its_models_1_and_2(tweets, text):
    "With XGBoost 2 at hand too, the row `ensemble` is unchanged, and the blend of all three is a row that says so."
    two, three = (pd.DataFrame(Audit(tweets, text, text2=t, cap=20).computed_rows()).set_index('model') for t in (None, text[:, ::-1]))
    assert three.loc['ensemble', 'rmse_log1p'] == two.loc['ensemble', 'rmse_log1p'] != three.loc['blend of all three', 'rmse_log1p']
    assert 'blend of all three' not in two.index and 'not in the report' in three.loc['blend of all three', 'wrong']

def test_results_are_kept_with_their_command_and_commit(tmp_path):
    "Tables come back as they were, the commit is that of the repository, and a change that is not committed is told."
    git = lambda *a: subprocess.run(['git', '-c', 'user.name=a', '-c', 'user.email=a@b', *a], cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()
    git('init', '-q'); (tmp_path/'f').write_text('1'); git('add', 'f'); git('commit', '-qm', 'one')
    flat = pd.DataFrame(dict(rmse=[1.5, np.nan], note=['x', '']), index=pd.Index(['p', 'q'], name='peer'))
    deep = pd.DataFrame({'r': {('a', 'b'): 1., ('a', 'c'): 2.}}).rename_axis(['hold-out', 'input'])
    folder = tmp_path/'results'; folder.mkdir()
    for title, table in dict(flat=flat, deep=deep).items():
        likes_quality._keep('t', title, table, 'make bench-t', folder)
    for title, table in dict(flat=flat, deep=deep).items():
        back = likes_quality._kept('t', title, folder)
        pd.testing.assert_frame_equal(back, table)
        assert back.attrs == dict(command='make bench-t', commit=git('rev-parse', 'HEAD'))
    (tmp_path/'f').write_text('2')
    likes_quality._keep('t', 'flat', flat, 'make bench-t', folder)
    assert likes_quality._kept('t', 'flat', folder).attrs['commit'] == git('rev-parse', 'HEAD') + '+'
    with pytest.raises(BadInput): likes_quality._kept('none', 'flat', folder)


class _Earlier:
    "A peer that counts the rows before each, where it may."
    def fit(self, tweets): return self
    def predict(self, tweets, in_order=False): return np.arange(len(tweets))*float(in_order)

def test_a_peer_has_both_columns(tweets):
    "Alone, and with the earlier tweets of the file; equal for those that look at one row at a time."
    peers = dict(earlier='test_audit:_Earlier', row='behaviour_sim.bench.peers:_PriorBaseline')
    env = os.pathsep.join([str(Path(__file__).parent), os.environ.get('PYTHONPATH', '')])
    with pytest.MonkeyPatch.context() as m:
        m.setenv('PYTHONPATH', env)
        t = compare_peers(tweets.iloc[:300], dict(a=tweets.iloc[300:400]), peers)
    assert set(t['note']) == {''}
    assert t.loc['earlier', 'rmse_a'] != t.loc['earlier', 'in_order_rmse_a']
    assert t.loc['row', 'rmse_a'] == t.loc['row', 'in_order_rmse_a']
    assert t.loc['constant', 'rmse_a'] == t.loc['constant', 'in_order_rmse_a']

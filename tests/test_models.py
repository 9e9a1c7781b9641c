"""The regressors, the neighbours, the ensembles and the evaluation: round trips, repeatability, oracles, refusals."""
import json, os, subprocess, sys, warnings
from pathlib import Path

import numpy as np, pandas as pd, pytest, warm
from hypothesis import given, settings, strategies as st
from sklearn.linear_model import Ridge

from behaviour_sim.core import BadInput
from behaviour_sim.likes.ensemble import BaggedModel, LossWeightedEnsemble, StackedEnsemble, compare_predictions, out_of_fold, validation_loss_weights
from behaviour_sim.likes.evaluation import Baselines, ConformalIntervals, _conformal_radius, coverage_table, likes_metrics, _smearing, _spearman
from behaviour_sim.likes.neighbours import _NEIGHBOUR_DEFAULT, REPORT_FAISS, NeighbourModel, drop_outliers, _loop_predict, row_percentile
from behaviour_sim.likes.regressors import COMPUTED_LGB, COMPUTED_XGB, _LGB_DEFAULT, REPORT_XGB, _XGB_DEFAULT, ExternalRegressor, LightGBMModel, XGBoostModel, _fit_regressor, _make_regressor
from behaviour_sim.model_directories import Regressor, _read_parts, _write_parts

SMALL = dict(rounds=25)
MODELS = {
    'xgboost': lambda: XGBoostModel(**SMALL), 'lightgbm': lambda: LightGBMModel(**SMALL),
    'report_xgb': lambda: XGBoostModel(**{**REPORT_XGB, **SMALL}), 'computed_xgb': lambda: XGBoostModel(**{**COMPUTED_XGB, **SMALL}),
    'computed_lgb': lambda: LightGBMModel(**{**COMPUTED_LGB, **SMALL}),
    'bagged': lambda: BaggedModel(lambda seed: LightGBMModel(**SMALL, seed=seed), seeds=(1, 2)),
    'neighbours': lambda: NeighbourModel(**_NEIGHBOUR_DEFAULT), 'report_faiss': lambda: NeighbourModel(**REPORT_FAISS),
    'hnsw': lambda: NeighbourModel(index='hnsw', k=5, standardise=True),
    'ridge': lambda: ExternalRegressor(Ridge()), 'catboost': lambda: ExternalRegressor(_catboost()),
}

def _catboost():
    return pytest.importorskip('catboost').CatBoostRegressor(iterations=25, verbose=0, allow_writing_files=False, thread_count=1, random_seed=1)


def table(n=600, d=12, seed=0, gaps=0.0):
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(rng.normal(size=(n, d)), columns=['hour', 'inferred company', 'a,b', '[c]', '{"d": 1}', 'é', *(f'x{i}' for i in range(d - 6))])
    y = 3 + 2*X['hour'] + X['x0']*X['a,b'] + rng.normal(0, .5, n)
    return (X.mask(rng.random(X.shape) < gaps) if gaps else X), np.maximum(y.to_numpy(), 0)


@pytest.fixture(scope='module')
def data():
    X, y = table()
    return (X[:400], y[:400]), (X[400:], y[400:])


def rmse(y, p): return float(np.sqrt(np.mean((y - p)**2)))


# ---- what every model promises

@pytest.mark.parametrize('name', MODELS)
def test_round_trip(name, data, tmp_path):
    (X, y), (Xt, yt) = data
    model = MODELS[name]().fit(X, y)
    model.save(tmp_path/'m')
    for again in (type(model).load(tmp_path/'m'), Regressor.load(tmp_path/'m')):
        assert type(again) is type(model) and again.names == list(X.columns)
        np.testing.assert_array_equal(again.predict(Xt), model.predict(Xt))
    again.save(tmp_path/'again')
    for f in (p for p in (tmp_path/'m').rglob('*') if p.is_file()):
        assert f.read_bytes() == (tmp_path/'again'/f.relative_to(tmp_path/'m')).read_bytes()
        assert f.suffix in {'.json', '.ubj', '.txt', '.faiss', '.npz', '.skops', '.cbm'}


@pytest.mark.parametrize('name', MODELS)
def test_shape_type_single_row_and_column_order(name, data):
    (X, y), (Xt, _) = data
    model = MODELS[name]().fit(X, y)
    p = model.predict(Xt)
    assert p.dtype == np.float32 and p.shape == (len(Xt),)
    np.testing.assert_allclose(model.predict(Xt.iloc[[3]]), p[[3]], atol=1e-4)
    np.testing.assert_array_equal(model.predict(Xt[Xt.columns[::-1]]), p)
    np.testing.assert_array_equal(model.predict(Xt.to_numpy()), p)
    assert model.predict(Xt.iloc[:0]).shape == (0,)


@pytest.mark.parametrize('name', MODELS)
def test_gaps_and_a_column_that_is_never_there(name):
    X, y = table(gaps=.3)
    X['x1'] = np.nan
    p = MODELS[name]().fit(X, y).predict(X)
    assert np.isfinite(p).all()


@pytest.mark.parametrize('name', ['xgboost', 'lightgbm', 'neighbours'])
@pytest.mark.parametrize('n', [1, 2, 3])
def test_tiny_tables(name, n):
    X, y = table(n)
    assert np.isfinite(MODELS[name]().fit(X, y).predict(X)).all()


@pytest.mark.parametrize('name', MODELS)
def test_constant_target(name, data):
    (X, _), _ = data
    np.testing.assert_allclose(MODELS[name]().fit(X, np.full(len(X), 2.5)).predict(X), 2.5, atol=1e-3)


@pytest.mark.parametrize('name', MODELS)
def test_bad_input_is_one_sentence(name, data):
    (X, y), (Xt, _) = data
    model = MODELS[name]()
    with pytest.raises(BadInput, match='not fitted'): model.predict(Xt)
    with pytest.raises(BadInput, match='not fitted'): model.save('never')
    with pytest.raises(BadInput, match='rows'): model.fit(X, y[:-1])
    with pytest.raises(BadInput, match='row 2 is not a finite'): model.fit(X, np.where(np.arange(len(y)) == 2, np.nan, y))
    with pytest.raises(BadInput, match='no row'): model.fit(X[:0], y[:0])
    with pytest.raises(BadInput, match="'hour' holds an infinite"): model.fit(X.assign(hour=np.inf), y)
    with pytest.raises(BadInput, match="'hour' is not numeric"): model.fit(X.assign(hour='noon'), y)
    model.fit(X, y)
    with pytest.raises(BadInput, match="lacks the column 'hour'"): model.predict(Xt.drop(columns='hour'))
    with pytest.raises(BadInput, match='has 3 columns'): model.predict(np.zeros((2, 3)))
    assert not Path('never').exists()


PROCESS = '''
import hashlib, sys
import numpy as np
sys.path.insert(0, {tests!r})
from test_models import MODELS, table
X, y = table(gaps=.1)
for name, make in MODELS.items():
    print(name, hashlib.sha256(make().fit(X[:400], y[:400]).predict(X[400:]).tobytes()).hexdigest())
'''


def test_same_in_another_process_with_another_number_of_threads():
    "A fresh interpreter, other hash seed, other OpenMP setting, torch loaded first: the same predictions."
    code = PROCESS.format(tests=str(Path(__file__).parent))
    env = {**os.environ, 'OMP_WAIT_POLICY': 'passive'}
    run = lambda src, **e: subprocess.run([sys.executable, '-W', 'ignore', '-c', src], env={**env, **e}, capture_output=True, text=True, timeout=300, check=True).stdout
    first = run(code, PYTHONHASHSEED='1', OMP_NUM_THREADS='1')
    second = run('import torch; torch.ones(64, 64) @ torch.ones(64, 64)\n' + code, PYTHONHASHSEED='2', OMP_NUM_THREADS='2')
    assert first == second and first.count('\n') == len(MODELS)


def test_modules_import_nothing_heavy():
    code = ("import sys, behaviour_sim.likes.regressors, behaviour_sim.likes.neighbours, behaviour_sim.likes.ensemble, behaviour_sim.likes.evaluation\n"
            "print([m for m in 'torch xgboost lightgbm faiss matplotlib sklearn'.split() if m in sys.modules])")
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == '[]'


@pytest.mark.parametrize('answer', ['cuda', 'cpu', None])
def test_xgboost_is_asked_for_its_device(monkeypatch, answer):
    "Built for CUDA, it says what it took, or that it cannot."
    import json, xgboost
    from behaviour_sim.likes.regressors import _xgboost_device
    class Made:
        def save_config(self): return json.dumps(dict(learner=dict(generic_param=dict(device={'cuda': 'cuda:0'}.get(answer, answer)))))
    def train(params, *_, **__):
        assert params['device'] == 'cuda'
        if answer is None: raise xgboost.core.XGBoostError('no CUDA here')
        return Made()
    monkeypatch.setattr(xgboost, 'build_info', lambda: dict(USE_CUDA=True))
    monkeypatch.setattr(xgboost, 'train', train)
    assert _xgboost_device.__wrapped__() == (answer or 'cpu')


# ---- directories that are not what they should be

def test_wrong_kind_is_refused(data, tmp_path):
    (X, y), _ = data
    XGBoostModel(**SMALL).fit(X, y).save(tmp_path)
    for other in (LightGBMModel, NeighbourModel, BaggedModel, StackedEnsemble, Baselines, ConformalIntervals):
        with pytest.raises(BadInput, match=f'holds a XGBoostModel, not a {other.__name__}'): other.load(tmp_path)


@pytest.mark.parametrize('name', ['xgboost', 'lightgbm', 'neighbours'])
def test_every_changed_or_lost_file_is_refused(name, data, tmp_path):
    (X, y), _ = data
    MODELS[name]().fit(X, y).save(tmp_path)
    for f in sorted(tmp_path.iterdir()):
        good = f.read_bytes()
        for bad in (good[:len(good)//2], good[:-9] + bytes([good[-9] ^ 1]) + good[-8:], b''):
            f.write_bytes(bad)
            with pytest.raises(BadInput): Regressor.load(tmp_path)
        f.unlink()
        with pytest.raises(BadInput): Regressor.load(tmp_path)
        f.write_bytes(good)
    Regressor.load(tmp_path)


@pytest.mark.parametrize('card', ['', '[]', '{}', 'null', '{"kind": "Stack", "facts": {}, "files": {}}', '{"kind": "Stack", "facts": {}, "files": {"../x": "0"}}', '\x00'])
def test_a_strange_card_is_refused(card, tmp_path):
    (tmp_path/'model.json').write_text(card)
    with pytest.raises(BadInput): Regressor.load(tmp_path)


def test_an_unknown_kind_is_refused(tmp_path):
    _write_parts(tmp_path, 'Oracle', {})
    with pytest.raises(BadInput, match='holds a Oracle'): Regressor.load(tmp_path)
    assert _read_parts(tmp_path) == ('Oracle', {}, {})


# ---- a class by its import path

def _named(folder, path):
    "A directory whose card names `path`, with everything else in order."
    from behaviour_sim.core import content_key, write_json
    _write_parts(folder, 'x', {})
    card = json.loads((folder/'model.json').read_text()) | dict(kind=path)
    write_json(card | dict(key=content_key(*(card[k] for k in ('kind', 'format', 'version', 'facts', 'files')))), folder/'model.json')

HOSTILE = ['os.system', 'subprocess.Popen', 'builtins.eval', 'posix.system', 'behaviour_sim.core.json', 'behaviour_sim.core.json.loads', 'behaviour_sim.core.Path',
           'behaviour_sim.core.BadInput', 'behaviour_sim.core.write_atomic', 'behaviour_sim.model_directories.sha256_file', 'behaviour_sim.likes.regressors.os.system',
           'behaviour_sim.apps.__main__.x', 'behaviour_sim..core.x', '.x', 'x', '', '../x', 'antigravity.x', 'behaviour_simx.Evil', 3, None, ['os.system'], {}]

@pytest.mark.parametrize('path', HOSTILE, ids=str)
def test_a_card_that_names_anything_else_is_refused(path, tmp_path):
    _named(tmp_path, path)
    with pytest.raises(BadInput): Regressor.load(tmp_path)

def test_refusing_imports_and_runs_nothing(tmp_path):
    "Neither a module that lies in the working folder nor one of the standard library is imported."
    (tmp_path/'evil.py').write_text(f"open({str(tmp_path/'mark')!r}, 'w')\nclass Evil: pass")
    code = f"""import sys; sys.path.insert(0, {str(tmp_path)!r})
from behaviour_sim.model_directories import Regressor
for d in ('evil', 'antigravity'):
    try: Regressor.load({str(tmp_path)!r} + '/' + d)
    except ValueError: print('refused')
print([m for m in ('evil', 'antigravity') if m in sys.modules])"""
    for name, path in dict(evil='evil.Evil', antigravity='antigravity.fly').items(): (tmp_path/name).mkdir(); _named(tmp_path/name, path)
    p = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert p.stdout.split('\n')[:3] == ['refused', 'refused', '[]'] and not (tmp_path/'mark').exists()

def test_a_fresh_process_loads_every_class(data, tmp_path):
    (X, y), (Xt, _) = data
    X, Xt, made = X.fillna(0), Xt.fillna(0), {}
    for name in MODELS: made[name] = MODELS[name]().fit(X, y); made[name].save(tmp_path/name)
    code = f"""import sys
from behaviour_sim.model_directories import Regressor
import numpy as np
Xt = np.load({str(tmp_path/'X.npy')!r})
for n in {list(MODELS)}: print(n, Regressor.load({str(tmp_path)!r} + '/' + n).predict(Xt).tobytes().hex())"""
    np.save(tmp_path/'X.npy', Xt.to_numpy('float32'))
    out = warm.run('import warnings; warnings.simplefilter("ignore")\n' + code).stdout
    assert dict(l.split() for l in out.splitlines()) == {n: m.predict(Xt.to_numpy('float32')).tobytes().hex() for n, m in made.items()}

def test_a_plugin_is_loaded_only_when_it_is_named(tmp_path, monkeypatch):
    (tmp_path/'shop_models.py').write_text("""from behaviour_sim.model_directories import Regressor
class Shop(Regressor):
    names = ['x']
    def _pack(self, folder): return {}, {}
    @classmethod
    def _unpack(cls, facts, files, folder): return cls()
""")
    run = lambda code, **env: subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
        env={**os.environ, 'PYTHONPATH': f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}", **env})
    assert run(f"import shop_models; shop_models.Shop().save({str(tmp_path/'m')!r})").returncode == 0
    load = f"from behaviour_sim.model_directories import Regressor; print(type(Regressor.load({str(tmp_path/'m')!r}%s)).__name__)"
    assert 'BadInput' in (r := run(load % '')).stderr and 'BEHAVIOUR_SIM_PLUGINS' in r.stderr
    assert run(load % '', BEHAVIOUR_SIM_PLUGINS='shop_models').stdout == 'Shop\n' == run(load % ", plugins=['shop_models']").stdout


# ---- a regressor of the user's own

def test_weights_reach_a_model_that_takes_them(data):
    (X, y), (Xt, _) = data
    w = np.where(np.arange(len(y)) < 200, 1., 0.)
    X = X.drop(columns='a,b')
    some = ExternalRegressor(Ridge()).fit(X[:200], y[:200]).predict(Xt)
    np.testing.assert_allclose(ExternalRegressor(Ridge()).fit(X, y, weight=w).predict(Xt), some, atol=1e-3)
    class NoWeights(Ridge):
        def fit(self, X, y): return super().fit(X, y)
    assert np.isfinite(ExternalRegressor(NoWeights()).fit(X, y, weight=w).predict(Xt)).all()

def test_the_object_given_is_not_fitted(data):
    (X, y), _ = data
    model = Ridge()
    ExternalRegressor(model).fit(X, y)
    assert not hasattr(model, 'coef_')

def test_a_type_that_nobody_vouches_for_is_not_built(data, tmp_path):
    (X, y), _ = data
    ExternalRegressor(Unknown()).fit(X, y).save(tmp_path)
    with pytest.raises(BadInput, match='Unknown, which is in no plug-in'): Regressor.load(tmp_path)

class Unknown(Ridge): pass

def test_a_regressor_is_asked_for_in_four_ways(data):
    (X, y), (Xt, _) = data
    for spec in (Ridge(), Ridge, lambda: Ridge(), _catboost(), LightGBMModel(**SMALL), LightGBMModel, lambda seed: XGBoostModel(**SMALL, seed=seed)):
        m = _fit_regressor(spec, X, y, np.ones(len(y)), seed=3)
        assert isinstance(m, Regressor) and np.isfinite(m.predict(Xt)).all()
        if isinstance(m, (LightGBMModel, XGBoostModel)) and callable(spec): assert m.seed == 3
    for spec in ('ridge', 3, object(), lambda: 3, str):
        with pytest.raises(BadInput, match='A regressor has fit and predict'): _make_regressor(spec)


# ---- boosting

@pytest.mark.parametrize('Model,preset', [(XGBoostModel, _XGB_DEFAULT), (LightGBMModel, _LGB_DEFAULT)])
def test_early_stopping_keeps_the_best_round(Model, preset, data, tmp_path):
    (X, y), (Xt, yt) = data
    model = Model(preset['params'], rounds=400, early_stopping=10).fit(X[:300], y[:300], valid=(X[300:], y[300:]))
    assert model.rounds_used == int(np.argmin(model.history)) + 1 < 400
    assert rmse(y[300:], model.predict(X[300:])) == pytest.approx(min(model.history), rel=1e-4)
    assert rmse(yt, model.predict(Xt)) < .7*yt.std()
    assert model.importance().index[0] == 'hour' and model.importance().sum() == pytest.approx(1)


@pytest.mark.parametrize('Model', [XGBoostModel, LightGBMModel])
def test_weights_count(Model, data):
    (X, y), _ = data
    half = np.arange(len(y)) < 200
    y2 = np.where(half, 1., 5.)
    p = Model(rounds=60).fit(X[['x3']], y2, weight=np.where(half, 100., .01)).predict(X[['x3']])
    assert p.mean() < 1.5


# ---- neighbours

@pytest.mark.parametrize('n,nlist,k', [(500, 40, 15), (60, 40, 15), (25, 40, 30), (500, 5, 1)])
def test_batched_equals_the_reports_loop(n, nlist, k):
    X, y = table(n + 100)
    model = NeighbourModel(**{**REPORT_FAISS, 'nlist': nlist, 'k': k}).fit(X[:n], y[:n])
    np.testing.assert_allclose(model.predict(X[n:]), _loop_predict(model, X[n:]), atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.one_of(st.none(), st.floats(0, 15)), min_size=5, max_size=5), min_size=1, max_size=6), st.sampled_from([0, 20, 50, 80, 100]))
def test_row_percentile_is_nanpercentile(rows, q):
    V = np.array([[np.nan if v is None else v for v in r] for r in rows])
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        want = np.nanpercentile(V, q, axis=1)
    np.testing.assert_allclose(row_percentile(V, q), want, atol=1e-9)
    some = (~np.isnan(V)).any(1)
    assert (~np.isnan(drop_outliers(V)[some])).any(1).all()   # the rule never empties a row


@pytest.mark.parametrize('metric,index', [('cosine', 'flat'), ('l2', 'flat'), ('l2', 'ivf'), ('cosine', 'hnsw')])
def test_leave_one_out_is_leaving_one_out(metric, index):
    X, y = table(120)
    make = lambda: NeighbourModel(index=index, metric=metric, k=7, nlist=1)
    loo = make().fit(X, y).leave_one_out()
    want = [make().fit(X.drop(index=i), np.delete(y, i)).predict(X.loc[[i]])[0] for i in range(0, 120, 7)]
    np.testing.assert_allclose(loo[::7], want, atol=1e-3)


def test_leave_one_out_among_copies():
    "Ten copies of each row: the row itself is left out, whichever copy the index returns."
    X, y = table(20)
    X10, y10 = pd.concat([X]*10, ignore_index=True), np.tile(y, 10)
    loo = NeighbourModel(k=5, metric='l2').fit(X10, y10).leave_one_out()
    np.testing.assert_allclose(loo, y10, atol=1e-4)


def test_faiss_threads_are_put_back(data):
    import faiss
    (X, y), _ = data
    before = faiss.omp_get_max_threads()
    NeighbourModel(n_threads=1).fit(X, y).predict(X)
    assert faiss.omp_get_max_threads() == before


# ---- ensembles

def test_loss_weights_refuse_nonsense():
    for bad in ([], [0.], [1, -1], [np.nan], [np.inf], [[1.]]):
        with pytest.raises(BadInput): validation_loss_weights(bad)
    with pytest.raises(BadInput, match='2 models and 1 losses'): LossWeightedEnsemble([1.]).fit(np.ones((3, 2)), np.ones(3))
    np.testing.assert_allclose(validation_loss_weights([1, 2]), [2/3, 1/3])


def test_stack_finds_the_mixture_and_drops_the_useless():
    rng = np.random.default_rng(0)
    P = pd.DataFrame(rng.normal(size=(3000, 3)), columns=list('abc'))
    y = 1 + .7*P['a'] + .3*P['b'] - .5*P['c'] + rng.normal(0, .01, 3000)
    s = StackedEnsemble().fit(P, y)
    np.testing.assert_allclose(s.weights.loc['all'], [.7, .3, 0, 1], atol=.05)
    np.testing.assert_allclose(s.predict(P[['c', 'b', 'a']]), s.predict(P))


def test_stack_by_group_with_small_and_unseen_groups():
    rng = np.random.default_rng(0)
    P, g = rng.normal(size=(1000, 2)), np.repeat(['known', 'new', 'rare'], [500, 490, 10])
    y = np.where(g == 'known', P[:, 0], P[:, 1])
    s = StackedEnsemble(by_group=True).fit(P, y, g)
    np.testing.assert_allclose(s.predict(P, g)[:990], y[:990], atol=1e-5)
    pooled = StackedEnsemble().fit(P, y)
    np.testing.assert_array_equal(s.predict(P[:5], ['rare', 'x', '', None, np.nan]), pooled.predict(P[:5]))
    np.testing.assert_array_equal(s.predict(P), pooled.predict(P))
    with pytest.raises(BadInput, match='1000 rows and 2 groups'): s.predict(P, ['a', 'b'])


def test_shuffled_labels_give_no_skill():
    X, y = table(800)
    y = np.random.default_rng(1).permutation(y)
    folds = np.arange(800) % 4
    oof = {n: out_of_fold(MODELS[n], X[:600], y[:600], folds[:600]) for n in ('xgboost', 'lightgbm', 'neighbours')}
    stack = StackedEnsemble().fit(oof, y[:600])
    P = {n: MODELS[n]().fit(X[:600], y[:600]).predict(X[600:]) for n in oof}
    assert abs(1 - rmse(y[600:], stack.predict(P))**2/np.mean((y[600:] - y[:600].mean())**2)) < .05


def test_out_of_fold_never_sees_its_own_row():
    class Memory:
        def fit(self, X, y, valid=None): self.rows, self.valid = set(X[:, 0]), set() if valid is None else set(valid[0][:, 0]); return self
        def predict(self, X):
            assert not self.rows & set(X[:, 0]) and not self.valid & set(X[:, 0]) and not self.valid & self.rows
            return np.full(len(X), len(self.rows))
    X, folds = np.arange(40.)[:, None], np.arange(40) % 4
    assert (out_of_fold(Memory, X, X[:, 0], folds) == 30).all()
    assert (out_of_fold(Memory, X, X[:, 0], folds, watch=True) == 20).all()
    with pytest.raises(BadInput): out_of_fold(Memory, X, X[:, 0], np.zeros(40))


@pytest.mark.parametrize('make', [lambda P, y, g: StackedEnsemble(True).fit(P, y, g), lambda P, y, g: StackedEnsemble().fit(P, y), lambda P, y, g: LossWeightedEnsemble().fit(P, y)])
def test_ensemble_round_trip_and_single_row(make, tmp_path):
    rng = np.random.default_rng(0)
    P, g = pd.DataFrame(rng.normal(3, 1, (400, 2)), columns=['trees', 'near']), np.repeat(['a', 'b'], 200)
    e = make(P, P.mean(axis=1) + rng.normal(size=400), g)
    again = Regressor.load(e.save(tmp_path))
    np.testing.assert_array_equal(again.predict(P, g), e.predict(P, g))
    np.testing.assert_allclose(e.predict(P[:1], g[:1]), e.predict(P, g)[:1])
    assert e.predict(P[:0]).shape == (0,)
    with pytest.raises(BadInput, match="'near' left a prediction out"): e.predict(P.assign(near=np.nan))
    with pytest.raises(BadInput, match="lacks the column 'near'"): e.predict(P[['trees']])


# ---- evaluation

@settings(max_examples=60, deadline=None)
@given(st.integers(2, 60), st.integers(0, 10_000))
def test_metrics_agree_with_sklearn_and_scipy(n, seed):
    from scipy.stats import spearmanr
    from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
    rng = np.random.default_rng(seed)
    likes = np.floor(rng.lognormal(2, 2, n)); likes[0] = likes.max() + 1
    p = np.round(np.log1p(likes) + rng.normal(0, 1, n), 1)
    y, m = np.log1p(likes), likes_metrics(likes, p, p - 1, p + 1)
    assert m['rmse_log1p'] == pytest.approx(root_mean_squared_error(y, p))
    assert m['mae_log1p'] == pytest.approx(mean_absolute_error(y, p))
    assert m['r2_log1p'] == pytest.approx(r2_score(y, p))
    assert m['rmse_likes'] == pytest.approx(root_mean_squared_error(likes, np.expm1(np.maximum(p, 0))))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        want = spearmanr(y, p).statistic
    assert m['spearman'] == pytest.approx(0 if np.isnan(want) else want)
    json.dumps(m, allow_nan=False)


def test_metrics_at_the_edges():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for likes, p in (([5], [1.]), ([5, 5], [1., 2.]), ([1, 2, 3], [7., 7, 7]), ([0, 1], [-5., 1e9])):
            json.dumps(likes_metrics(likes, p), allow_nan=False)
        assert likes_metrics([1, 2, 3], [7., 7, 7])['spearman'] == 0 and likes_metrics([1, 2], [0, 1])['coverage_90'] is None
        assert _spearman([np.nan, 1, 2], [1, 2, 3]) == pytest.approx(1) and _spearman([1, np.nan], [1, 2]) == 0
    for likes, p in (([], []), ([1, -1], [0, 0]), ([1, np.nan], [0, 0]), ([1, 2], [0]), ([1, 2], [0, np.nan]), ([1, 2], [0, np.inf])):
        with pytest.raises(BadInput): likes_metrics(likes, p)


def test_smearing_under_duans_conditions():
    rng = np.random.default_rng(0)
    p = rng.uniform(1, 5, 50_000)
    assert _smearing(p + rng.uniform(-1, 1, p.size), p) == pytest.approx(np.sinh(1), rel=.01)   # E exp(U(-1, 1)) = sinh 1
    assert _smearing(p, p) == 1


def test_baselines_fall_back(tmp_path):
    tweets = pd.DataFrame({'likes': [0., 10, 100], 'username': ['a', 'b', 'b'], 'inferred company': ['x', 'x', 'x']})
    new = pd.DataFrame({'username': ['a', 'b', 'c', 'c'], 'inferred company': ['x', 'x', 'x', 'y']}, index=[9, 8, 7, 7])
    got = Baselines.load(Baselines().fit(tweets).save(tmp_path)).predict(new)
    b, mean = np.log1p([10, 100]).mean(), np.log1p([0, 10, 100]).mean()
    np.testing.assert_allclose(got['account_mean'], [0, b, mean, mean])
    assert list(got) == ['constant', 'company_mean', 'account_mean']
    with pytest.raises(BadInput): Baselines().fit(tweets[:0])


# 1/8 and 1/4 are exact in binary: crepes truncates (1 − confidence)(n + 1) and loses a rank at 0.9
@pytest.mark.parametrize('alpha', [.125, .25])
@pytest.mark.parametrize('n', [7, 8, 39, 100, 1001])
def test_conformal_against_crepes(alpha, n):
    crepes = pytest.importorskip('crepes')
    rng = np.random.default_rng(n)
    r, sigma, pred, new_sigma = rng.standard_t(3, n), rng.uniform(.5, 2, n), rng.normal(5, 1, 50), rng.uniform(.5, 2, 50)
    bins, new_bins = np.array(['a', 'b'])[(rng.random(n) < .5).astype(int)], np.array(['a', 'b'])[(rng.random(50) < .5).astype(int)]
    bins[:1], bins[1:2] = 'a', 'b'
    for ours, theirs in ((dict(), dict()), (dict(scale=sigma), dict(sigmas=sigma)), (dict(groups=bins), dict(bins=bins)), (dict(groups=bins, scale=sigma), dict(bins=bins, sigmas=sigma))):
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            cr = crepes.ConformalRegressor().fit(r, **theirs)
            at = {k: {'sigmas': new_sigma, 'bins': new_bins}[k] for k in theirs}
            want = cr.predict_int(pred, **at, confidence=1 - alpha)
        ci = ConformalIntervals(alpha, min_group=1, floor=None).fit(r, **ours)
        low, high = ci.interval(pred, **{k: {'scale': new_sigma, 'groups': new_bins}[k] for k in ours})
        np.testing.assert_allclose(np.c_[low, high], want)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 400), st.integers(1, 99))
def test_the_rank_is_exact(n, percent):
    "Against integer arithmetic: the smallest rank k with k/(n+1) ≥ 1 − alpha."
    k = -(-(n + 1)*(100 - percent)//100)
    got = _conformal_radius(np.arange(1., n + 1), percent/100)
    assert got == (k if k <= n else np.inf)


def test_coverage_holds_in_every_group_and_survives_disk(tmp_path):
    rng = np.random.default_rng(0)
    g, spread = (lambda n: rng.choice(['known', 'new', 'rare'], n, p=[.7, .295, .005])), dict(known=.5, new=2., rare=2.)
    def draw(n): lab = g(n); return lab, rng.normal(0, [spread[x] for x in lab])
    lab, r = draw(4000)
    ci = ConformalIntervals().fit(r, lab)
    assert ci.names == ['known', 'new']   # 'rare' has too few rows
    ci = ConformalIntervals.load(ci.save(tmp_path))
    lab, r = draw(20_000)
    pred = np.full(len(r), 50.)
    low, high = ci.interval(pred, lab)
    t = coverage_table(np.expm1(pred + r), low, high, lab)
    assert t.loc[['known', 'new'], 'coverage'].between(.88, .92).all()
    low, high = ci.interval([0., 0.], ['known', 'unheard of'])
    assert (low == 0).all() and high[1] == pytest.approx(ci.radius)


def test_units_cover_a_new_unit():
    "Brands with scatters of their own and very unequal sizes: a tweet of a new brand is covered as promised only when brands count once."
    rng, held = np.random.default_rng(0), dict(units=[], rows=[])
    for _ in range(150):
        scatter = rng.lognormal(0, .7, 41)
        size = np.r_[np.full(30, 4), np.full(10, 150)]
        scatter[30:40] = np.sort(scatter[:40])[:10] # the busy ones are the quiet ones
        brand = np.repeat(np.arange(40), size)
        residuals = rng.normal(0, scatter[brand])
        new = rng.normal(0, scatter[rng.integers(0, 40, 200)])
        for k, u in dict(units=brand, rows=None).items():
            c = ConformalIntervals(floor=None, min_group=10).fit(residuals, np.full(len(brand), 'x'), units=u)
            held[k].append(np.mean(np.abs(new) <= c.radii['x']))
    assert abs(np.mean(held['units']) - .9) < .03 and np.mean(held['rows']) < .87

def test_too_few_units_promise_nothing():
    "The radius is the stated prior, or open; rows are never counted in the place of brands."
    r, x = np.random.default_rng(0).normal(size=100), np.full(100, 'x')
    few = ConformalIntervals(min_group=10).fit(r, x, units=np.arange(100) % 5)
    assert few.radii['x'] == np.inf and few.assumed == [] and few.interval([1.], ['x'])[1] == [np.inf]
    stated = ConformalIntervals(min_group=10).fit(r, x, units=np.arange(100) % 5, prior={'x': 3., 'y': 2.})
    assert stated.radii == {'x': 3., 'y': 2.} and stated.assumed == ['x', 'y']
    assert stated.interval([5.], ['x']) == ([2.], [8.])
    enough = ConformalIntervals(min_group=10).fit(r, x, units=np.arange(100) % 9, prior={'x': 30.})
    assert enough.radii['x'] < 30 and enough.assumed == []


def test_conformalised_quantiles_mend_both_ways():
    rng = np.random.default_rng(0)
    x, y = rng.uniform(1, 3, 6000), None
    y = 10 + x*rng.normal(size=6000)
    for factor in (.5, 4.):   # too narrow, too wide
        q = 10 - factor*x, 10 + factor*x
        ci = ConformalIntervals().fit((q[0][:3000] - y[:3000], y[:3000] - q[1][:3000]))
        low, high = ci.interval((q[0][3000:], q[1][3000:]))
        assert (low <= high).all() and np.mean((low <= y[3000:]) & (y[3000:] <= high)) == pytest.approx(.9, abs=.02)


def test_conformal_refuses_misuse(tmp_path):
    ci = ConformalIntervals().fit([1., 2.])
    assert ci.radius == np.inf and ConformalIntervals.load(ci.save(tmp_path)).radius == np.inf
    for call in (lambda: ci.interval([1.], scale=[1.]), lambda: ci.interval(([1.], [2.])), lambda: ConformalIntervals().fit([np.nan]),
                 lambda: ConformalIntervals().fit([1.], scale=[0.]), lambda: ConformalIntervals().fit([1.], ['a', 'b']), lambda: ConformalIntervals().interval([1.])):
        with pytest.raises(BadInput): call()


def test_compare_is_wider_by_group():
    rng = np.random.default_rng(0)
    g = np.repeat(np.arange(40), 25)
    y = rng.uniform(2, 6, 1000)
    a, b = y + rng.normal(0, 1, 40)[g], y + rng.normal(0, 1, 40)[g]
    rows, groups = compare_predictions(np.expm1(y), a, b), compare_predictions(np.expm1(y), a, b, g)
    assert rows['difference'] == pytest.approx(groups['difference']) and groups['upper'] - groups['lower'] > 3*(rows['upper'] - rows['lower'])
    assert compare_predictions(np.expm1(y), a, b, g) == groups

"""An encoder, a regressor, a feature and a preset of the user's own: used in one process, loaded in another."""
import json
import os

import numpy as np
import pytest
import warm

from behaviour_sim.core import BadInput
from behaviour_sim.corpus.synthetic import sample_tweets
from behaviour_sim.data.tweets import write_tweets
from behaviour_sim.features.embeddings import ENCODERS, embed
from behaviour_sim.features.table import TweetFeatures
from behaviour_sim.likes.simulator import LikesSimulator
from behaviour_sim.presets import PRESETS, Preset, _import_named, _preset_of, register_preset

SHOP = '''
import numpy as np, pandas as pd
from behaviour_sim.features.embeddings import register_encoder
from behaviour_sim.features.captioning import CAPTIONERS
from behaviour_sim.model_directories import Regressor
from behaviour_sim.presets import Preset, register_preset

class Letters:
    def __init__(self, letters='aeinot'): self.letters = letters
    def get_params(self, deep=True): return dict(letters=self.letters)
    def encode(self, texts): return [[t.count(c)/(len(t) + 1) for c in self.letters] for t in texts]

class Settings:
    def __init__(self): self.secret = 3
    def encode(self, texts): return [[1.]]*len(texts)

def shouting(tweets):
    assert 'likes' not in tweets
    return pd.DataFrame({'text.shouting': tweets['content'].str.count('[A-Z]'), 'length': tweets['content'].str.len()})

class Mean(Regressor):
    def __init__(self, mean=None, names=None): self.mean, self.names = mean, names
    def fit(self, X, y, valid=None, weight=None): self.mean, self.names = float(np.mean(y)), list(X); return self
    def predict(self, X): return np.full(len(X), self.mean, 'float32')
    def _pack(self, folder): return dict(mean=self.mean, names=self.names), {}
    @classmethod
    def _unpack(cls, facts, files, folder): return cls(**facts)

register_encoder('shop-letters', 'text', 6, 'shop.py', lambda: lambda texts: np.array(Letters().encode(texts), 'float32'))
CAPTIONERS['shop-captions'] = ('tiny-efficientnet', lambda V: ['a product' if np.abs(v).sum() else '' for v in V])
register_preset(Preset('shop', 'shop-letters', 'tiny-efficientnet', 'shop-captions', None, sizes={'text.e': 4, 'caption.e': 2, 'image.e': 3, 'name.e': 2}))
'''

@pytest.fixture(scope='module')
def place(tmp_path_factory):
    d = tmp_path_factory.mktemp('shop')
    (d/'shop.py').write_text(SHOP)
    write_tweets(sample_tweets(160, image_dir=d/'pictures').drop(columns='caption'), d/'tweets.parquet')
    return d

def python(place, code, *args, plugins='shop', fails=False):
    "What a new process prints that runs `code`."
    env = {k: v for k, v in os.environ.items() if k != 'BEHAVIOUR_SIM_PLUGINS'} | dict(BEHAVIOUR_SIM_CACHE=str(place/'cache'))
    env['PYTHONPATH'] = os.pathsep.join([str(place), os.environ.get('PYTHONPATH', '')])
    if plugins: env['BEHAVIOUR_SIM_PLUGINS'] = plugins
    p = warm.run('import warnings; warnings.simplefilter("ignore")\n' + code, *args, cwd=place, env=env)
    assert (p.returncode != 0) == fails, p.stdout + p.stderr
    return p.stderr if fails else p.stdout

HEAD = 'from behaviour_sim.data.tweets import read_tweets\nt = read_tweets("tweets.parquet")\n'
SIMULATE = HEAD + 'from behaviour_sim.likes.simulator import LikesSimulator\n'
PRINT = 'print(s.predict(t.tail(20), quiet=True)[["likes", "lower", "upper"]].to_json())'


def test_fitting_reads_each_text_once():
    "An encoder of the user's is not kept on disk: what it gives is computed once."
    seen = []
    class Counting:
        def encode(self, texts): seen.extend(texts); return [[len(t), 1.] for t in texts]
    LikesSimulator('tiny', text_encoder=Counting()).fit(sample_tweets(20), quiet=True)
    assert seen and len(seen) == len(set(seen))

def test_a_preset_of_ones_own_in_fit_save_and_load(place):
    "Three lines in a module; a process that has imported nothing else finds it by the variable alone."
    first = python(place, SIMULATE + 's = LikesSimulator("shop").fit(t.head(140), quiet=True); s.save("model"); s = LikesSimulator.load("model")\n' + PRINT)
    assert python(place, SIMULATE + 's = LikesSimulator.load("model")\n' + PRINT) == first
    by_path = 'from behaviour_sim.model_directories import Regressor\ns = Regressor.load("model", plugins=["shop"])\n'
    assert python(place, HEAD + by_path + PRINT, plugins=None) == first
    assert "no preset 'shop'; choose one of tiny, laptop, paper" in python(place, SIMULATE + 'LikesSimulator("shop").fit(t)', plugins=None, fails=True)

def test_a_preset_of_ones_own_on_the_command_line(place):
    main = 'from behaviour_sim.apps.cli import main; main()'
    python(place, main, 'fit', 'tweets.parquet', '--model', 'by_command', '--preset', 'shop')
    python(place, main, 'predict', 'tweets.parquet', '--model', 'by_command', '--out', 'out.csv')
    assert len((place/'out.csv').read_text().splitlines()) == 161
    assert "no preset 'shop'" in python(place, main, 'fit', 'tweets.parquet', '--model', 'm', '--preset', 'shop', plugins=None, fails=True)

def test_a_preset_of_ones_own_in_the_jobs_of_a_cluster(place):
    "The stages that Ray's actors run, with what is sent to them, in a process that knows the plug-in by name only."
    code = '''
from pathlib import Path
import pickle, sys
from behaviour_sim.scale.ray_data import _CaptionPictures, _Encode, _job_of, process_tweets, read_shards
if sys.argv[1:]: # the worker
    import cloudpickle
    job, encoders, plugins, items = pickle.loads(Path('sent').read_bytes())
    look = _CaptionPictures(job, encoders, plugins)
    from behaviour_sim.features.captioning import CAPTIONERS
    assert 'shop-captions' in CAPTIONERS
    print(_Encode(encoders[0], plugins)(dict(at=0, items=items))['vectors'].hex())
else:
    import cloudpickle
    from behaviour_sim.features.embeddings import ENCODERS, embed
    from behaviour_sim.presets import _plugin_names
    print(process_tweets(['tweets.parquet'], 'shards', 'shop', quiet=True)['rows'], set(read_shards(['tweets.parquet'], 'shards', 'shop')['caption'].to_pylist()))
    job = _job_of('shop')
    Path('sent').write_bytes(cloudpickle.dumps((job, [ENCODERS[job.text], ENCODERS[job.image]], _plugin_names(), ['tea', 'coffee'])))
    print(embed(['tea', 'coffee'], 'shop-letters', cache=False, batch_size=2).tobytes().hex())'''
    rows, vectors = python(place, code).splitlines()
    assert rows.startswith('160 ') and 'a product' in rows
    assert python(place, code, 'worker', plugins=None).strip() == vectors

def test_features_with_what_is_ones_own_in_a_new_process(place):
    made = '''import json, shop
from behaviour_sim.features.table import TweetFeatures
f = TweetFeatures("tiny", text_encoder=shop.Letters("aeio"), extra=[shop.shouting]).fit(t, quiet=True)
print(json.dumps(f._facts()))'''
    facts = json.loads(python(place, HEAD + made))
    assert facts['text_encoder'] == dict(path='shop.Letters', params=dict(letters='aeio')) and facts['extra'] == ['shop.shouting']
    again = f'''from behaviour_sim.features.table import TweetFeatures
f = TweetFeatures._of_facts({facts!r}).fit(t, quiet=True)
X, E = f.transform(t, quiet=True)
print(E.shape, [c for c in X if c in ("text.shouting", "own.length")])'''
    assert python(place, HEAD + again) == "(160, 4) ['text.shouting', 'own.length']\n"
    assert 'BEHAVIOUR_SIM_PLUGINS' in python(place, HEAD + again, plugins=None, fails=True)

def test_a_regressor_of_ones_own_in_a_new_process(place):
    python(place, 'import numpy as np, pandas as pd, shop\nshop.Mean().fit(pd.DataFrame(dict(x=[1, 2])), [1, 3]).save("mean")')
    load = 'from behaviour_sim.model_directories import Regressor\nprint(Regressor.load("mean").predict([0]))'
    assert python(place, load) == '[2.]\n'
    assert 'shop.Mean is in no plug-in' in python(place, load, plugins=None, fails=True)

@pytest.mark.parametrize('facts', [dict(extra=['os.system']), dict(extra=['behaviour_sim.features.download.download']), dict(extra=['builtins.eval']),
    dict(text_encoder=dict(path='subprocess.Popen', params={})), dict(text_encoder=dict(path='behaviour_sim.features.table.Compressor', params={})), dict(preset=dict(name='x', evil=1))])
def test_facts_that_name_anything_else_are_refused(facts):
    with pytest.raises(BadInput): TweetFeatures._of_facts(TweetFeatures('tiny')._facts() | facts)

def test_what_cannot_be_saved_says_so(place, monkeypatch):
    monkeypatch.syspath_prepend(str(place))
    import shop
    for kw, why in ((dict(extra=[lambda t: t]), 'put it at the top of a module'), (dict(text_encoder=shop.Settings()), 'has settings that cannot be saved')):
        with pytest.raises(BadInput, match=why): TweetFeatures('tiny', **kw)._facts()
    del PRESETS['shop'], ENCODERS['shop-letters']
    from behaviour_sim.features.captioning import CAPTIONERS
    del CAPTIONERS['shop-captions']

def test_a_feature_is_checked():
    t = sample_tweets(30)
    X = TweetFeatures('tiny', extra=[_shout]).fit(t, quiet=True).transform(t.assign(content=''), quiet=True)[0]
    assert X['text.shout'].isna().all() and (X['own.one'] == 1).all() and X['own.one'].dtype == 'float32'
    for f in (_wrong_rows, _words, _infinite, _twice, _no_table):
        with pytest.raises(BadInput, match=f.__name__ if f is not _twice else "the name 'text.length'"): TweetFeatures('tiny', extra=[f]).fit(t, quiet=True).transform(t, quiet=True)
    for f in (3, 'nowhere', TweetFeatures):
        with pytest.raises(BadInput): TweetFeatures('tiny', extra=[f])

def _shout(t): return t.assign(**{'text.shout': 1, 'one': True})[['text.shout', 'one']]
def _wrong_rows(t): return _shout(t).iloc[::-1]
def _words(t): return t[['content']]
def _infinite(t): return t.assign(x=np.inf)[['x']]
def _twice(t): return t.assign(**{'text.length': 1})[['text.length']]
def _no_table(t): return [1]*len(t)

def test_the_presets_of_the_package_are_what_they_were():
    assert {k: (p.text_encoder, p.image_encoder, p.captioner, p.language_model, p.image_model) for k, p in PRESETS.items() if k in ('tiny', 'laptop', 'paper')} == dict(
        tiny=('tiny-distilbert', 'tiny-efficientnet', 'tiny-blip2', 'tiny-bloom', 'tiny'), laptop=('minilm', 'efficientnet-lite0', 'conse', 'smollm2', 'tiny'),
        paper=('sentence-transformers/all-mpnet-base-v2', 'openai/clip-vit-base-patch32', 'Salesforce/blip2-opt-2.7b', 'bloom-7b1', 'report'))
    assert PRESETS['laptop'].sizes == {'text.e': 32, 'caption.e': 12, 'image.e': 16, 'name.e': 16}

def test_a_preset_names_entries_of_the_tables():
    from behaviour_sim.features.captioning import CAPTIONERS
    from behaviour_sim.images.models import IMAGE_PRESETS
    from behaviour_sim.text.language_models import LANGUAGE_MODELS
    for p in (PRESETS['tiny'], PRESETS['laptop'], PRESETS['paper']):
        assert p.captioner in CAPTIONERS and p.language_model in LANGUAGE_MODELS and p.image_model in IMAGE_PRESETS

def test_a_preset_that_makes_no_sense_is_one_sentence():
    for p in (Preset('laptop', 'use'), Preset('../x'), Preset(''), Preset('mine', sizes={})):
        with pytest.raises(BadInput): register_preset(p)
    for x in (3, None, dict(text_encoder='use'), 'big'):
        with pytest.raises(BadInput): _preset_of(x)

def test_a_plug_in_is_never_guessed(place, monkeypatch):
    monkeypatch.syspath_prepend(str(place))
    with pytest.raises(BadInput, match='is in no plug-in'): _import_named('shop.Mean')
    monkeypatch.setenv('BEHAVIOUR_SIM_PLUGINS', 'no_such_shop')
    with pytest.raises(BadInput, match='no_such_shop cannot be imported'): embed(['tea'], 'no such encoder')


OWN = '''
from catboost import CatBoostRegressor
from sklearn.base import clone
from behaviour_sim.likes.explain import LikesSimulator
import numpy as np, shop
cat = lambda n: CatBoostRegressor(iterations=n, verbose=False, allow_writing_files=False, thread_count=1, random_seed=0)
own = dict(text_encoder=shop.Letters(), features=[shop.shouting], regressors=['lightgbm', cat(20)], cold_start=cat(15))
s = clone(LikesSimulator('tiny', **own)).fit(t.head(140), quiet=True)
assert {type(m).__name__ for m in s.known_account.models} == {'LightGBMModel', 'ExternalRegressor'}
assert type(s.new_company.models[0]).__name__ == type(s.new_company.models_alone[0]).__name__ == 'ExternalRegressor'
new = t.tail(6).copy(); new.iloc[:3, new.columns.get_indexer(['username', 'inferred company'])] = 'nobody'
why = s.shares(new, quiet=True)
assert 'own' in why and abs(np.maximum(why.sum(axis=1), 0) - s.predict_log1p(new, quiet=True)).max() < 1e-2
loud = new.assign(content=new['content'].str.upper())
assert (s.predict_log1p(loud, quiet=True) != s.predict_log1p(new, quiet=True)).any()
s.save('own')
'''

def test_own_encoder_feature_and_regressors_in_one_simulator(place):
    "CatBoost in the place of the trees; fitted, explained and saved in one process, loaded in one that has imported nothing else."
    python(place, HEAD + OWN + PRINT.replace('s.predict', "LikesSimulator.load('own').predict"))
    load = 'from behaviour_sim.model_directories import Regressor\ns = Regressor.load("own", plugins=["shop"])\n'
    first = python(place, HEAD + load + PRINT, plugins=None)
    assert json.loads(first)['likes'] and python(place, HEAD + load + PRINT, plugins=None) == first
    assert 'shop' in python(place, HEAD + 'from behaviour_sim.model_directories import Regressor\nRegressor.load("own")', plugins=None, fails=True)

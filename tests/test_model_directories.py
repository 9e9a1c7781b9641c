"""Model directories: every byte is guarded, nothing in them is run, and another version's are refused in one sentence."""
import io
import json
import os
import pickle
import shutil
import zipfile

import numpy as np
import pytest
from sklearn.base import clone

from behaviour_sim.text.simulator import ContentSimulator
from behaviour_sim.core import BadInput, content_key, sha256_file, write_json
from behaviour_sim.corpus.synthetic import sample_tweets
from behaviour_sim.model_directories import _FORMAT, Regressor
from behaviour_sim.likes.simulator import LikesSimulator
from behaviour_sim.images.simulator import ImageSimulator


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    "A content simulator in a directory; a likes simulator, a retriever and an adapter are in it."
    folder = tmp_path_factory.mktemp('models')/'writer'
    ContentSimulator('tiny', 'tiny-bloom').fit(sample_tweets(200), steps=2, rows=40, quiet=True).save(folder)
    return folder

def files(folder): return sorted(p for p in folder.rglob('*') if p.is_file())

def sign(folder):
    "Make the cards say that everything is in order, from the innermost outwards."
    for card in sorted(folder.rglob('model.json'), key=lambda p: -len(p.parts)):
        c = json.loads(card.read_text())
        c['files'] = {n: sha256_file(card.parent/n) for n in c['files']}
        if 'inner' in c['facts']: c['facts']['inner'] = {n: sha256_file(card.parent/n) for n in c['facts']['inner']}
        c['key'] = content_key(*(c[k] for k in ('kind', 'format', 'version', 'facts', 'files')))
        write_json(c, card)

class Bomb:
    "What leaves a mark when it is unpickled."
    def __init__(self, mark): self.mark = str(mark)
    def __reduce__(self): return os.mkdir, (self.mark,)

def pickled(mark): return pickle.dumps(Bomb(mark))

def torch_file(mark):
    f = io.BytesIO()
    with zipfile.ZipFile(f, 'w') as z: z.writestr('archive/data.pkl', pickled(mark)); z.writestr('archive/version', '3')
    return f.getvalue()

def numpy_file(mark):
    f = io.BytesIO(); np.save(f, np.array([Bomb(mark)], dtype=object), allow_pickle=True)
    return f.getvalue()


def test_the_signature_of_the_tests_is_right(model):
    "Else the tests below would refuse for the wrong reason."
    before = [p.read_bytes() for p in files(model)]
    sign(model)
    assert [p.read_bytes() for p in files(model)] == before and ContentSimulator.load(model).names

def test_a_model_that_is_no_number_is_refused(model, tmp_path):
    "NaN in weights and in a card, both with sums that match; and a card that is nested too deep to be read."
    from safetensors.numpy import load, save
    for kind in ('weights', 'card', 'deep'):
        m = tmp_path/kind; shutil.copytree(model, m)
        card = m/'likes'/'intervals'/'model.json'
        if kind == 'weights':
            a = load((m/'likes'/'compression.safetensors').read_bytes())
            name = next(k for k, v in a.items() if v.dtype.kind == 'f' and v.size)
            a[name] = a[name].copy(); a[name].flat[0] = np.nan
            (m/'likes'/'compression.safetensors').write_bytes(save(a)); sign(m)
        if kind == 'card':
            c = json.loads(card.read_text()); c['facts']['extra'] = float('nan')
            c['key'] = content_key(*(c[k] for k in ('kind', 'format', 'version', 'facts', 'files')))
            card.write_text(json.dumps(c))
        if kind == 'deep': (m/'model.json').write_text('['*100_000)
        with pytest.raises(BadInput, match='no number' if kind == 'weights' else 'cannot be read'): Regressor.load(card.parent if kind == 'card' else m)

def test_every_byte_is_guarded(model):
    kinds = {p.suffix for p in files(model)}
    assert {'.json', '.safetensors', '.parquet', '.csv', '.md'} <= kinds and not kinds & {'.pkl', '.pickle', '.joblib', '.pt', '.pth', '.bin', '.npy', '.npz'}
    for p in files(model):
        whole = p.read_bytes()
        for at in {0, len(whole)//2, len(whole) - 1}:
            p.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1:])
            with pytest.raises(BadInput): ContentSimulator.load(model)
        p.write_bytes(whole)
    assert ContentSimulator.load(model).names

@pytest.mark.parametrize('bomb', [pickled, torch_file, numpy_file])
def test_a_pickle_is_never_run(model, bomb, tmp_path):
    "Not even when every checksum says that it belongs there."
    pickle.loads(pickled(tmp_path/'proof')); assert (tmp_path/'proof').is_dir() # the bomb would go off
    mark, read = tmp_path/'mark', 0
    for p in files(model):
        if p.name == 'model.json': continue
        cards = {c: c.read_bytes() for c in model.rglob('model.json')}
        whole = p.read_bytes()
        p.write_bytes(bomb(mark)); sign(model)
        try:
            writer = ContentSimulator.load(model) # what is only text, such as the model card, is not read
            writer.generate(sample_tweets(3), source='lm', quiet=True); read += 1
        except BadInput: pass
        assert not mark.exists(), p
        p.write_bytes(whole)
        for c, b in cards.items(): c.write_bytes(b)
    assert read < 6 and ContentSimulator.load(model).names

@pytest.mark.parametrize('absolute', [False, True])
def test_no_path_leads_out(model, absolute):
    "Parts and files are names, not paths, even where the path leads to something whole."
    outside = model.parent/'outside'
    shutil.copytree(model/'likes', outside, dirs_exist_ok=True)
    name, card = str(outside) if absolute else '../outside', model/'model.json'
    whole = card.read_bytes()
    for field in ('parts', 'files'):
        c = json.loads(whole)
        if field == 'parts': c['facts']['parts'] = [name, 'retriever']
        else: c['files'][f'{name}/model.json'] = sha256_file(outside/'model.json')
        c['key'] = content_key(*(c[k] for k in ('kind', 'format', 'version', 'facts', 'files')))
        write_json(c, card)
        with pytest.raises(BadInput, match='is no part of the model|is missing or was changed'): ContentSimulator.load(model)
        card.write_bytes(whole)

def test_another_format_is_one_sentence(model):
    card = model/'likes'/'model.json'; whole = card.read_bytes()
    c = json.loads(whole)
    for other in (_FORMAT - 1, _FORMAT + 1, None):
        write_json(c | dict(format=other), card)
        with pytest.raises(BadInput, match=f'was saved by version .* in format {other}; this is version .*, which reads format {_FORMAT}: fit it again'): LikesSimulator.load(card.parent)
    write_json({k: v for k, v in c.items() if k != 'version'} | dict(format=1), card) # as the first versions saved
    with pytest.raises(BadInput, match='was saved in format 1; this is version'): LikesSimulator.load(card.parent)
    card.write_bytes(whole)

def test_facts_that_no_version_wrote_are_one_sentence(model):
    likes = model/'likes'; card = likes/'model.json'; whole = card.read_bytes()
    c = json.loads(whole)
    for lost in c['facts']:
        d = c | dict(facts={k: v for k, v in c['facts'].items() if k != lost})
        write_json(d | dict(key=content_key(*(d[k] for k in ('kind', 'format', 'version', 'facts', 'files')))), card)
        with pytest.raises(BadInput, match='cannot be read .* fit it again'): Regressor.load(likes)
    card.write_bytes(whole)

def test_a_fact_that_was_changed_is_one_sentence(model):
    "A card that can be read, and says something else than when it was saved."
    card = model/'model.json'; whole = card.read_text()
    c = json.loads(whole)
    for changed in (c | dict(facts=c['facts'] | dict(seed=43)), c | dict(version='9'), {**c, 'kind': 'behaviour_sim.likes.simulator.LikesSimulator'}):
        write_json(changed, card)
        with pytest.raises(BadInput, match='was changed after it was saved'): ContentSimulator.load(model)
    card.write_text(whole)
    assert ContentSimulator.load(model).names


@pytest.mark.parametrize('sim', [LikesSimulator('tiny', seed=3, regressors=['xgboost']), ContentSimulator('tiny', 'tiny-bloom', style='report'),
    ImageSimulator('tiny', seed=3)], ids=lambda s: type(s).__name__)
def test_settings_can_be_read_changed_and_cloned(sim):
    "As scikit-learn does it, by the parent of every model."
    again, given = clone(sim), sim.get_params()
    assert again is not sim and again.get_params() == given and again.names is None
    assert again.set_params(seed=9) is again and again.get_params() == given | dict(seed=9) and sim.get_params() == given
    with pytest.raises(BadInput, match='no setting depth'): sim.set_params(depth=3)

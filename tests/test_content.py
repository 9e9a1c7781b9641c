"""The content simulator: nothing of the wanted text is seen, nothing is lost, and the command line keeps its contract."""
import html
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import warm

from behaviour_sim.text.simulator import ContentSimulator
from behaviour_sim.core import BadInput, data_dir
from behaviour_sim.corpus.synthetic import sample_tweets
from behaviour_sim.data.tweets import write_tweets
from behaviour_sim.text.retrieval import TextKernel, TweetRetriever, nearest_in_time


@pytest.fixture(scope='module')
def tweets(): return sample_tweets(500)

@pytest.fixture(scope='module')
def writer(tweets): return ContentSimulator('tiny', 'tiny-bloom').fit(tweets.iloc[:400], steps=12, rows=100, quiet=True)

def cli(*args): return warm.run('from behaviour_sim.apps.cli import main; main()', *args)


@pytest.mark.parametrize('source', ['mixed', 'lm', 'retrieval'])
def test_the_text_to_be_written_is_never_seen(writer, tweets, source):
    new = tweets.iloc[400:406]
    texts = writer.generate(new, source=source, quiet=True)['content'].tolist()
    for other in (new.assign(content='something else altogether'), new.drop(columns='content')):
        assert writer.generate(other, source=source, quiet=True)['content'].tolist() == texts

def test_rows_keep_their_order_and_their_ids(writer, tweets):
    new = tweets.iloc[400:412].sample(frac=1, random_state=1)
    out = writer.generate(new, source='lm', quiet=True)
    assert out['id'].tolist() == new['id'].tolist() and out.index.equals(new.index)
    one = writer.generate(new.iloc[[7]], source='retrieval', quiet=True)['content'].iloc[0]
    assert one == writer.generate(new, source='retrieval', quiet=True)['content'].iloc[7]

def test_a_tweet_may_lack_nearly_everything(writer, tweets):
    bare = tweets.iloc[400:405][['id', 'date', 'username', 'inferred company']]
    assert writer.generate(bare, quiet=True)['content'].str.len().gt(0).all()
    assert len(writer.generate(bare.iloc[[0, 0, 0]], source='retrieval', quiet=True)) == 3

def test_no_draft_is_longer_than_a_tweet_or_holds_a_special_token(writer, tweets):
    texts = writer.generate(tweets.iloc[400:424], n=2, source='lm', quiet=True)['content']
    assert texts.map(html.unescape).str.len().max() <= 280 and not texts.str.contains(r'</?s>|<pad>|<\|').any()

def test_the_likes_that_are_wanted_decide(writer, tweets):
    "Among the same drafts, the choice for many likes is expected to get more than the choice for few."
    new = tweets.iloc[400:420]
    drafts = writer.drafts(new, n=3, quiet=True)
    only = dict(likeness=0., likes=1., copy=0., degenerate=0.)
    def expected(tweets, aim):
        scored = writer.choose(tweets, drafts, aim, only, quiet=True)
        return scored.sort_values('score').groupby('row').tail(1)['predicted'].mean()
    best = lambda likes: expected(new.assign(likes=likes), 'wanted')
    assert best(0.) < best(1e5) == pytest.approx(expected(new, 'most'))

def test_a_retriever_learns_only_from_other_tweets(tweets):
    "With shuffled texts nothing can be learned, and the choice is no better than the nearest in time."
    known, new = tweets.iloc[:400].reset_index(drop=True), tweets.iloc[400:].reset_index(drop=True)
    known['content'] = known['content'].sample(frac=1, random_state=0).to_numpy()
    found = TweetRetriever('tiny', rows=300).fit(known, quiet=True).retrieve(new, quiet=True)
    kernel = TextKernel(known['content'].tolist())
    real = kernel.see(new['content'].tolist())
    like = lambda texts: kernel.likeness(kernel.see(list(texts)), real).diagonal()
    near = nearest_in_time(new, known)
    gain = (like(found) - like(known['content'].iloc[near]))[near >= 0]
    assert abs(gain.mean()) < 3*gain.std()/np.sqrt(len(gain)) + .02

def test_a_later_tweet_is_never_returned(tweets):
    "Neither as the nearest in time, nor as a candidate, nor in what is retrieved; not even one of the same second."
    known, new = tweets.iloc[:400].reset_index(drop=True), tweets.iloc[400:].reset_index(drop=True)
    date = pd.to_datetime(known['date'])
    def earlier(at, day): return (date.iloc[at] < day).all()
    near = nearest_in_time(new, known)
    assert all(earlier([j], d) for j, d in zip(near, pd.to_datetime(new['date'])) if j >= 0)
    r = TweetRetriever('tiny', rows=200).fit(known, quiet=True)
    for t in (new, known.head(50), new.assign(**{'inferred company': 'nobody', 'username': 'Nobody'})):
        found = r.rank(t, 10, quiet=True)
        assert any(len(f) for f in found)
        assert all(earlier(f['position'], d) for f, d in zip(found, pd.to_datetime(t['date'])))
    open_end = TweetRetriever('tiny', rows=200, past_only=False).fit(known, quiet=True)
    assert not all(earlier(f['position'], d) for f, d in zip(open_end.rank(new, 10, quiet=True), pd.to_datetime(new['date'])))

def test_what_is_posted_later_changes_nothing(tweets):
    "The candidates of a tweet are the same whether or not later tweets are known."
    from behaviour_sim.text.retrieval import _Facts, _Pools
    t = tweets.assign(date=pd.to_datetime(tweets['date'])).sort_values('date').reset_index(drop=True)
    all_of_them, half = _Facts(t, 'tiny-distilbert', True), _Facts(t.iloc[:250], 'tiny-distilbert', True)
    asked = _Facts(t.iloc[200:250], 'tiny-distilbert', True)
    a, b = (_Pools(f).nearest(asked, 8) for f in (all_of_them, half))
    assert all((all_of_them.day[i] < d).all() for i, d in zip(a, asked.day)) and sum(map(len, a)) > 100
    assert sum(set(x) == set(y) for x, y in zip(a, b)) >= 48 # equal but for ties

def test_the_nearest_is_the_latest_earlier_one(tweets):
    "By hand: of the account, else of the company, else of all; -1 before the first."
    known = pd.DataFrame(dict(username=['a', 'a', 'b', 'c'], date=pd.to_datetime(['2020-01-01', '2020-03-01', '2020-02-01', '2020-01-05']),
                              content='x', **{'inferred company': ['p', 'p', 'p', 'q']}))
    ask = lambda user, company, date, **kw: nearest_in_time(pd.DataFrame({'username': [user], 'inferred company': [company], 'date': [date]}), known, **kw)[0]
    assert ask('a', 'p', '2020-02-20') == 0 and ask('a', 'p', '2020-02-20', past_only=False) == 1
    assert ask('a', 'p', '2020-03-01') == 0 # not one of the same second
    assert ask('b', 'p', '2020-01-20') == 0 and ask('c', 'q', '2020-01-03') == 0 and ask('z', 'z', '2020-02-10') == 2
    assert ask('a', 'p', '2019-12-31') == -1

def test_where_nothing_is_earlier_generation_goes_on(writer, tweets):
    old = tweets.iloc[400:403].assign(date='2001-01-01')
    assert [len(f) for f in writer.examples(old, quiet=True)] == [0, 0, 0]
    out = writer.generate(old, source='retrieval', quiet=True)
    assert out['source'].tolist() == ['none']*3 and out['content'].tolist() == ['']*3
    assert writer.generate(old, source='lm', quiet=True)['source'].tolist() == ['lm']*3
    both = writer.generate(pd.concat([old, tweets.iloc[400:403]]), source='mixed', quiet=True)
    assert len(both) == 6 and 'retrieval' in both['source'].tolist()[3:]

def test_a_new_company_gets_earlier_tweets_of_others(writer, tweets):
    new = tweets.iloc[400:402].assign(**{'inferred company': 'nobody', 'username': 'Nobody', 'date': '2030-01-01'})
    assert all(len(f) and not f['same_company'].any() for f in writer.examples(new, quiet=True))
    assert all(f['same_company'].all() for f in writer.examples(tweets.iloc[400:410].assign(date='2030-01-01'), quiet=True) if f['same_company'].any())

def test_the_smallest_retriever():
    t = sample_tweets(60).sort_values('date')
    two = t[t['inferred company'] == t['inferred company'].iloc[0]].head(2)
    r = TweetRetriever('tiny').fit(two, quiet=True)
    assert r.retrieve(two, quiet=True) == ['', two['content'].iloc[0]]
    with pytest.raises(BadInput, match='dates that differ'): TweetRetriever('tiny').fit(two.assign(date='2020-01-01'), quiet=True)

def test_a_changed_byte_is_refused(writer, tmp_path):
    writer.save(tmp_path/'m')
    for name in ('adapter.model.safetensors', 'retriever/tweets.parquet', 'likes/model.json'):
        file = tmp_path/'m'/name
        data = bytearray(file.read_bytes()); data[len(data)//2] ^= 1; file.write_bytes(data)
        with pytest.raises(BadInput): ContentSimulator.load(tmp_path/'m')
        data[len(data)//2] ^= 1; file.write_bytes(data)
    assert ContentSimulator.load(tmp_path/'m').names

def test_the_command_line_keeps_its_contract(tweets, tmp_path):
    known, new, out = tmp_path/'known.csv', tmp_path/'new.csv', tmp_path/'out.csv'
    write_tweets(tweets.iloc[:300], known)
    write_tweets(tweets.iloc[400:410].drop(columns=['likes']), new)
    p = cli('fit-content', known, '--model', tmp_path/'m', '--preset', 'tiny', '--lm', 'tiny-bloom', '--minutes', '.1')
    assert (p.returncode, p.stderr) == (0, ''), p.stderr
    p = cli('generate', new, '--model', tmp_path/'m', '--out', out)
    assert (p.returncode, p.stderr) == (0, ''), p.stderr
    table = pd.read_csv(out, keep_default_na=False)
    assert list(table) == ['id', 'content'] and table['id'].astype(str).tolist() == tweets['id'].iloc[400:410].astype(str).tolist()
    p = cli('score-text', new, out, '--json', tmp_path/'s.json')
    assert p.returncode == 0 and 'bleu' in p.stdout
    figures = pd.read_json(tmp_path/'s.json', typ='series')
    assert {'bleu_1', 'bleu_2', 'bleu_3', 'bleu_4', 'rouge_l', 'chrf', 'cider', 'signature', 'without_placeholders'} <= set(figures.index)

def test_fit_content_reproduces(tweets, tmp_path):
    "Two processes with other hash seeds and empty caches write the same model directory, byte for byte: a new one, and one forked where the seed was random."
    write_tweets(tweets.iloc[:40], tmp_path/'known.csv')
    code = 'from behaviour_sim.apps.cli import main; main()'
    for seed in '12':
        args = ['fit-content', tmp_path/'known.csv', '--model', tmp_path/seed, '--preset', 'tiny', '--lm', 'tiny-bloom', '--minutes', '30']
        env = dict(os.environ, PYTHONHASHSEED=seed, BEHAVIOUR_SIM_CACHE=str(tmp_path/f'cache{seed}'))
        if seed == '1': subprocess.run([sys.executable, '-c', code, *map(str, args)], check=True, capture_output=True, env=env)
        else: assert warm.run(code, *args, env=env).returncode == 0
    files = {f.relative_to(tmp_path/'1') for f in (tmp_path/'1').rglob('*') if f.is_file()}
    assert len(files) > 10 and files == {f.relative_to(tmp_path/'2') for f in (tmp_path/'2').rglob('*') if f.is_file()}
    assert [str(f) for f in sorted(files) if (tmp_path/'1'/f).read_bytes() != (tmp_path/'2'/f).read_bytes()] == []

@pytest.mark.parametrize('args', [('generate', 'known.csv', '--model', 'nowhere', '--out', 'x.csv'), ('score-text', 'known.csv', 'none.csv'), ('fit-content', 'none.csv', '--model', 'm')])
def test_bad_input_is_one_sentence(args, tweets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_tweets(tweets.iloc[:20], tmp_path/'known.csv')
    p = cli(*args)
    assert p.returncode == 2 and p.stderr.count('\n') == 1 and 'Traceback' not in p.stderr
    assert sorted(f.name for f in tmp_path.iterdir()) == ['known.csv']

def test_retrieval_beats_the_nearest_in_time_on_real_tweets():
    "Over 1,800 tweets posted after the known ones. The encoder is in 32 bits on any processor, and the gain is well beyond its noise."
    if data_dir() is None: pytest.skip('the real tweets are not here')
    from behaviour_sim.data.tweets import read_tweets
    known = read_tweets(data_dir()/'behaviour_simulation_train.csv')
    new = read_tweets(data_dir()/'behaviour_simulation_test_time.csv')
    new = new[new['username'].isin(known['username'])].sample(1800, random_state=0).reset_index(drop=True)
    found = TweetRetriever('tiny', rows=1000).fit(known, quiet=True).retrieve(new, quiet=True)
    kernel = TextKernel(known['content'].tolist())
    real = kernel.see(new['content'].tolist())
    like = lambda texts: kernel.likeness(kernel.see(list(texts)), real).diagonal()
    gain = like(found) - like(known['content'].iloc[nearest_in_time(new, known)])
    assert gain.mean() > 0


def test_the_prompt_may_be_that_of_the_report(tweets):
    from behaviour_sim.text.prompts import build_prompts
    w = ContentSimulator('tiny', None, style='report')
    w.k = 2
    rows = tweets.head(3)
    assert w.prompts(rows, [pd.DataFrame(dict(content=['x']))]*3) == build_prompts(rows, 'report')


# --- New texts ---

def test_a_copy_is_not_chosen_where_there_is_another_draft(writer, tweets, monkeypatch):
    "Neither an old tweet to the letter nor one with eight of its words in a row, though both are likeliest."
    new, known = tweets.iloc[400:408].drop(columns='likes'), tweets['content'].iloc[:400]
    old = max(known, key=lambda t: len(t.split()))
    words = old.split()
    assert len(words) > 10
    texts = [old, f'And {" ".join(words[:9])} at last', 'We have thought of something else, for once']
    monkeypatch.setattr(writer, 'write', lambda prompts, n, quiet: [[t]*len(prompts) for t in texts])
    out = writer.generate(new, n=3, quiet=True)
    assert set(out['content']) == {texts[2]} and set(out['source']) == {'lm'}
    monkeypatch.setattr(writer, 'write', lambda prompts, n, quiet: [[texts[0]]*len(prompts)])
    assert writer.generate(new, n=1, quiet=True)['copied'].all() # where there is no other, it is there and says so

def test_hashtags_and_addresses_come_from_the_examples(writer, tweets, monkeypatch):
    new = tweets.iloc[400:401]
    known = {h for t in writer.examples(new, quiet=True)[0]['content'] for h in t.split() if h.startswith('#')}
    text = f"Look {' '.join(sorted(known))} #nobodyeversaidthis at https://made.example/up with @madeup_name"
    monkeypatch.setattr(writer, 'write', lambda prompts, n, quiet: [[text]])
    out = writer.generate(new, n=1, quiet=True)['content'].iloc[0]
    assert 'nobodyeversaidthis' in out and '#nobodyeversaidthis' not in out and all(h in out for h in known)
    assert 'made.example' not in out and 'madeup' not in out and '<hyperlink>' in out and '<mention>' in out

def test_what_is_learned_from_is_never_in_its_own_prompt(writer, tweets):
    "Not even nearly; and some examples are left out, the same ones with the same seed."
    from behaviour_sim.text.simulator import _lessons
    part = tweets.iloc[300:400].reset_index(drop=True)
    found = [f.assign(content=[part['content'][i], *f['content'][1:]]) if len(f) else f for i, f in enumerate(writer.examples(part, quiet=True))]
    texts = part['content'].tolist()
    lessons = _lessons(writer, found, texts, 1)
    assert not any(t in set(f['content']) for f, t in zip(lessons, texts) if len(f))
    assert 0 < sum(map(len, lessons)) < .95*sum(map(len, found)) and any(len(f) and not len(l) for f, l in zip(found, lessons))
    assert [list(f['content']) for f in lessons if len(f)] == [list(f['content']) for f in _lessons(writer, found, texts, 1) if len(f)]

def test_without_a_language_model_the_default_retrieves(tweets):
    w = ContentSimulator('tiny', lm=None).fit(tweets.iloc[:200], rank_by_likes=False, quiet=True)
    assert set(w.generate(tweets.iloc[400:405], quiet=True)['source']) == {'retrieval'}


# --- Variants, rewriting, voice ---

@pytest.fixture(scope='module')
def place(writer, tweets, tmp_path_factory):
    d = tmp_path_factory.mktemp('rewriting')
    writer.save(d/'w')
    drafts = tweets.iloc[400:402].assign(content=['Good morning! “The Cup” is open. Come in and stay for a while. https://example.com/a', 'BIG NEWS! @ada_l is here! \U0001F389 #party More on Tuesday.'])
    write_tweets(drafts, d/'drafts.csv')
    return d

def test_variants_differ_and_are_compared(place):
    p = cli('generate', place/'drafts.csv', '--model', place/'w', '--out', place/'v.csv', '--variants', '2', '--n', '5')
    assert (p.returncode, p.stderr) == (0, ''), p.stderr
    t = pd.read_csv(place/'v.csv', keep_default_na=False)
    assert list(t) == ['id', 'variant', 'content', 'likes', 'lower', 'upper', 'beats_first'] and t['variant'].tolist() == [1, 2, 1, 2]
    assert t.groupby('id')['content'].nunique().eq(2).all() and (t['lower'] <= t['likes']).all() and (t['likes'] <= t['upper']).all()
    beats = pd.to_numeric(t['beats_first'])
    assert beats[t['variant'] == 1].isna().all() and beats[t['variant'] == 2].between(0, 1).all()
    for more in (['--source', 'mixed'], ['--format', 'buffer']):
        assert cli('generate', place/'drafts.csv', '--model', place/'w', '--out', place/'x.csv', '--variants', '2', *more).returncode == 2

@pytest.mark.parametrize('how', ['shorter', 'question', 'no emoji', 'no hashtags', 'calm', 'lively', 'time'])
def test_a_rewritten_draft_keeps_what_must_stay(place, how):
    from behaviour_sim.text.rewriting import _must_stay
    when = ('--when', '2024-05-16 19:00') if how == 'time' else ()
    p = cli('rewrite', place/'drafts.csv', '--model', place/'w', '--how', how, '--out', place/'r.csv', *when)
    assert (p.returncode, p.stderr) == (0, ''), p.stderr
    t = pd.read_csv(place/'r.csv', keep_default_na=False)
    assert list(t)[:3] == ['id', 'source', 'content']
    for _, own in t.groupby('id'):
        assert own['source'].iloc[0] == 'draft' and own['content'].is_unique
        stay = sorted(_must_stay(own['content'].iloc[0]))
        assert stay and all(sorted(_must_stay(x)) == stay for x in own['content'])
    assert 'edit' in set(t['source'])

def test_the_voice_of_a_brand_in_one_picture(place, tweets):
    name = tweets['username'].iloc[:400].mode()[0]
    p = cli('voice', name, '--model', place/'w', '--out', place/'voice.png')
    assert (p.returncode, p.stderr) == (0, '') and 'characters' in p.stdout, p.stderr
    assert (place/'voice.png').read_bytes().startswith(b'\x89PNG')
    for args in (('nobody', '--model', place/'w'), (name, '--model', place/'w', '--out', place/'voice.doc'), (name, '--model', place/'none')):
        p = cli('voice', *args)
        assert p.returncode == 2 and p.stderr.count('\n') == 1 and 'Traceback' not in p.stderr

@pytest.mark.parametrize('length', [20, 60, 150, 400])
def test_no_cut_takes_a_link_a_handle_or_a_quotation(length):
    "Whatever the order of the words, and however little room there is."
    from behaviour_sim.text.rewriting import _lost, _shortened
    rng = np.random.default_rng(length)
    words = ['tea', 'coffee.', 'Come!', '<hyperlink>', '@ada', '“no way. never”', 'https://example.com/a', 'time\n', '<mention>', 'why?']
    for _ in range(300):
        text = ' '.join(rng.choice(words, rng.integers(3, 40)))
        short = _shortened(text, lambda t: len(t) <= length)
        assert not _lost(short, text) and len(short) <= len(text)

def test_the_help_states_the_measured_share_of_copies():
    "Each source of `generate` with the share of held-out texts that are an old tweet to the letter, as the bench has kept it."
    import re
    from behaviour_sim.apps.cli import _SOURCES_TOLD
    from behaviour_sim.bench.likes_quality import _kept
    copied = _kept('text', 'new texts, random')['copied']
    told = [int(n) for n in re.findall(r'(\d+) %', _SOURCES_TOLD)]
    assert told == [round(100*copied[row]) for row in ('language model', 'retrieved', 'mixed')]

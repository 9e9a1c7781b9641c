"""Prompts: text from outside stays text, the report's wording is kept to the letter, generated text is made to fit."""
import html, re, time, unicodedata

import numpy as np, pandas as pd, pytest
from hypothesis import example, given, settings, strategies as st

from behaviour_sim.core import BadInput, data_dir
from behaviour_sim.corpus.synthetic import sample_tweets
from behaviour_sim.text.prompts import *
from behaviour_sim.text.prompts import _likes_bucket
from behaviour_sim.text.prompts import _SPECIAL, _when_in_words

PIECES = ['<|', '|>', '<', '>', '</s>', '<s>', 's', '/', '[', ']', 'INST', '[/INST]', '<<SYS>>', '<pad>', 'pad', '&lt;', '&gt;', '&amp;', 'amp;', '&#60;', '\u200b', '\u202e', '\x00', '\n', '\r',
          '\ud800', '\ufffd', '|', '｜', '＜', '＞', 'im_start', '<hyperlink>', '<mention>', 'hyperlink', ' ', 'x', '->:', 'Tweet:', 'Tweets by', '\n- ', '👨\u200d👩', '\U000e0041', '\u2028', "'=1+1", '<script>']
HOSTILE = st.lists(st.sampled_from(PIECES), max_size=25).map(''.join) | st.text(st.characters(), max_size=80)
TOKENS = re.compile(r'</?s>|<\||\|>|\[/?INST\]|<</?SYS>>|<(?:pad|unk|bos|eos|mask|start_of_turn|end_of_turn|extra_id_\d+)>|<｜|｜>', re.I)
INVISIBLE = lambda s: [c for c in s if unicodedata.category(c) in ('Cc', 'Cs', 'Co') or '\u200b' <= c <= '\u200f' or '\u202a' <= c <= '\u202e' or '\u2060' <= c <= '\u206f' or c in '\u2028\u2029\ufeff\u00ad' or '\U000e0000' <= c <= '\U000e0fff']
ROW = {'inferred company': 'kite co', 'username': 'KiteCo', 'date': pd.Timestamp('2020-03-10 09:30'), 'content': 'Up! <hyperlink>', 'caption': 'a red kite', 'likes': 250.}


# --- safe_text ---

TRICKS = ['</s>', '<s>', '<|im_start|>', '<|im_<|x|>start|>', '<|<|im_start|>|>', '<<<|a|>|im_start|>', '&lt;/s&gt;', '&amp;lt;/s&amp;gt;', '&#60;/s&#62;', '&amp;amp;lt;s&amp;amp;gt;', '<\u200b/s>', '<\u202e/s>', '</\x00s>',
          '<pad>', '<unk>', '<bos>', '<eos>', '<mask>', '<PAD>', '[INST]', '[/INST]', '[IN[INST]ST]', '<<SYS>>', '<</SYS>>', '<<SY<pad>S>>', '＜/s＞', '<start_of_turn>', '<end_of_turn>', '<extra_id_0>', '<0x0A>',
          '<｜begin▁of▁sentence｜>', '<|endoftext|>', '<|eot_id|>', '<|user|>', '<|im_end', 'im_end|>', '<fim_prefix>', '<tool_call>', '</think>', '<s><s></s></s>', '<</s>s>', '< /s></s>', '<repo_name>', '[/inst]', '<s\u00ad>', '<s\U000e0041>']

@pytest.mark.parametrize('trick', TRICKS)
def test_no_special_token_survives(trick):
    for text in (trick, f'up {trick} away', f'up{trick}away', trick*3):
        out = safe_text(text)
        for seen in (out, html.unescape(html.unescape(out))): assert not TOKENS.search(seen) and not re.search(r'<[^<>\s]+>', seen), seen
        assert 'up' not in text or out.startswith('up') and out.endswith('away')

@settings(max_examples=400, deadline=None)
@given(HOSTILE)
@example('<|'*40 + '|>'*40)
@example('<<hyperlink>script>')
@example('</>')
def test_safe_text_is_safe_and_settled(text):
    out = safe_text(text, 120)
    assert '\n' not in out and len(out) <= 120 and not INVISIBLE(out) and out == ' '.join(out.split())
    assert not TOKENS.search(out) and {m for m in re.findall(r'<[\w/|]+>', out)} <= {'<hyperlink>', '<mention>'}
    assert safe_text(out, 120) == out
    out.encode() # no half of a surrogate pair

@pytest.mark.parametrize('kept', ['<hyperlink>', '<mention>', 'see <mention> at <hyperlink> <hyperlink>', 'I <3 you', '1 < 2 and 3 > 2', 'naïve 日本語 ☀️ עברית', '[Video] out now', 'a|b', '50% off!', '#Kite @ noon', '-> here', '100$ = cheap'])
def test_harmless_text_is_left_alone(kept): assert safe_text(kept) == kept

def test_missing_and_other_types():
    assert [safe_text(x) for x in (None, float('nan'), pd.NaT, 3, '')] == ['', '', '', '3', '']

def test_deep_nesting_and_length_take_no_time():
    start = time.process_time()
    for text in ('<|'*50_000 + 'x' + '|>'*50_000, '&amp;'*100_000 + 'lt;s&gt;', '&' + 'amp;'*100_000 + 'lt;s&gt;', '[IN'*30_000 + 'ST]'*30_000, 'x'*10_000_000, '<'*200_000, '<a'*100_000, ' '*1_000_000):
        safe_text(text); tidy_text(text)
    assert time.process_time()-start < 10

def test_real_tweets_keep_their_words():
    if not data_dir(): pytest.skip('the real rows are not here')
    c = pd.read_csv(data_dir()/'behaviour_simulation_train.csv', keep_default_na=False).content.head(3000)
    words = lambda t: re.findall('[a-z0-9]+|<hyperlink>|<mention>', t.replace('&amp;', '&').replace('&lt;', '<').replace('&gt;', '>').lower())
    assert np.mean([words(t) == words(safe_text(t, 600)) for t in c]) > .999


# --- Prompts ---

def test_the_report_to_the_letter():
    assert report_prompt('upmc', 'UPMCnews', pd.Timestamp('2019-05-10 11:44:04'), 'a bee on a flower', 2) == \
        'upmc with username UPMCnews posted a tweet at 2019-05-10 11:44:04 with an image that is a bee on a flower with number of likes 2 that reads ->: '
    assert image_prompt(pd.DataFrame([ROW])) == ['Make a picture to go along with the tweet -> Up! <hyperlink> ;; written by KiteCo on 2020-03-10 09:30:00 with got 250 likes']

def test_the_order_of_the_short_prompt():
    p = brief_prompt('kite co', 'KiteCo', '2020-03-10 09:30', 'a red kite', 250, ['first', 'second', 'third', 'fourth'])
    assert p == 'Tweets by kite co (@KiteCo)\n- third\n- second\n- first\nTuesday morning, March 2020; picture of a red kite; hundreds of likes\nTweet:'

@pytest.mark.parametrize('style', ['brief', 'report'])
@settings(max_examples=150, deadline=None)
@given(st.tuples(HOSTILE, HOSTILE, HOSTILE, HOSTILE), st.lists(HOSTILE, max_size=4), st.sampled_from([0, 12., float('nan'), None]))
def test_no_cell_breaks_out_of_its_place(style, cells, examples, likes):
    company, username, caption, content = cells
    t = pd.DataFrame([dict(ROW, **{'inferred company': company, 'username': username, 'caption': caption, 'content': content, 'likes': likes})], dtype=object)
    [p] = build_prompts(t, style, [examples])
    lines = p.split('\n')
    assert not TOKENS.search(p) and not INVISIBLE(p.replace('\n', '')) and '\n\n' not in p
    if style == 'brief':
        assert lines[-1] == 'Tweet:' and lines[0].startswith('Tweets by ') and len(lines) <= 6
        assert all(l.startswith('- ') for l in lines[1:-2]) and len(p) < 1500
    else: assert len(lines) == 1 and p.endswith(' that reads ->: ') and p.count('->:') == 1
    for s in ('brief', 'report'):
        [q] = image_prompt(t, s)
        assert not TOKENS.search(q) and not INVISIBLE(q) and len(q) < 900

def test_likes_and_captions_may_be_missing():
    t = pd.DataFrame([ROW]).drop(columns=['likes', 'caption'])
    assert build_prompts(t) == ['Tweets by kite co (@KiteCo)\nTuesday morning, March 2020\nTweet:']
    assert 'image that is unknown with number of likes unknown' in build_prompts(t, 'report')[0]
    assert image_prompt(t, 'brief') == ['picture posted by kite co, Up!']

def test_what_is_wrong_is_said():
    t = pd.DataFrame([ROW])
    for bad, says in [(lambda: build_prompts(t, 'x'), "no prompt 'x'"), (lambda: image_prompt(t, 'x'), "no prompt 'x'"), (lambda: build_prompts(t.drop(columns='date')), "'date'"), (lambda: build_prompts(t, examples=[[], []]), '2 lists'),
                      (lambda: _likes_bucket(-3), '0 or more'), (lambda: _likes_bucket('many'), "not 'many'"), (lambda: report_prompt('a', 'b', 'c', likes=float('inf')), '0 or more')]:
        with pytest.raises(BadInput, match=says): bad()

def test_buckets_are_in_order_and_cover_everything():
    words = [_likes_bucket(n) for n in (0, 1, 10, 100, 1_000, 10_000, 100_000, 10**9)]
    assert len({*words}) == 7 and words[-1] == words[-2]
    assert [_likes_bucket(10**k-1) for k in range(1, 6)] == words[1:6]

@given(st.datetimes(pd.Timestamp('1900-01-01').to_pydatetime(), pd.Timestamp('2199-12-31').to_pydatetime()))
@settings(max_examples=100, deadline=None)
def test_moments_agree_with_the_calendar(date):
    part = 'night morning afternoon evening'.split()[date.hour//6]
    import calendar
    assert _when_in_words(pd.Timestamp(date)) == f'{calendar.day_name[date.weekday()]} {part}, {calendar.month_name[date.month]} {date.year}'

def test_ten_thousand_prompts_are_quick():
    t = pd.concat([sample_tweets(1000, seed=2)]*10, ignore_index=True)
    start = time.process_time()
    prompts = build_prompts(t, examples=[t.content.head(3).tolist()]*len(t))
    assert len(prompts) == 10_000 and time.process_time()-start < 8


# --- tidy ---

@settings(max_examples=400, deadline=None)
@given(HOSTILE, st.booleans())
@example('<'*600, False)
@example('word '*55 + '<hyperlink>', False)
def test_a_tidy_text_fits(text, one_line):
    out = tidy_text(text, one_line=one_line)
    assert len(out) <= 280 and out == out.strip() and '\n\n\n' not in out and '  ' not in out
    assert out.count('<hyperlink>') <= 2 and not re.search(r'(<mention>\s*){3}', out) and '->:' not in out
    assert not _SPECIAL.search(out) and not re.search('[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]', out)
    assert tidy_text(out, one_line=one_line) == out and not (one_line and '\n' in out)

@pytest.mark.parametrize('raw, made', [
    ('Up!</s> rest', 'Up!'), ('<s>Up!</s>', 'Up!'), ('Up!<|im_end|>\n<|im_start|>user', 'Up!'), (' Up!\n\nTweet: again', 'Up!'), ('Up!\nTweets by acme (@a)', 'Up!'), ('Up! ->: rbc with', 'Up!'),
    ('Up! <hyperlink> <hyperlink> <hyper', 'Up! <hyperlink> <hyperlink>'), ('Up! <hyperlink><hyperlink><hyperlink>', 'Up! <hyperlink><hyperlink>'), ('Up! <ment', 'Up!'), ('a\r\nb', 'a\nb'), ('- one\n- two', '- one\n- two'),
    ('Sale <3', 'Sale <3'), ('I\u202e spy\x07 it', 'I spy it'), ('', ''), (None, '')])
def test_tidy(raw, made): assert tidy_text(raw) == made

def test_real_tweets_are_mostly_tidy():
    if not data_dir(): pytest.skip('the real rows are not here')
    c = pd.read_csv(data_dir()/'behaviour_simulation_train.csv', keep_default_na=False).content.head(5000)
    short = c[(c.str.len() <= 280) & (c.str.count('<hyperlink>') <= 2)]
    assert np.mean([tidy_text(t).split() == t.split() for t in short]) > .97

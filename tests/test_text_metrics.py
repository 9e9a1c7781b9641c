"""Text metrics against the libraries themselves, against figures worked out by hand, and on any text at all."""
import json, math

import numpy as np, pandas as pd, pytest
from hypothesis import given, settings, strategies as st

from behaviour_sim.core import BadInput, data_dir
from behaviour_sim.corpus.synthetic import sample_tweets
from behaviour_sim.text.metrics import *
from behaviour_sim.html import _guard_formula, _without_guard
from behaviour_sim.text.metrics import _METRICS, _read_texts, _text_faults, _words

ANY = st.text(st.characters(), max_size=60) | st.text(st.sampled_from('ab <>hyperlinkmention|/s\n\u202e\ud800😀#@'), max_size=60)


@pytest.fixture(scope='module')
def pairs():
    "Real-looking references and other tweets of the same accounts."
    t = sample_tweets(400, seed=9)
    return t.content.tolist(), t.groupby('username').content.shift(1).fillna('').tolist()


# --- Against the libraries ---

@pytest.mark.parametrize('kept', [True, False])
def test_bleu_and_chrf_are_those_of_sacrebleu(pairs, kept):
    import sacrebleu
    ref, gen = pairs if kept else [[without_placeholders(t) for t in x] for x in pairs]
    got = score_texts(*pairs, placeholders=kept)
    for n in (1, 2, 3, 4):
        assert got[f'bleu_{n}'] == pytest.approx(sacrebleu.BLEU(lowercase=True, max_ngram_order=n).corpus_score(gen, [ref]).score, abs=1e-9)
    assert got['bleu_4'] == pytest.approx(sacrebleu.corpus_bleu(gen, [ref], lowercase=True).score, abs=1e-9)
    assert got['chrf'] == pytest.approx(sacrebleu.corpus_chrf(gen, [ref]).score, abs=1e-9)

def test_bleu_without_any_run_of_four():
    "Smoothing is sacrebleu's there too."
    import sacrebleu
    ref, gen = ['one two three four five', 'six seven eight nine ten'], ['one two', 'ten']
    for n in (1, 2, 3, 4): assert score_texts(ref, gen)[f'bleu_{n}'] == pytest.approx(sacrebleu.BLEU(lowercase=True, max_ngram_order=n).corpus_score(gen, [ref]).score, abs=1e-9)

def test_rouge_l_by_a_plain_longest_common_subsequence(pairs):
    import re
    from functools import lru_cache
    def f(r, g):
        r, g = (re.findall(r'[^\W_]+', x.lower()) for x in (r, g))
        @lru_cache(None)
        def lcs(i, j): return 0 if not i or not j else lcs(i-1, j-1)+1 if r[i-1] == g[j-1] else max(lcs(i-1, j), lcs(i, j-1))
        common = lcs(len(r), len(g))
        return 2*common/(len(r)+len(g)) if common else 0
    ref, gen = [x[:60] for x in pairs]
    assert score_texts(ref, gen)['rouge_l'] == pytest.approx(np.mean([f(r, g) for r, g in zip(ref, gen)]), abs=1e-9)

SCRIPTS = dict(hindi='आज हमारी नई दुकान दिल्ली में खुल रही है', arabic='اليوم نفتح متجرنا الجديد في القاهرة', japanese='本日、東京に新しい店を開きます', thai='วันนี้เราเปิดร้านใหม่ในกรุงเทพ',
    chinese='今天我们在上海开新店', persian='امروز فروشگاه تازه‌ی ما باز می‌شود', russian='Сегодня открываем новый магазин', spanish='Hoy el niño abre mañana')

@pytest.mark.parametrize('script', SCRIPTS)
def test_identical_texts_in_any_script_score_full_marks(script):
    text, other = SCRIPTS[script], SCRIPTS['russian' if script != 'russian' else 'hindi']
    s = score_texts([text, 'a red kite over the sea'], [text, 'a red kite over the sea'])
    assert [s[m] for m in _METRICS[:6]] == pytest.approx([100]*4 + [1, 100]) and s['cider'] > 9
    assert score_texts([text], [other])['rouge_l'] == 0

def test_half_of_a_text_without_spaces_scores_by_its_characters():
    s = score_texts(['東京に行く'], ['東京で寝た'])
    assert s['rouge_l'] == pytest.approx(2/5) and s['bleu_1'] == pytest.approx(40)

def test_letters_with_marks_are_letters():
    assert score_texts(['niño mañana'], ['ni o ma ana'])['rouge_l'] == 0
    assert score_texts(['café olé'], ['cafe\u0301 ole\u0301'])['rouge_l'] == 1
    assert score_texts(['Straße'], ['straße'])['rouge_l'] == 1

@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(max_codepoint=126), max_size=60))
def test_words_in_plain_letters_are_those_of_rouge_score(text):
    from rouge_score.tokenizers import DefaultTokenizer
    assert _words(text) == DefaultTokenizer(use_stemmer=False).tokenize(text)

def test_the_tokenizer_is_named():
    assert metric_signature().count('unspaced:chars') == 3 and 'tok:unicode' in metric_signature()

def cider_by_hand(ref, gen):
    "Vedantam et al. 2015, CIDEr-D's clipping and length penalty, sigma 6, one reference each."
    from collections import Counter
    runs = lambda t, n: Counter(tuple(t.lower().split()[i:i+n]) for i in range(len(t.split())-n+1))
    total = 0
    for n in (1, 2, 3, 4):
        R, G = [runs(t, n) for t in ref], [runs(t, n) for t in gen]
        df = Counter(g for r in R for g in r)
        w = lambda c: {g: k*(math.log(len(ref))-math.log(max(1, df[g]))) for g, k in c.items()}
        norm = lambda v: math.sqrt(sum(x*x for x in v.values()))
        for r, g, tr, tg in zip(R, G, ref, gen):
            r, g = w(r), w(g)
            if norm(r) and norm(g):
                pairs_of_words = lambda t: max(0, len(t.split())-1) # what the library takes for the length
                total += sum(min(g[k], r.get(k, 0))*r.get(k, 0) for k in g)/norm(r)/norm(g)*math.exp(-(pairs_of_words(tg)-pairs_of_words(tr))**2/72)
    return 10*total/4/len(ref)

def test_cider_by_hand(pairs):
    ref, gen = ['red kite over blue sea', 'blue sea', 'a red red boat'], ['Red kite over the sea', 'the blue sea', 'red boat']
    assert score_texts(ref, gen)['cider'] == pytest.approx(cider_by_hand(ref, gen), abs=1e-9) and cider_by_hand(ref, gen) > .5
    assert score_texts(*pairs)['cider'] == pytest.approx(cider_by_hand(*pairs), abs=1e-9)

def test_cider_needs_a_corpus():
    "Over one document it would be 0 whatever was written."
    assert math.isnan(score_texts(['a kite in the sky'], ['a kite in the sky'])['cider'])
    whole = score_texts(['a kite in the sky', 'red shoes for rainy days'], ['a kite in the sky', 'red shoes for rainy days'])
    assert whole['cider'] == pytest.approx(10)


# --- What must hold ---

def test_identical_texts_score_full_marks(pairs):
    for kept in (True, False):
        s = score_texts(pairs[0], pairs[0], kept)
        assert [s[m] for m in _METRICS[:-1]] == pytest.approx([100]*4 + [1, 100])
        assert s['cider'] == pytest.approx(10, abs=.05) # a text of three words has no run of four to agree on

def test_order_of_the_pairs_does_not_matter(pairs):
    a, order = score_texts(*pairs), np.random.default_rng(0).permutation(len(pairs[0]))
    b = score_texts(*[[x[i] for i in order] for x in pairs])
    assert a == pytest.approx(b)

def test_placeholders_inflate_every_figure(pairs):
    ref = [f'{without_placeholders(t)} <hyperlink> <hyperlink>' for t in pairs[0]]
    gen = [f'{without_placeholders(t)} <hyperlink> <hyperlink>' for t in pairs[1]]
    kept, removed = score_texts(ref, gen), score_texts(ref, gen, placeholders=False)
    for m in ('bleu_1', 'bleu_2', 'bleu_3', 'bleu_4', 'rouge_l', 'chrf'): assert kept[m] > removed[m] + .02, m
    assert kept['cider'] != removed['cider']

def test_a_reference_of_placeholders_only_is_left_out():
    ref, gen = ['Hello world again', '<hyperlink> <mention>', '', 'So long my friends'], ['Hello world again', 'x', 'y', '']
    assert [score_texts(ref, gen, k)['n'] for k in (True, False)] == [3, 2]
    assert score_texts(ref, gen, False)['rouge_l'] == .5 # the empty generation stays in and scores 0
    assert score_texts(['<mention>'], ['a'], False)['n'] == 0 and math.isnan(score_texts(['<mention>'], ['a'], False)['bleu_4'])

def test_missing_cells_count_as_empty():
    s = score_texts(pd.Series(['a b', 'c d']), pd.Series(['a b', float('nan')]))
    assert s['n'] == 2 and s['rouge_l'] == .5

@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(ANY, ANY), max_size=5))
def test_any_text_gets_figures_in_range(rows):
    ref, gen = [r for r, _ in rows], [g for _, g in rows]
    for kept in (True, False):
        s = score_texts(ref, gen, kept)
        top = dict.fromkeys(_METRICS, 100) | dict(rouge_l=1, cider=10, distinct_1=1, distinct_2=1)
        for m, most in top.items(): assert math.isnan(s[m]) or -1e-9 <= s[m] <= most + 1e-6, (m, s[m])
        assert s['n'] < 2 or not math.isnan(s['cider'])
    assert is_degenerate(gen).shape == (len(gen),)
    if rows: assert 0 <= copy_rate(gen, ref) <= 1

@given(ANY)
@settings(max_examples=100, deadline=None)
def test_removing_placeholders_leaves_none(text):
    assert not any(p in without_placeholders(text + ' <hyperlink><mention>') for p in ('<hyperlink>', '<mention>')) or '<<' in text or '<hyp' in text or '<men' in text

def test_scores_of_five_thousand_pairs_are_quick():
    import time
    t = sample_tweets(1000, seed=4).content.tolist()*5
    start = time.process_time(); score_texts(t, t[1:]+t[:1])
    assert time.process_time()-start < 20


# --- Faults ---

@pytest.mark.parametrize('text, fault', [('', 'empty'), (' \n', 'empty'), ('<hyperlink>  <mention>', 'empty'), ('\u200b <hyperlink>', None), ('a <hyperlink> b'*4, 'links'),
    ('go <hyperlink> <hyperlink> <hyperlink>', None), ('we fly to the sea '*3, 'repeats'), ('we fly to the sea '*2, None), ('ha ha ha ha ha x y z', 'repeats'), ('ha ha ha ha x y z w', None),
    ('ha ha ha ha ha x', None), ('Thanks</s>', 'tokens'), ('<|im_end|> Thanks', 'tokens'), ('[INST] write', 'tokens'), ('half \ufffd', 'tokens'), ('bell\x07', 'tokens'),
    ('two\nlines\tand a tab', None), ('I <3 you', None), ('x'*281, 'long'), ('x'*280+' <hyperlink>', None), ('&amp;'*280, None), ('&amp;'*281, 'long'), ('A fine day <mention>.', None)])
def test_each_fault(text, fault):
    found = _text_faults([text]).iloc[0]
    assert list(found[found].index) == ([fault] if fault else [])
    assert is_degenerate([text])[0] == bool(fault)

def test_copies_are_seen_through_case_and_space():
    train = ['Up we go! <hyperlink>', 'Straße']
    assert copy_rate(['up  WE go!\n<HYPERLINK>', 'STRASSE', 'Up we go!', ''], train) == .5
    assert copy_rate(['Up we go! <mention>', ''], train, placeholders=False) == .5
    assert math.isnan(copy_rate([], train))


# --- Files ---

def frame(ids, texts): return pd.DataFrame({'id': ids, 'content': texts})

def test_rows_are_matched_by_id():
    ref = frame([1580000000000000001, 1580000000000000002, 3], ['red kite', 'blue sea', 'a b'])
    gen = frame(['3', ' 1580000000000000002', '1580000000000000001', '99'], ['', 'blue sea', 'red kite', 'not asked'])
    s = score_files(ref, gen)
    assert s['n'] == 3 and s['rouge_l'] == pytest.approx(2/3) and s['degenerate'] == pytest.approx(1/3)
    assert {*_METRICS} < {*s} and {*_METRICS} < {*s['without_placeholders']} and 'sacrebleu' not in s and 'version:' in s['signature']
    json.dumps(s)

@pytest.mark.parametrize('ref, gen, says', [
    (frame([1, 2], ['a', 'b']), frame([1], ['a']), '1 of 2 references have no generated text; their ids: 2'),
    (frame(range(9), ['a']*9), frame([0], ['a']), 'and 3 more'),
    (frame([1], ['a']), frame([1, 1], ['a', 'b']), 'generated texts hold an id twice: 1'),
    (frame([1, '1.0'], ['a', 'b']), frame([1], ['a']), 'reference texts hold an id twice'),
    (frame([1], ['a']), frame([1], ['a']).drop(columns='content'), "generated texts have no column 'content'"),
    (frame([1], ['a']).drop(columns='id'), frame([1], ['a']), "reference texts have no column 'id'"),
    (frame([], []), frame([1], ['a']), 'no reference'),
    (frame([''], ['a']), frame([1], ['a']), 'without an id'),
    (frame([1.58e18], ['a']), frame([1], ['a']), 'may be rounded')])
def test_files_that_do_not_fit(ref, gen, says):
    with pytest.raises(BadInput, match='.*'.join(says.split('*'))) as e: score_files(ref, gen)
    assert '\n' not in str(e.value)

def test_the_guard_against_formulas_is_taken_off():
    s = score_files(frame([1, 2], ['=up we go', "'tis late"]), frame([1, 2], ["'=up we go", "'tis late"]))
    assert s['bleu_1'] == pytest.approx(100)

@pytest.mark.parametrize('text', ['@bob thanks for the kites!', '@bob', '+1 for this', '- one\n- two', '-- the team', "'tis late", '@a @b see <hyperlink>'])
def test_a_tweet_that_no_sheet_would_run_is_left_alone(text): assert _guard_formula(text) == text

@pytest.mark.parametrize('text', ['=1+1', '=cmd|\'/c calc\'!A0', '@SUM(1+1)*cmd|\'/c calc\'!A0', '+HYPERLINK("a")', '-2+3', '@bob =WEBSERVICE("http://a.b")', "-'[b.xlsx]s'!A1", '\t=1+1', '\r=1'])
def test_a_formula_gets_its_apostrophe_and_loses_it_on_reading(text):
    assert _guard_formula(text) == f"'{text}" and _without_guard(f"'{text}") == text

def test_files_with_the_apostrophe_score_as_without(tmp_path):
    from behaviour_sim.table_files import _write_table
    texts = ['@bob a fine day for kites', '=1+1 is two', '-5 +3', 'no sign at all']
    _write_table(frame(list('1234'), texts), tmp_path/'a.csv')
    assert '@bob a fine' in (raw := (tmp_path/'a.csv').read_text()) and "'@bob" not in raw and "'=1+1" in raw and "'-5 +3" in raw
    assert _read_texts(tmp_path/'a.csv')['content'].tolist() == texts
    (tmp_path/'old.csv').write_text(raw.replace('@bob', "'@bob")) # as an older version wrote it
    for ref, gen in (('a', 'old'), ('old', 'a')): assert score_files(_read_texts(tmp_path/f'{ref}.csv'), _read_texts(tmp_path/f'{gen}.csv'))['bleu_1'] == pytest.approx(100)

@pytest.mark.parametrize('suffix', ['.csv', '.xlsx', '.parquet'])
def test_read_texts(tmp_path, suffix):
    t, path = frame(['1580000000000000001', '2', '3'], ['NA', 'two\nlines, "quoted"', 'null']), tmp_path/f't{suffix}'
    {'.csv': lambda: t.to_csv(path, index=False), '.xlsx': lambda: t.to_excel(path, index=False), '.parquet': lambda: t.to_parquet(path)}[suffix]()
    assert _read_texts(path).equals(_read_texts(path)) and _read_texts(path).values.tolist() == t.values.tolist()
    assert score_files(_read_texts(path), _read_texts(path))['n'] == 3

@pytest.mark.parametrize('raw, says', [(b'', 'empty'), (b'id,text\n1,a\n', "column 'content' missing; found 'id', 'text'"), (b'id,content,content\n1,a,b\n', 'two columns'), (b'id,content\n1,\xff\n', 'UTF-8'), (b'id,content\n', 'no row'), (b'id,content\n1,a,b\n', '3 cells')])
def test_bad_files_of_texts(tmp_path, raw, says):
    path = tmp_path/'t.csv'; path.write_bytes(raw)
    with pytest.raises(BadInput, match=says): _read_texts(path)
    with pytest.raises(BadInput, match='no such file'): _read_texts(tmp_path/'none.csv')

def test_integer_ids_in_parquet(tmp_path):
    frame([1580000000000000001], ['a']).to_parquet(tmp_path/'t.parquet')
    assert _read_texts(tmp_path/'t.parquet').id.tolist() == ['1580000000000000001']


# --- Real rows ---

def test_real_tweets_are_seldom_degenerate_and_the_nearest_in_time_scores_as_known():
    "The yardstick of the content notebooks; aggregates only."
    if not data_dir(): pytest.skip('the real rows are not here')
    t = pd.read_csv(data_dir()/'behaviour_simulation_train.csv', dtype={'id': str}, keep_default_na=False, parse_dates=['date'])
    assert is_degenerate(t.content).mean() < .005
    held = t.sample(2000, random_state=0)
    own = dict(list(t.drop(held.index).groupby('username')))
    known = held[held.username.isin(own)]
    near = [own[r.username].content.iloc[int((own[r.username].date-r.date).abs().argmin())] for r in known.itertuples()]
    s = score_texts(known.content, near)
    assert s['bleu_4'] == pytest.approx(14.06, abs=.05) and s['rouge_l'] == pytest.approx(.168, abs=.001) and s['cider'] == pytest.approx(.136, abs=.002)

"""The simulator as a whole: the same in every process, indifferent to what it must not see, honest about what it knows."""
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import warm

from behaviour_sim.core import BadInput, data_dir
from behaviour_sim.corpus.synthetic import account_profiles, sample_tweets
from behaviour_sim.data.tweets import read_tweets
from behaviour_sim.likes.simulator import LikesSimulator
import behaviour_sim.likes.updates  # noqa: F401  (adds explain, what_if, best_time, update, backtest)

#: A fit whose quality no test here asks about, with the preset's own encoder
QUICK = dict(text_encoder='tiny-distilbert', effort='quick')


@pytest.fixture(scope='module')
def tweets(): return sample_tweets(500)

@pytest.fixture(scope='module')
def sim(tweets): return LikesSimulator('tiny', **QUICK).fit(tweets.iloc[:400], quiet=True)


def test_two_processes_predict_the_same_bits():
    code = ("import hashlib; from behaviour_sim.corpus.synthetic import sample_tweets; from behaviour_sim.likes.simulator import LikesSimulator; t = sample_tweets(160);"
            "print(hashlib.sha256(LikesSimulator('tiny').fit(t[:120], quiet=True).predict_log1p(t[120:], quiet=True).tobytes()).hexdigest())")
    one = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env={**os.environ, 'OMP_NUM_THREADS': '2', 'OPENBLAS_NUM_THREADS': '2', 'PYTHONHASHSEED': '1'}, timeout=300)
    two = warm.run(code) # forked from a process with another hash seed and, in `make test`, one thread
    assert one.stdout == two.stdout and len(one.stdout.strip()) == 64, one.stderr


def test_a_regressor_of_ones_own_is_fitted_once_at_a_time(tweets, monkeypatch):
    "The package's trees are grown side by side; somebody else's regressor may hold state that two fits would share."
    from threading import Lock
    from sklearn.linear_model import Ridge
    busy, fits = Lock(), []
    class Alone(Ridge):
        def fit(self, X, y, sample_weight=None):
            assert busy.acquire(blocking=False), 'two fits at a time'
            try: fits.append(len(X)); return super().fit(X, y, sample_weight)
            finally: busy.release()
    monkeypatch.setenv('OMP_NUM_THREADS', '4')
    LikesSimulator('light', regressors=[Alone()], cold_start=Alone(), effort='quick').fit(tweets.iloc[:120], quiet=True)
    assert len(fits) > 10


def test_predictions_ignore_likes_ids_and_the_order_of_rows(tweets, sim):
    new = tweets.iloc[400:]
    p = sim.predict_log1p(new, quiet=True)
    np.testing.assert_array_equal(p, sim.predict_log1p(new.assign(likes=0, id=range(len(new))), quiet=True))
    mixed = np.random.default_rng(0).permutation(len(new))
    np.testing.assert_allclose(sim.predict_log1p(new.iloc[mixed], quiet=True), p[mixed], atol=1e-3)


def brand(tweets, name='nobody'):
    "Tweets as if of one brand that nobody knows, in order of time."
    return tweets.sort_values('date', ignore_index=True).assign(**{'inferred company': name, 'username': name})


def test_later_tweets_do_not_change_earlier_predictions(tweets, sim):
    new = brand(tweets.iloc[400:])
    whole, first = (sim.predict_log1p(t, in_order=True, quiet=True) for t in (new, new.iloc[:50]))
    np.testing.assert_allclose(whole[:50], first, atol=1e-3)
    np.testing.assert_array_equal(sim.predict_log1p(new.head(1), context=new.iloc[1:], quiet=True), sim.predict_log1p(new.head(1), quiet=True))


@pytest.mark.parametrize('rows', ['known accounts', 'a new brand', 'training tweets', 'new accounts'])
def test_rows_of_one_file_do_not_see_each_other(tweets, sim, rows):
    new = {'known accounts': tweets.iloc[400:440], 'a new brand': brand(tweets.iloc[400:440]), 'training tweets': tweets.iloc[:400],
           'new accounts': tweets.iloc[400:440].assign(username='SomebodyNew')}[rows]
    some = range(0, len(new), 8)
    whole = sim.predict(new, quiet=True)['likes'].to_numpy()[::8]
    one_by_one = [sim.predict(new.iloc[[i]], quiet=True)['likes'].item() for i in some]
    np.testing.assert_allclose(np.log1p(whole), np.log1p(one_by_one), atol=2e-3)


def test_in_order_is_the_same_as_the_earlier_rows_as_context(tweets, sim):
    new = brand(tweets.iloc[400:430])
    in_order, last = sim.predict(new, in_order=True, quiet=True).iloc[-1], new.tail(1)
    after = sim.predict(last, context=new.iloc[:-1].drop(columns='likes'), quiet=True).iloc[0]
    assert abs(np.log1p(after['likes']) - np.log1p(in_order['likes'])) < 1e-3
    assert abs(np.log1p(after['likes']) - np.log1p(sim.predict(last, quiet=True)['likes'].item())) > 1e-3


def test_a_known_row_that_is_predicted_again_counts_once(tweets, sim):
    known = tweets.iloc[:400].sort_values('date')
    company = known['inferred company'].mode()[0]
    again = known[known['inferred company'] == company]
    table = sim.new_company.table(sim.table.transform(again, True)[0], again.reset_index(drop=True), in_order=True)
    whole = sim.table.transform(known, True)[0].reset_index(drop=True)
    from behaviour_sim.likes.new_company import posting_habits
    want = posting_habits(whole, known.reset_index(drop=True))[(known['inferred company'] == company).to_numpy()]
    np.testing.assert_allclose(np.nan_to_num(table), np.nan_to_num(want), atol=1e-3)


@pytest.mark.parametrize('brands', [1, 2, 4])
def test_a_model_of_few_brands_says_that_it_assumes_its_intervals(brands):
    t = sample_tweets(1500)
    chosen = t['inferred company'].value_counts().index[:brands]
    mine, others = t[t['inferred company'].isin(chosen)], t[~t['inferred company'].isin(chosen)].head(600)
    sim = LikesSimulator('tiny').fit(mine, quiet=True)
    assert {'new_company', 'new_company, alone'} <= set(sim.intervals.assumed) and 'assumed' in sim.card()
    p = sim.predict(others, quiet=True)
    assert (p['case'] == 'new_company').all()
    assert ((p['lower'] <= others['likes']) & (others['likes'] <= p['upper'])).mean() > .6 # the radii are those of the challenge's brands
    if brands > 1: assert sim.new_company.fold_by == 'inferred company'


def test_a_company_is_predicted_by_models_that_have_not_seen_it(tweets):
    "Also where there are fewer companies than folds: its own likes cannot move its content prior."
    few = tweets[tweets['inferred company'].isin(tweets['inferred company'].value_counts().index[:3])].reset_index(drop=True)
    one = few['inferred company'] == few['inferred company'].iloc[0]
    fit = lambda t: LikesSimulator('tiny').fit(t, quiet=True).new_company.prior.with_text[one.to_numpy()]
    np.testing.assert_array_equal(fit(few), fit(few.assign(likes=few['likes'].where(~one, few['likes']*1000 + 7))))


def test_views_are_used_only_when_asked_for(tweets, sim):
    new = tweets.iloc[400:]
    more = new.assign(media=new['media'].str.replace(r'views=\d+', 'views=99999999', regex=True))
    assert (more['media'] != new['media']).any()
    np.testing.assert_array_equal(sim.predict_log1p(more, quiet=True), sim.predict_log1p(new, quiet=True))
    post = LikesSimulator('tiny', post_publication=True, **QUICK).fit(tweets.iloc[:400], quiet=True)
    assert np.abs(post.predict_log1p(more, quiet=True) - post.predict_log1p(new, quiet=True)).max() > .05
    assert 'only after posting' in post.card()


def test_profiles_and_captions_are_optional_and_kept(tweets, tmp_path):
    captions = tweets[['id', 'caption']]
    s = LikesSimulator('tiny', **QUICK).fit(tweets.iloc[:300].drop(columns='caption'), captions=captions, profiles=account_profiles(), quiet=True)
    s.save(tmp_path/'m')
    new = tweets.iloc[300:]
    np.testing.assert_array_equal(LikesSimulator.load(tmp_path/'m').predict_log1p(new, quiet=True), s.predict_log1p(new, quiet=True))


@pytest.mark.parametrize('n', [1, 2, 7, 40])
def test_very_few_tweets_still_give_a_model(tweets, n, tmp_path):
    few = tweets.iloc[:n]
    s = LikesSimulator('tiny').fit(few, quiet=True)
    p = s.predict(tweets.iloc[400:420], quiet=True)
    assert np.isfinite(p['likes']).all() and (p['lower'] <= p['upper']).all()
    s.save(tmp_path/'m')
    LikesSimulator.load(tmp_path/'m')


def test_one_account_only(tweets):
    one = tweets.assign(username='solo', **{'inferred company': 'solo'}).iloc[:120]
    p = LikesSimulator('tiny').fit(one, quiet=True).predict(one.iloc[:5], quiet=True)
    assert np.isfinite(p['likes']).all()


@pytest.mark.parametrize('likes', [0, 7, 500])
def test_equal_likes_leave_an_interval(likes):
    "Nothing scatters but the count; the likes themselves are what they were."
    t = sample_tweets(110).assign(likes=float(likes))
    s = LikesSimulator('light').fit(t[:100], quiet=True)
    new = t[100:].reset_index(drop=True)
    new.loc[:2, 'username'], new.loc[3:5, 'inferred company'] = 'nobody', 'a new one'
    held = lambda p: (((p['lower'] < p['likes']) | (p['likes'] == 0)) & (p['likes'] < p['upper']) & p['likes'].between(.9*likes, 1.1*likes)).all()
    assert held(s.predict(new, quiet=True)) and s.evaluate(new, quiet=True)['coverage_90'] == 1
    assert held(s.backtest(new, quiet=True))
    assert held(s.update(new, quiet=True).predict(new, quiet=True))


def test_ordinary_intervals_are_those_of_the_errors(tweets, sim, monkeypatch):
    "To the last bit: the noise of a count takes the place of an interval only where next to nothing is left of it."
    from behaviour_sim.likes import simulator
    p = sim.predict(tweets, quiet=True)
    monkeypatch.setattr(simulator, '_with_counting_noise', lambda p: p)
    pd.testing.assert_frame_equal(p, sim.predict(tweets, quiet=True), check_exact=True)


def test_every_file_of_a_model_is_guarded(sim, tmp_path):
    sim.save(tmp_path/'m')
    files = sorted(p for p in (tmp_path/'m').rglob('*') if p.is_file())
    assert not [p for p in files if p.suffix in ('.pkl', '.pickle', '.joblib', '.pt', '.bin')]
    for p in files:
        whole = p.read_bytes()
        p.write_bytes(whole[:len(whole)//2] + bytes([whole[len(whole)//2] ^ 1]) + whole[len(whole)//2 + 1:])
        with pytest.raises(BadInput): LikesSimulator.load(tmp_path/'m')
        p.write_bytes(whole)
    LikesSimulator.load(tmp_path/'m')


def test_shares_add_up_for_known_and_unknown_companies(tweets, sim):
    new = tweets.iloc[400:430].copy()
    new.loc[new.index[:10], ['username', 'inferred company']] = 'nobody'
    for mode in (False, True):
        shares = sim.shares(new, in_order=mode, quiet=True).sum(axis=1)
        np.testing.assert_allclose(np.maximum(shares, 0), sim.predict_log1p(new, in_order=mode, quiet=True), atol=1e-3)


def test_shares_add_up_for_a_new_account_of_a_known_company(tweets, sim):
    new = tweets.tail(20).assign(username='SomebodyNew')
    assert set(sim.case(new)) == {'new_account'}
    np.testing.assert_allclose(np.maximum(sim.shares(new, quiet=True).sum(axis=1), 0), sim.predict_log1p(new, quiet=True), atol=1e-3)

def test_errors_of_new_accounts_are_of_accounts_the_trees_have_not_seen(tweets):
    "With likes that are pure noise for each account, trees that had met the accounts would seem to know them; honest ones do not."
    t = sample_tweets(600)
    level = dict(zip(t['username'].unique(), np.random.default_rng(0).normal(5, 2, t['username'].nunique())))
    t['likes'] = np.round(np.expm1(np.maximum(t['username'].map(level) + np.random.default_rng(1).normal(0, .1, len(t)), 0)))
    sim = LikesSimulator('tiny').fit(t, quiet=True)
    error = sim.new_account.oof_errors.groupby('text')['error'].std()
    known = sim.known_account.oof_errors.query("situation == 'among'")['error'].std()
    assert known < .5 and (error > 1.5).all()


def test_the_real_tweets_beat_the_account_mean(tmp_path):
    "1,500 of the real training tweets, the tiny preset: a short form of `make bench-quality`."
    if (folder := data_dir()) is None: pytest.skip('the real tweets are not here (BEHAVIOUR_SIM_DATA)')
    t = read_tweets(folder/'behaviour_simulation_train.csv', need_likes=True).sample(2500, random_state=1)
    e = LikesSimulator('tiny').fit(t.iloc[:1500], quiet=True).evaluate(t.iloc[1500:], quiet=True)
    assert e['rmse_log1p'] < e['baselines']['account_mean']['rmse_log1p']
    assert .86 <= e['coverage_90'] <= .94


def test_a_warm_prediction_encodes_one_new_text(sim, tweets, monkeypatch):
    "One call of the encoder with one text; none for the same text at other hours, since names and texts are known by then."
    import uuid
    from behaviour_sim.features import embeddings
    one = tweets.iloc[[410]].reset_index(drop=True)
    sim.predict(one, quiet=True)
    encode, calls = embeddings._loaded_encoder('tiny-distilbert'), []
    monkeypatch.setattr(embeddings, '_loaded_encoder', lambda name: lambda texts: calls.append(list(texts)) or encode(texts))
    new = one.assign(content=f'teapots {uuid.uuid4().hex}')
    sim.predict(new, quiet=True)
    assert [len(texts) for texts in calls] == [1] and 'teapots' in calls[0][0]
    sim.predict(pd.concat([new.assign(date=f'2020-05-06 {h:02}:00') for h in range(24)], ignore_index=True), quiet=True)
    sim.predict(new, quiet=True)
    assert len(calls) == 1

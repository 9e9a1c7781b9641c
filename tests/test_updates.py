"""Updates with observed likes and backtests: what they may use, and what they must leave alone."""
import subprocess, sys
from pathlib import Path

import numpy as np, pandas as pd, pytest
from commands import refused, told

from behaviour_sim import model_directories
from behaviour_sim.core import BadInput
from behaviour_sim.corpus.synthetic import sample_tweets
from behaviour_sim.likes.updates import LikesSimulator

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope='module')
def corpus():
    "Training tweets, and posts of brands that are not among them, in order of time."
    t = sample_tweets(500)
    brands = t['inferred company'].drop_duplicates().sort_values()
    new = t['inferred company'].isin(brands[::3])
    return t[~new].reset_index(drop=True), t[new].sort_values('date').reset_index(drop=True)

@pytest.fixture(scope='module')
def saved(corpus, tmp_path_factory):
    return LikesSimulator('tiny').fit(corpus[0], quiet=True).save(tmp_path_factory.mktemp('fitted')/'m')

@pytest.fixture
def sim(saved): return LikesSimulator.load(saved)

@pytest.fixture
def posts(corpus): return corpus[1]

def log_likes(sim, tweets, **kwargs): return sim.predict_log1p(tweets, quiet=True, **kwargs)
def rmse(tweets, pred): return float(np.sqrt(np.mean((np.log1p(tweets['likes']) - pred)**2)))
def split(posts, k=3):
    first = posts.groupby('username').cumcount() < k
    return posts[first], posts[~first]


# --- Update ---

def test_observed_likes_improve_later_predictions_and_narrow_them(sim, posts):
    few, later = split(posts, 1)
    many, rest = split(posts, 3)
    later = later[later.index.isin(rest.index)]
    p = [sim.predict(later, quiet=True)] + [sim.update(o, quiet=True).predict(later, quiet=True) for o in (few, many)]
    error = [rmse(later, np.log1p(q['likes'])) for q in p]
    width = [np.mean(np.log1p(q['upper']) - np.log1p(q['lower'])) for q in p]
    assert error[2] < .9*error[0]
    assert max(width[1:]) < .6*width[0] and error[2] < error[1] < error[0]

def test_new_brands_and_accounts_become_known(sim, posts, corpus):
    observed, later = split(posts)
    assert set(sim.case(later)) == {'new_company'}
    sim.update(observed, quiet=True)
    assert set(sim.case(later)) <= {'known', 'later'} and set(sim.predict(later, quiet=True)['case']) <= {'known', 'later'}
    assert set(sim.case(later.assign(username='nobody'))) == {'new_account'}
    assert set(sim.case(later.assign(username='nobody', **{'inferred company': 'none'}))) == {'new_company'}
    old = corpus[0].head(50)
    assert set(sim.case(old)) == {'known'}

def test_no_tree_is_grown_and_no_other_brand_is_moved(sim, saved, posts, corpus, monkeypatch):
    observed, _ = split(posts)
    others = corpus[0].assign(date=corpus[0]['date'] + pd.Timedelta(days=700)).head(40)
    before = log_likes(sim, others)
    from behaviour_sim.likes.regressors import LightGBMModel, XGBoostModel
    for c in (LightGBMModel, XGBoostModel): monkeypatch.setattr(c, 'fit', None)
    sim.update(observed, quiet=True)
    np.testing.assert_array_equal(log_likes(sim, others), before)

def test_a_post_given_twice_counts_once_and_a_corrected_count_replaces(saved, posts):
    observed, later = split(posts)
    once = log_likes(LikesSimulator.load(saved).update(observed, quiet=True), later)
    twice = LikesSimulator.load(saved).update(pd.concat([observed, observed]), quiet=True).update(observed, quiet=True)
    np.testing.assert_array_equal(log_likes(twice, later), once)
    wrong = observed.assign(likes=observed['likes']*50 + 9)
    assert np.abs(log_likes(LikesSimulator.load(saved).update(wrong, quiet=True), later) - once).mean() > .5
    np.testing.assert_array_equal(log_likes(LikesSimulator.load(saved).update(wrong, quiet=True).update(observed, quiet=True), later), once)
    with pytest.raises(BadInput, match='two numbers of likes'): twice.update(pd.concat([observed, wrong]), quiet=True)

def test_ids_of_two_exports_may_be_row_numbers(saved, posts):
    a, b = (posts[i::2].reset_index(drop=True) for i in (0, 1))
    numbered = [t.assign(id=range(len(t))) for t in (a, b)]
    sim = LikesSimulator.load(saved)
    for t in numbered: sim.update(t, quiet=True)
    assert len(sim.observed.posts) == len(posts)

def test_order_does_not_matter(saved, posts):
    observed, later = split(posts, 5)
    a, b = observed.iloc[::2], observed.iloc[1::2]
    want = log_likes(LikesSimulator.load(saved).update(observed, quiet=True), later)
    for parts in ((a, b), (b, a), (observed.sample(frac=1, random_state=0),)):
        sim = LikesSimulator.load(saved)
        for p in parts: sim.update(p, quiet=True)
        np.testing.assert_allclose(log_likes(sim, later), want, atol=1e-6)

def test_a_corrected_training_tweet_moves_its_account(saved, corpus):
    one = corpus[0].sort_values('date').iloc[[-1]]
    draft = one.assign(id='draft', date=one['date'] + pd.Timedelta(days=1))
    sim = LikesSimulator.load(saved)
    before = log_likes(sim, draft)
    np.testing.assert_allclose(log_likes(sim.update(one, quiet=True), draft), before, atol=1e-9) # nothing new in it
    sim.update(one.assign(likes=one['likes']*1000 + 10**5), quiet=True)
    assert log_likes(sim, draft)[0] > before[0] + .02
    np.testing.assert_allclose(log_likes(sim.update(one, quiet=True), draft), before, atol=1e-9)

def test_a_failed_update_changes_nothing(sim, posts):
    observed, later = split(posts)
    before = log_likes(sim.update(observed.head(9), quiet=True), later)
    for bad in (observed.assign(likes=-1.), observed.assign(likes=np.nan), observed.drop(columns='likes'), observed.drop(columns='username')):
        with pytest.raises(BadInput): sim.update(bad, quiet=True)
    np.testing.assert_array_equal(log_likes(sim, later), before)

def test_shares_add_up_after_an_update(sim, posts):
    observed, later = split(posts)
    sim.update(observed, quiet=True)
    for mode in (False, True):
        shares = sim.shares(later, in_order=mode, quiet=True).sum(axis=1)
        np.testing.assert_allclose(np.maximum(shares, 0), log_likes(sim, later, in_order=mode), atol=1e-3)

def test_texts_and_media_may_be_missing(sim, posts):
    observed, later = split(posts)
    sim.update(observed.drop(columns=['content', 'media']), quiet=True)
    p = sim.predict(later.drop(columns=['content', 'media', 'likes']), quiet=True)
    assert np.isfinite(p[['likes', 'lower', 'upper']]).all(axis=None) and (p['lower'] <= p['upper']).all()


# --- On disk ---

def test_save_and_load_keep_what_was_observed(sim, posts, tmp_path):
    observed, later = split(posts)
    want = log_likes(sim.update(observed, quiet=True), later)
    again = LikesSimulator.load(sim.save(tmp_path/'m'))
    np.testing.assert_allclose(log_likes(again, later), want, atol=1e-6)
    rest = later.iloc[::2]
    np.testing.assert_allclose(log_likes(again.update(rest, quiet=True), later), log_likes(sim.update(rest, quiet=True), later), atol=1e-6)

def test_an_update_on_disk_leaves_every_tree_and_no_old_part(saved, posts, tmp_path):
    import shutil
    m = Path(shutil.copytree(saved, tmp_path/'m'))
    observed, later = split(posts)
    before = {p: p.read_bytes() for p in m.rglob('*') if p.is_file() and p != m/'model.json'}
    for part in (observed.iloc[::2], observed): LikesSimulator.load(m).update(part, quiet=True).save_observed(m)
    assert {p: p.read_bytes() for p in before} == before
    assert len([p for p in m.iterdir() if p.name.startswith('observed')]) == 1
    np.testing.assert_allclose(log_likes(LikesSimulator.load(m), later),
        log_likes(LikesSimulator.load(saved).update(observed, quiet=True), later), atol=1e-6)

@pytest.mark.parametrize('stopped', ['write_json', 'save_parts', 'rmtree'])
def test_an_update_that_is_stopped_leaves_a_whole_model(saved, posts, tmp_path, monkeypatch, stopped):
    "Before the card is written the model is the old one, afterwards the new one."
    import shutil
    m = Path(shutil.copytree(saved, tmp_path/'m'))
    observed, later = split(posts)
    old, new = (log_likes(s, later) for s in (LikesSimulator.load(saved), LikesSimulator.load(saved).update(observed, quiet=True)))
    sim = LikesSimulator.load(m).update(observed, quiet=True)
    def stop(*args, **kwargs): raise KeyboardInterrupt
    def half(folder, parts):
        (folder/next(iter(parts))).mkdir(); (folder/next(iter(parts))/'posts.parquet').write_bytes(b'half')
        stop()
    with monkeypatch.context() as p:
        if stopped == 'rmtree': sim.save_observed(m); p.setattr(shutil, 'rmtree', stop)
        else: p.setattr(model_directories, stopped, half if stopped == 'save_parts' else stop)
        with pytest.raises(KeyboardInterrupt): sim.save_observed(m)
    np.testing.assert_allclose(log_likes(LikesSimulator.load(m), later), new if stopped == 'rmtree' else old, atol=1e-6)
    sim.save_observed(m) # the next one clears up
    assert len([p for p in m.iterdir() if p.name.startswith('observed')]) == 1
    np.testing.assert_allclose(log_likes(LikesSimulator.load(m), later), new, atol=1e-6)


# --- Backtest ---

def test_no_later_row_and_no_row_within_the_delay_moves_a_prediction(sim, posts):
    i = len(posts)//2
    one, date = posts.iloc[i], posts['date']
    usable = (date <= one['date'] - pd.Timedelta('1440h')).to_numpy().copy()
    usable[i] = False
    want = sim.backtest(posts, delay='60d', quiet=True).iloc[i]
    def of(t): return sim.backtest(t, delay='60d', quiet=True).set_index('id').loc[one['id']]
    same = lambda p: np.testing.assert_allclose(np.log1p(p[['likes', 'lower', 'upper']].astype(float)), np.log1p(want[['likes', 'lower', 'upper']].astype(float)), atol=2e-3)
    out = ~usable
    out[i] = False
    assert (date[out] > one['date'] - pd.Timedelta('1440h')).all() and (date[out] <= one['date']).sum() > 3 and (date[out] > one['date']).any()
    loud = posts.assign(likes=posts['likes'].where(~out, 10**6), content=posts['content'].where(~out, 'WIN!!! 🎉 #win <hyperlink>'))
    same(of(loud))
    same(of(posts.assign(likes=posts['likes'].where(~(np.arange(len(posts)) == i), 10**6)))) # nor its own likes
    same(of(posts[usable | (np.arange(len(posts)) == i)]))
    mine = usable & (posts['inferred company'] == one['inferred company']).to_numpy()
    moved = of(posts.assign(likes=posts['likes'].where(~mine, 10**6)))
    assert np.log1p(moved['likes']) > np.log1p(want['likes']) + .5

def test_a_row_just_within_the_delay_is_not_used_and_one_just_beyond_is(sim, posts):
    a = posts.iloc[[0]].assign(id='a', likes=10**6)
    def b(wait): return a.assign(id='b', date=a['date'] + pd.Timedelta(wait), likes=5)
    alone = sim.backtest(b('48h'), quiet=True)['likes'].iloc[-1]
    within, beyond = (sim.backtest(pd.concat([a, b(w)]), quiet=True)['likes'].iloc[-1] for w in ('47h59min59s', '48h'))
    assert within == pytest.approx(sim.backtest(b('47h59min59s'), quiet=True)['likes'].iloc[-1], rel=1e-3) and beyond > 2*alone
    assert sim.backtest(pd.concat([a, b('47h')]), delay='1h', quiet=True)['likes'].iloc[-1] > 2*alone

def test_no_delay_still_hides_a_post_from_itself(sim, posts):
    t = posts.head(40)
    np.testing.assert_allclose(sim.backtest(t.assign(likes=t['likes'].where(t.index != 39, 10**6)), delay='0s', quiet=True)['likes'].iloc[39],
        sim.backtest(t, delay='0s', quiet=True)['likes'].iloc[39], rtol=2e-3)

def test_a_backtest_is_a_chain_of_updates(sim, saved, posts):
    "The likes of the usable posts, given to `update`, give the same prediction."
    i = len(posts)*3//4
    one, date = posts.iloc[[i]], posts['date'].iloc[i]
    past = posts[(posts['date'] <= date - pd.Timedelta('48h'))]
    got = sim.backtest(posts, quiet=True)['likes'].iloc[i]
    want = LikesSimulator.load(saved).update(past, quiet=True).predict(one, quiet=True)['likes'].item()
    assert abs(np.log1p(got) - np.log1p(want)) < .25 # the errors of the past posts saw posts within their delay

def test_a_backtest_improves_on_cold_predictions_in_any_order_of_rows(sim, posts):
    p = sim.backtest(posts, quiet=True)
    assert p.attrs['evaluation']['rmse_log1p'] < .8*rmse(posts, log_likes(sim, posts, in_order=True))
    mixed = posts.sample(frac=1, random_state=1)
    np.testing.assert_allclose(sim.backtest(mixed, quiet=True)['likes'].sort_index(), p['likes'], rtol=2e-3)
    assert sim.observed is None # nothing is kept

def test_posts_that_were_observed_before_count_in_a_backtest(sim, posts):
    past, rest = posts.iloc[:len(posts)//2], posts.iloc[len(posts)//2:]
    cold = sim.backtest(rest, quiet=True)
    sim.update(past, quiet=True)
    warm = sim.backtest(rest, quiet=True)
    assert warm['observed'].sum() > cold['observed'].sum()
    whole = sim.backtest(posts, quiet=True) # the same posts again do not count twice
    assert (whole['observed'].to_numpy()[len(past):] <= warm['observed'].to_numpy()).all()

def test_a_backtest_refuses_training_tweets_and_odd_delays(sim, posts, corpus):
    with pytest.raises(BadInput, match='one of the training tweets'): sim.backtest(pd.concat([posts, corpus[0].head(1)]), quiet=True)
    for delay in ('soon', '-2d', None):
        with pytest.raises(BadInput): sim.backtest(posts.head(3), delay=delay, quiet=True)
    with pytest.raises(BadInput, match='no column likes'): sim.backtest(posts.drop(columns='likes'))


# --- Size, and the command line ---

def test_many_posts_of_one_company_are_guessed_in_blocks(monkeypatch):
    from behaviour_sim.likes import history
    rng, n = np.random.default_rng(0), 260
    t = pd.DataFrame(dict(account='a', company='c', day=np.sort(rng.uniform(0, 400, n)), kind=0., tool=0., hour=9., y=rng.normal(1, 1, n)))
    va = history._ERROR_VARIANCES['later']
    whole = history._guess_errors(t, t, va, 2)
    monkeypatch.setattr(history, '_BLOCK', 40)
    parts = history._guess_errors(t, t, va, 2)
    assert np.abs(parts['shift'] - whole['shift']).max() < .2
    np.testing.assert_array_equal(parts['company_n'], whole['company_n'])
    later = history._guess_errors(t.assign(y=t['y'].where(t['day'] < 200, 99)), t, va, 2)
    np.testing.assert_allclose(later['shift'][t['day'] < 200], parts['shift'][t['day'] < 200], atol=1e-9)

def test_front_door_has_update_and_backtest():
    code = "import behaviour_sim as bs; print(all(hasattr(bs.LikesSimulator, m) for m in ('update', 'backtest', 'explain', 'what_if')))"
    assert subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True).stdout.strip() == 'True'

def test_the_commands_update_a_model_on_disk_and_write_a_backtest(saved, posts, tmp_path):
    import shutil
    m, few = Path(shutil.copytree(saved, tmp_path/'m')), tmp_path/'few.csv'
    observed, later = split(posts)
    observed.to_csv(few, index=False); later.to_csv(tmp_path/'later.csv', index=False)
    code, out, _ = told('backtest', tmp_path/'later.csv', '--model', m, '--out', tmp_path/'b.csv', '--delay-hours', 24)
    b = pd.read_csv(tmp_path/'b.csv')
    assert code == 0 and list(b) == ['id', 'likes', 'lower', 'upper'] and b['id'].astype(str).tolist() == later['id'].astype(str).tolist()
    assert 'simulator' in out and 'account_mean' in out and '24 or more hours' in out
    for _ in range(2):
        code, out, _ = told('update', few, '--model', m)
        assert code == 0 and f'{len(observed)} in all' in out
    assert told('predict', tmp_path/'later.csv', '--model', m, '--out', tmp_path/'p.csv')[0] == 0
    assert set(pd.read_csv(tmp_path/'p.csv')['case']) <= {'known', 'later'}
    later.drop(columns='likes').to_csv(tmp_path/'no.csv', index=False)
    for args in (('update', tmp_path/'no.csv', '--model', m), ('backtest', tmp_path/'no.csv', '--model', m, '--out', tmp_path/'c.csv'),
                 ('update', few, '--model', tmp_path/'none'), ('backtest', few, '--model', m, '--out', m/'b.csv')):
        refused(told(*args))

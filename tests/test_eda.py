"The tables and figures of `plot_eda` on the real rows, on a single account, on one tweet and on none."
import matplotlib
matplotlib.use('Agg')
import matplotlib.pyplot as plt, numpy as np, pandas as pd, pytest

from behaviour_sim.core import BadInput, data_dir
from behaviour_sim.corpus.synthetic import sample_tweets
from behaviour_sim.data.tweets import read_tweets
from behaviour_sim.data.eda import _GROUPINGS, _PAUSES, _WEEKDAYS, _beside_report, explained_variance, _grouping, likes_by, likes_tail, plot_week
from behaviour_sim.data.eda_checks import _EDA, draw_eda, monthly_drift, duplicated_tweets, plot_eda


@pytest.fixture(scope='module')
def real():
    if data_dir() is None: pytest.skip('the real rows are not here (BEHAVIOUR_SIM_DATA or ../shared/data)')
    return read_tweets(data_dir()/'behaviour_simulation_train.csv', need_likes=True)

@pytest.fixture(scope='module')
def corpus(): return sample_tweets(1500)

def check(tweets):
    "Every table adds up and every figure is drawn and says its source."
    before = tweets.copy()
    tables = plot_eda(tweets)
    pd.testing.assert_frame_equal(tweets, before)
    assert tables.keys() == _EDA.keys()
    n = len(tweets)
    for name in ('accounts', 'weekday', 'hour', 'week', 'media', 'quarter', 'pause', 'company pause', 'long tail'): assert tables[name].tweets.sum() == n, name
    assert tables['text length'].tweets.sum() == (tweets.content != '').sum()
    assert tables['weekday'].weekday.tolist() == list(_WEEKDAYS) and tables['hour'].hour.tolist() == list(range(24))
    assert tables['week'].weekday.tolist() == [d for d in _WEEKDAYS for _ in range(24)] and tables['pause'].pause.tolist() == list(_PAUSES)
    for name, (_, plot) in _EDA.items():
        if plot is None: continue
        ax = plot(tables[name])
        ax.figure.canvas.draw()
        assert ax.get_title(loc='left') and any(f'{n:,} ' in t.get_text() for t in ax.texts), name
        plt.close(ax.figure)
    return tables

def test_the_corpus_is_called_synthetic(corpus):
    assert all('1,500 synthetic tweets' == t.attrs['source'] for t in check(corpus).values())

def test_every_figure_becomes_a_file(corpus, tmp_path):
    paths = draw_eda(plot_eda(corpus), tmp_path/'new')
    assert {p.stem.replace('_', ' ') for p in paths} == {k for k, (_, plot) in _EDA.items() if plot} and len(paths) >= 13
    assert sorted(paths) == sorted((tmp_path/'new').iterdir()) and not plt.get_fignums()

def test_one_account(corpus): check(corpus[corpus.username == corpus.username[0]])

@pytest.mark.parametrize('n', [0, 1, 2])
def test_almost_nothing(corpus, n): check(corpus.head(n))

def test_all_likes_equal_and_nothing_to_read(corpus):
    t = check(corpus.head(50).assign(likes=0., content='', media=''))
    assert t['explained variance'].r2_log1p.isna().all() and t['media'].media.tolist() == ['none']
    assert t['drift'][t['drift'].feature == 'text length'].psi.isna().all()

def test_any_index_and_missing_likes(corpus):
    some = corpus.head(300).set_index(np.arange(300)[::-1]*7)
    pd.testing.assert_frame_equal(likes_by(some, 'weekday'), likes_by(corpus.head(300), 'weekday'))
    some = some.assign(likes=some.likes.where(some.id % 3 > 0))
    check_ids = likes_by(some, 'media')
    assert check_ids.tweets.sum() == 300 and check_ids['mean'].notna().all()
    assert likes_tail(some).tweets.sum() == 200

def test_faults_are_one_sentence(corpus):
    with pytest.raises(BadInput, match='likes is missing'): plot_eda(corpus.drop(columns='likes'))
    with pytest.raises(BadInput, match='no grouping'): _grouping(corpus, 'mood')

def test_tables_against_plain_pandas(corpus):
    for name in _GROUPINGS:
        t = likes_by(corpus, name)
        g = corpus.groupby(_grouping(corpus, name), observed=True).likes
        assert t['median'].dropna().tolist() == g.median().tolist() and np.allclose(t['mean'].dropna(), g.mean())
    y = np.log1p(corpus.likes)
    r2 = np.corrcoef(y, y.groupby(corpus.username).transform('mean'))[0, 1]**2
    assert np.isclose(explained_variance(corpus).set_index('factor').r2_log1p['account'], r2)
    assert duplicated_tweets(pd.concat([corpus, corpus])).set_index('same').tweets[['id', 'text', 'media']].eq(3000).all()

def test_the_figures_quoted_for_the_real_rows(real, tmp_path):
    tables = check(real)
    assert len(draw_eda(tables, tmp_path)) >= 13
    assert {t.attrs['source'] for t in tables.values()} == {'14,431 tweets'}
    tail, r2 = tables['long tail'], tables['explained variance'].set_index('factor')
    assert round(tail.share[0], 2) == .14
    assert round(real.likes.nlargest(144).sum()/real.likes.sum(), 2) == .37
    assert r2.r2_log1p[['account', 'company', 'weekday']].round(3).tolist() == [.899, .75, .004]
    assert r2.adjusted_r2_log1p[['account', 'company']].round(2).tolist() == [.89, .75]
    day, kind, pause = (tables[k].set_index(tables[k].columns[0]) for k in ('weekday', 'media', 'pause'))
    cols = ['mean', 'median', 'within_account']
    assert (day.loc['Sunday', cols]/day.loc['Thursday', cols]).astype(float).round(2).tolist() == [1.25, 1.48, 1.03]
    assert (kind.loc['video', cols]/kind.loc['photo', cols]).astype(float).round(2).tolist()[1:] == [4.3, 1.18]
    assert pause.loc['under 1 h', cols[1:]].astype(float).round(2).tolist() == [0, .89]
    same = tables['duplicates'].set_index('same').loc['text, same account']
    assert (same.tweets, round(same.spread, 2)) == (205, .43)

def test_the_real_rows_of_later_years(real):
    late = read_tweets(data_dir()/'content_simulation_test_time.csv').drop(columns='caption')
    both = pd.concat([real, late], ignore_index=True).assign(id=lambda t: range(len(t)))
    t = monthly_drift(both)
    assert sorted(t.year.unique()) == [2018, 2019, 2020, 2021, 2022, 2023]
    assert t[(t.feature == 'text length') & (t.year > 2020)].psi.isna().all() and t[t.feature == 'likes'].psi.notna().all()
    assert _beside_report(both).iloc[0, 2] == len(both)
    assert plot_week(likes_by(both, ['weekday', 'hour']), value='median').get_title(loc='left').startswith('The highest median is on')
    plt.close('all')

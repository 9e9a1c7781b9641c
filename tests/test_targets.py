"""Other counts than likes: what is learned, what is said of it, and what no prediction may see."""
import contextlib
import json

import numpy as np
import pandas as pd
import pytest
from commands import told

from behaviour_sim.apps.app_session import AppSession
from behaviour_sim.apps.exports import write_export
from behaviour_sim.apps.report import run_all
from behaviour_sim.core import BadInput
from behaviour_sim.corpus.synthetic import sample_tweets
from behaviour_sim.data.posts import read_posts
from behaviour_sim.data.tweets import write_tweets
from behaviour_sim.data.values import _COUNTS
from behaviour_sim.likes.updates import LikesSimulator


@pytest.fixture(scope='module')
def tweets():
    t = sample_tweets(160).drop(columns='caption')
    return t.assign(reposts=(t['likes']/7).round(), replies=np.arange(160.) % 9)

@pytest.fixture(scope='module')
def place(tweets, tmp_path_factory):
    "A folder with the challenge's columns and two counts more, and a model of reposts."
    d = tmp_path_factory.mktemp('targets')
    write_tweets(tweets[:120], d/'known.csv'); write_tweets(tweets[120:], d/'new.csv')
    code, out, err = told('fit', 'known.csv', '--target', 'reposts', '--model', 'm', '--preset', 'tiny', '--effort', 'quick', cwd=d)
    assert code == 0 and 'fitted on the reposts of 120 tweets' in out, err
    return d


def test_every_command_is_about_the_target(place, tweets):
    told('predict', 'new.csv', '--model', 'm', '--out', 'p.csv', cwd=place)
    assert list(pd.read_csv(place/'p.csv')) == ['id', 'reposts', 'lower', 'upper', 'case']
    code, out, _ = told('evaluate', 'new.csv', '--model', 'm', '--json', 'e.json', cwd=place)
    figures = json.loads((place/'e.json').read_text())
    assert code == 0 and 'log1p(reposts)' in out and 'likes' not in out and 'rmse_reposts' in figures
    assert 'rmse_reposts' in figures['baselines']['constant'] and not any('likes' in k for k in figures)
    code, out, _ = told('backtest', 'new.csv', '--model', 'm', '--out', 'b.csv', cwd=place)
    assert code == 0 and 'likes' not in out and list(pd.read_csv(place/'b.csv')) == ['id', 'reposts', 'lower', 'upper']
    code, out, _ = told('what-if', 'new.csv', '--model', 'm', '--id', tweets['id'][125], '--set', 'hour=9', cwd=place)
    assert code == 0 and 'reposts' in out and 'likes' not in out
    assert 'Predicts the reposts' in (card := (place/'m'/'MODEL_CARD.md').read_text()) and 'log1p(likes)' not in card


def test_a_model_of_reposts_is_the_model_of_likes_that_has_learned_reposts(place, tweets):
    sim = LikesSimulator.load(place/'m')
    other = LikesSimulator('tiny', effort='quick').fit(tweets[:120].assign(likes=tweets['reposts']), quiet=True)
    new = tweets[120:].drop(columns=['reposts', 'likes'])
    assert sim.target == 'reposts' and sim.facts()['target'] == 'reposts'
    np.testing.assert_allclose(sim.predict(new, quiet=True)['reposts'], other.predict(new, quiet=True)['likes'])
    seen = sim.update(tweets[120:], quiet=True).observed.posts
    np.testing.assert_array_equal(np.expm1(seen.sort_values('id')['y']).round(), tweets['reposts'][120:].to_numpy())
    with pytest.raises(BadInput, match='not fitted'): sim.set_params(target='likes').predict(new)


def test_counts_that_are_missing_or_none(place, tweets, tmp_path):
    write_export(tweets[:9].assign(reposts=[np.nan, *range(8)]), 'x_content', tmp_path/'content.csv')
    assert read_posts(tmp_path/'content.csv', need_likes=True, target='reposts')['reposts'].tolist() == [*range(8)]
    write_tweets(tweets[:60].drop(columns='reposts'), tmp_path/'none.csv')
    for target, why in dict(reposts='no column of reposts', content='is no count').items():
        code, out, err = told('fit', 'none.csv', '--target', target, '--model', 'n', cwd=tmp_path)
        assert code == 2 and out == '' and why in err.splitlines()[-1] and not (tmp_path/'n').exists()
    write_tweets(tweets[:60].assign(reposts=[None, '1.2K'] + ['3']*58), tmp_path/'gap.csv')
    code, out, err = told('fit', 'gap.csv', '--target', 'reposts', '--model', 'n', '--preset', 'tiny', cwd=tmp_path)
    assert code == 0 and 'reposts of 59 tweets' in out and '1 post without reposts' in err
    with pytest.raises(BadInput, match="row 3, column 'reposts'.*negative"):
        LikesSimulator('tiny', target='reposts').fit(tweets[:60].assign(reposts=[1, 2, -1] + [0]*57))
    assert told('run', '--target', 'reposts', cwd=tmp_path)[0] == 2


def peeks(tweets):
    "An own feature that takes whatever was counted."
    counts = [c for c in ('likes', *_COUNTS) if c in tweets]
    return pd.DataFrame({'own.seen': tweets[counts].sum(axis=1) if counts else 0.}, index=tweets.index)

@pytest.mark.parametrize('target', ['likes', 'reposts'])
def test_what_was_counted_after_posting_never_moves_a_prediction(target, tweets):
    sim = LikesSimulator('tiny', target=target, features=[peeks], effort='quick').fit(tweets[:120], quiet=True)
    new = tweets[120:]
    p = sim.predict_log1p(new, quiet=True)
    for counts in ({c: 1e6 for c in ('likes', *_COUNTS)}, dict(replies=0.), {target: 0.}):
        np.testing.assert_array_equal(sim.predict_log1p(new.assign(**counts), quiet=True), p)
        np.testing.assert_array_equal(sim.predict_log1p(new[:9], context=new[9:].assign(**counts), quiet=True), sim.predict_log1p(new[:9], context=new[9:], quiet=True))
    assert not sim.table.transform(new.assign(views=7., reposts=7.), quiet=True)[0]['own.seen'].any()


def test_the_report_and_the_page_name_the_target(place, tweets, tmp_path):
    figures = run_all(tweets[:100], tmp_path, 'tiny', written=0, drawn=0, target='reposts', quiet=True)
    assert figures['target'] == 'reposts' and list(pd.read_csv(tmp_path/'predictions.csv'))[1] == 'reposts'
    page = (tmp_path/'index.html').read_text()
    assert 'log1p(reposts)' in page and '</b> reposts; predicted' in page and 'likes;' not in page and 'log1p(likes)' not in page
    with contextlib.closing(AppSession(LikesSimulator.load(place/'m'))) as desk:
        form = dict(company='x', content='Hello!', date='2024-01-01 10:00')
        assert desk.about()['counted'] == 'reposts' and 'ranked by the reposts' in desk.about()['how']
        assert desk.predict(form)['likes'] > 0 and len(desk.hours(form)) == 24 and desk.rewrite(form)[0]['likes'] > 0


# --- Hours that nobody knows ---

def test_where_all_is_at_midnight_the_hour_is_unknown(tweets, tmp_path):
    "Only the day of a draft counts; what would name an hour says why it does not."
    days = tweets.assign(date=tweets['date'].dt.normalize())
    write_tweets(days[:120], tmp_path/'days.csv'); write_tweets(tweets[120:], tmp_path/'new.csv')
    assert told('fit', 'days.csv', '--model', 'm', '--preset', 'tiny', '--effort', 'quick', cwd=tmp_path)[0] == 0
    assert 'The hours are unknown' in (tmp_path/'m'/'MODEL_CARD.md').read_text()
    sim, new = LikesSimulator.load(tmp_path/'m'), tweets[120:]
    assert sim.facts()['hours'] == 'unknown'
    p = sim.predict_log1p(new, context=tweets[100:120], quiet=True)
    np.testing.assert_array_equal(sim.predict_log1p(days[120:], context=days[100:120], quiet=True), p)
    assert sim.table.transform(new, quiet=True)[0].filter(like='media.lag').isna().all(axis=None)
    ask = 'what-if', 'new.csv', '--model', 'm', '--id', new['id'].iloc[0], '--set'
    code, out, err = told(*ask, 'weekday=2', cwd=tmp_path)
    assert code == 0 and 'no hour can be called better' in out and 'Best hours' not in out
    code, out, err = told(*ask, 'hour=9', cwd=tmp_path)
    assert code == 2 and out == '' and 'hours are unknown' in err.splitlines()[-1]
    with pytest.raises(BadInput, match='hours are unknown'): sim.best_time(new, new['id'].iloc[0])
    with contextlib.closing(AppSession(sim)) as desk:
        assert desk.hours(dict(company='x', date='2024-01-01 10:00')) == [] and 'no hour' in desk.about()['no_hours']
    kept = sim.update(tweets[100:120], quiet=True).observed.posts
    assert kept['trained'].all() # the same posts, whose hours another export knows

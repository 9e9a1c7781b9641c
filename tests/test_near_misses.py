"""Inputs that are nearly right: each gives what its clean form gives, or is refused in one sentence."""
import datetime, logging
from zoneinfo import ZoneInfo

import numpy as np, pandas as pd, pytest

from behaviour_sim.core import BadInput
from behaviour_sim.corpus.synthetic import account_profiles, sample_tweets
from behaviour_sim.data.drafts import draft, normalise_tweets
from behaviour_sim.data.splits import _possible_splits
from behaviour_sim.likes.explain import LikesSimulator

#: A fit whose quality no test here asks about, with the preset's own encoder
QUICK = dict(text_encoder='tiny-distilbert', effort='quick')


@pytest.fixture(scope='module')
def tweets(): return sample_tweets(260)

@pytest.fixture(scope='module')
def sim(tweets): return LikesSimulator('tiny', **QUICK).fit(tweets, quiet=True)

@pytest.fixture(scope='module')
def one(tweets):
    "One known tweet of a capitalised account, with a link and a mention."
    t = tweets[tweets['username'].str.lower() != tweets['username']].tail(1).reset_index(drop=True)
    return t.assign(date=pd.Timestamp('2021-03-04 10:00'), content='<mention> tea &amp; cake <hyperlink>', id=7)

def likes(sim, t, **kwargs): return sim.predict(t, quiet=True, **kwargs)[['likes', 'lower', 'upper', 'case']].values.tolist()

put = lambda **new: lambda t: t.assign(**{c.replace('inferred_', 'inferred '): (lambda t, v=v: [v(t)]*len(t)) for c, v in new.items()})
user, brand = (lambda t: t['username'][0]), (lambda t: t['inferred company'][0])
at = lambda x: put(date=lambda t: x)

SAME = {
    '@ before the name': put(username=lambda t: '@' + user(t)),
    'name in small letters': put(username=lambda t: user(t).lower()),
    'name in capitals': put(username=lambda t: user(t).upper()),
    'blanks around the name': put(username=lambda t: f' {user(t)} '),
    'address of a profile': put(username=lambda t: f'https://twitter.com/{user(t)}?lang=en'),
    'address without a scheme': put(username=lambda t: f'x.com/{user(t)}/'),
    'full-width @': put(username=lambda t: '＠' + user(t)),
    'an invisible character': put(username=lambda t: '\u200b' + user(t)),
    'company in capitals': put(inferred_company=lambda t: brand(t).upper()),
    '@ before the company': put(inferred_company=lambda t: '@' + brand(t).title()),
    'no company but the account': put(inferred_company=user),
    'date as text': at('2021-03-04 10:00:00'),
    'date with Z': at('2021-03-04T10:00:00Z'),
    'date with a zone as text': at('2021-03-04T15:30:00+05:30'),
    'date of the first API': at('Thu Mar 04 10:00:00 +0000 2021'),
    'date of RFC 2822': at('Thu, 04 Mar 2021 10:00:00 GMT'),
    'datetime with a zone': at(datetime.datetime(2021, 3, 4, 11, tzinfo=ZoneInfo('Europe/Berlin'))),
    'column of dates with a zone': lambda t: t.assign(date=t['date'].dt.tz_localize('UTC')),
    'id as a float': put(id=lambda t: 7.),
    'id as text': put(id=lambda t: '7'),
    'real link and mention': put(content=lambda t: '@bob tea &amp; cake https://t.co/aB3xY9'),
    'plain ampersand': put(content=lambda t: '<mention> tea & cake <hyperlink>'),
    'entity of an entity': put(content=lambda t: '<mention> tea &amp;amp; cake <hyperlink>'),
    'likes as text': put(likes=lambda t: '12'),
    'likes missing': put(likes=lambda t: None),
    'caption missing': lambda t: t.assign(caption=None),
}

REFUSED = {
    'day or month first': (at('04/03/2021 10:00'), "row 1, column 'date'"),
    'seconds since 1970': (at(1614852000), "row 1, column 'date': '1614852000' looks like the time"),
    'milliseconds since 1970': (at('1614852000000'), "row 1, column 'date'"),
    'no date': (at(None), "row 1, column 'date'"),
    'today as a word': (at('now'), "row 1, column 'date'"),
    'account missing': (put(username=lambda t: np.nan), "row 1, column 'username'"),
    'account of an @ alone': (put(username=lambda t: '@'), "row 1, column 'username'"),
    'company missing': (put(inferred_company=lambda t: None), "row 1, column 'inferred company'"),
    'id missing': (put(id=lambda t: None), "row 1, column 'id'"),
    'likes in thousands': (put(likes=lambda t: '1.2K'), "row 1, column 'likes': '1.2K' is not a number"),
    'likes below zero': (put(likes=lambda t: -3), "row 1, column 'likes'"),
    'Content': (lambda t: t.rename(columns={'content': 'Content'}), "'Content' looks like 'content'"),
    'full_text': (lambda t: t.rename(columns={'content': 'full_text'}), "'full_text' looks like 'content'"),
    'created_at': (lambda t: t.rename(columns={'date': 'created_at'}), "'created_at' looks like 'date'"),
    'Caption': (lambda t: t.rename(columns={'caption': 'Caption'}), "'Caption' looks like 'caption'"),
}

@pytest.mark.parametrize('kind', SAME)
def test_a_near_miss_is_its_clean_form(sim, one, kind):
    clean = one.assign(caption='') if kind == 'caption missing' else one
    assert likes(sim, SAME[kind](one)) == likes(sim, clean)

@pytest.mark.parametrize('kind', REFUSED)
def test_what_cannot_be_read_is_refused(sim, one, kind):
    change, why = REFUSED[kind]
    with pytest.raises(BadInput) as e: sim.predict(change(one), quiet=True)
    assert why in str(e.value) and '\n' not in str(e.value)

def test_training_takes_any_spelling(tweets, sim, one):
    "The most frequent spelling is the one that features are made of."
    few = lambda c: tweets.groupby(c).cumcount() % 3 == 2
    odd = tweets.assign(username=tweets['username'].mask(few('username'), '@' + tweets['username'].str.lower()))
    odd['inferred company'] = odd['inferred company'].mask(few('inferred company'), odd['inferred company'].str.upper())
    assert (odd['username'] != tweets['username']).sum() > 20
    assert likes(LikesSimulator('tiny', **QUICK).fit(odd, quiet=True), one) == likes(sim, one)

@pytest.mark.parametrize('when', ['2021-03-04T15:30:00+05:30', 'Thu Mar 04 10:00:00 +0000 2021'])
def test_an_edit_is_read_like_a_cell(sim, one, when):
    late = one.assign(date=pd.Timestamp('2021-03-09 01:00'))
    table = sim.what_if(late, '7', date=when, username='@' + user(one).upper(), quiet=True)
    assert table.loc['edited', 'likes'] == likes(sim, one)[0][0]
    with pytest.raises(BadInput, match='is no date'): sim.what_if(one, 7, date='04/03/2021', quiet=True)

def test_ids_of_captions_are_compared_by_key(tweets, one):
    with_caption = lambda ids: normalise_tweets(one.assign(id='7', caption=''), pd.DataFrame(dict(id=ids, caption='a cup')))['caption'][0]
    assert {with_caption(i) for i in ([7.], ['7.0'], [7], ['="7"'])} == {'a cup'}
    with pytest.raises(BadInput, match='None of the 1 captions'): with_caption(['8'])

def test_the_terminal_is_told_what_was_found(one, capsys):
    from behaviour_sim.apps.terminal import _tell_log
    _tell_log()
    normalise_tweets(pd.concat([one, one.assign(id=8)]), pd.DataFrame(dict(id=['7'], caption='a cup')))
    assert capsys.readouterr().err == '1 of 2 tweets have a caption in the table of captions\n'

def test_profiles_are_found_whatever_their_spelling(tweets):
    p = account_profiles()
    odd = p.assign(username='@' + p['username'].str.upper(), followers_count=p['followers_count'].map('{:,}'.format))
    fit = lambda p: LikesSimulator('tiny', **QUICK).fit(tweets.iloc[:120], profiles=p, quiet=True)
    assert likes(fit(odd), tweets.iloc[120:125]) == likes(fit(p), tweets.iloc[120:125])
    for bad, why in ((p.assign(followers_count='many'), "row 1, column 'followers_count'"), (p.assign(username='zzz'), 'is of an account of the tweets')):
        with pytest.raises(BadInput, match=why): fit(bad)

def test_pictures_that_cannot_be_read_are_told(sim, one, caplog):
    with pytest.raises(BadInput, match=r"1 of 1 pictures cannot be read \(the first: 'no/such.jpg'\)"):
        sim.predict(one.assign(image_path='no/such.jpg'), quiet=True)

def test_no_column_of_the_user_s_own_enters(sim, tweets):
    "Not one that is called like a feature, like a column of a table inside, or like something that pandas has."
    inner = [sim.known_account.background, sim.known_account.history.table, sim.known_account.oof_errors, sim.new_company.background, sim.new_company.context, vars(sim.errors.intervals), ['alone', 'error', 'scale', 'row', 'situation']]
    names = {*sim.names, *(c for t in inner for c in t), 'upload_lag', '_LAG', 'pred', 'lower', 'upper', 'case', 'factor', 'posts', 'whose', 'hours', 'observed', 'trained', 'index', 'values', 'size', 'T', 'name', 'level_0', '0', '\u202e', 'prompt', 'path'}
    names = sorted(names - {*tweets, 'followers', 'image_path'})
    rng = np.random.default_rng(0)
    own = pd.DataFrame({c: rng.choice(['x', '7', ''], len(tweets)) if i % 3 else rng.normal(0, 1e6, len(tweets)) for i, c in enumerate(names)})
    loud, new = tweets.join(own), slice(200, None)
    assert len(names) > 150 and 'text.e0' in names and 'account.level' in names
    def all_of(sim, t):
        id = t['id'].iloc[0]
        return [sim.predict(t, quiet=True), sim.predict(t, context=t, quiet=True), sim.predict(t, in_order=True, quiet=True), sim.explain(t, id, quiet=True), sim.what_if(t, id, quiet=True, hour=9), sim.best_time(t, id, in_order=True, quiet=True).head(3), sim.evaluate(t, quiet=True).table]
    for one, two in zip(all_of(sim, tweets[new]), all_of(sim, loud[new])): pd.testing.assert_frame_equal(one, two, check_exact=True)
    again = LikesSimulator('tiny', **QUICK).fit(loud, quiet=True)
    np.testing.assert_array_equal(again.predict_log1p(loud, quiet=True), sim.predict_log1p(tweets, quiet=True))
    assert again.names == sim.names


@pytest.mark.parametrize('followers, why', [('many', "row 1, column 'followers': 'many' is no count"), (-5, 'is no count'), ('1.2K', 1200), ('12,345', 12_345), (7, 7)])
def test_followers_are_a_count_or_refused(one, followers, why):
    from behaviour_sim.features.table import profile_features
    about = lambda: profile_features(one.assign(followers=[followers]), account_profiles())['profile.followers']
    if not isinstance(why, str): return np.testing.assert_allclose(np.expm1(about()), why, rtol=1e-5)
    with pytest.raises(BadInput, match=why): about()


def test_an_account_that_nobody_knows_is_told(sim, one, caplog):
    new = draft('tea is ready', f'{user(one)}x', brand(one), '2021-03-04 10:00')
    with caplog.at_level(logging.WARNING, 'behaviour_sim'): p = sim.predict(new)
    assert p['case'].tolist() == ['new_account']
    assert '1 of 1 rows are of accounts never seen; did you mean' in caplog.text and repr(user(one)) in caplog.text

def test_a_draft_reads_what_a_person_writes(sim, one):
    p = likes(sim, draft('tea', '@' + user(one).lower(), when='2021-03-04 11:00+01:00', media='none'))
    assert p == likes(sim, draft('tea', user(one), brand(one), datetime.datetime(2021, 3, 4, 10), 'none'))
    for bad in (dict(account=' @ '), dict(when='04/03/2021'), dict(when=1614852000), dict(followers='many')):
        with pytest.raises(BadInput): draft(**(dict(text='tea', account='a') | bad))

def test_posts_count_once_in_the_rhythm(sim, tweets):
    "Training tweets given again as context, or predicted in order, change nothing."
    new = tweets.tail(3).assign(username='brand_new', date=pd.Timestamp('2030-01-01'), id=range(3))
    assert likes(sim, new, context=tweets) == likes(sim, new)
    m, t = sim.new_company, sim._named(normalise_tweets(tweets))
    X = sim.table.transform(t, quiet=True)[0]
    pd.testing.assert_frame_equal(m.table(X, t, in_order=True), m.table(X, t, m.context, in_order=True))

def test_one_or_two_tweets_leave_the_upper_end_open(tweets, caplog):
    with caplog.at_level(logging.WARNING, 'behaviour_sim'): p = LikesSimulator('tiny').fit(tweets.head(2), quiet=True).predict(tweets.head(5))
    assert np.isposinf(p['upper']).all() and np.isfinite(p[['likes', 'lower']]).all(axis=None)
    assert 'take 3 tweets' in caplog.text
    assert np.isfinite(LikesSimulator('tiny').fit(tweets.head(3), quiet=True).predict(tweets.head(5), quiet=True)['upper']).all()

def test_one_company_has_the_splits_that_it_can_have():
    made, why = _possible_splits(sample_tweets(120).assign(**{'inferred company': 'acme'}))
    assert list(made) == ['random', 'unseen_time'] and set(why) == {'unseen_company', 'unseen_both'}

def test_the_challenge_s_own_form_stays_as_it_is(tweets):
    "A clean table passes through unchanged, cell by cell."
    t = normalise_tweets(tweets)
    for c in ('content', 'media', 'username', 'inferred company', 'id', 'likes'): assert t[c].tolist() == tweets[c].tolist(), c
    assert (t['date'].to_numpy() == tweets['date'].to_numpy()).all()

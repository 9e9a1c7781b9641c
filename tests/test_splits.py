"""Splits keep what they promise on any table of tweets; near-duplicate clusters agree with the slow definition."""
import pandas as pd
from hypothesis import given, settings, strategies as st

from behaviour_sim.core import BadInput
from behaviour_sim.data.splits import random_split, text_clusters, unseen_both, unseen_company, unseen_time

WORDS = list('abcdefghijkl')
texts = st.lists(st.sampled_from(WORDS), max_size=9)
tables = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 7), st.integers(0, 30), texts), min_size=1, max_size=60)


@given(tables, st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_every_split_proves_itself(rows, seed):
    company, account, day, words = zip(*rows)
    tweets = pd.DataFrame({'inferred company': [f'c{c}' for c in company], 'username': [f'u{u}' for u in account],
        'date': pd.Timestamp('2020-01-01') + pd.to_timedelta(day, unit='D'), 'content': [' '.join(w) for w in words]})
    for make in (random_split, unseen_company, unseen_time, unseen_both):
        try: split = make(tweets, seed=seed)
        except BadInput: continue  # too few companies or days to hold any out
        split.check_leakage(tweets)
        used = len(split.train) + len(split.test) + split.dropped
        assert used <= len(tweets) if make is unseen_both else used == len(tweets)


@given(st.lists(texts, max_size=14))
@settings(max_examples=200, deadline=None)
def test_clusters_agree_with_the_definition(ts):
    "Equal word sets, or sets that are equal once one word is taken from either, from six words on; closed under chains."
    sets, n = [frozenset(t) for t in ts], len(ts)
    near = lambda s: {s} | ({s - {w} for w in s} if len(s) >= 6 else set())
    parent = list(range(n))
    def root(i):
        while parent[i] != i: i = parent[i]
        return i
    for i in range(n):
        for j in range(i):
            if sets[i] and sets[j] and near(sets[i]) & near(sets[j]): parent[root(i)] = root(j)
    found = text_clusters([' '.join(t) for t in ts])
    assert all((found[i] == found[j]) == (root(i) == root(j)) for i in range(n) for j in range(n))

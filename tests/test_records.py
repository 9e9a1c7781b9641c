"""RECORDS.md: every row has what a reader needs to believe it."""
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import records

from behaviour_sim.bench import likes_quality, likes_studies, text_quality
from behaviour_sim.corpus.synthetic import sample_tweets

ROOT = Path(__file__).resolve().parent.parent
ONE = dict(n=[2, 1, 3], squares=[[2., 1., 3.], [2., 4., 3.], [8., 1., 3.]])


def test_the_page_is_made_from_what_is_kept():
    assert (ROOT / "RECORDS.md").read_text(encoding="utf-8") == records.page(records.kept(), likes_quality._looks(ROOT / "nbs" / "results"))


def test_each_row_has_date_commit_command_block_seeds_and_intervals():
    kept, page = records.kept(), (ROOT / "RECORDS.md").read_text(encoding="utf-8")
    assert kept and len({r["commit"] for r in kept}) == len(kept)
    before = None
    for r in kept:
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", r["date"]) and re.fullmatch(r"[0-9a-f]{40}", r["commit"]) and r["what"] and r["command"]
        block = records.block(r["errors"], before)
        assert block in page and len(r["errors"]) == 3
        for name, e in r["errors"].items():
            assert len(e["squares"]) == len(records.SEEDS) == 3 and all(len(s) == len(e["n"]) for s in e["squares"])
            line = next(l for l in block.splitlines() if l.startswith(name))
            assert len(re.findall(r"\[[+-]\d\.\d{4}, [+-]\d\.\d{4}\]", line)) == (before is not None)
        before = r["errors"]


def test_figures_by_hand():
    f = records.figures(ONE)
    np.testing.assert_allclose(f["each"], np.sqrt([1, 1.5, 2]))
    np.testing.assert_allclose([f["mean"], f["spread"]], [np.mean(f["each"]), np.std(f["each"], ddof=1)])


def test_the_change_is_paired():
    "An error that is smaller by the same share for every account has an interval without width."
    f = records.figures(dict(n=[1, 1, 1], squares=[[1., 1., 1.]] * 3), dict(n=[1, 1, 1], squares=[[4., 4., 4.]] * 3))
    np.testing.assert_allclose([f["change"], f["low"], f["high"]], -1)
    worse = records.figures(ONE, dict(ONE, squares=[[0., 0., 3.]] * 3))
    assert worse["low"] < worse["change"] < worse["high"] and worse["change"] > 0


def test_other_tweets_are_no_row_before():
    with pytest.raises(ValueError, match="other tweets"): records.figures(ONE, dict(ONE, n=[1, 1, 4]))


def test_errors_are_those_of_the_simulator():
    tweets = sample_tweets(400)
    known, judged = tweets[:330], tweets[330:]
    e = records.errors_of({"random": (known, judged)}, "light", seeds=(1, 2))["random"]
    sim = records.LikesSimulator("light", seed=1).fit(known, quiet=True)
    error = np.log1p(judged["likes"].to_numpy()) - np.log1p(sim.predict(judged, quiet=True)["likes"].to_numpy())
    np.testing.assert_allclose(sum(e["squares"][0]), (error**2).sum(), rtol=1e-4)
    assert sum(e["n"]) == len(judged) and len(e["n"]) == judged["username"].nunique() and e["squares"][0] != e["squares"][1]


class Looked(Exception):
    "A benchmark is about to look at the hold-outs."


@pytest.mark.parametrize("module,run", [(likes_quality, "bench_likes"), (likes_studies, "_bench_studies"), (text_quality, "bench_text")])
def test_every_benchmark_on_the_holdouts_counts_its_look_before_it_fits(module, run, monkeypatch):
    def look(command): raise Looked(command)
    monkeypatch.setattr(module, "_look", look)
    monkeypatch.setattr(module, "_holdouts", dict)
    with pytest.raises(Looked, match="^make bench-"): getattr(module, run)()


def test_a_look_names_its_commit(tmp_path):
    likes_quality._look("make bench-quality", tmp_path)
    assert json.loads((tmp_path / "looks.json").read_text())[0]["command"] == "make bench-quality"


def test_the_table_of_the_embedded_corpus_can_be_computed_again():
    rows = pd.read_parquet(ROOT / "nbs" / "results" / "results_per_tweet.parquet").set_index("hold-out")
    table = likes_quality._kept("likes", "embedded", ROOT / "nbs" / "results").xs("before posting", level="input")
    assert (table["n"] == rows.groupby(level=0).size().loc[table.index]).all()
    ours = sample_tweets(2000)
    assert set(rows["username"]) <= set(ours["username"]) and set(rows["id"]) <= set(ours["id"])  # no real row
    error = np.log1p(rows["likes"]) - np.log1p(rows["predicted"])
    np.testing.assert_allclose((error**2).groupby(level=0).mean().loc[table.index]**.5, table["rmse_log1p"], atol=2e-3)
    inside = (rows["lower"] <= rows["likes"]) & (rows["likes"] <= rows["upper"])
    np.testing.assert_allclose(inside.groupby(level=0).mean().loc[table.index], table["coverage_90"], atol=.01)

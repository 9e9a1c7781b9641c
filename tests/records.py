"""RECORDS.md: `make records WHAT='what has changed'` measures the commit on the real hold-outs and adds its row.

Each tweet is predicted alone, with three seeds. `nbs/results/records.json` keeps the sum of squared errors of each account
(of each brand, for unseen companies), without names, so that the next row can be compared account by account."""
import json
import sys
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pandas as pd

from behaviour_sim.bench.likes_quality import _commit_of, _holdouts, _look, _looks
from behaviour_sim.core import write_atomic
from behaviour_sim.data.splits import _resampled
from behaviour_sim.likes.evaluation import to_log1p
from behaviour_sim.likes.simulator import LikesSimulator

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "nbs" / "results" / "records.json"
SEEDS = (42, 43, 44)


def errors_of(holdouts: dict, preset: str = "laptop", seeds=SEEDS) -> dict:
    "Hold-out → tweets of each cluster, and its sum of squared errors with each seed."
    fitted, out = {}, {}
    for name, (known, judged) in holdouts.items():
        new = not judged["inferred company"].isin(known["inferred company"]).any()
        cluster = judged["inferred company" if new else "username"].to_numpy()
        y, squares = to_log1p(judged["likes"]), []
        for seed in seeds:
            # hold-outs may share their training tweets
            key = id(known), seed
            if key not in fitted:
                fitted[key] = LikesSimulator(preset, seed=seed).fit(known, quiet=True)
            error = y - np.log1p(fitted[key].predict(judged, quiet=True)["likes"].to_numpy())
            squares.append(pd.Series(error**2).groupby(cluster).sum())
        n = pd.Series(1, range(len(judged))).groupby(cluster).sum()
        out[name] = dict(n=n.tolist(), squares=[s.round(4).tolist() for s in squares])
    return out


def figures(now: dict, before: dict | None = None) -> dict:
    "Of one hold-out: the RMSE of each seed, their mean and spread, and the change since the row before with its 95 % interval."
    n, squares = np.array(now["n"]), np.array(now["squares"])
    each = np.sqrt(squares.sum(1) / n.sum())
    out = dict(each=each, mean=each.mean(), spread=each.std(ddof=1))
    if before is None:
        return out
    if before["n"] != now["n"]:
        raise ValueError("The row before was measured on other tweets")
    drawn = _resampled(len(n), 2000, 0)
    rmse = lambda s: np.sqrt(drawn @ s / (drawn @ n))
    change = rmse(squares.mean(0)) - rmse(np.mean(before["squares"], axis=0))
    low, high = np.quantile(change, [.025, .975])
    return out | dict(change=each.mean() - figures(before)["mean"], low=low, high=high)


def block(errors: dict, before: dict | None) -> str:
    "The result as it is printed."
    lines = [f"{'hold-out':16}{'seeds ' + ' '.join(map(str, SEEDS)):24}{'mean':>7}{'spread':>8}   change, 95 % interval"]
    for name, e in errors.items():
        f = figures(e, before and before[name])
        each = " ".join(f"{x:.4f}" for x in f["each"])
        change = f"{f['change']:+.4f} [{f['low']:+.4f}, {f['high']:+.4f}]" if before else "–"
        lines.append(f"{name:16}{each:24}{f['mean']:7.4f}{f['spread']:8.4f}   {change}")
    return "\n".join(lines)


def page(records: list, looks: list) -> str:
    "RECORDS.md."
    head = f"""# Records

Each row is a change that was measured on the challenge's real tweets: RMSE of log1p(likes), each tweet predicted alone. `make records WHAT='…'` adds a row. It fits with the seeds {', '.join(map(str, SEEDS))}; the spread is their standard deviation. The change since the row before has a 95 % interval from a bootstrap over accounts (over brands for unseen companies), paired: both rows are compared on the same resampled accounts. The three hold-outs are those of [quality](nbs/pages/quality.ipynb).

| date | commit | change | {' | '.join(records[0]['errors'])} |
|---|---|---|{'---|' * len(records[0]['errors'])}
"""
    before, rows, blocks = None, [], []
    for r in records:
        cells = []
        for name, e in r["errors"].items():
            f = figures(e, before and before[name])
            cells.append(f"{f['mean']:.3f} ± {f['spread']:.3f}" + (f" ({f['change']:+.3f})" if before else ""))
        rows.append(f"| {r['date']} | {r['commit'][:7]} | {r['what']} | {' | '.join(cells)} |")
        blocks.append(f"## {r['date']}, {r['commit'][:7]}\n\n{r['what']}. `{r['command']}`\n\n```text\n{block(r['errors'], before)}\n```")
        before = r["errors"]
    count = pd.DataFrame(looks).groupby("command")["date"].agg(["size", "min", "max"])
    ledger = "\n".join(f"| `{c}` | {n} | {first} | {last} |" for c, n, first, last in count.itertuples())
    tail = f"""## Looks at the hold-outs

Whoever evaluates on a hold-out often enough fits to it. Since the first date below, each command that reads the likes or the texts of the hold-outs is counted when it starts; earlier looks were not counted.

| command | looks | first | last |
|---|---|---|---|
{ledger}
"""
    return head + "\n".join(rows) + "\n\n" + "\n\n".join(blocks) + "\n\n" + tail


def kept() -> list:
    return json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.is_file() else []


def write() -> None:
    (ROOT / "RECORDS.md").write_text(page(kept(), _looks()), encoding="utf-8")


def main(what: str = "") -> None:
    if what:
        if (commit := _commit_of(ROOT)).endswith("+"):
            sys.exit("A record names its commit: commit your changes first")
        command, records, holdouts = "make records", kept(), _holdouts()
        _look(command)
        errors = errors_of(holdouts)
        print(block(errors, records[-1]["errors"] if records else None))
        now = datetime.now(timezone.utc).date().isoformat()
        records.append(dict(date=now, commit=commit, what=what, command=command, errors=errors))
        with write_atomic(KEPT) as f:  # a record a line
            f.write("[" + ",\n".join(map(json.dumps, records)) + "]\n")
    write()


if __name__ == "__main__":
    main(*sys.argv[1:])

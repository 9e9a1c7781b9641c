"""The command line, called from a test."""
import contextlib
import io
import shutil

import pytest


def told(*args, cwd='.'):
    "Exit code, stdout, stderr of a command in this process: where only arguments and files matter."
    from behaviour_sim.apps.cli import main
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as end:
        main([str(a) for a in args])
    return end.value.code, out.getvalue(), err.getvalue()


def refused(result, *words):
    "Exit code 2, nothing on stdout, one line on stderr that holds the words, and no traceback."
    code, out, err = result
    assert code == 2 and out == '', (code, out, err)
    assert err.startswith('behaviour-sim: ') and err.count('\n') == 1 and 'Traceback' not in err, err
    for w in words: assert w in err, err


def pictured_posts(folder, n):
    "In the folder: `t.csv` with n posts, and `pictures`, named by their ids."
    from behaviour_sim.corpus.synthetic import sample_tweets
    from behaviour_sim.data.tweets import write_tweets
    t = sample_tweets(n, image_dir=folder/'drawn')
    (folder/'pictures').mkdir()
    for id, p in zip(t['id'], t['image_path']):
        if p: shutil.copy(p, folder/'pictures'/f'{id}.jpg')
    write_tweets(t.drop(columns=['image_path', 'caption']), folder/'t.csv')
    return folder

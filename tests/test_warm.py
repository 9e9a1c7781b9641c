"""A forked process is what `python -c` would be: code, arguments, folder, environment, outputs, exit status, signals."""
import os
import signal
import subprocess
import sys

import pytest
import warm


@pytest.mark.parametrize('code', ['print(1, 2)', 'import sys; print(sys.argv)', 'import sys; sys.exit(3)', 'import sys; sys.exit("no")', '1/0', 'import os; os._exit(4)', 'import os; print(os.getcwd(), os.environ.get("MARK"))',
    'import sys; print("é ☕", file=sys.stderr)', 'import atexit; atexit.register(print, "the end")', 'import mine; print(mine.__file__)', 'def f(): return g()\ndef g(): return __name__\nprint(f())', 'print(end="no line")'])
def test_like_python_c(code, tmp_path):
    (tmp_path/'mine.py').write_text('')
    env = {**os.environ, 'MARK': 'é', 'PYTHONPATH': str(tmp_path)}
    a = subprocess.run([sys.executable, '-c', code, 'x', 'é y'], cwd=tmp_path, env=env, capture_output=True, text=True)
    b = warm.run(code, 'x', 'é y', cwd=tmp_path, env=env)
    assert (b.returncode, b.stdout, b.stderr.splitlines()[-1:]) == (a.returncode, a.stdout, a.stderr.splitlines()[-1:])


def test_a_signal_ends_it():
    for number in (signal.SIGKILL, signal.SIGTERM):
        p = warm.Warm('import time; time.sleep(60)')
        with pytest.raises(subprocess.TimeoutExpired): p.wait(.05)
        assert p.poll() is None
        p.send_signal(number)
        assert p.wait(60) == -number and p.communicate() == ('', '')


def test_what_takes_too_long_is_stopped(tmp_path):
    code = 'import os, sys, time; open(sys.argv[1], "w").write(str(os.getpid())); time.sleep(60)'
    with pytest.raises(subprocess.TimeoutExpired): warm.run(code, tmp_path/'pid', timeout=3)
    if (tmp_path/'pid').exists():
        with pytest.raises(ProcessLookupError): os.kill(int((tmp_path/'pid').read_text()), 0)


@pytest.mark.skipif(sys.platform != 'linux', reason='threads are counted in /proc')
def test_the_fork_server_has_one_thread_and_nothing_of_the_package():
    code = """import os, sys; from pathlib import Path
threads = [(t/'comm').read_text().strip() for t in Path(f'/proc/{os.getppid()}/task').iterdir()]
print(len([t for t in threads if t != 'jemalloc_bg_thd']), 'torch' in sys.modules, [m for m in sys.modules if m.startswith('behaviour_sim')])"""
    assert warm.run(code).stdout == '1 True []\n' # that thread is Arrow's; its allocator knows of forks

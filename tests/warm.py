"""New Python processes that need not import the heavy libraries first.

Most of the time of a short command goes into importing torch, transformers, scikit-learn and LightGBM. `run` and `Warm`
take the code of `python -c` and start it in a process of its own, with its own folder, environment and outputs, but forked
by the standard library's fork server from a process that has imported them. Nothing of the package itself is imported there.

A test that is about starting Python — what an import loads, limits of memory, thread counts — uses `subprocess`.
"""
import atexit
import functools
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import traceback
import types
from pathlib import Path

#: What the fork server imports. None of it starts a thread, which a forked process would lack, but Arrow's allocator, which expects that
HEAVY = ['numpy', 'pandas', 'pyarrow.parquet', 'scipy.stats', 'sklearn.ensemble', 'sklearn.linear_model', 'sklearn.cluster', 'sklearn.decomposition',
    'sklearn.feature_extraction.text', 'sklearn.neighbors', 'lightgbm', 'xgboost', 'faiss', 'torch', 'transformers', 'safetensors.torch', 'peft',
    'PIL.Image', 'httpcore', 'matplotlib.pyplot', 'IPython.core.interactiveshell', 'matplotlib_inline.backend_inline', 'nbdev.test', 'typer', 'rich.console']

context = multiprocessing.get_context('forkserver')
context.set_forkserver_preload(HEAVY)


@functools.cache
def _installed() -> list:
    "Where a new Python finds modules, apart from its folder and PYTHONPATH."
    return json.loads(subprocess.run([sys.executable, '-Ec', 'import json, sys; print(json.dumps(sys.path[1:]))'], capture_output=True, check=True).stdout)


def _child(code, args, cwd, env, path, outputs):
    "In the new process: what `python -c code args` would do."
    for fd, name in zip((1, 2), outputs): os.dup2(os.open(name, os.O_WRONLY), fd)
    os.environ.clear(); os.environ.update(env)
    os.chdir(cwd)
    multiprocessing.set_start_method(None, force=True)
    sys.argv[:], sys.path[:] = ['-c', *args], path
    sys.modules['__main__'] = main = types.ModuleType('__main__')
    try: exec(compile(code, '<string>', 'exec'), main.__dict__)
    except Exception:
        traceback.print_exc()
        sys.exit(1)
    finally: atexit._run_exitfuncs()


class Warm:
    "A process that runs `code`, with what is used here of `subprocess.Popen`."
    def __init__(self, code: str, *args, cwd=None, env=None):
        env = dict(os.environ if env is None else env)
        path = ['', *filter(None, env.get('PYTHONPATH', '').split(os.pathsep)), *_installed()]
        self.args, self.folder = ['-c', code, *map(str, args)], tempfile.TemporaryDirectory(prefix='warm-')
        self.files = [Path(self.folder.name)/name for name in ('out', 'err')]
        for f in self.files: f.touch()
        self.process = context.Process(target=_child, args=(code, self.args[2:], str(cwd or os.getcwd()), env, path, self.files))
        self.process.start()
        self.pid, self.kill = self.process.pid, self.process.kill

    def send_signal(self, number): os.kill(self.pid, number)

    def poll(self): return self.process.exitcode

    @property
    def returncode(self): return self.process.exitcode

    def wait(self, timeout=None):
        self.process.join(timeout)
        if self.process.exitcode is None: raise subprocess.TimeoutExpired(self.args, timeout)
        return self.process.exitcode

    def communicate(self, timeout=None):
        self.wait(timeout)
        return tuple(f.read_text(encoding='utf-8') for f in self.files)


def run(code: str, *args, cwd=None, env=None, timeout=600) -> subprocess.CompletedProcess:
    "Run `code` to its end, as `subprocess.run([sys.executable, '-c', code, …], capture_output=True, text=True)` would."
    p = Warm(code, *args, cwd=cwd, env=env)
    try: out, err = p.communicate(timeout)
    except subprocess.TimeoutExpired:
        p.kill(); p.communicate()
        raise
    return subprocess.CompletedProcess(p.args, p.returncode, out, err)

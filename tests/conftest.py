"""How the tests share two cores: one thread a process, what takes long first, and a simulator fitted once for all of them.

Two processes take the tests, a file or a notebook at a time, and neither may take the other's core. What costs much
begins first, so that both end together: `COST` holds rough seconds, to be corrected by `--durations=0`.
"""
import os

for name in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS', 'POLARS_MAX_THREADS', 'RAYON_NUM_THREADS'):
    os.environ.setdefault(name, '1')        # before numpy and torch are imported: they read it once
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

import pytest
from changed import changed, dependents

if os.environ.get('BEHAVIOUR_SIM_LONG'): # `make test-long`: more kills, and 300,000 tweets
    os.environ.setdefault('BEHAVIOUR_SIM_KILLS', '30')
    os.environ.setdefault('BEHAVIOUR_SIM_SCALE', '1')

#: Seconds on one core, of what takes more than 8; the tests of every other file are marked `fast`.
COST = dict(test_crash=150, test_ray=120, test_cli=90, test_images=80, test_content=80, test_app=70, test_site=60, test_scale=60, test_simulator=60,
    test_fuzz=50, test_language_models=40, test_speed=40, test_audit=25, test_notebooks=25, test_model_directories=15) | {
    '92_likes_quality': 55, '71_ray_train': 40, '94_image_quality': 40, '93_text_quality': 40, 'draft_a_tweet': 40, 'scale_out': 40, '70_ray_data': 35,
    '56_simulator': 30, '61_sdxl_lora': 30, '53_bloom_lora': 30, '47_simulator': 30, '60_models': 30, 'your_own_tweets': 30, '84_cli': 26, '82_app': 25,
    '80_report': 25, '45_new_company': 20, '46_known_account': 20, '48_explain': 20, '72_out_of_core': 20, '95_growth': 20, '96_speed': 20, '52_language_models': 15,
    'reproduce_team83': 15, '90_audit': 10}


def unit(item) -> str:
    "What goes to a process as a whole: a notebook, or a file of tests."
    return item.callspec.id if item.path.stem == 'test_cells' and hasattr(item, 'callspec') else item.path.stem


def pytest_addoption(parser):
    parser.addoption('--quick', action='store_true', help='Notebooks that differ from main, those that import from them, and the tests marked fast.')


def pytest_configure(config):
    config.addinivalue_line('markers', 'fast: the tests of a file that take a few seconds in all')


@pytest.hookimpl(tryfirst=True) # before xdist reads the groups
def pytest_collection_modifyitems(config, items):
    for item in items:
        if not item.path.stem == 'test_cells' and item.path.stem not in COST: item.add_marker('fast')
        item.add_marker(pytest.mark.xdist_group(unit(item)))
    if config.getoption('--quick'):
        concerned = {p.stem for p in dependents(changed())}
        wanted = lambda i: unit(i) in concerned if i.path.stem == 'test_cells' else i.get_closest_marker('fast')
        config.hook.pytest_deselected(items=[i for i in items if not wanted(i)])
        items[:] = [i for i in items if wanted(i)]
    items.sort(key=lambda i: -COST.get(unit(i), 0)) # a stable sort: within a file the order stays


@pytest.fixture(scope='session')
def tiny_model(tmp_path_factory):
    """A function: from training tweets, and what `LikesSimulator` takes, to the directory of the simulator fitted on them.

    Each is fitted once in a run, whichever process asks first; the other one waits and reads it."""
    from filelock import FileLock
    base = tmp_path_factory.getbasetemp()
    base = base.parent if os.environ.get('PYTEST_XDIST_WORKER') else base
    def model(tweets, profiles=None, **settings):
        import pandas as pd
        from behaviour_sim.core import content_key
        from behaviour_sim.likes.simulator import LikesSimulator
        parts = [content_key(list(t), pd.util.hash_pandas_object(t, index=False).to_numpy()) for t in (tweets, profiles) if t is not None]
        folder = base/f'model_{content_key(*parts, settings)[:24]}'
        with FileLock(f'{folder}.lock'):
            if not (folder/'model.json').exists():
                LikesSimulator('tiny', **settings).fit(tweets, profiles=profiles, quiet=True).save(folder)
        return folder
    return model

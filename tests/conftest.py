"""Two processes share the tests, a file each. Those that take long begin first, so that both end together."""
LONG = ('test_ray', 'test_cli', 'test_content', 'test_images', 'test_crash', 'test_scale', 'test_simulator', 'test_app', 'test_fuzz', 'test_language_models', 'test_site')


def pytest_collection_modifyitems(items):
    rank = lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG)
    items.sort(key=rank) # a stable sort: within a file the order stays

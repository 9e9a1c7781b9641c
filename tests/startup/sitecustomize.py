"""What every new Python of a test does first, since this folder is on its PYTHONPATH.

Ray imports jsonschema in each of its processes, which parses a grammar of international addresses where jupyterlab has
installed one. That takes most of a second, a dozen times in one training, and no address is checked here.
"""
import sys

sys.modules['rfc3987_syntax'] = None # jsonschema goes on without it

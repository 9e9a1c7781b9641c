__version__ = "0.2.0"

from .front_door import _listed as __dir__, _resolve as __getattr__

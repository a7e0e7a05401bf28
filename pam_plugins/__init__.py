"""Region understanding behind pluggable hooks: `perceive` a picture, `load_model` by name, `hookimpl` to extend.

Importing this package loads neither torch nor a model nor an external plugin.
"""

from pam_core.types import Perception, Prompt, Region
from pam_plugins.api import perceive, release_model
from pam_plugins.hookspecs import hookimpl
from pam_plugins.options import Options
from pam_plugins.plugins import load_model
from pam_plugins.version import VERSION as __version__

__all__ = [
    "Options",
    "Perception",
    "Prompt",
    "Region",
    "__version__",
    "hookimpl",
    "load_model",
    "perceive",
    "release_model",
]

"""A source of FiftyOne's model zoo: `pam-lite` and `pam`. The model itself is in `zoo_model.py`.

FiftyOne copies this folder into its zoo and imports the copy; the package `fiftyone_plugin` has to be importable
there, as it is where pam-plugins is installed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fiftyone.operators import types

    from fiftyone_plugin.zoo_model import PamZooModel


def download_model(model_name: str, model_path: str) -> None:
    """Write the file that FiftyOne expects. The weights of `lite` come with pam-plugins, those of PAM by
    `pam download`; NotFoundError says so where they are missing.
    """
    from fiftyone_plugin.zoo_model import resolve

    info = resolve(model_name)
    Path(model_path).write_text(f"{info.name}: {info.description}\n", encoding="utf-8")


def load_model(model_name: str = "pam-lite", model_path: str | None = None, **settings: Any) -> PamZooModel:
    """The zoo model of this name. `settings` are those of `PamZooModel`.

    Raises NotFoundError, and UnsupportedError for tasks and languages that the model does not have.
    """
    from fiftyone_plugin.zoo_model import PamZooModel, resolve

    return PamZooModel(resolve(model_name), **settings)


def resolve_input(model_name: str, ctx: Any) -> types.Property:
    """The form for the settings that a person can choose in the App."""
    from fiftyone.operators import types

    from fiftyone_plugin.operators.form import choose_texts
    from fiftyone_plugin.zoo_model import resolve

    inputs = types.Object()
    choose_texts(inputs, resolve(model_name))
    return types.Property(inputs)

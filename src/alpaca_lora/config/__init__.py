"""Settings: what a run can be told, what is wrong with it, and recipes of it."""

from .problems import MAX_EPOCHS, called_here, shown, unknown_settings
from .recipes import beside_adapter, load_recipe, recipe_names, recipe_path
from .settings import FinetuneConfig

__all__ = [
    "MAX_EPOCHS",
    "FinetuneConfig",
    "beside_adapter",
    "called_here",
    "load_recipe",
    "recipe_names",
    "recipe_path",
    "shown",
    "unknown_settings",
]

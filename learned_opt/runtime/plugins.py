"""The launchers and the sweeper of this project, made known to Hydra."""

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

from learned_opt.runtime.serial_launcher import SerialLauncher
from learned_opt.runtime.study_sweeper import StudySweeper
from learned_opt.runtime.sweep_launcher import SweepLauncher

PACKAGE = "hydra_plugins.learned_opt"  # Hydra takes plugins by names below hydra_plugins only


def register() -> None:
    """Let configs name the plugins; ``SerialLauncher`` takes the name of Hydra's, ``basic``."""
    known = Plugins.instance().class_name_to_class
    for plugin in (SerialLauncher, StudySweeper, SweepLauncher):
        known[f"{PACKAGE}.{plugin.__name__}"] = plugin

    node = {"_target_": f"{PACKAGE}.{SerialLauncher.__name__}"}
    ConfigStore.instance().store(
        group="hydra/launcher", name="basic", node=node, provider="learned_opt"
    )

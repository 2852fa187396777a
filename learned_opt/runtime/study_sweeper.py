"""``hydra/sweeper=outer``: a study of Optuna that goes on where a kill has left it.

hydra-optuna-sweeper counts its jobs from 0 at every start, so that the trials of a second start
find folders of other runs and fail, and those that ran at the kill stay RUNNING. Here trial N is
the job in folder N. Optuna has heartbeats to find dead trials, but only below ``study.optimize``,
and they retry a trial as another one. The lock of the sweep folder knows it better: whoever holds
it knows that no trial of this folder runs, runs those again that say so, and tells their end once.
"""

import logging
import math
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from learned_opt.core.errors import RunError, UsageError
from learned_opt.core.files import write_text
from learned_opt.runtime import job_file
from learned_opt.runtime.run_folder import SweepFolder
from learned_opt.runtime.sweep_run import SweepRun, compose_runs, tell_summary

log = logging.getLogger(__name__)
DIRECTIONS = ("minimize", "maximize")
# attributes of a trial and of a study: names that no key of a config has
FOLDER = "learned_opt/sweep folder"
WORDS = "learned_opt/words"


class StudySweeper(Sweeper):
    """Trials of a study as jobs of a sweep, some at once.

    Args:
        sampler: node of a sampler of Optuna.
        direction: ``minimize`` or ``maximize``.
        storage: URL of the database that keeps the study; None for none.
        study_name: of the study in the database.
        n_trials: of the study in all, however often it is started.
        n_jobs: trials at once.
        max_failure_rate: share of ``n_jobs`` that may fail; above it the study ends.
        params: what is searched, key -> sweep in Hydra's grammar.
    """

    def __init__(
        self,
        sampler: DictConfig,
        direction: str,
        storage: str | None,
        study_name: str,
        n_trials: int,
        n_jobs: int,
        max_failure_rate: float,
        params: DictConfig | None,
    ) -> None:
        # what the database's plugins tell at every start is no matter of a sweep
        logging.getLogger("alembic").setLevel(logging.WARNING)
        from hydra_plugins.hydra_optuna_sweeper._impl import OptunaSweeperImpl

        if direction not in DIRECTIONS:
            raise UsageError(
                f"hydra.sweeper.direction must be one of {', '.join(DIRECTIONS)}, "
                f"got {direction!r}."
            )
        for name, value in {"n_trials": n_trials, "n_jobs": n_jobs}.items():
            if value < 1:
                raise UsageError(f"hydra.sweeper.{name} must be at least 1, got {value}.")

        self.sampler = sampler
        self.direction = direction
        self.storage = storage
        self.study_name = study_name
        self.num_trials = n_trials
        self.num_at_once = n_jobs
        self.max_failure_rate = max_failure_rate
        # knows how words become a search space, and trials become words
        self.parser = OptunaSweeperImpl(
            sampler=None,
            direction=direction,
            storage=storage,
            study_name=study_name,
            n_trials=n_trials,
            n_jobs=n_jobs,
            max_failure_rate=max_failure_rate,
            search_space=None,
            custom_search_space=None,
            params=params,
        )

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what jobs are made of."""
        self.config = config
        self.hydra_context = hydra_context
        self.folder = Path(config.hydra.sweep.dir)
        self.jobs_launcher = Plugins.instance().instantiate_launcher(
            config=config, hydra_context=hydra_context, task_function=task_function
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run what is left of the study.

        Args:
            arguments: words of the command line.

        Raises:
            UsageError: the study cannot be opened, or it is that of another sweep.
            RunError: too many trials have failed, or none has a value.
        """
        OmegaConf.save(self.config, SweepFolder(self.folder).plan)
        words = [*self.parser._parse_sweeper_params_config(), *arguments]
        study = self._open_study(words)

        try:
            for trials in self._batches(study):
                self._run(study, words, trials)
        finally:
            tell_summary(self.folder, [])
        self._tell_best(study)

    def _open_study(self, words: Sequence[str]) -> Any:
        import optuna
        from sqlalchemy.exc import SQLAlchemyError

        try:
            study = optuna.create_study(
                study_name=self.study_name,
                storage=self.storage,
                direction=self.direction,
                load_if_exists=True,
            )
        except (SQLAlchemyError, ImportError, ValueError, optuna.exceptions.OptunaError) as error:
            reason = str(error).partition("\n")[0]
            raise UsageError(f"hydra.sweeper.storage {self.storage!r}: {reason}") from error

        theirs = study.user_attrs.get(WORDS, sorted(words))
        if theirs != sorted(words):
            raise UsageError(
                f"study {self.study_name!r} of {self.storage} is that of another sweep "
                f"({' '.join(theirs)}); choose another hydra.sweeper.study_name."
            )
        study.set_user_attr(WORDS, theirs)
        study.sampler = self._sampler(len(study.trials))
        return study

    def _sampler(self, num_trials: int) -> Any:
        """The sampler; one with a seed draws other numbers than an earlier start has drawn."""
        seed = self.sampler.get("seed")
        if seed is None:
            return instantiate(self.sampler)
        return instantiate(self.sampler, seed=seed + num_trials)

    def _batches(self, study: Any) -> Any:
        """Trials that run at once, batch by batch: first those that an earlier start has left."""
        left = self._left_running(study)
        for start in range(0, len(left), self.num_at_once):
            yield left[start : start + self.num_at_once]

        while num_left := max(0, self.num_trials - self._num_begun(study)):
            trials = []
            for _ in range(min(num_left, self.num_at_once)):
                trial = study.ask()
                trial.set_user_attr(FOLDER, str(self.folder.resolve()))
                trials.append(trial)
            yield trials

    def _left_running(self, study: Any) -> list[Any]:
        """Trials that an earlier start in this folder has begun and not ended.

        A trial that names no folder is one of those: the kill came before it was written.
        """
        from optuna.trial import Trial, TrialState

        here = str(self.folder.resolve())
        trials = []
        for frozen in study.get_trials(states=(TrialState.RUNNING,)):
            if frozen.user_attrs.get(FOLDER, here) == here:
                trial = Trial(study, frozen._trial_id)
                trial.set_user_attr(FOLDER, here)
                trials.append(trial)

        if trials:
            numbers = ", ".join(str(trial.number) for trial in trials)
            log.info("trials that were running are run again: %s", numbers)
        return trials

    def _num_begun(self, study: Any) -> int:
        from optuna.trial import TrialState

        return sum(trial.state is not TrialState.WAITING for trial in study.get_trials())

    def _run(self, study: Any, words: Sequence[str], trials: Sequence[Any]) -> None:
        """Run trials as jobs of their numbers, and tell the study what they came to.

        Raises:
            RunError: more of them have failed than may.
        """
        results = []
        runs = []
        assert self.hydra_context is not None, "Hydra calls setup first"
        assert self.config is not None, "Hydra calls setup first"
        for group in _consecutive(trials):
            overrides = self._words_of(group, words)
            first = group[0].number
            runs += compose_runs(self.hydra_context, self.config, overrides, first)
            results += self.jobs_launcher.launch(overrides, initial_job_idx=first)

        failures = []
        for trial, run, result in zip(trials, runs, results, strict=True):
            if not self._tell(study, trial, run, result):
                failures.append(run.folder.name)

        if len(failures) > self.max_failure_rate * len(trials):
            raise RunError(
                f"{len(failures)} of {len(trials)} trials that ran at once are not whole, more "
                f"than hydra.sweeper.max_failure_rate={self.max_failure_rate} allows."
            )

    def _words_of(self, trials: Sequence[Any], words: Sequence[str]) -> Sequence[Sequence[str]]:
        """Words of the job of each trial; parameters that it has already are kept.

        Raises:
            UsageError: the study has searched another range before.
        """
        from hydra_plugins.hydra_optuna_sweeper._impl import create_params_from_overrides

        space, fixed = create_params_from_overrides(list(words))
        searched = {name: values for name, values in space.items() if name not in fixed}
        try:
            return self.parser._configure_trials(list(trials), searched, fixed)
        except ValueError as error:
            raise UsageError(f"study {self.study_name!r}: {error}") from error

    def _tell(self, study: Any, trial: Any, run: SweepRun, result: JobReturn) -> bool:
        """Tell the study what a trial came to; returns whether it has a value.

        A job that was killed is not told: its trial is run again by the same command.
        """
        from optuna.trial import TrialState

        if result.status is JobStatus.COMPLETED:
            value = result.return_value
            if value is not None and not math.isnan(value):
                study.tell(trial, float(value))
                return True
            log.error(
                "job %s has no validation loss; callbacks.validation and logger.csv make one.",
                run.folder.name,
            )

        record = job_file.read(run.folder)
        if record.get("state") in ("failed", "finished"):
            study.tell(trial, state=TrialState.FAIL)
        return False

    def _tell_best(self, study: Any) -> None:
        """Print the best trial and write it as ``optimization_results.yaml``.

        Raises:
            RunError: no trial has a value.
        """
        try:
            best = study.best_trial
        except ValueError as error:
            raise RunError("no trial of the study has a value.") from error

        results = {"name": "optuna", "best_params": best.params, "best_value": best.value}
        write_text(SweepFolder(self.folder).best_trial, OmegaConf.to_yaml(results))
        log.info("best trial: %d, value %.4g, %s", best.number, best.value, best.params)


def _consecutive(trials: Sequence[Any]) -> list[list[Any]]:
    """Trials in groups of consecutive numbers, as a launcher takes them.

    Where other processes work at the same study, their numbers lie between.
    """
    groups = []
    for _, pairs in groupby(enumerate(trials), lambda pair: pair[1].number - pair[0]):
        groups.append([trial for _, trial in pairs])
    return groups

"""The command line: one thin file for each verb, and the front door that finds it."""

from learned_opt.core import tasks_package

# here, as every process of a run imports a command before it imports a task
tasks_package.bind()

"""The Python door: plain objects in, results out; what the commands do, without configs."""

from learned_opt.core import tasks_package

tasks_package.refuse_another()  # or a module of a user would be taken for ours, and lack all names

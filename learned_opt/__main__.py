"""``python -m learned_opt [VERB] ...``, see ``learned_opt.commands``."""

from learned_opt.commands.front_door import main

if __name__ == "__main__":
    main()

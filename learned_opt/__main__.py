"""``python -m learned_opt +task=NAME``: meta-train, evaluate, report."""

from learned_opt.train import main

if __name__ == "__main__":
    main()

"""What people type: five command lines of each verb, for its help."""

import textwrap

PROGRAM = "python -m learned_opt"
# verb, with its second word where that has a page of its own -> the words behind PROGRAM
EXAMPLES = {
    "train": (
        "+task=mlp",
        "+task=mlp data=fashion_mnist meta_optimizer=deep_set",
        "+task=mlp theta=unf-transfer outer_optimizer.optimizer.lr=1e-3",
        "+task=mlp hydra.run.dir=runs/mlp/latest  # goes on where it was stopped",
        "-m +task=rnn meta_optimizer=unf,deep_set seed=0,1,2 hydra/launcher=workstation",
    ),
    "evaluate": (
        "evaluate +task=mlp theta=runs/mlp/latest benchmark=all",
        "evaluate +task=unseen theta=[unf-transfer]  # tasks that nothing was trained on",
        "evaluate +task=mlp 'theta={unf: runs/mlp/1, nfn: runs/mlp/2}' +card=mlp",
        "evaluate +task=cnn theta=unf-transfer horizons=[200,400] baselines=[sgdm,adam]",
        "evaluate table runs/mlp-evaluate/latest rows=unf,adam",
    ),
    "bench": (
        "bench +task=mlp",
        "bench +task=mlp profile=true  # where the time goes",
        "bench scaling +task=mlp",
        "bench +task=mlp --compare runs/bench/1/bench.json",
        "bench networks only=[experts]",
    ),
    "bench networks": (
        "bench networks",
        "bench networks only=[experts,prefix_tree]",
        "bench networks batch_size=64 repeats=3",
        "bench networks device=cpu",
        "bench networks hydra.run.dir=runs/layers",
    ),
    "bench deploy": (
        "bench deploy",
        "bench deploy only=[mlp]",
        "bench deploy only=[mlp,resnet] repeats=3",
        "bench deploy +meta_optimizer@learned.mine=deep_set",
        "bench deploy hydra.run.dir=runs/steps",
    ),
    "lab": (
        "lab +task=mlp",
        "lab +task=mlp theta=unf-mlp-fashion data=fashion_mnist",
        "lab +task=mlp replicates=100 horizon=40 unroll_length=10",
        "lab +task=rnn cases.all=null +estimator@cases.pes=pes",
        "lab +task=mlp +cases.pes.sigma=0.1 +cases.bptt=null",
    ),
    "zoo": (
        "zoo build",
        "zoo predict",
        "zoo predict zoo=cnn num_seeds=3",
        "zoo build zoo=trajectories",
        "zoo forecast zoo=trajectories",
    ),
    "contest": (
        "contest +experiment=quadratic_mlp_fashion",
        "contest +experiment=quadratic_cnn_cifar data.root=data",
        "contest +experiment=quadratic_mlp_fashion benchmark.num_seeds=4",
        "contest +experiment=quadratic_mlp_fashion horizon=200",
        "contest +experiment=quadratic_mlp_fashion +network@networks.mine=moe_mlp",
    ),
    "coordinate-check": (
        "coordinate-check +task=mlp network.hidden_sizes=[64,64] widths=[64,128,256]",
        "coordinate-check +task=mlp parametrisation=standard  # without muP",
        "coordinate-check +task=mlp theta=unf-transfer network.hidden_sizes=[64,64]",
        "coordinate-check +task=cnn meta_optimizer=adam widths=[16,32,64]",
        "coordinate-check +task=transformer meta_optimizer=celo widths=[32,64,128] seeds=2",
    ),
    "replay": (
        "replay runs/mlp/latest/replay/step12_task3.yaml",
        "replay runs/mlp/latest/replay/step12_task3.yaml compile=false",
        "replay runs/mlp/latest/replay/step12_task3.yaml device=cpu",
        "replay runs/mlp/latest/replay/step12_task3.yaml meta_optimizer.alpha=0.1",
        "replay runs/mlp/latest/replay/step12_task3.yaml trust=mypkg.optimizers",
    ),
    "report": (
        "report runs/mlp/latest",
        "report runs/mlp/1 runs/mlp/2  # one page that compares them",
        "report runs/mlp/* --out=all.html",
        "report runs/sweeps/latest",
        "report runs/mlp/1 runs/sweeps/2 --out=both.html",
    ),
    "collect": (
        "collect runs/sweeps/latest",
        "collect runs/sweeps/2026-11-30_12-00-00",
        "collect runs/sweeps/latest | tail -n 3  # what to run again",
        "collect /scratch/me/runs/sweeps/latest",
        "collect runs/study  # where hydra.sweep.dir=runs/study",
    ),
    "dashboard": (
        "dashboard runs/mlp/latest",
        "dashboard runs/sweeps/latest",
        "dashboard runs/sweeps/latest --push",
        "dashboard --project learned_opt --entity my-team",
        "dashboard --project learned_opt --entity my-team --push",
    ),
}


def text(verb: str) -> str:
    """The examples of a verb as its help shows them.

    Args:
        verb: with its second word where that has a page of its own.
    """
    lines = [f"{PROGRAM} {words}" for words in EXAMPLES[verb]]
    return "examples:\n" + textwrap.indent("\n".join(lines), "  ")

#!/usr/bin/env bash
# Every test that needs a GPU, and what a step costs there; at most six minutes.
#
#   bash tests/gpu/check.sh [FOLDER]     FOLDER gets bench.json and bench.md (default: runs/gpu-check)
set -uo pipefail
cd "$(dirname "$0")/../.."
folder=${1:-runs/gpu-check}

python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || {
  echo "tests/gpu/check.sh: torch finds no CUDA device here." >&2
  exit 2
}
failures=0
timeout 220 python -m pytest -q -n0 -m gpu --durations=10 tests || failures=$((failures + 1))
timeout 130 python -m learned_opt bench +task=mlp device=cuda repeats=3 \
  'only=[sgdm,pointwise,unf]' "hydra.run.dir=$folder" || failures=$((failures + 1))
exit "$failures"

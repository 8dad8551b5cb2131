#!/usr/bin/env bash
# A sweep in one Slurm allocation: Ray starts on every node, the driver runs on the first, and all of
# it ends together. Submit it again after a time limit or a lost node: it goes on.
#
#   sbatch --nodes=4 --gpus-per-node=4 sweeps/clusters/slurm.sh sweeps/full_grid.yaml [words for run]
#
# The project, its .venv and the store of the sweep lie on a file system that every node sees.
#SBATCH --job-name=iac-sweep
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@180
#SBATCH --requeue
set -euo pipefail

sweep=$1
shift
cd "${IAC_HOME:-$SLURM_SUBMIT_DIR}"
export PATH="$PWD/.venv/bin:$PATH" # Ray calls `ray` by its name
# Ray forces one thread on what it starts; stages set their own.
unset OMP_NUM_THREADS
# Sockets have short paths, and nodes are shared: a folder of one's own.
export RAY_TMPDIR="/tmp/ray-$SLURM_JOB_ID"
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 20000))

srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" \
    ray symmetric-run \
    --address "$head:$port" \
    --min-nodes "$SLURM_JOB_NUM_NODES" \
    --num-cpus="${SLURM_CPUS_ON_NODE:-1}" \
    -- \
    python -m orchestrator run "$sweep" --address auto "$@" &
# The warning before the time limit reaches the driver, whose stages then write their checkpoints.
trap 'kill -TERM $! 2>/dev/null' TERM
wait $! || wait $!

#!/usr/bin/env bash
# A sweep in one Slurm allocation: Ray starts on every node, the driver runs on the first, and all of
# it ends together. Three minutes before the time limit or a preemption its stages checkpoint and the
# job queues itself again; after a lost node Slurm does. It goes on where it was.
#
#   sbatch --nodes=4 --gpus-per-node=4 sweeps/clusters/slurm.sh sweeps/full_grid.yaml [words for run]
#
# The project, its .venv and the store of the sweep lie on a file system that every node sees.
#SBATCH --job-name=iac-sweep
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@180
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
# In a folder that every node sees: the stages of all of them are told by this file.
export IAC_PREEMPTION_FILE="$PWD/preempted-$SLURM_JOB_ID"
rm -f "$IAC_PREEMPTION_FILE"
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 20000))

srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" \
    ray symmetric-run \
    --address "$head:$port" \
    --min-nodes "$SLURM_JOB_NUM_NODES" \
    --num-cpus="${SLURM_CPUS_ON_NODE:-1}" \
    -- \
    python -m orchestrator run "$sweep" --address auto "$@" &
driver=$!
# The warning reaches the stages, which write their checkpoints; then the driver ends.
warn() {
    touch "$IAC_PREEMPTION_FILE"
    for ((i = 0; i < ${IAC_CHECKPOINT_SECONDS:-90}; i++)); do
        kill -0 "$driver" 2>/dev/null || return
        sleep 1
    done
    kill -TERM "$driver" 2>/dev/null || true
}
trap warn USR1
trap 'kill -TERM "$driver" 2>/dev/null || true' TERM
code=0
wait "$driver" || code=$?
while kill -0 "$driver" 2>/dev/null; do # a signal ends a wait early
    code=0
    wait "$driver" || code=$?
done
if [ -e "$IAC_PREEMPTION_FILE" ]; then
    rm -f "$IAC_PREEMPTION_FILE"
    [ "$code" -eq 0 ] || scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"

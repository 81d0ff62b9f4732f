#!/usr/bin/env bash
# One fleet, or one grid, as jobs of a Slurm cluster. From the repository's root:
#
#   run="docs/slurm.sh --config=configs/quickstart.py --workdir=$SCRATCH/quickstart"
#   job=$(sbatch --parsable --array=0-7 $run --config.run.platform=gpu)                                               # eight jobs train it
#   job=$(sbatch --parsable --dependency=afterok:$job $run --config.run.platform=gpu --stages=train,query)            # asks the models
#   sbatch --dependency=afterok:$job --gres=none $run --stages=attack,report                                          # on CPUs alone
#
# The first two ask for a GPU (below), and run.platform=gpu makes it an error if JAX does not use it. On a cluster without GPUs swap the two lines below,
# leave run.platform out, and one closing job does: sbatch --dependency=afterok:$job $run
#
# With --grid each job of the array runs its share of the members, and the last job writes the table. The workdir must be on a file system that all
# nodes share. Before its time is over (USR1) and when it is preempted (TERM) a job keeps its state, ends with 75 and is queued again; where the
# cluster forbids that, submit the same line once more: what is done is skipped. Elsewhere (Kubernetes, machines with one TPU each) an index in a
# shared workdir does the same: python launch.py --task=$INDEX/$COUNT ...
#
# The same bits need the same kind of node (--constraint=...) and the same number of cores (--cpus-per-task); a job that goes on elsewhere says so.
#SBATCH --job-name=mia
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2
#SBATCH --gres=gpu:1
##SBATCH --gres=none
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=USR1@120
#SBATCH --output=%x-%A_%a.out

task=()
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
  task=("--task=$((SLURM_ARRAY_TASK_ID - SLURM_ARRAY_TASK_MIN))/$SLURM_ARRAY_TASK_COUNT")
fi
srun --unbuffered "${PYTHON:-.venv/bin/python}" launch.py "${task[@]}" "$@"
status=$?
if [ "$status" = 75 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"

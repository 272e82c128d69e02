#!/bin/bash
# Stage 1 on several machines under SLURM; the arguments are those of the trainer:
#   sbatch --nodes 4 accelerate_configs/slurm.sh --config FILE.yaml --data DIR --run RUN
#   CONFIG=accelerate_configs/fsdp2.yaml sbatch ...                             weights sharded over the GPUs
#   TRAINER=stage2_fusion/train.py sbatch ...                                   stage 2
# Before its time limit, or when it is preempted, the job writes a checkpoint and is queued again.
#SBATCH --job-name=emit
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
# ntasks-per-node: one launcher per machine, which starts a process for each GPU. signal: SLURM sends SIGTERM to this
# script (B) three minutes before the time limit.

export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=150 # seconds that the launcher gives its processes for the checkpoint
export EMIT_CONFIG=${CONFIG:-accelerate_configs/multi_node.yaml} EMIT_TRAINER=${TRAINER:-stage1_align/train.py}
EMIT_HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
EMIT_PORT=$((20000 + SLURM_JOB_ID % 10000)) # differs between jobs on one machine
EMIT_PROCESSES=$((SLURM_NNODES * ${SLURM_GPUS_ON_NODE:-1}))
export EMIT_HEAD EMIT_PORT EMIT_PROCESSES

terminated=
trap 'terminated=1; kill -TERM "$launchers"' TERM # srun forwards it to the launchers, and they to the trainers

# SLURM_NODEID differs between machines, so each machine reads its own.
srun bash -c 'exec accelerate launch --config_file "$EMIT_CONFIG" --num_machines "$SLURM_NNODES" \
  --num_processes "$EMIT_PROCESSES" --machine_rank "$SLURM_NODEID" \
  --main_process_ip "$EMIT_HEAD" --main_process_port "$EMIT_PORT" "$EMIT_TRAINER" "$@"' launcher "$@" &
launchers=$!
wait "$launchers"
status=$?
if [ -n "$terminated" ]; then
  wait "$launchers" # the signal ended the first wait
  exec scontrol requeue "$SLURM_JOB_ID" # a finished run reports that there is nothing to do
fi
exit "$status"

#!/bin/bash
# Stage 1 on many machines under SLURM; arguments are those of the trainer:
#   sbatch --nodes 4 accelerate_configs/slurm.sh --config FILE.yaml --data DIR --run RUN
#   CONFIG=accelerate_configs/fsdp2.yaml sbatch ...                             weights spread over the GPUs
#   TRAINER=stage2_fusion/train.py sbatch ...                                   the other stage
# Before its time is over, or when it is preempted, the job writes a checkpoint and queues again.
#SBATCH --job-name=emit
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
# ntasks-per-node: one launcher a machine, which starts a process for each GPU. signal: this script (B) is told three
# minutes before the end.

export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=150 # seconds the launcher leaves its processes for the checkpoint
export EMIT_CONFIG=${CONFIG:-accelerate_configs/multi_node.yaml} EMIT_TRAINER=${TRAINER:-stage1_align/train.py}
EMIT_HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
EMIT_PORT=$((20000 + SLURM_JOB_ID % 10000)) # jobs that share a machine do not meet
EMIT_PROCESSES=$((SLURM_NNODES * ${SLURM_GPUS_ON_NODE:-1}))
export EMIT_HEAD EMIT_PORT EMIT_PROCESSES

asked=
trap 'asked=1; kill -TERM "$steps"' TERM # srun passes it on to the launchers, and they to the trainers

# SLURM_NODEID differs between the machines, so each of them reads it.
srun bash -c 'exec accelerate launch --config_file "$EMIT_CONFIG" --num_machines "$SLURM_NNODES" \
  --num_processes "$EMIT_PROCESSES" --machine_rank "$SLURM_NODEID" \
  --main_process_ip "$EMIT_HEAD" --main_process_port "$EMIT_PORT" "$EMIT_TRAINER" "$@"' launcher "$@" &
steps=$!
wait "$steps"
status=$?
if [ -n "$asked" ]; then
  wait "$steps" # the first wait ended with the signal
  exec scontrol requeue "$SLURM_JOB_ID" # a run that just finished has nothing to do, and says so
fi
exit "$status"

"""accelerate_configs/: the launcher reads each as intended, and training runs with those that need no GPU."""

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env, prepare_simple_launcher_cmd_env
from helpers.trainers import ROOT, Trainers, checkpoints, digests, losses, records, run, wait_for_step, write_settings
from safetensors.torch import load_file

from shared.errors import UserError
from shared.training.distributed import _deepspeed_settings, _fsdp_plugin, start_accelerator
from stage1_align.encoders import AlignedEncoders

CONFIGS = ROOT / "accelerate_configs"


class Environment:
    """The environment variables that the launcher sets in its processes, for a shipped configuration. Calling it sets
    them in this process."""

    def __init__(self, name: str, *more: str):
        parser = launch_command_parser()
        words = ["--config_file", str(CONFIGS / f"{name}.yaml"), "--main_process_port", "0", *more, "train.py"]
        self.args, _, _ = _validate_launch_command(parser.parse_args(words))
        own = dict(os.environ)
        if self.args.multi_gpu or self.args.use_fsdp:
            variables = prepare_multi_gpu_env(self.args)
        else:
            _, variables = prepare_simple_launcher_cmd_env(self.args)
        self.variables = {name: value for name, value in variables.items() if own.get(name) != value}

    def __call__(self) -> None:
        os.environ |= self.variables


@pytest.fixture(scope="module")
def settings(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    path = write_settings(tmp_path_factory.mktemp("settings") / "tiny.yaml")
    return ["--config", str(path), "--data", str(clips)]


EXPECTED = {
    "cpu": ("NO", 1, 1, "no"),
    "cpu_2_processes": ("MULTI_GPU", 1, 2, "no"),
    "single_gpu": ("NO", 1, 1, "bf16"),
    "multi_gpu": ("MULTI_GPU", 1, 8, "bf16"),
    "multi_node": ("MULTI_GPU", 2, 16, "bf16"),
    "fsdp2": ("FSDP", 1, 8, "bf16"),
    "fsdp2_cpu_2_processes": ("FSDP", 1, 2, "no"),
    "deepspeed_zero2": ("DEEPSPEED", 1, 8, "bf16"),
}


def test_every_configuration_is_tested():
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_launcher_reads_the_configuration_as_intended(name: str):
    assert (CONFIGS / f"{name}.yaml").read_text().startswith("# ")
    parser = launch_command_parser()
    words = ["--config_file", str(CONFIGS / f"{name}.yaml"), "train.py"]
    args, defaults, _ = _validate_launch_command(parser.parse_args(words))
    kind = str(defaults.distributed_type).removeprefix("DistributedType.")
    assert (kind, args.num_machines or 1, args.num_processes, args.mixed_precision) == EXPECTED[name]
    assert (args.multi_gpu, args.use_fsdp, args.use_deepspeed) == tuple(
        kind == k for k in ("MULTI_GPU", "FSDP", "DEEPSPEED")
    )


def test_machines_of_multi_node_connect_to_the_first():
    args = Environment("multi_node", "--machine_rank", "1", "--main_process_ip", "first").args
    assert (args.nnodes, args.nproc_per_node, args.node_rank, args.rdzv_backend) == ("2", "8", 1, "static")
    assert args.rdzv_endpoint.startswith("first:")


def test_fsdp2_wraps_blocks_and_keeps_full_precision(monkeypatch: pytest.MonkeyPatch):
    for name in ("fsdp2", "fsdp2_cpu_2_processes"):
        variables = Environment(name).variables
        assert variables["ACCELERATE_USE_FSDP"] == "true" and variables["FSDP_VERSION"] == "2"
        assert variables["FSDP_AUTO_WRAP_POLICY"] == "TRANSFORMER_BASED_WRAP"
        assert variables["FSDP_STATE_DICT_TYPE"] == "SHARDED_STATE_DICT"
    for key, value in variables.items():
        monkeypatch.setenv(key, value)
    plugin = _fsdp_plugin()
    assert plugin.fsdp_version == 2 and plugin.reshard_after_forward is True
    assert plugin.mixed_precision_policy.param_dtype is None and plugin.mixed_precision_policy.output_dtype is None
    monkeypatch.setenv("FSDP_VERSION", "1")
    with pytest.raises(UserError, match="set fsdp_version: 2"):
        start_accelerator("no")


def test_engine_that_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")  # as a launcher with deepspeed_zero2.yaml does
    with pytest.raises(UserError, match=r"DeepSpeed is not installed.*launch with another configuration"):
        start_accelerator("no")
    values = yaml.safe_load((CONFIGS / "deepspeed_zero2.yaml").read_text())["deepspeed_config"]
    assert values["zero_stage"] == 2 and values["gradient_clipping"] == 1.0


def test_deepspeed_uses_autocast_and_keeps_full_precision():
    assert "torch_autocast" not in _deepspeed_settings("no")
    settings = _deepspeed_settings("bf16")
    assert settings["torch_autocast"] == {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}
    assert not {"bf16", "fp16"} & set(settings) and settings["train_micro_batch_size_per_gpu"] == 1


@pytest.mark.parametrize("precision", ["no", pytest.param("bf16", marks=pytest.mark.slow)])
def test_fsdp2_equals_one_process_resumes_and_exports(settings: list[str], tmp_path: Path, precision: str):
    """With the gradient cache and averaged weights, which depend on how the model is sharded."""
    more = ["--train.ema", "0.5", "--train.mixed_precision", precision]
    run([*settings, *more, "--run", tmp_path / "one"], tmp_path / "output")
    sharded = Environment("fsdp2_cpu_2_processes")
    arguments = [*settings, *more, "--train.chunk_size", 2, "--run", tmp_path / "two"]
    run([*arguments, "--max_optimizer_steps", 2], tmp_path / "output", world=2, before=sharded)
    files = {path.name for path in (tmp_path / "two" / "checkpoints" / "00000002").rglob("*")}
    assert files == {
        *(f"{n}.safetensors" for n in ("model", "optimizer", "averages")),
        "progress.json",
        "checkpoint.json",
    }
    run(arguments, tmp_path / "output", world=2, before=sharded)
    if precision == "bf16":  # slow
        run([*arguments[:-1], tmp_path / "whole"], tmp_path / "output", world=2, before=sharded)
        assert records(tmp_path / "two") == records(tmp_path / "whole")
        assert digests(tmp_path / "two") == digests(tmp_path / "whole")
    rounding = 1e-4 if precision == "no" else 2e-2
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=rounding)
    for name in ("best", "last"):
        a, b = (load_file(tmp_path / folder / name / "model.safetensors") for folder in ("one", "two"))
        assert a.keys() == b.keys() and all(a[key].shape == b[key].shape for key in a)
        differences = [float((a[key].double() - b[key].double()).abs().mean()) for key in a]
        assert max(differences) < rounding  # a step moves each weight by about 1e-3
    exported = AlignedEncoders.from_pretrained(tmp_path / "two" / "best")
    assert exported.text.encode(["joy"]).pooled.norm() == pytest.approx(1)


def launcher(name: str | Path, *words: object) -> list[str]:
    module = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIGS / f"{name}.yaml")]
    return [*module, "--main_process_port", "0", "stage1_align/train.py", *map(str, words)]


@pytest.mark.slow
def test_fsdp2_can_be_launched(settings: list[str], tmp_path: Path):
    done = subprocess.run(
        launcher("fsdp2_cpu_2_processes", *settings, "--run", tmp_path / "run", "--max_optimizer_steps", 1),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "run" / "checkpoints" / "00000001" / "optimizer.safetensors").exists()


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("deepspeed"), reason="needs DeepSpeed")
def test_deepspeed_equals_one_process_and_resumes(settings: list[str], tmp_path: Path):
    """With the shipped configuration, on two CPU processes instead of eight GPUs."""
    run([*settings, "--run", tmp_path / "one", "--max_optimizer_steps", 4], tmp_path / "output")
    shipped = (CONFIGS / "deepspeed_zero2.yaml").read_text()
    (tmp_path / "two.yaml").write_text(shipped.replace("num_processes: 8", "num_processes: 2"))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # for ninja
    for steps in (2, 4):
        done = subprocess.run(
            launcher(tmp_path / "two", *settings, "--run", tmp_path / "two", "--max_optimizer_steps", steps),
            cwd=ROOT,
            env={**os.environ, "DS_ACCELERATOR": "cpu", "PATH": path},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr[-2000:]
    assert "after step 2" in done.stdout
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)


def test_death_of_a_process_ends_the_launch_and_the_run_resumes(settings: list[str], tmp_path: Path):
    more = [*settings, "--train.checkpoint_every", 1, "--train.epochs", 40, "--run", tmp_path / "run"]
    process = subprocess.Popen(
        launcher("cpu_2_processes", *more), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    wait_for_step(tmp_path / "run", 2)
    ranks = {}
    for child in psutil.Process(process.pid).children(recursive=True):
        ranks[child.environ().get("RANK")] = child
    ranks["1"].kill()
    output, _ = process.communicate(timeout=600)
    assert process.returncode != 0
    assert "another process of this run was lost" in output and "to continue from the last checkpoint" in output
    complete = [name for name in checkpoints(tmp_path / "run") if not name.startswith(".")]
    last = int(complete[-1])
    assert last >= 1
    (output, _) = run([*more, "--max_optimizer_steps", last + 1], tmp_path / "output", world=2)
    assert f"after step {last}" in output and checkpoints(tmp_path / "run")[-1] == f"{last + 1:08d}"


SRUN = """#!/bin/bash
# Two launchers on this machine, as if on two, each with its number; signals are passed on.
trap 'kill -TERM $first $second' TERM
SLURM_NODEID=0 "$@" & first=$!
SLURM_NODEID=1 "$@" & second=$!
finish() { wait $1; status=$?; while kill -0 $1 2>/dev/null; do wait $1; status=$?; done; return $status; }
finish $first; one=$?
finish $second && exit $one
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then echo 127.0.0.1; else echo "$@" >> "$REQUEUED"; fi
"""


@pytest.mark.slow
def test_slurm_script_saves_requeues_and_resumes(settings: list[str], tmp_path: Path):
    """On two launchers connected through multi_node.yaml, with stand-ins for SLURM's commands."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{commands}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "REQUEUED": str(tmp_path / "requeued"),
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_NNODES": "2",
        "SLURM_GPUS_ON_NODE": "1",
    }
    words = ["bash", str(CONFIGS / "slurm.sh"), *settings, "--run", str(tmp_path / "run")]

    def submit(*more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*words, *more], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    job = submit("--train.epochs", "40")
    wait_for_step(tmp_path / "run", 2)
    os.kill(job.pid, signal.SIGTERM)
    output, _ = job.communicate(timeout=600)
    assert (tmp_path / "requeued").read_text() == f"requeue {os.getpid()}\n", output
    last = max(losses(tmp_path / "run"))
    assert checkpoints(tmp_path / "run")[-1] == f"{last:08d}", output
    job = submit("--train.epochs", "40", "--max_optimizer_steps", str(last + 1))
    output, _ = job.communicate(timeout=600)
    assert job.returncode == 0 and f"after step {last}" in output, output
    assert "was 2 and is" not in output and max(losses(tmp_path / "run")) == last + 1
    assert (tmp_path / "requeued").read_text().count("requeue") == 1


def test_validation_is_the_same_on_two_processes(settings: list[str], tmp_path: Path):
    validations = []
    for world in (1, 2):
        arguments = [*settings, "--run", tmp_path / str(world), "--pairs.valid_limit", 5]  # not a multiple of two
        trainers = Trainers([*arguments, "--max_optimizer_steps", 1], tmp_path / "output", world)
        assert trainers.wait() == [0] * world, trainers.outputs()
        validations.append(records(tmp_path / str(world))[0])
    one, two = validations
    assert one == {name: pytest.approx(value, abs=1e-5) for name, value in two.items()}
    assert {name for name in one if name.startswith("zero_shot")} == {
        f"zero_shot_{m}" for m in ("vision", "audio", "both")
    }
    assert all(one[name] == two[name] for name in one if "R@" in name) and one["vision_to_labels_R@5"] > 0

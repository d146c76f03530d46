"""What is set in the environment of whoever runs the tests changes none of them."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
HOSTILE = {
    "HF_HUB_OFFLINE": "1",
    "HF_HOME": "/nowhere/hub",
    "HF_TOKEN": "hf_none",
    "TRANSFORMERS_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "debug",
    "WANDB_MODE": "offline",
    "WANDB_PROJECT": "another",
    "WANDB_ENTITY": "somebody",
    "WANDB_DIR": "/nowhere/wandb",
    "WANDB_API_KEY": "0" * 40,
    "SLURM_JOB_ID": "17",
    "SLURM_JOB_NAME": "train",
    "SLURM_NTASKS": "3",
    "SLURM_NTASKS_PER_NODE": "3",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "2",
    "SLURM_NODELIST": "a[1-3]",
    "OMP_NUM_THREADS": "8",
    "MKL_NUM_THREADS": "8",
    "HYDRA_FULL_ERROR": "1",
    "CUDA_VISIBLE_DEVICES": "7",
    "PL_TRAINER_DEVICES": "3",
    "OPENAI_API_KEY": "sk-none",
    "OPENAI_BASE_URL": "http://127.0.0.1:9",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9",
    "RANK": "2",
    "LOCAL_RANK": "2",
    "WORLD_SIZE": "3",
    "MASTER_ADDR": "10.255.255.1",
    "FORCE_COLOR": "1",
    "COLUMNS": "40",
    "PYTHONWARNINGS": "error",
}
PART = (
    "models/test_families.py::test_unknown_models_fail_at_once_without_a_network",
    "planning/test_plan.py::test_a_point_alone_prints_its_table_and_writes_nothing",
    "tracking/test_wandb.py::test_without_an_account_runs_are_kept_here",
    "test_command.py::test_a_kernel_that_asks_for_colours_gets_plain_lines_as_wide_as_tables",
)


def hostile(folder):
    """An environment of variables that many have, and SLURM's programs."""
    for name in ("srun", "sbatch", "scontrol", "squeue", "sinfo"):
        (folder / name).write_text("#!/bin/sh\necho 'slurm: no' >&2\nexit 1\n")
        (folder / name).chmod(0o755)
    return {**os.environ, **HOSTILE, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def test_the_suite_begins_from_a_clean_environment(tmp_path, forked):
    command = [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider"]
    command += [f"--basetemp={tmp_path}/tests", *(str(ROOT / "tests" / one) for one in PART)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, timeout=500, check=False,
        env={**hostile(tmp_path), "VIDEOPOOL_FORKED": os.path.dirname(forked.python)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(PART)} passed" in done.stdout or done.stdout.count(".") >= len(PART)


def test_a_point_runs_alike_inside_a_job_of_slurm(videopool, tmp_path):
    """The program itself takes no devices, ranks or programs of a cluster for its own; nor does it speak of them."""
    words = ["frames.num=1", "benchmark.limit=1", "logger=none", "trainer.accelerator=cpu", "study=s"]
    slurm = {name: value for name, value in hostile(tmp_path).items() if name.startswith(("SLURM_", "PATH"))}
    done = videopool(*words, env=slurm)
    assert "srun" not in done.stdout + done.stderr
    assert "Warning" not in done.stderr

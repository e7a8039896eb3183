"""Scripts that an engine runs in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys

__all__ = ["printed_number", "run_on_cpus"]


def printed_number(script, *arguments):
    """The whole number that a script prints."""
    command = [sys.executable, "-c", script, *arguments]
    run = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    return int(run.stdout)


def run_on_cpus(script, devices):
    """Runs a script where JAX has so many devices, all of the CPU; an error if it fails."""
    environment = {
        **os.environ,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
    }
    run = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr[-4000:]

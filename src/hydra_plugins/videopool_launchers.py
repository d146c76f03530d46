"""The launchers `submitit_local` and `submitit_slurm`, where Hydra looks for them. Both need the extra `slurm`."""

from contextlib import suppress

with suppress(ImportError):
    from hydra_plugins.hydra_submitit_launcher import submitit_launcher

    from videopool.runtime.launching import LocalJobs, SlurmJobs

    class LocalLauncher(LocalJobs, submitit_launcher.LocalLauncher):
        """A process of this machine per point."""

    class SlurmLauncher(SlurmJobs, submitit_launcher.SlurmLauncher):
        """A job of SLURM per point."""

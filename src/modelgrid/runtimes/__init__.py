"""Where replicas run: the only code that starts or stops anything."""

from modelgrid.runtimes.environments import Environments
from modelgrid.runtimes.pip_settings import torch_wheel
from modelgrid.runtimes.process import ProcessRuntime
from modelgrid.runtimes.remote import RemoteRuntime
from modelgrid.runtimes.runtime import Progress, Runtime, StartError

__all__ = ["Environments", "ProcessRuntime", "Progress", "RemoteRuntime", "Runtime", "StartError", "torch_wheel"]

"""What this machine has: memory for models, GPUs or none, room on its disks."""

from modelgrid.hardware.disk import free_disk_bytes
from modelgrid.hardware.machine import measure_machine
from modelgrid.hardware.memory import MainMemory, main_memory
from modelgrid.hardware.nvidia import Gpu, GpuMeter, visible_gpus

__all__ = ["Gpu", "GpuMeter", "MainMemory", "free_disk_bytes", "main_memory", "measure_machine", "visible_gpus"]

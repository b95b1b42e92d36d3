"""What this machine has: memory for models, a GPU or none, room on its disks."""

from modelgrid.hardware.disk import free_disk_bytes
from modelgrid.hardware.machine import measure_machine
from modelgrid.hardware.memory import MainMemory, main_memory
from modelgrid.hardware.nvidia import Gpu, largest_gpu

__all__ = ["Gpu", "MainMemory", "free_disk_bytes", "largest_gpu", "main_memory", "measure_machine"]

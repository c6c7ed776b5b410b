"""The calls of the CUDA driver and of NVML that a GPU stressor needs, through ctypes."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

CUDA, NVML = "libcuda.so.1", "libnvidia-ml.so.1"
_OUT_OF_MEMORY = 2
_BUS_ID_BYTES = 32


class NoCuda(Exception):
    """There is no driver, no such device, or a call failed. The message says which."""


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Memory of one device."""

    free_bytes: int
    total_bytes: int


class Device:
    """One GPU with a context of this process on it. The context itself takes some hundred MiB."""

    def __init__(self, number: int) -> None:
        """Open a device by its number. Raises NoCuda."""
        self._driver = library(CUDA)
        self._do("cuInit", ctypes.c_uint(0))
        count = ctypes.c_int()
        self._do("cuDeviceGetCount", ctypes.byref(count))
        if not 0 <= number < count.value:
            raise NoCuda(f"there is no device {number}: the driver sees {count.value}")
        self._device = ctypes.c_int()
        self._do("cuDeviceGet", ctypes.byref(self._device), ctypes.c_int(number))
        name = ctypes.create_string_buffer(128)
        self._do("cuDeviceGetName", name, ctypes.c_int(128), self._device)
        self.name = name.value.decode(errors="replace")
        bus = ctypes.create_string_buffer(_BUS_ID_BYTES)
        self._do("cuDeviceGetPCIBusId", bus, ctypes.c_int(_BUS_ID_BYTES), self._device)
        self.bus_id = bus.value.decode()
        context = ctypes.c_void_p()
        self._do("cuDevicePrimaryCtxRetain", ctypes.byref(context), self._device)
        self._do("cuCtxSetCurrent", context)

    def memory(self) -> DeviceMemory:
        """The device's memory at this moment, as the driver reports it."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._do("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return DeviceMemory(free.value, total.value)

    def take(self, size_bytes: int) -> bool:
        """Allocate memory for as long as this process lives; False if the device has no such block."""
        place = ctypes.c_uint64()
        status = self._driver.cuMemAlloc_v2(ctypes.byref(place), ctypes.c_size_t(size_bytes))
        if status not in (0, _OUT_OF_MEMORY):
            raise NoCuda(f"cuMemAlloc failed with status {status}")
        return bool(status == 0)

    def _do(self, name: str, *arguments: Any) -> None:
        if status := getattr(self._driver, name)(*arguments):
            raise NoCuda(f"{name} failed with status {status}")


def seen_from_outside(bus_id: str) -> DeviceMemory | None:
    """A device's memory as NVML reports it, without a context; None where there is no NVML."""

    class Info(ctypes.Structure):
        _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))

    try:
        monitor = library(NVML)
    except NoCuda:
        return None
    if monitor.nvmlInit_v2():
        return None
    try:
        handle, info = ctypes.c_void_p(), Info()
        if monitor.nvmlDeviceGetHandleByPciBusId_v2(bus_id.encode(), ctypes.byref(handle)):
            return None
        if monitor.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(info)):
            return None
        return DeviceMemory(int(info.free), int(info.total))
    finally:
        monitor.nvmlShutdown()


def library(name: str) -> Any:
    """Load a shared library. Raises NoCuda if it is not installed."""
    try:
        return ctypes.CDLL(name)
    except OSError:
        raise NoCuda(f"{name} is not here: no CUDA driver is installed") from None

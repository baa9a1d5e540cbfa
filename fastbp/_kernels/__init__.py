"""The kernels: a compiled module for each instruction set and dtype, of which `_runtime.dispatch` imports two."""

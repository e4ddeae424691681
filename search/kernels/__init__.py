"""Fused mixed operations: each folder holds one operation, its plain reference beside its Triton kernels."""

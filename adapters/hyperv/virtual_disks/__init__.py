"""Readers of Hyper-V's virtual disk files, VHD and VHDX: what a worker on or near a host reads a checkpoint with.

Files are only ever read. What is in one that does not hold together is ``Damaged``, with the file and the offset.
"""

"""Replicas in Azure Storage: page blobs in VHD layout, recovery points as snapshots (``docs/azure.md``)."""

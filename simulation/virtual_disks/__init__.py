"""Virtual disk files as a Hyper-V host writes them: what stands for a host's disks in demonstrations and tests."""

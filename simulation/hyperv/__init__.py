"""A simulated Hyper-V fabric: hosts, machines and Hyper-V Replica behind ``simulation.winrm``, on the lab's disks."""

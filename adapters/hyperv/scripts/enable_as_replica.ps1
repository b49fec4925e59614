$vm = Get-VM -Id $Parameters.vm_id
Enable-VMReplication -VM $vm -AsReplica -Confirm:$false
@{}

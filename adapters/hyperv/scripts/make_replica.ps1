$vm = Get-VM -Id $Parameters.vm_id
Set-VMReplication -VM $vm -AsReplica -Confirm:$false
@{}

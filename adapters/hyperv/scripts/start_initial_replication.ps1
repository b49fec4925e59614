$vm = Get-VM -Id $Parameters.vm_id
Start-VMInitialReplication -VM $vm -Confirm:$false
@{}

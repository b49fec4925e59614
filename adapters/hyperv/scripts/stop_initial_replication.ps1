$vm = Get-VM -Id $Parameters.vm_id
Stop-VMInitialReplication -VM $vm -Confirm:$false
@{}

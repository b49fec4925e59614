$vm = Get-VM -Id $Parameters.vm_id
Remove-VMReplication -VM $vm -Confirm:$false
@{}

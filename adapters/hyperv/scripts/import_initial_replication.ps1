$vm = Get-VM -Id $Parameters.vm_id
Import-VMInitialReplication -VM $vm -Path $Parameters.path -Confirm:$false
@{}

$vm = Get-VM -Id $Parameters.vm_id
Start-VMInitialReplication -VM $vm -DestinationPath $Parameters.path -Confirm:$false
@{}

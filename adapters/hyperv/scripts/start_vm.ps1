$vm = Get-VM -Id $Parameters.vm_id
Start-VM -VM $vm
@{}

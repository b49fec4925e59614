$vm = Get-VM -Id $Parameters.vm_id
Rename-VM -VM $vm -NewName $Parameters.name
@{}
